"""Refused rows, kept with their reason so that nothing is lost."""

from __future__ import annotations

import os
import re
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from penchant.core import EVENT_SCHEMA, GUEST_PREFIX
from penchant.core.errors import StorageError
from penchant.data._redact import Redaction, without_guests
from penchant.data._report import CleaningReport
from penchant.data._source_chunks import to_json
from penchant.store import atomic_write, sweep

QUARANTINE_SCHEMA = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string()),
        pa.field("subject", pa.string()),
        pa.field("raw", pa.string()),
    ]
)
_BY_STORE = ("duplicate", "conflict")  # found while storing, not while cleaning
_PIECE = 16_384  # rows; as Python objects they take some 2 kB each
_UNREAD = ("damaged_row", "bad_encoding")  # nobody knows whose these are: they are searched for the id
_WHOSE = ("subject", "reason", "raw")
_WORD = re.compile(r"[\w-]+")
_PARTING = (r"[,;|\t\n:{}\[\]]", ",", ";", r"\|", r"\t", '"')  # what may part the cells of a row, all or one
_OWN = re.compile(r"[0-9a-f]{12}-")  # how the names of files begin that are made here
# What files raise that are not what they should be.
_DAMAGED = (pa.ArrowException, msgspec.DecodeError, KeyError)
_ROW = re.compile(r"^row \d+")  # how an example begins
Refusals = Iterable[pa.Table | pa.RecordBatch]


class Quarantine:
    """A folder with one Parquet file of refused rows, and one report, for every source file.

    Guarantee: the same file taken in twice leaves the same quarantine file. A better mapping shrinks it.

    Example:
        >>> import tempfile
        >>> from penchant.data._clean import REFUSED_SCHEMA
        >>> rows = pa.Table.from_pylist([{"row": 3, "reason": "missing_user"}], schema=REFUSED_SCHEMA)
        >>> kept = Quarantine(Path(tempfile.mkdtemp()))
        >>> kept.add("log.csv", "0" * 64, [rows]).name, kept.counts()
        ('000000000000-log.csv.parquet', {'missing_user': 1})
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(
        self,
        source_name: str,
        source_sha256: str,
        refused: Refusals,
        *,
        report: CleaningReport | None = None,
        what: Literal["events", "catalog", "users"] = "events",
        erased: Callable[[str], bool] | None = None,
    ) -> Path:
        """Keep the refused rows of one file, in place of those kept before.

        Rows that the store refused as duplicates the first time are remembered: the second time the store knows
        them already and says nothing about them.

        Args:
            source_name: The file's name.
            source_sha256: Its hash; the first 12 digits are part of the quarantine file's name.
            refused: Batches with row, reason and detail, and either raw and subject or the columns of an event.
            report: What cleaning said, for the doctor.
            what: Keeps a catalogue read from a log apart from the log.
            erased: Tells whether a person was erased: their rows do not come back with an old file.

        Raises:
            StorageError: The disk refused; what was kept before is untouched.
        """
        path = self._path(source_name, source_sha256, what)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            sweep(self.folder)
            rows = _merged(_pieces(refused), path, source_name, source_sha256)
            if erased is not None:
                rows = _without(rows, erased)
            self._replace(path, rows)
            if report is not None:
                atomic_write(path.with_suffix(".json"), msgspec.json.encode(report))
        except OSError as error:
            raise StorageError(
                f"cannot write the quarantine file {path.name}: {error.strerror or error}",
                hint="free some space, then ingest the file again",
                path=str(path),
            ) from error
        return path

    def batches(self) -> Iterator[pa.RecordBatch]:
        """All refused rows, file by file, in batches of QUARANTINE_SCHEMA."""
        for path in self._files():
            with _readable(path):
                yield from pq.ParquetFile(path).iter_batches(_PIECE)

    def counts(self) -> dict[str, int]:
        """How many rows were refused for each reason."""
        total: Counter[str] = Counter()
        for path in self._files():
            with _readable(path):
                reasons = pq.read_table(path, columns=["reason"])["reason"]
            for group in reasons.value_counts().to_pylist():
                total[group["values"]] += group["counts"]
        return dict(total)

    def examples(self, reasons: list[str]) -> dict[str, list[str]]:
        """A few rows of each reason that no report tells of, such as those the store refused: never who it was."""
        found: dict[str, list[str]] = {reason: [] for reason in reasons}
        for path in self._files() if reasons else []:
            with _readable(path):
                table = pq.read_table(path, columns=["row", "reason"], filters=[("reason", "in", reasons)])
            for reason, rows in found.items():
                more = table.filter(pc.equal(table["reason"], reason)).slice(0, 5 - len(rows))["row"]
                rows += [f"row {row} of {path.stem[13:]}" for row in more.to_pylist()]
        return found

    def reports(self) -> list[CleaningReport]:
        """What cleaning said about each file, in order of their names."""
        found = []
        for path in self._report_files():
            with _readable(path):
                found.append(msgspec.json.decode(path.read_bytes(), type=CleaningReport))
        return found

    def erase(self, subject: str) -> int:
        """Remove every refused row of a person; a guest's device id goes from the rows of others too.

        Returns:
            How many rows went or lost the id.
        """
        changed = 0
        sweep(self.folder)
        redact = Redaction(subject.removeprefix(GUEST_PREFIX))
        for path in self._files():
            kept, touched = [], 0
            with suppress(*_DAMAGED):  # ``holding`` tells of it
                for batch in pq.ParquetFile(path).iter_batches(_PIECE):
                    left = batch.filter(pa.array(~_concerns(batch, subject)))
                    touched += batch.num_rows - left.num_rows
                    if redact.name != subject:
                        had = _carries(left, redact)
                        touched += len(had)
                        left = _blanked(left, redact, had)
                    kept.append(left)
                if touched:
                    self._replace(path, kept)
                    changed += touched
        for path in self._report_files():
            with suppress(*_DAMAGED):
                _blank_report(path, redact)
        return changed

    def export(self, subject: str) -> list[dict[str, Any]]:
        """Every refused row of a person, as plain values: source, row, reason, detail, raw.

        Rows that could not be read are not among them: nobody knows whose they are, and a word that is one person's
        id may be a quantity in the row of another.
        """
        columns = ["source", "row", "reason", "detail", "raw"]
        found: list[dict[str, Any]] = []
        for path in self._files():
            with _readable(path):
                for batch in pq.ParquetFile(path).iter_batches(_PIECE):
                    found += batch.filter(pa.array(_is_theirs(batch, subject))).select(columns).to_pylist()
        return found

    def holding(self, subject: str) -> list[str]:
        """Names of files that hold a person still, or cannot be read to tell.

        That is a row that ``erase`` would change, an example in a report, or the name of the file it was. Only here
        it is known whose a refused row is: elsewhere the same word may be a product code or a row number.
        """
        held = []
        for path in (*self._files(), *self._report_files()):
            try:
                holds = (
                    _rows_hold(path, subject) if path.suffix == ".parquet" else _report_holds(path, subject)
                )
            except _DAMAGED:
                holds = True
            held += [path.name] if holds else []
        return sorted(held)

    def _files(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("*.parquet") if _OWN.match(path.name))

    def _report_files(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("*.json") if _OWN.match(path.name))

    def _path(self, name: str, sha256: str, what: str) -> Path:
        """Where the refused rows of a file are kept; the same bytes under another name keep their place."""
        safe = re.sub(r"[^A-Za-z0-9._-]+", "_", name)[:100].lstrip(".") or "file"
        start = f"{sha256[:12]}-" if what == "events" else f"{sha256[:12]}-{what}-"
        others = () if what != "events" else (f"{start}catalog-", f"{start}users-")
        for path in sorted(self.folder.glob(f"{start}*.parquet")):
            if not path.name.startswith(others):
                return path
        return self.folder / f"{start}{safe}.parquet"

    def _replace(self, path: Path, batches: Iterable[pa.RecordBatch | pa.Table]) -> None:
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
        try:
            with temporary.open("wb") as file:
                with pq.ParquetWriter(file, QUARANTINE_SCHEMA, compression="zstd") as writer:
                    for batch in batches:
                        writer.write(batch)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        handle = os.open(self.folder, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except _DAMAGED as error:
        raise StorageError(
            "a file of the quarantine is damaged",
            value=type(error).__name__,
            path=str(path),
            hint="delete it; it is made again when its source is ingested again",
        ) from None


def _pieces(refused: Refusals) -> Iterator[pa.RecordBatch]:
    """Small batches, for each row becomes a Python object on its way to JSON."""
    for part in refused:
        for start in range(0, part.num_rows, _PIECE):
            piece = part.slice(start, _PIECE)
            yield from [piece] if isinstance(piece, pa.RecordBatch) else piece.to_batches()


def _merged(refused: Iterator[pa.RecordBatch], kept: Path, name: str, sha256: str) -> Iterator[pa.Table]:
    """The rows refused now, then those that only the store refused, the time before; 8 bytes a row are held."""
    earlier = pq.ParquetFile(kept) if kept.exists() else None
    seen = []
    for part in refused:
        if earlier is not None:
            seen.append(pc.drop_null(part["row"]).to_numpy(zero_copy_only=False).astype(np.int64))
        yield _shaped(pa.Table.from_batches([part]), name, sha256)
    if earlier is None:
        return
    now = np.unique(np.concatenate(seen)) if seen else np.empty(0, np.int64)
    for batch in earlier.iter_batches(_PIECE):
        row = batch["row"].to_numpy(zero_copy_only=False).astype(np.int64)
        kept_only = np.searchsorted(now, row, "left") == np.searchsorted(now, row, "right")
        kept_only &= pc.is_in(batch["reason"], pa.array(_BY_STORE)).to_numpy(zero_copy_only=False)
        if kept_only.any():
            yield pa.Table.from_batches([batch.filter(pa.array(kept_only))])


def _without(tables: Iterable[pa.Table], erased: Callable[[str], bool]) -> Iterator[pa.Table]:
    for table in tables:
        known: dict[str | None, bool] = {
            s: s is None or not erased(s) for s in table["subject"].unique().to_pylist()
        }
        keep = [
            known[subject] if subject is not None or reason not in _UNREAD else not _names_one(raw, erased)
            for subject, reason, raw in zip(*(table[c].to_pylist() for c in _WHOSE), strict=True)
        ]
        left = table.filter(pa.array(keep, pa.bool_()))
        pairs = zip(left["raw"].to_pylist(), left["subject"].to_pylist(), strict=True)
        raw = [None if text is None else without_guests(text, subject, erased) for text, subject in pairs]
        at = left.schema.get_field_index("raw")
        yield left.set_column(at, left.schema.field(at), pa.array(raw, pa.string()))


def _names_one(raw: str | None, erased: Callable[[str], bool]) -> bool:
    """Whether a row that could not be read holds the id of an erased person, as a cell or as a word.

    Who knows by which mark the cells were parted? An id may hold the others, as ``auth0|5f7c`` does.
    """
    text = raw or ""
    cells = {cell.strip(" \"'") for mark in _PARTING for cell in re.split(mark, text)}
    return any(erased(c) or erased(GUEST_PREFIX + c) for c in cells | set(_WORD.findall(text)) if c)


def _shaped(table: pa.Table, name: str, sha256: str) -> pa.Table:
    if "raw" not in table.column_names:
        columns = [c for c in EVENT_SCHEMA.names if c in table.column_names and c != "subject"]
        items = table.select(columns).to_pylist()
        raw = [to_json({k: v for k, v in item.items() if v is not None}) for item in items]
        table = table.append_column("raw", pa.array(raw, pa.string()))
    count = table.num_rows
    given: dict[str, Any] = {"source": pa.repeat(name, count), "sha256": pa.repeat(sha256, count)}
    columns = []
    for field in QUARANTINE_SCHEMA:
        column = given.get(field.name)
        if column is None:
            column = table[field.name] if field.name in table.column_names else pa.nulls(count, field.type)
        columns.append(pc.cast(column, field.type))
    return pa.table(columns, schema=QUARANTINE_SCHEMA)


def _carries(batch: pa.RecordBatch, redact: Redaction) -> list[int]:
    """Places of the rows from which an id must be taken; those of the user who bears the same id keep it."""
    rows = zip(batch["raw"].to_pylist(), batch["subject"].to_pylist(), strict=True)
    return [
        at for at, (raw, subject) in enumerate(rows) if raw and subject != redact.name and redact(raw) != raw
    ]


def _blanked(batch: pa.RecordBatch, redact: Redaction, places: list[int]) -> pa.RecordBatch:
    """A batch without an id in these rows."""
    if not places:
        return batch
    for name, clean in (("raw", redact), ("detail", redact.text)):
        texts = batch[name].to_pylist()
        for at in places:
            texts[at] = texts[at] and clean(texts[at])
        at = batch.schema.get_field_index(name)
        batch = batch.set_column(at, batch.schema.field(at), pa.array(texts, pa.string()))
    return batch


def _blank_report(path: Path, redact: Redaction) -> None:
    """Take an id out of the examples of a report."""
    report = msgspec.json.decode(path.read_bytes(), type=CleaningReport)

    def shown(entry: Any) -> Any:
        parts = [example.partition(": ") for example in entry.examples]  # "row 17: the value"
        examples = [row + mark + redact.text(value) for row, mark, value in parts]
        return msgspec.structs.replace(entry, examples=examples)

    clean = msgspec.structs.replace(
        report, refusals=[shown(e) for e in report.refusals], remarks=[shown(e) for e in report.remarks]
    )
    if clean != report:
        atomic_write(path, msgspec.json.encode(clean))


def _is_theirs(batch: pa.RecordBatch, subject: str) -> Any:
    """Which rows are known to be a person's."""
    return pc.fill_null(pc.equal(batch["subject"], subject), False).to_numpy(zero_copy_only=False)


def _concerns(batch: pa.RecordBatch, subject: str) -> Any:
    """Which rows an erasure removes: those known to be a person's, and those nobody could read that hold the id."""
    unread = pc.and_(batch["subject"].is_null(), pc.is_in(batch["reason"], pa.array(_UNREAD)))
    named = pc.fill_null(pc.match_substring(batch["raw"], subject.removeprefix(GUEST_PREFIX)), False)
    found = _is_theirs(batch, subject).copy()
    for at in pc.indices_nonzero(pc.and_(unread, named)).to_pylist():
        found[at] = _names(batch["raw"][at].as_py(), subject)
    return found


def _rows_hold(path: Path, subject: str) -> bool:
    redact = Redaction(subject.removeprefix(GUEST_PREFIX))
    file = pq.ParquetFile(path)
    for batch in file.iter_batches(_PIECE):
        if _concerns(batch, subject).any():
            return True
        if redact.name != subject and _carries(batch, redact):
            return True
        if redact.anywhere and any(_names(name, subject) for name in batch["source"].unique().to_pylist()):
            return True
    return False


def _report_holds(path: Path, subject: str) -> bool:
    report = msgspec.json.decode(path.read_bytes(), type=CleaningReport)
    told = [e for refusal in report.refusals for e in refusal.examples]
    told += [e for remark in report.remarks for e in remark.examples]
    if Redaction(subject.removeprefix(GUEST_PREFIX)).anywhere and _names(report.source, subject):
        return True
    return any(_names(_ROW.sub("", example), subject) for example in told)


def _names(text: str, subject: str) -> bool:
    """Whether a text holds a person's id on its own, not as a part of a longer word."""
    name = re.escape(subject.removeprefix(GUEST_PREFIX))
    return re.search(rf"(?<![\w-]){name}(?![\w-])", text) is not None
