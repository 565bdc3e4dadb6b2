"""Stable 64-bit hashes of event ids and contents: the same for one event and for a million rows.

They are written to disk, so they must not change with a library's version; and they run on every row that
comes in, so they are vectorised over Arrow buffers (words of 8 bytes, a multiply-xorshift step each, the
finaliser of MurmurHash3). Two different ids among 20 million share a hash with a chance of about 1e-5; such
an event is refused as a conflict, never lost in silence.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penchant.core import EVENT_SCHEMA, NUM_BUCKETS

U64 = npt.NDArray[np.uint64]

_M = (1 << 64) - 1
_SEED = 0x9E3779B97F4A7C15
_K1 = 0xBF58476D1CE4E5B9
_K2 = 0xFF51AFD7ED558CCD
_K3 = 0xC4CEB9FE1A85EC53
_NULL = 0x2545F4914F6CDD1D
_MASKS = np.array([(1 << (8 * n)) - 1 for n in range(9)], np.uint64)
# The content of an event: everything it says, but not its id, nor what follows from the rest.
CONTENT_COLUMNS = tuple(name for name in EVENT_SCHEMA.names if name not in {"event_id", "subject"})


def _finish(h: int) -> int:
    h = ((h ^ (h >> 33)) * _K2) & _M
    h = ((h ^ (h >> 33)) * _K3) & _M
    return h ^ (h >> 33)


def hash_text(text: str) -> int:
    """Hash one string: the slow and obvious twin of ``hash_texts``."""
    raw = text.encode()
    length = len(raw)
    h = (_SEED ^ (length * _K2)) & _M
    for start in range(0, length, 8):  # `_step`, written out: live events pay for every call
        h = ((h ^ int.from_bytes(raw[start : start + 8], "little")) * _K1) & _M
        h ^= h >> 29
    return _finish(h)


def hash_content(values: Sequence[str | int | float | None]) -> int:
    """Hash the values of one event in the order of ``CONTENT_COLUMNS``."""
    h, k1, m = _SEED, _K1, _M
    for value in values:
        if value is None:
            word = _NULL
        else:
            word = hash_text(value) if type(value) is str else _hash_value(value)
        h = ((h ^ word) * k1) & m
        h ^= h >> 29
    return _finish(h)


def _hash_value(value: str | int | float) -> int:
    if value != value:
        return _NULL
    if isinstance(value, str):
        return hash_text(value)
    if isinstance(value, float):
        return int.from_bytes(struct.pack("<d", value + 0.0), "little")  # -0.0 becomes 0.0
    return value & _M


def _mix(h: U64, words: U64) -> U64:
    """One ``_step`` for every row, in place."""
    h ^= words
    h *= np.uint64(_K1)
    h ^= h >> np.uint64(29)
    return h


def _finish_all(h: U64) -> U64:
    for constant in (_K2, _K3):
        h ^= h >> np.uint64(33)
        h *= np.uint64(constant)
    h ^= h >> np.uint64(33)
    return h


def hash_texts(column: pa.Array) -> U64:
    """Hash every string of a column, (n,) uint64; nulls hash to a constant of their own.

    Example:
        >>> hash_texts(pa.array(["a", "b"])).tolist() == [hash_text("a"), hash_text("b")]
        True
    """
    n = len(column)
    if column.null_count == n:
        return np.full(n, _NULL, np.uint64)
    _, offset_buffer, data = column.buffers()
    offsets = np.frombuffer(offset_buffer, np.int32)[column.offset : column.offset + n + 1].astype(np.int64)
    first = int(offsets[0])
    body = (
        np.frombuffer(data, np.uint8)[first : int(offsets[-1])] if data is not None else np.empty(0, np.uint8)
    )
    padded = np.concatenate([body, np.zeros(8, np.uint8)])
    words: U64 = np.ndarray((len(padded) - 7,), "<u8", padded, strides=(1,))
    start, left = offsets[:-1] - first, np.diff(offsets)
    h: U64 = np.uint64(_SEED) ^ (left.astype(np.uint64) * np.uint64(_K2))
    longest, shortest = int(left.max(initial=0)), int(left.min(initial=0))
    for done in range(0, longest, 8):
        if shortest > done:  # every row still has bytes left: no need to pick
            h = _mix(h, words[start + done] & _MASKS[np.minimum(left - done, 8)])
            continue
        rows = np.flatnonzero(left > done)
        h[rows] = _mix(h[rows], words[start[rows] + done] & _MASKS[np.minimum(left[rows] - done, 8)])
    h = _finish_all(h)
    if column.null_count:
        h[_nulls(column)] = _NULL
    return h


def _nulls(column: pa.Array) -> npt.NDArray[np.bool_]:
    return column.is_null().to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]


def _hash_numbers(column: pa.Array) -> U64:
    if column.null_count == len(column):
        return np.full(len(column), _NULL, np.uint64)
    nulls = _nulls(column) if column.null_count else None
    if pa.types.is_floating(column.type):
        plain = column.fill_null(0.0).to_numpy(zero_copy_only=False).astype(np.float64) + 0.0
        nulls = np.isnan(plain) if nulls is None else nulls | np.isnan(plain)
    else:
        plain = column.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    h: U64 = plain.view(np.uint64).copy()
    if nulls is not None:
        h[nulls] = _NULL
    return h


def hash_contents(batch: pa.RecordBatch) -> U64:
    """Hash what every event of a batch (EVENT_SCHEMA) says, (n,) uint64, without its id."""
    h: U64 = np.full(batch.num_rows, _SEED, np.uint64)
    for name in CONTENT_COLUMNS:
        column = batch.column(batch.schema.get_field_index(name))
        hashed = hash_texts(column) if pa.types.is_string(column.type) else _hash_numbers(column)
        h = _mix(h, hashed)
    return _finish_all(h)


def buckets_of(subjects: Sequence[str]) -> npt.NDArray[np.int64]:
    """Bucket of every subject, (n,) int64: ``bucket_of`` for many, by the one byte that decides it."""
    assert NUM_BUCKETS in (64, 128, 256), "the remainder is not in one byte"
    md5 = hashlib.md5
    found = bytes([md5(s.encode(), usedforsecurity=False).digest()[8] for s in subjects])
    return np.frombuffer(found, np.uint8).astype(np.int64) % NUM_BUCKETS


class Persons:
    """Names people by a salted hash, so that files can be keyed by person without holding the id.

    Example:
        >>> len(Persons(b"salt")("u1"))
        16
    """

    def __init__(self, salt: bytes) -> None:
        self._base = hashlib.sha256(salt)

    def __call__(self, subject: str) -> bytes:
        """The 16 bytes that stand for a subject: SHA-256 of salt and subject, cut."""
        digest = self._base.copy()
        digest.update(subject.encode())
        return digest.digest()[:16]
