"""CSV in any of its habits: delimiter, header, quoted newlines, damaged lines."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from penchant.core.errors import UnreadableFile
from penchant.data._source_chunks import Chunk, Lines
from penchant.data._source_text import TextFile

BLOCK = 16 << 20
_MAX_RECORD = 64 << 20
_MAX_LINES = 200  # a quoted cell that runs over more lines than this is taken for a lost quote
csv.field_size_limit(_MAX_RECORD)  # of every reader in the process: a cell may fill its record
_NULLS = ["", "NULL", "null", "\\N", "None"]
_DATA = re.compile(r"^[-+]?\d|^$|^(true|false|null)$", re.IGNORECASE)


class CsvReader:
    """Reads CSV: fast with Arrow, and line by line where a line is damaged."""

    def __init__(self, text: TextFile) -> None:
        self._text = text
        self._delimiter = ","
        self._has_header = True
        self._old_mac = False
        self._columns: list[str] = []

    def open(self) -> list[str]:
        """Sniff the delimiter and the header from the first lines."""
        stream = self._text.open()
        head = stream.read(1 << 18)
        stream.close()
        self._old_mac = b"\n" not in head and b"\r" in head
        if self._old_mac:
            head = head.replace(b"\r", b"\n")
        lines = [line for line in head.decode("utf-8", "replace").splitlines() if line.strip()][:200]
        self._delimiter = sniff_delimiter(lines)
        first = next(csv.reader(lines, delimiter=self._delimiter), [])
        if not first:
            raise UnreadableFile("the file has no first line to read", hint="export it again with a header")
        self._has_header = _is_header(first, next(csv.reader(lines[1:], delimiter=self._delimiter), []))
        self._columns = _names(first if self._has_header else [""] * len(first))
        return self._columns

    def empty(self) -> Chunk:
        """A chunk without rows, with the file's columns."""
        return self._chunk([[] for _ in self._columns], Lines())

    def chunks(self) -> Iterator[Chunk]:
        """Blocks of about 16 MB, cut where a record ends."""
        lines = Lines()
        stream = self._text.open()
        try:
            for number, block in enumerate(self._blocks(stream)):
                data = _without_first_record(block) if number == 0 and self._has_header else block
                chunk = self._fast(data, lines) or self._slow(data, lines)
                if len(chunk.row) or chunk.damaged:
                    yield chunk
                lines = Lines(lines.number)
        finally:
            stream.close()

    def _blocks(self, stream: Any) -> Iterator[bytes]:
        carry = b""
        while block := stream.read(BLOCK):
            data = carry + (block.replace(b"\r", b"\n") if self._old_mac else block)
            cut = _last_record_end(data)
            if cut <= 0:
                if len(data) < _MAX_RECORD:
                    carry = data
                    continue
                cut = data.rfind(b"\n") + 1 or len(data)
            carry = data[cut:]
            yield data[:cut]
        if carry.strip(b"\r\n"):
            yield carry

    def _fast(self, data: bytes, lines: Lines) -> Chunk | None:
        """All rows at once; None when any of them needs a closer look."""
        if not data.strip():
            return self._slow(b"", lines)
        try:
            table = pacsv.read_csv(
                pa.BufferReader(data),
                read_options=pacsv.ReadOptions(column_names=self._columns, block_size=len(data) + 1),
                parse_options=pacsv.ParseOptions(
                    delimiter=self._delimiter,
                    newlines_in_values=True,
                ),
                convert_options=pacsv.ConvertOptions(
                    column_types=dict.fromkeys(self._columns, pa.binary()),
                    strings_can_be_null=True,
                    null_values=_NULLS,
                ),
            )
            if _has_lost_quote(table):
                return None
            arrays = [pc.cast(column.combine_chunks(), pa.string()) for column in table.columns]
        except pa.ArrowException:
            return None
        start = lines.number + 1
        lines.number += table.num_rows
        row = np.arange(start, lines.number + 1, dtype=np.int64)
        return Chunk(row, batch=pa.RecordBatch.from_arrays(arrays, names=self._columns))

    def _slow(self, data: bytes, lines: Lines) -> Chunk:
        """Line by line; a line that cannot be read is refused alone."""
        columns: list[list[str | None]] = [[] for _ in self._columns]
        rows = data.replace(b"\r\n", b"\n").split(b"\n")
        at = 0
        while at < len(rows):
            if not rows[at]:
                at += 1
                continue
            used = self._record(rows, at, columns, lines)
            at += used
        return self._chunk(columns, lines)

    def _record(self, rows: list[bytes], at: int, columns: list[list[str | None]], lines: Lines) -> int:
        """Read the record that starts on line ``at``; how many lines it took."""
        for used in range(1, min(_MAX_LINES, len(rows) - at) + 1):
            record = b"\n".join(rows[at : at + used])
            if record.count(b'"') % 2 == 0:
                break
        else:
            record, used = rows[at], 1
        cells, problem, reason = self._cells(record)
        if problem and used > 1:  # the quote was lost, not closed: this line alone is damaged
            record, used = rows[at], 1
            cells, problem, reason = self._cells(record)
            problem = problem or "a quote is opened and not closed"
        elif not problem and record.count(b'"') % 2:
            problem = "a quote is opened and not closed" if re.search(rb'(^|[,;\t|])"', record) else None
        if problem:
            lines.bad(problem, record, reason)
        else:
            lines.good()
            for column, cell in zip(columns, cells, strict=True):
                column.append(None if cell in _NULLS else cell)
        return used

    def _cells(self, record: bytes) -> tuple[list[str], str | None, str]:
        try:
            cells = next(csv.reader([record.decode()], delimiter=self._delimiter), [])
        except UnicodeDecodeError as error:
            return [], f"byte {error.start + 1} is not UTF-8", "bad_encoding"
        except csv.Error as error:
            return [], str(error), "damaged_row"
        if len(cells) != len(self._columns):
            return [], f"{len(cells)} fields where {len(self._columns)} are expected", "damaged_row"
        return cells, None, "damaged_row"

    def _chunk(self, columns: list[list[str | None]], lines: Lines) -> Chunk:
        arrays = [pa.array(column, pa.string()) for column in columns]
        batch = pa.RecordBatch.from_arrays(arrays, names=self._columns)
        return Chunk(lines.rows(), batch=batch, damaged=lines.damaged)


def _is_header(first: list[str], second: list[str]) -> bool:
    """Whether the first line names the columns.

    A name may be missing at either end: a data frame's index has none, nor has what follows a last separator.
    A name may come twice where the line below shows that these are no data.
    """
    cells = [cell.strip() for cell in first]
    names = [cell for cell in cells if cell]
    if not names or not all(cells[1:-1]) or any(_DATA.match(name) for name in names):
        return False
    return len(set(names)) == len(names) or any(_DATA.match(cell.strip()) for cell in second if cell.strip())


def _names(cells: list[str]) -> list[str]:
    """A name of its own for every column: a nameless one gets its number, a repeated one how often it came.

    Example:
        >>> _names(["", "user", "ts", "ts"])
        ['column_1', 'user', 'ts', 'ts_2']
    """
    given = [cell.strip() for cell in cells]
    taken, names = set(given), list[str]()
    for number, name in enumerate(given, 1):
        times = given[: number - 1].count(name) + 1
        free = name if name and times == 1 else f"{name}_{times}" if name else f"column_{number}"
        while free != name and free in taken:
            free += "_"
        taken.add(free)
        names.append(free)
    return names


def sniff_delimiter(lines: list[str]) -> str:
    """The separator that cuts most lines into the same number of fields, more than one.

    Example:
        >>> sniff_delimiter(["user;item;price", "u1;shoe;2,50", "u2;hat;1,20"])
        ';'
    """
    best, best_score = ",", (0.0, 0)
    for delimiter in (",", ";", "\t", "|"):
        try:
            widths = [len(row) for row in csv.reader(lines, delimiter=delimiter)]
        except csv.Error:
            continue
        if not widths or widths[0] < 2:
            continue
        agree = sum(w == widths[0] for w in widths) / len(widths)
        if (agree, widths[0]) > best_score:
            best, best_score = delimiter, (agree, widths[0])
    return best


def _last_record_end(data: bytes) -> int:
    """Where the last whole record ends: after the last newline that is not inside quotes; 0 when there is none."""
    at = data.rfind(b"\n")
    quotes = data.count(b'"', 0, max(at, 0))
    while at >= 0:
        if quotes % 2 == 0:
            return at + 1
        before = data.rfind(b"\n", 0, at)
        quotes -= data.count(b'"', max(before, 0), at)
        at = before
    return 0


def _without_first_record(data: bytes) -> bytes:
    start = len(data) - len(data.lstrip(b"\r\n"))
    at = data.find(b"\n", start)
    while at >= 0 and data.count(b'"', start, at) % 2:
        at = data.find(b"\n", at + 1)
    return data[at + 1 :] if at >= 0 else b""


def _has_lost_quote(table: pa.Table) -> bool:
    """Whether a cell runs over so many lines that a quote must have been lost."""
    for column in table.columns:
        longest = pc.max(pc.binary_length(column)).as_py() or 0
        if longest > 1000 and (pc.max(pc.count_substring(column, "\n")).as_py() or 0) > _MAX_LINES:
            return True
    return False
