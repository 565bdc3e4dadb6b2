"""Parquet, row group by row group."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from penchant.core.errors import UnreadableFile
from penchant.data._source_chunks import Chunk

CHUNK_ROWS = 250_000


class ParquetReader:
    """Reads a Parquet file, or one unpacked into a temporary file."""

    def __init__(self, file: Path | tempfile.SpooledTemporaryFile[bytes], name: str) -> None:
        self._file = file
        self._name = name
        self._schema = pa.schema([])

    def _opened(self) -> pq.ParquetFile:
        where = self._file if isinstance(self._file, Path) else pa.PythonFile(self._file, "r")
        return pq.ParquetFile(where, pre_buffer=False, buffer_size=1 << 20)

    def open(self) -> list[str]:
        """Read the schema; a repeated column name is an error, for it cannot be told which is meant."""
        self._schema = self._opened().schema_arrow
        names: list[str] = self._schema.names
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice or not names:
            what = f"repeats the column {twice[0]!r}" if twice else "has no columns"
            raise UnreadableFile(f"{self._name} {what}", hint="write it again with distinct column names")
        return names

    def num_rows(self) -> int:
        """How many rows the file says it has."""
        return int(self._opened().metadata.num_rows)

    def chunks(self) -> Iterator[Chunk]:
        """Batches of at most ``CHUNK_ROWS`` rows."""
        start = 1
        for batch in self._opened().iter_batches(CHUNK_ROWS):
            yield Chunk(np.arange(start, start + batch.num_rows, dtype=np.int64), batch=batch)
            start += batch.num_rows

    def empty(self) -> Chunk:
        """A chunk without rows, with the file's columns."""
        return Chunk(np.zeros(0, np.int64), batch=pa.RecordBatch.from_pylist([], schema=self._schema))
