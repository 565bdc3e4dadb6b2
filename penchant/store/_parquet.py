"""Writing and reading the Parquet files of the event table; they become visible by a commit alone."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penchant.core import TABLE_SCHEMA
from penchant.store._files import fsync, guard
from penchant.store._sorting import Order

FILE_SCHEMA = pa.schema([field for field in TABLE_SCHEMA if field.name != "bucket"])
# Columns whose values repeat. An event id never does, and a dictionary of it would only cost time.
_DICTIONARY = [
    f.name for f in FILE_SCHEMA if pa.types.is_string(f.type) and f.name not in {"event_id", "text"}
]
_WRITERS = 2


@dataclass(frozen=True)
class DataFile:
    """One Parquet file of the table: where it lies below ``events/`` and what its rows span."""

    bucket: int
    path: str
    rows: int
    min_ts: int
    max_ts: int
    size: int


class BucketFiles:
    """Writes rows to one new file a bucket, a row group a call; nothing refers to the files yet.

    Row groups are each in the order of ``bucket_order``, and two threads write, so that memory is bounded by
    the rows of two calls.
    """

    def __init__(self, folder: Path, token: str) -> None:
        self._folder, self._token = folder, token
        self._writers: dict[int, tuple[Path, Any, Any]] = {}
        self._spans: dict[int, tuple[int, int, int]] = {}
        self._pool = ThreadPoolExecutor(_WRITERS, "penchant-write")
        self._running: list[Future[None]] = []

    def write(self, table: pa.Table | pa.RecordBatch, order: Order, cuts: list[tuple[int, int, int]]) -> None:
        """Queue the rows (FILE_SCHEMA) in ``order``, cut at buckets; waits for the call before."""
        index = pa.array(order)
        columns = list(self._pool.map(lambda c: _take(c, index), table.columns))
        self.wait()
        ready = pa.table(columns, schema=FILE_SCHEMA)
        ts = ready["ts"].to_numpy()
        for bucket, start, end in cuts:
            rows, low, high = self._spans.get(bucket, (0, 1 << 63, -(1 << 63)))
            part = ts[start:end]
            self._spans[bucket] = (rows + end - start, min(low, int(part.min())), max(high, int(part.max())))
            part_table = ready.slice(start, end - start)
            self._running.append(self._pool.submit(self._write_one, bucket, part_table))

    def wait(self) -> None:
        """Return once all queued rows are handed to the operating system."""
        running, self._running = self._running, []
        for future in running:
            future.result()

    def _write_one(self, bucket: int, rows: pa.Table) -> None:
        if bucket not in self._writers:
            self._writers[bucket] = self._open(bucket)
        self._writers[bucket][2].write_table(rows, row_group_size=len(rows))

    def _open(self, bucket: int) -> tuple[Path, Any, Any]:
        import pyarrow.parquet as pq

        folder = self._folder / f"bucket={bucket}"
        folder.mkdir(exist_ok=True)
        path = folder / f"{self._token}.parquet"
        file = open(path, "wb")  # noqa: SIM115 - closed by `close` or `abort`
        writer = pq.ParquetWriter(
            file,
            FILE_SCHEMA,
            compression="zstd",
            compression_level=1,
            use_dictionary=_DICTIONARY,
            store_schema=False,
            write_page_checksum=True,
        )
        return path, file, writer

    def close(self) -> list[DataFile]:
        """Finish all files and make them durable."""
        self.wait()
        done = list(self._pool.map(self._close_one, sorted(self._writers)))
        for file in done:
            fsync(self._folder / f"bucket={file.bucket}")
        fsync(self._folder)
        self._pool.shutdown()
        self._writers.clear()
        return done

    def _close_one(self, bucket: int) -> DataFile:
        path, file, writer = self._writers[bucket]
        writer.close()
        file.flush()
        os.fsync(file.fileno())
        size = file.tell()
        file.close()
        rows, low, high = self._spans[bucket]
        return DataFile(bucket, f"bucket={bucket}/{path.name}", rows, low, high, size)

    def abort(self) -> None:
        """Delete what was written."""
        self._pool.shutdown(cancel_futures=True)
        for path, file, writer in self._writers.values():
            with contextlib.suppress(Exception):
                writer.close()
            with contextlib.suppress(OSError):
                file.close()
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def _take(column: pa.Array | pa.ChunkedArray, index: pa.Array) -> pa.Array:
    if column.null_count == len(column):
        return pa.nulls(len(index), column.type)
    return column.take(index)


def read_file(
    folder: Path, file: DataFile, columns: Sequence[str], subject: str | None = None, keep_bucket: bool = True
) -> pa.Table:
    """Read columns of one file, of one person or of everybody.

    Raises:
        FileNotFoundError: the file was replaced meanwhile; load the list of files again.
        StorageError: the file is damaged.
    """
    import pyarrow.parquet as pq

    path = folder / file.path
    physical = [name for name in columns if name != "bucket"]
    if subject is not None and "subject" not in physical:
        physical.append("subject")
    try:
        with (
            guard("an event file cannot be read", path, "the other files are untouched"),
            open(path, "rb") as raw,
        ):
            parquet = pq.ParquetFile(raw, page_checksum_verification=True)
            groups = _groups_with(parquet, subject)
            table = parquet.read_row_groups(groups, columns=physical or ["ts"], use_threads=False)
    except Exception as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise error.__cause__ from None
        raise
    if subject is not None:
        table = table.filter(pc.equal(table["subject"], subject))
    if keep_bucket and "bucket" in columns:
        table = table.append_column(
            TABLE_SCHEMA.field("bucket"), pa.array(np.full(len(table), file.bucket, np.int32))
        )
    return table.select(list(columns))


def _groups_with(parquet: Any, subject: str | None) -> list[int]:
    """Row groups that may hold a person, by the smallest and largest subject written in the footer."""
    every = range(parquet.metadata.num_row_groups)
    if subject is None:
        return list(every)
    column = FILE_SCHEMA.get_field_index("subject")
    chosen = []
    for group in every:
        stats = parquet.metadata.row_group(group).column(column).statistics
        if stats is None or not stats.has_min_max or stats.min <= subject <= stats.max:
            chosen.append(group)
    return chosen


def empty_table(columns: Iterable[str]) -> pa.Table:
    """No rows of these columns."""
    return pa.schema([TABLE_SCHEMA.field(name) for name in columns]).empty_table()
