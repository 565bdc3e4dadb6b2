"""What every reader yields: rows with their numbers, and the rows that could not be read."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa


@dataclass(frozen=True)
class Damaged:
    """A row that could not be read. ``reason`` is ``damaged_row`` or ``bad_encoding``."""

    row: int
    detail: str
    raw: str
    reason: str = "damaged_row"


class Chunk:
    """Some rows of a file: as a record batch, or as JSON objects; either is made from the other on demand.

    ``row`` (rows,) int64 numbers the good rows in the file, from 1.
    """

    def __init__(
        self,
        row: npt.NDArray[np.int64],
        *,
        batch: pa.RecordBatch | None = None,
        objects: list[dict[str, Any]] | None = None,
        damaged: list[Damaged] | None = None,
    ) -> None:
        self.row = row
        self.damaged = damaged or []
        self._batch = batch
        self._objects = objects

    @property
    def last_row(self) -> int:
        """The highest row number in the chunk, damaged rows included."""
        last = int(self.row[-1]) if len(self.row) else 0
        return max([last, *(d.row for d in self.damaged)])

    @cached_property
    def batch(self) -> pa.RecordBatch:
        """The rows as columns; what came as JSON becomes text, nested values stay JSON."""
        if self._batch is not None:
            return self._batch
        objects = self._objects or []
        columns = dict.fromkeys(key for item in objects for key in item)
        arrays = [pa.array([as_text(item.get(c)) for item in objects], pa.string()) for c in columns]
        return pa.RecordBatch.from_arrays(arrays, names=list(columns))

    @cached_property
    def objects(self) -> list[dict[str, Any]]:
        """The rows as Python objects."""
        if self._objects is not None:
            return self._objects
        return self.batch.to_pylist()  # type: ignore[no-any-return]

    def pick(self, positions: npt.NDArray[np.int64]) -> list[dict[str, Any]]:
        """The rows at these positions as Python objects."""
        if self._objects is not None:
            return [self._objects[p] for p in positions]
        return self.batch.take(pa.array(positions)).to_pylist()  # type: ignore[no-any-return]

    def raw(self, positions: npt.NDArray[np.int64]) -> list[str]:
        """The rows at these positions as JSON, for the quarantine."""
        return [to_json({k: v for k, v in row.items() if v is not None}) for row in self.pick(positions)]


class Reader(Protocol):
    """Reads one form of file."""

    def open(self) -> list[str]:
        """Find the columns; raises ``UnreadableFile``."""
        ...

    def chunks(self) -> Iterator[Chunk]:
        """All rows, from the first, in chunks of constant size."""
        ...

    def empty(self) -> Chunk:
        """A chunk without rows."""
        ...


@dataclass
class Lines:
    """Collects good and damaged rows while counting; used by readers that go line by line."""

    number: int = 0
    row: list[int] = field(default_factory=list)
    damaged: list[Damaged] = field(default_factory=list)

    def good(self) -> None:
        """Count a row that was read."""
        self.number += 1
        self.row.append(self.number)

    def bad(self, detail: str, raw: bytes, reason: str = "damaged_row") -> None:
        """Count a row that was not."""
        self.number += 1
        self.damaged.append(Damaged(self.number, detail, raw[:4096].decode("utf-8", "replace"), reason))

    def rows(self) -> npt.NDArray[np.int64]:
        """The numbers of the good rows so far."""
        return np.array(self.row, np.int64)


_sorted = msgspec.json.Encoder(enc_hook=str, order="sorted").encode


def as_text(value: Any) -> str | None:
    """A JSON value as the text that a CSV cell would hold."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    return to_json(value)


def to_json(value: Any) -> str:
    """Any value of a row as JSON text with sorted keys; what JSON cannot say becomes text."""
    try:
        return _sorted(value).decode()
    except (msgspec.MsgspecError, UnicodeError, OverflowError, TypeError, ValueError):
        return _sorted(_plain(value)).decode()


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if value is None or isinstance(value, bool) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return str(value).encode("utf-8", "replace").decode()
