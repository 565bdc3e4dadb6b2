"""The one order of events at rest: by bucket, then UTF-8 bytes of the subject, then time, then arrival."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from penchant.store._hashing import buckets_of

Order = npt.NDArray[np.int64]


def _encode(subjects: pa.ChunkedArray | pa.Array) -> tuple[pa.Array, Order]:
    """Distinct subjects, and for every row the index of its subject among them."""
    array = subjects.combine_chunks() if isinstance(subjects, pa.ChunkedArray) else subjects
    if isinstance(array, pa.ChunkedArray):  # more than 2 GB of text: pyarrow keeps the chunks
        array = pa.chunked_array([array.unify_dictionaries()])
    encoded = array.dictionary_encode()
    return encoded.dictionary, encoded.indices.to_numpy().astype(np.int64)


def _rank(distinct: pa.Array, buckets: Order | None = None) -> Order:
    """Place of every subject by UTF-8 bytes, after its bucket if given."""
    order = pc.sort_indices(distinct).to_numpy().astype(np.int64)
    if buckets is not None:
        order = order[np.argsort(buckets[order], kind="stable")]
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return rank


def _argsort(major: Order, ts: Order, seq: Order | None) -> Order:
    """Stable order by (major, ts, seq); ``seq`` None means that the rows come in order of arrival."""
    if seq is not None:
        return np.lexsort((seq, ts, major))
    if len(ts) == 0:
        return np.empty(0, np.int64)
    low = ts.min()
    width = int(ts.max() - low).bit_length() if ts.max() - low >= 0 else 64
    if width + int(major.max()).bit_length() > 63:
        return np.lexsort((ts, major))
    packed = (major << width) | (ts - low)  # one key sorts faster than two
    return np.argsort(packed, kind="stable")


def bucket_order(subjects: pa.Array, ts: Order) -> tuple[Order, list[tuple[int, int, int]]]:
    """Order rows that come in order of arrival for writing.

    Returns:
        The permutation, and (bucket, start, end) of every bucket that has rows.
    """
    distinct, code = _encode(subjects)
    buckets = buckets_of(distinct.to_pylist())
    rank = _rank(distinct, buckets)
    order = _argsort(rank[code], ts, None)
    of_row = buckets[code][order]
    starts = np.flatnonzero(np.diff(of_row, prepend=-1))
    ends = np.append(starts[1:], len(of_row))
    cuts = [(int(of_row[s]), int(s), int(e)) for s, e in zip(starts, ends, strict=True)]
    return order, cuts


def runs(column: pa.Array) -> Iterator[tuple[int, int]]:
    """Start and end of each run of equal values."""
    if not len(column):
        return
    start = 0
    for end in pc.run_end_encode(column, run_end_type=pa.int64()).run_ends.to_numpy().tolist():
        yield start, end
        start = end


def sort_events(table: pa.Table) -> pa.Table:
    """Order a table that has subject, ts and seq by them."""
    distinct, code = _encode(table["subject"])
    rank = _rank(distinct)
    seq, ts = table["seq"].to_numpy(), table["ts"].to_numpy()
    major = rank[code]
    if _is_sorted(major, ts, seq):
        return table
    return table.take(pa.array(_argsort(major, ts, seq)))


def _is_sorted(major: Order, ts: Order, seq: Order) -> bool:
    a, b, c = np.diff(major), np.diff(ts), np.diff(seq)
    return bool(np.all((a > 0) | ((a == 0) & ((b > 0) | ((b == 0) & (c >= 0))))))


def merge_buckets(parts: list[pa.Table]) -> pa.Table:
    """Bring buckets, each in order, into one order by subject; a subject lies in one bucket only."""
    table = pa.concat_tables(parts)
    if len(parts) <= 1:
        return table
    distinct, code = _encode(table["subject"])
    return table.take(pa.array(np.argsort(_rank(distinct)[code], kind="stable")))
