"""Counting identical rows over a whole file without keeping the file."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penchant.store import guard

_ON_DISK = 1 << 22  # runs longer than this lie in a temporary file
_NIBBLE = np.zeros(256, np.uint64)
for _digit, _character in enumerate(b"0123456789abcdef"):
    _NIBBLE[_character] = _digit

Keys = npt.NDArray[np.uint64]


class Repeats:
    """Tells of each key how often it came before, in this batch and all earlier ones.

    Keys lie in sorted runs of doubling length (8 bytes a row); long runs are memory-mapped temporary files.

    Example:
        >>> counter = Repeats()
        >>> counter.before(np.array([7, 7, 8], np.uint64)).tolist(), counter.before(np.array([7], np.uint64)).tolist()
        ([0, 1, 0], [2])
    """

    def __init__(self) -> None:
        self._runs: list[Keys] = []
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._files = 0

    def before(self, keys: Keys) -> npt.NDArray[np.int64]:
        """How often each key (n,) came before its place: (n,) int64; then remember the keys."""
        order = np.argsort(keys, kind="stable")
        ranked = keys[order]
        start = np.r_[True, ranked[1:] != ranked[:-1]] if len(keys) else np.zeros(0, bool)
        first = np.maximum.accumulate(np.where(start, np.arange(len(keys)), 0))
        count = np.arange(len(keys), dtype=np.int64) - first
        for run in self._runs:
            count += np.searchsorted(run, ranked, "right") - np.searchsorted(run, ranked, "left")
        out = np.empty(len(keys), np.int64)
        out[order] = count
        self._remember(ranked)
        return out

    def _remember(self, run: Keys) -> None:
        while self._runs and len(self._runs[-1]) <= 2 * len(run):
            run = np.sort(np.concatenate([self._runs.pop(), run]), kind="stable")
        if len(run) > _ON_DISK:
            run = self._mapped(run)
        self._runs.append(run)

    def _mapped(self, run: Keys) -> Keys:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="penchant-")
        self._files += 1
        path = Path(self._folder.name) / f"{self._files}.npy"
        with guard("row keys cannot be put aside", path.parent, "nothing of the file was stored"):
            np.save(path, run)
        kept: Keys = np.load(path, mmap_mode="r")
        path.unlink()  # stays readable until the mapping is gone
        return kept

    def close(self) -> None:
        """Forget everything."""
        self._runs.clear()
        if self._folder is not None:
            self._folder.cleanup()


def hash_keys(ids: pa.Array) -> Keys:
    """The first 64 bits of ids of hexadecimal digits, (n,) uint64."""
    if not len(ids):
        return np.zeros(0, np.uint64)
    raw = np.frombuffer("".join(ids.to_pylist()).encode(), np.uint8).reshape(len(ids), -1)[:, :16]
    keys = np.zeros(len(ids), np.uint64)
    for column in range(16):
        keys = (keys << np.uint64(4)) | _NIBBLE[raw[:, column]]
    return keys
