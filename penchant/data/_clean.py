"""A file of events, cleaned batch by batch: accepted events out, refused rows kept with their reason."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from penchant.core import EVENT_SCHEMA, GUEST_PREFIX, iso
from penchant.core.errors import StorageError
from penchant.data._draft import DRAFT_SCHEMA, ID_COLUMNS
from penchant.data._expressions import PLACE, clean_sql
from penchant.data._recognise import Recognised
from penchant.data._repeats import Repeats, hash_keys
from penchant.data._report import CleaningReport, Tally
from penchant.data._rules import RULE, limits_of
from penchant.data._settings import Settings
from penchant.data._source import Source
from penchant.data._source_chunks import Chunk

ACCEPTED_SCHEMA = EVENT_SCHEMA.append(pa.field("row", pa.int64(), nullable=False))
REFUSED_SCHEMA = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string()),
        pa.field("subject", pa.string()),
        pa.field("raw", pa.string()),  # the row as JSON, or as it stood in the file
    ]
)
_PIECE = 65_536  # rows that one thread of DuckDB takes at a time


class EventStream:
    """The events of one file on their way in. Iterate ``accepted`` once; then ask ``refused`` and ``report``.

    Memory stays flat: refused rows go to a nameless temporary file that vanishes with the process.
    """

    def __init__(self, source: Source, recognised: Recognised, settings: Settings, now: int) -> None:
        self._source = source
        self._recognised = recognised
        self._limits = limits_of(settings, now)
        self._tally = Tally()
        self._draft = recognised.drafter(settings, self._tally.notes)
        keep = (recognised.mapping.duplicates or settings.duplicates) == "keep"
        self._repeats = Repeats() if keep else None
        self._ordinal = recognised.mapping.time == "ordinal"
        self._spill = _Spill()
        self._started = False

    def accepted(self) -> Iterator[pa.RecordBatch]:
        """Events that pass every rule: batches of EVENT_SCHEMA and ``row`` (int64, the row in the file)."""
        if self._started:
            raise RuntimeError("accepted() runs once; call clean_events again")
        self._started = True
        with duckdb.connect(config={"threads": str(len(os.sched_getaffinity(0)))}) as engine:
            for chunk in self._source.chunks():
                self._tally.rows += len(chunk.row) + len(chunk.damaged)
                self._keep_damaged(chunk)
                if len(chunk.row):
                    yield from self._clean(engine, chunk)

    def refused(self) -> Iterator[pa.RecordBatch]:
        """Refused rows with reason, detail and the raw row, in batches of REFUSED_SCHEMA."""
        return self._spill.read()

    @property
    def report(self) -> CleaningReport:
        """What was done so far."""
        seen = self._recognised
        return self._tally.report(
            source=self._source.name,
            sha256=self._source.sha256,
            format=self._source.format,
            what="events",
            dialect=seen.dialect,
            ignored=seen.ignored,
            props=seen.mapping.props,
            remarks=self._source.remarks,
        )

    def _clean(self, engine: duckdb.DuckDBPyConnection, chunk: Chunk) -> Iterator[pa.RecordBatch]:
        draft = self._draft(chunk)
        judged = self._judge(engine, draft)
        good = judged["reason"].is_null()
        if judged["reason"].null_count < judged.num_rows:
            bad = pc.invert(good)
            self._refuse(chunk, draft.filter(bad), judged.filter(bad)["reason"])
            judged, draft = judged.filter(good), draft.filter(good)
        if not judged.num_rows:
            return
        judged = self._numbered(judged, draft)
        self._count(judged)
        yield from judged.select(ACCEPTED_SCHEMA.names).cast(ACCEPTED_SCHEMA).combine_chunks().to_batches()

    def _judge(self, engine: duckdb.DuckDBPyConnection, draft: pa.Table) -> pa.Table:
        """EVENT_SCHEMA, row and reason. What the rules cannot change is taken over, not sent through the engine."""
        empty = frozenset(c for c in DRAFT_SCHEMA.names if draft[c].null_count == draft.num_rows)
        odd = any(_is_odd(draft[c]) for c in ID_COLUMNS if c not in empty)
        columns = ["reason"]
        if draft["event_id"].null_count:
            columns.append("event_id")
        if "anonymous_id" not in empty:
            columns.append("subject")
        if "quantity" not in empty and (pc.min(draft["quantity"]).as_py() or 0) < 0:
            columns += ["kind", "value", "quantity"]
        query = clean_sql(self._limits, tuple(columns), odd=odd, empty=empty)
        placed = draft.append_column(PLACE, pa.array(np.arange(draft.num_rows)))
        engine.register("draft", pa.Table.from_batches(placed.to_batches(max_chunksize=_PIECE)))
        judged = engine.sql(query).to_arrow_table()
        engine.unregister("draft")
        place = judged[PLACE].to_numpy()
        if len(place) and (np.diff(place) != 1).any():
            judged = judged.take(pa.array(np.argsort(place)))
        whole = {name: draft[name] for name in ACCEPTED_SCHEMA.names if name != "subject"}
        whole["subject"] = draft["user_id"]
        whole.update({name: judged[name] for name in columns})
        return pa.table(whole)

    def _numbered(self, judged: pa.Table, draft: pa.Table) -> pa.Table:
        """With duplicates kept: the second of two identical rows gets "#2" at its derived id, and so on."""
        if self._repeats is None:
            return judged
        derived = draft["event_id"].is_null().to_numpy()
        ids = judged["event_id"].combine_chunks()
        counts = np.zeros(judged.num_rows, np.int64)
        counts[derived] = self._repeats.before(hash_keys(ids.filter(pa.array(derived))))
        if not counts.any():
            return judged
        self._tally.notes.add("repeated_rows", int((counts > 0).sum()))
        numbered = pc.binary_join_element_wise(ids, pc.cast(pa.array(counts + 1), pa.string()), "#")
        ids = pc.if_else(pa.array(counts > 0), numbered, ids)
        at = judged.schema.get_field_index("event_id")
        return judged.set_column(at, "event_id", ids)

    def _count(self, accepted: pa.Table) -> None:
        tally = self._tally
        tally.accepted += accepted.num_rows
        for group in accepted["kind"].value_counts().to_pylist():
            tally.kinds[group["values"]] += group["counts"]
        span = pc.min_max(accepted["ts"]).as_py()
        tally.first_ts = min(t for t in (tally.first_ts, span["min"]) if t is not None)
        tally.last_ts = max(t for t in (tally.last_ts, span["max"]) if t is not None)
        if self._ordinal:
            tally.notes.add("ordinal_time", accepted.num_rows)

    def _refuse(self, chunk: Chunk, draft: pa.Table, reason: pa.ChunkedArray) -> None:
        rows = draft["row"].to_numpy()
        raw = chunk.raw(np.searchsorted(chunk.row, rows))
        subject = pc.coalesce(
            draft["user_id"], pc.binary_join_element_wise(GUEST_PREFIX, draft["anonymous_id"], "")
        )
        columns = [draft["row"], reason, details(draft, reason), subject, pa.array(raw, pa.string())]
        table = pa.table(dict(zip(REFUSED_SCHEMA.names, columns, strict=True))).cast(REFUSED_SCHEMA)
        self._tally.refuse(table)
        self._spill.write(table)

    def _keep_damaged(self, chunk: Chunk) -> None:
        if chunk.damaged:
            table = damaged_table(chunk)
            self._tally.refuse(table)
            self._spill.write(table)


def clean_events(source: Source, recognised: Recognised, settings: Settings, now: int) -> EventStream:
    """Clean a file of events, lazily.

    Args:
        source: The opened file.
        recognised: What it holds, from ``recognise``.
        settings: The ``[data]`` table of the shop.
        now: Microseconds; events later than this and ``settings.ahead_days`` are refused.

    Example:
        >>> import pathlib, tempfile
        >>> from penchant.data import Settings, open_source, recognise
        >>> file = pathlib.Path(tempfile.mkdtemp()) / "log.csv"
        >>> _ = file.write_text("user_id,item_id,kind,ts\\nu1,shoe,view,2024-05-01\\nu1,,view,2024-05-02\\n")
        >>> source = open_source(file)
        >>> stream = clean_events(source, recognise(source, []), Settings(), now=1_720_000_000_000_000)
        >>> sum(batch.num_rows for batch in stream.accepted()), stream.report.refusals[0].reason
        (1, 'missing_item')
    """
    return EventStream(source, recognised, settings, now)


def damaged_table(chunk: Chunk) -> pa.Table:
    """The unreadable rows of a chunk as REFUSED_SCHEMA."""
    items = [{"row": d.row, "reason": d.reason, "detail": d.detail, "raw": d.raw} for d in chunk.damaged]
    return pa.Table.from_pylist(items, schema=REFUSED_SCHEMA)


def details(draft: pa.Table, reason: pa.ChunkedArray) -> pa.Array:
    """The offending value of each refused row as text; null where it would show who it was."""
    out: Any = pa.nulls(draft.num_rows, pa.string())
    reasons = reason.combine_chunks()
    for code in pc.unique(reasons).to_pylist():
        field = RULE[code].field
        if field is None:
            continue
        shown = draft[field].combine_chunks()
        if field == "ts":
            shown = pa.array([_when(ts) for ts in shown.to_pylist()], pa.string())
        elif field == "value":
            shown = pc.coalesce(
                pc.cast(shown, pa.string()), pc.cast(draft["quantity"].combine_chunks(), pa.string())
            )
        shown = pc.coalesce(draft["detail"].combine_chunks(), pc.cast(shown, pa.string()))
        out = pc.if_else(pc.equal(reasons, code), shown, out)
    return out


def _when(ts: int | None) -> str | None:
    if ts is None:
        return None
    try:
        return iso(ts)
    except OverflowError:
        return f"{ts} us"


def _is_odd(column: pa.ChunkedArray) -> bool:
    """Whether any text holds more than printable ASCII."""
    for chunk in column.chunks:
        size = pc.sum(pc.binary_length(chunk)).as_py() or 0
        if not size:
            continue
        start = chunk.offset
        offsets = np.frombuffer(chunk.buffers()[1], np.int32)[start : start + len(chunk) + 1]
        data: npt.NDArray[np.uint8] = np.frombuffer(chunk.buffers()[2], np.uint8)[offsets[0] : offsets[-1]]
        if int(data.min()) < 32 or int(data.max()) >= 127:
            return True
    return False


class _Spill:
    """Batches written to a nameless temporary file and read back once or more."""

    def __init__(self) -> None:
        self._file: Any = None
        self._writer: pa.ipc.RecordBatchFileWriter | None = None

    def write(self, table: pa.Table) -> None:
        with _told_where():
            if self._writer is None:
                self._file = tempfile.TemporaryFile(prefix="penchant-")  # noqa: SIM115 - lives as long as we do
                self._writer = pa.ipc.new_file(pa.PythonFile(self._file, "w"), REFUSED_SCHEMA)
            self._writer.write_table(table)

    def read(self) -> Iterator[pa.RecordBatch]:
        if self._writer is None or self._file is None:
            return
        with _told_where():
            self._writer.close()
            self._file.seek(0)
        reader = pa.ipc.open_file(pa.PythonFile(self._file, "r"))
        for number in range(reader.num_record_batches):
            yield reader.get_batch(number)


@contextlib.contextmanager
def _told_where() -> Iterator[None]:
    """A disk that refuses is named: the temporary folder is often not on the disk of the shop."""
    try:
        yield
    except OSError as error:
        folder = tempfile.gettempdir()
        raise StorageError(
            f"refused rows cannot be put aside in {folder}: {error.strerror or error}",
            hint="free some space there or set TMPDIR to another folder, then ingest the file again",
        ) from error
