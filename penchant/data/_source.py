"""A file of events, products or users, opened by what is in it and read in chunks of constant size."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pyarrow as pa

from penchant.core.errors import NotFound, UnreadableFile
from penchant.data._source_chunks import Chunk, Reader
from penchant.data._source_csv import CsvReader
from penchant.data._source_json import JsonReader
from penchant.data._source_parquet import ParquetReader
from penchant.data._source_text import HEAD, UNKNOWN, TextFile, sniff_encoding
from penchant.store import guard

_COMPRESSED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
# Things people hand over by mistake: the first bytes, what it is, and what to do instead.
_STRANGERS: tuple[tuple[bytes, str, str], ...] = (
    (b"PK\x03\x04", "a ZIP archive or an Excel workbook", "unpack it, or save the sheet as CSV"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook", "save the sheet as CSV"),
    (b"%PDF", "a PDF", "export the data as CSV, JSONL or Parquet"),
    (b"BZh", "a bzip2 file", "recompress it with gzip or zstd"),
    (b"\xfd7zXZ", "an xz file", "recompress it with gzip or zstd"),
    (b"SQLite format 3", "a SQLite database", "export the table as CSV"),
    (b"\x80\x04\x95", "a pickle", "write Parquet instead; pickles are never opened"),
    (b"ORC", "an ORC file", "convert it to Parquet"),
    (b"Obj\x01", "an Avro file", "convert it to Parquet"),
    (b"<", "a page or an XML document", "export the data as CSV, JSONL or Parquet"),
)
_SUFFIXES = {
    ".csv": "csv",
    ".tsv": "csv",
    ".json": "jsonl",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}
_WORDS = {"csv": "lines of text with separators", "jsonl": "JSON", "parquet": "Parquet"}


@dataclass(eq=False)
class Source:
    """An opened file: its form, its columns, and its rows in chunks.

    ``sha256`` is of the file as it lies on disk. ``remarks`` says what was found out on the way, such as
    an encoding that had to be guessed. Row numbers start at 1; a header line is not a row.
    """

    path: Path
    format: str  # csv | jsonl | parquet
    columns: list[str]
    sha256: str
    reader: Reader
    remarks: list[str] = field(default_factory=list)
    text: TextFile | None = None  # what a reader of text reads
    done: int = 0  # how far the last look through the file came, of ``total``

    @property
    def name(self) -> str:
        """The file's name without its folder."""
        return self.path.name

    @property
    def unit(self) -> str:
        """What ``done`` and ``total`` count: the bytes of a text, the rows of a Parquet file."""
        return "rows" if self.text is None else "bytes"

    @cached_property
    def total(self) -> int:
        """How much there is to read, in ``unit``."""
        if isinstance(self.reader, ParquetReader):
            return self.reader.num_rows()
        return self.path.stat().st_size

    def chunks(self) -> Iterator[Chunk]:
        """Rows with their numbers, and the rows that could not be read; ``UnreadableFile`` when damaged."""
        done = 0
        try:
            for chunk in self.reader.chunks():
                done = max(done, chunk.last_row)
                self.done = done if self.text is None else self.text.position()
                yield chunk
            self.done = self.total
        except (pa.ArrowException, OSError, EOFError) as error:
            raise UnreadableFile(
                f"{self.name} is damaged after row {done}: {_first_line(error)}",
                hint="fetch the file again from where it came; nothing of it was stored",
                path=str(self.path),
            ) from error

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The raw rows as record batches, columns as in the file, without the unreadable ones."""
        for chunk in self.chunks():
            if len(chunk.row):
                yield chunk.batch

    def sample(self) -> Chunk:
        """The first chunk, for looking at; an empty one when the file has no rows."""
        return next(iter(self.chunks()), self.reader.empty())


def open_source(path: str | Path) -> Source:
    """Open a CSV, JSON, JSONL or Parquet file, plain, gzipped or with zstd.

    The content decides what it is; a name that says otherwise is an error, for one of the two is wrong.

    Args:
        path: The file.

    Raises:
        NotFound: There is no such file.
        UnreadableFile: It is a folder, empty, cut off, of no form we read, or not ours to read.

    Example:
        >>> import pathlib, tempfile
        >>> file = pathlib.Path(tempfile.mkdtemp()) / "log.csv"
        >>> _ = file.write_text("user,item\\nu1,shoe\\n")
        >>> open_source(file).columns
        ['user', 'item']
    """
    path = Path(path)
    digest = _digest(path)
    raw, compression = _head(path)
    form = _form(path, raw)
    _check_name(path, form)
    if form == "parquet":
        reader: Reader = ParquetReader(_seekable(path, compression), path.name)
        remarks: list[str] = []
        text = None
    else:
        encoding, remarks = sniff_encoding(raw)
        if encoding == UNKNOWN:
            raise _unreadable(
                path,
                "is not UTF-8, and does not read like Western European text in cp1252 either",
                "save it as UTF-8 (or UTF-16); in a spreadsheet: save as 'CSV UTF-8'",
            )
        text = TextFile(path, compression, encoding)
        reader = CsvReader(text) if form == "csv" else JsonReader(text)
    try:
        columns = reader.open()
    except (pa.ArrowException, OSError, EOFError, ValueError) as error:
        if isinstance(error, UnreadableFile):
            raise
        raise _unreadable(path, f"cannot be read as {_WORDS[form]}: {_first_line(error)}") from error
    return Source(path, form, columns, digest, reader, remarks, text)


def _unreadable(path: Path, what: str, hint: str = "fetch or export the file again") -> UnreadableFile:
    return UnreadableFile(f"{path.name} {what}", hint=hint, path=str(path))


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _digest(path: Path) -> str:
    try:
        if path.is_dir():
            raise _unreadable(path, "is a folder", "name the files in it")
        with path.open("rb") as file:
            if not path.stat().st_size:
                raise _unreadable(path, "is empty (0 bytes)")
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise NotFound(f"there is no file {path}", hint="check the path") from error
    except PermissionError as error:
        raise _unreadable(path, "may not be read by you", f"chmod +r {path}") from error
    except OSError as error:
        raise _unreadable(path, f"cannot be opened: {_first_line(error)}", "check the path") from error


def _head(path: Path) -> tuple[bytes, str | None]:
    with path.open("rb") as file:
        magic = file.read(4)
    compression = next((name for sign, name in _COMPRESSED.items() if magic.startswith(sign)), None)
    try:
        with pa.input_stream(str(path), compression=compression) as stream:
            head: bytes = stream.read(HEAD)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(
            path, f"is a damaged or cut off {compression} file: {_first_line(error)}"
        ) from error
    if not head.strip():
        raise _unreadable(path, "holds nothing but blanks" if head else "holds nothing")
    return head, compression


def _form(path: Path, head: bytes) -> str:
    if head.startswith(b"PAR1"):
        return "parquet"
    for sign, what, hint in _STRANGERS:
        if head.startswith(sign):
            raise _unreadable(path, f"is {what}, which is not read", hint)
    encoding, _ = sniff_encoding(head)
    if encoding.startswith("utf-16"):
        head = head.decode(encoding, "replace").encode()
    odd = sum(head[:65536].count(bytes([b])) for b in (*range(9), *range(14, 27), *range(28, 32)))
    if odd > 0.02 * len(head[:65536]) + 2:
        raise _unreadable(path, "is binary and of no form we read", "give CSV, JSONL or Parquet")
    return "jsonl" if head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in {b"{", b"["} else "csv"


def _check_name(path: Path, form: str) -> None:
    name = path.name.lower()
    for ending in (".gz", ".zst", ".zstd"):
        name = name.removesuffix(ending)
    claimed = _SUFFIXES.get(Path(name).suffix)
    if claimed is not None and claimed != form:
        right = {"csv": ".csv", "jsonl": ".jsonl", "parquet": ".parquet"}[form]
        raise _unreadable(
            path,
            f"is named as {_WORDS[claimed]} but holds {_WORDS[form]}",
            f"rename it to end in {right}, or export it again",
        )


def _seekable(path: Path, compression: str | None) -> Path | tempfile.SpooledTemporaryFile[bytes]:
    """Parquet is read from its end; a compressed one is unpacked into a nameless temporary file."""
    if compression is None:
        return path
    unpacked: tempfile.SpooledTemporaryFile[bytes] = tempfile.SpooledTemporaryFile(64 << 20)  # noqa: SIM115
    try:
        with pa.input_stream(str(path), compression=compression) as stream:
            while block := stream.read(1 << 20):
                with guard("the file cannot be unpacked", Path(tempfile.gettempdir()), "nothing was stored"):
                    unpacked.write(block)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(
            path, f"is a damaged or cut off {compression} file: {_first_line(error)}"
        ) from error
    unpacked.seek(0)
    return unpacked
