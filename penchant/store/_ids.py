"""Which event ids are in the table: sorted runs of (hash of the id, hash of the content) on disk.

A run is one file, ``n`` id hashes in ascending order followed by their ``n`` content hashes (uint64, little
endian). ``manifest.json`` lists the runs and the table version they cover. Big runs are read in blocks, not
mapped whole, so that a lookup of many ids keeps memory flat; single ids are found through a memory map.
"""

from __future__ import annotations

import os
import uuid
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from penchant.store._files import fsync
from penchant.store._hashing import U64

_BLOCK = 1 << 20
_MAX_RUNS = 6


class Run(msgspec.Struct, frozen=True):
    """One sorted file of the index, how many ids it holds, and the checksum of its bytes (None: an older one)."""

    name: str
    length: int
    sum: int | None = None


class Manifest(msgspec.Struct, frozen=True):
    """The runs that together cover the event table as of ``version``."""

    version: int
    runs: list[Run]


def write_run(folder: Path, ids: U64, contents: U64) -> Run:
    """Write ascending id hashes and their content hashes as a new, durable run."""
    columns = [np.ascontiguousarray(ids).data, np.ascontiguousarray(contents).data]
    run = Run(f"{uuid.uuid4().hex}.ids", len(ids), zlib.crc32(columns[1], zlib.crc32(columns[0])))
    with open(folder / run.name, "wb") as file:
        file.writelines(columns)
        file.flush()
        os.fsync(file.fileno())
    return run


def _is_sound(folder: Path, run: Run) -> bool:
    """Whether a run's file is as it was written."""
    path = folder / run.name
    if path.stat().st_size != 16 * run.length:
        return False
    if run.sum is None:
        return True
    found = 0
    with open(path, "rb") as file:
        while chunk := file.read(1 << 22):
            found = zlib.crc32(chunk, found)
    return found == run.sum


def sorted_pairs(ids: U64, contents: U64) -> tuple[U64, U64]:
    """Order pairs by id hash."""
    order = np.argsort(ids, kind="stable")
    return ids[order], contents[order]


def _column(folder: Path, run: Run, column: int, start: int, count: int) -> U64:
    return np.fromfile(folder / run.name, np.uint64, count, offset=8 * (column * run.length + start))


def open_run(folder: Path, run: Run) -> tuple[U64, U64]:
    """Map a run: its id hashes and content hashes, read-only."""
    if run.length == 0:  # everything in it was erased
        return np.empty(0, np.uint64), np.empty(0, np.uint64)
    both: U64 = np.memmap(folder / run.name, np.uint64, "r", shape=(2 * run.length,))
    return both[: run.length], both[run.length :]


def _match(keys: U64, values: U64, queries: U64) -> tuple[npt.NDArray[np.intp], U64]:
    """Positions in ``queries`` that stand in ascending ``keys``, and their values."""
    at = np.searchsorted(keys, queries)
    np.minimum(at, len(keys) - 1, out=at)
    hits = np.flatnonzero(keys[at] == queries)
    return hits, np.asarray(values[at[hits]])


def probe(folder: Path, run: Run, queries: U64) -> tuple[npt.NDArray[np.intp], U64]:
    """Find ascending id hashes in a run: positions in ``queries`` that are there, and their contents."""
    if run.length == 0 or len(queries) == 0:
        return np.empty(0, np.intp), np.empty(0, np.uint64)
    if len(queries) * 64 < run.length:  # few lookups: touch only the pages they need
        ids, contents = open_run(folder, run)
        return _match(ids, contents, queries)
    positions: list[npt.NDArray[np.intp]] = []
    found: list[U64] = []
    for start in range(0, run.length, _BLOCK):
        count = min(_BLOCK, run.length - start)
        keys = _column(folder, run, 0, start, count)
        low = int(np.searchsorted(queries, keys[0], side="left"))
        high = int(np.searchsorted(queries, keys[-1], side="right"))
        at = np.minimum(np.searchsorted(keys, queries[low:high]), count - 1)
        hits = np.flatnonzero(keys[at] == queries[low:high])
        if len(hits):
            positions.append(hits + low)
            found.append(_column(folder, run, 1, start, count)[at[hits]])
    if not positions:
        return np.empty(0, np.intp), np.empty(0, np.uint64)
    return np.concatenate(positions), np.concatenate(found)


def _slices(folder: Path, runs: Sequence[Run], parts: int) -> Iterator[tuple[U64, U64]]:
    """The runs merged, in ``parts`` pieces of ascending id hashes."""
    edges = (np.arange(1, parts, dtype=np.float64) / parts * 2.0**64).astype(np.uint64)
    cuts = []
    for run in runs:
        ids, _ = open_run(folder, run)
        cuts.append(np.concatenate([[0], np.searchsorted(ids, edges), [run.length]]).astype(np.int64))
    for part in range(parts):
        keys, values = [], []
        for run, cut in zip(runs, cuts, strict=True):
            start, count = int(cut[part]), int(cut[part + 1] - cut[part])
            keys.append(_column(folder, run, 0, start, count))
            values.append(_column(folder, run, 1, start, count))
        yield sorted_pairs(np.concatenate(keys), np.concatenate(values))


def merge_runs(folder: Path, runs: Sequence[Run], without: U64 | None = None) -> Run:
    """Merge runs into a new one, leaving out the id hashes in ``without``; memory stays flat."""
    total = sum(run.length for run in runs)
    parts = max(1, total // _BLOCK)
    name, kept, made = f"{uuid.uuid4().hex}.ids", 0, 0
    with open(folder / name, "wb") as ids_file, open(folder / f"{name}.tmp", "w+b") as contents_file:
        for ids, contents in _slices(folder, runs, parts):
            if without is not None:
                keep = ~np.isin(ids, without)
                ids, contents = ids[keep], contents[keep]
            made = zlib.crc32(np.ascontiguousarray(ids).data, made)
            ids_file.write(np.ascontiguousarray(ids).data)
            contents_file.write(np.ascontiguousarray(contents).data)
            kept += len(ids)
        contents_file.seek(0)
        while chunk := contents_file.read(1 << 23):
            made = zlib.crc32(chunk, made)
            ids_file.write(chunk)
        ids_file.flush()
        os.fsync(ids_file.fileno())
    os.unlink(folder / f"{name}.tmp")
    return Run(name, kept, made)


def settle(folder: Path, runs: Sequence[Run], made: Sequence[Run] = ()) -> tuple[list[Run], list[Run]]:
    """Merge the youngest runs until few are left; each id is moved a handful of times in its life.

    Args:
        folder: Where the runs lie.
        runs: The runs, oldest first; those in ``made`` belong to the caller and are deleted once merged.
        made: Runs not yet listed in a published manifest.

    Returns:
        The runs that remain, and those among them that are not in a published manifest.
    """
    remaining, own = list(runs), {run.name for run in made}
    while len(remaining) > _MAX_RUNS:
        tail = 2
        while tail < len(remaining) and remaining[-tail - 1].length <= sum(
            r.length for r in remaining[-tail:]
        ):
            tail += 1
        merged = merge_runs(folder, remaining[-tail:])
        for run in remaining[-tail:]:
            if run.name in own:
                (folder / run.name).unlink()
        remaining[-tail:] = [merged]
        own.add(merged.name)
    return remaining, [run for run in remaining if run.name in own]


class IdIndex:
    """The published runs, opened for lookups of single ids."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = Manifest(-1, [])
        self._mapped: list[tuple[U64, U64]] = []

    def read(self) -> bool:
        """Load the manifest; False when it is missing or does not fit the files."""
        try:
            manifest = msgspec.json.decode((self.folder / "manifest.json").read_bytes(), type=Manifest)
            fits = all(_is_sound(self.folder, run) for run in manifest.runs)
        except (FileNotFoundError, msgspec.DecodeError):
            return False
        if fits:
            self.use(manifest)
        return fits

    def follow(self) -> None:
        """Take up a manifest that another process published; its files were whole before it was."""
        for _ in range(10):
            try:
                manifest = msgspec.json.decode((self.folder / "manifest.json").read_bytes(), type=Manifest)
                if manifest != self.manifest:
                    self.use(manifest)
                return
            except FileNotFoundError:  # replaced meanwhile
                continue

    def use(self, manifest: Manifest) -> None:
        """Answer from these runs from now on."""
        self.manifest = manifest
        self._mapped = [open_run(self.folder, run) for run in manifest.runs if run.length]

    def find(self, id_hash: int) -> int | None:
        """Content hash stored for an id hash, None when the id is not in the table."""
        key = np.uint64(id_hash)
        for ids, contents in self._mapped:
            at = int(np.searchsorted(ids, key))
            if at < len(ids) and ids[at] == key:
                return int(contents[at])
        return None

    def sweep(self, keep: Sequence[Run]) -> None:
        """Delete every file of the folder that no manifest names."""
        wanted = {"manifest.json", "pending.json", *(run.name for run in keep)}
        for file in self.folder.iterdir():
            if file.name not in wanted:
                file.unlink(missing_ok=True)
        fsync(self.folder)
