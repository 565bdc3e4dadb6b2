"""From the columns of a file to a draft: our columns, typed, before any rule has judged them."""

from __future__ import annotations

import fnmatch
import re
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from penchant.data._columns import MAX_ID_BYTES, Notes, ids, note_damage, numbers, plain, texts
from penchant.data._mapping import Mapping
from penchant.data._settings import Settings, minor_units
from penchant.data._source_chunks import Chunk, to_json
from penchant.data._times import to_micros

# One row an event. `part` tells the events of one row apart; `fault` is the code of what could not be read.
DRAFT_SCHEMA = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("part", pa.int32(), nullable=False),
        pa.field("event_id", pa.string()),
        pa.field("ts", pa.int64()),
        pa.field("user_id", pa.string()),
        pa.field("anonymous_id", pa.string()),
        pa.field("session_id", pa.string()),
        pa.field("kind", pa.string()),
        pa.field("item_id", pa.string()),
        pa.field("value", pa.float64()),
        pa.field("quantity", pa.float64()),
        pa.field("currency", pa.string()),
        pa.field("query", pa.string()),
        pa.field("text", pa.string()),
        pa.field("recommendation_id", pa.string()),
        pa.field("position", pa.int64()),
        pa.field("consent", pa.string()),
        pa.field("props", pa.string()),
        pa.field("fault", pa.string()),
        pa.field("detail", pa.string()),
    ]
)
ID_COLUMNS = ("event_id", "user_id", "anonymous_id", "session_id", "item_id", "recommendation_id")
ROW_NUMBER = "#row"  # stands for a column that holds the row's number
_PEOPLE = {"user_id", "anonymous_id"}
NEEDS_ITEM = (
    "impression",
    "click",
    "view",
    "wishlist",
    "cart_add",
    "cart_remove",
    "purchase",
    "refund",
    "review",
)


class Draft:
    """Builds drafts from the chunks of one source by one mapping."""

    def __init__(self, mapping: Mapping, settings: Settings, notes: Notes) -> None:
        self._mapping = mapping
        self._settings = settings
        self._notes = notes
        self._not_items = [re.compile(fnmatch.translate(p)) for p in mapping.not_items]

    def table(self, chunk: Chunk) -> pa.Table:
        """The events of a chunk, (events,) rows of DRAFT_SCHEMA."""
        work = _Work(chunk.batch, chunk.row)
        columns = {name: self._id(work, name) for name in ID_COLUMNS}
        columns["ts"] = self._time(work)
        columns["kind"] = self._kind(work)
        columns["position"] = _position(work, self._raw(work, "position"))
        columns["currency"] = _upper(self._text(work, "currency"))
        columns["consent"] = _consent(self._raw(work, "consent"))
        for name in ("query", "text"):
            columns[name] = self._text(work, name)
        columns["quantity"] = self._number(work, "quantity")
        columns["value"] = self._value(work, columns)
        columns["props"] = self._props(work)
        self._split_query(columns)
        self._refuse_not_items(work, columns["item_id"])
        table = work.table(columns)
        return self._with_impressions(work, table)

    def _raw(self, work: _Work, ours: str) -> pa.Array | None:
        theirs = self._mapping.column(ours)
        return None if theirs is None else work.column(theirs)

    def _id(self, work: _Work, ours: str) -> pa.Array | None:
        raw = self._raw(work, ours)
        if raw is None:
            return None
        found = ids(raw, self._notes, integer=self._mapping.integer_ids, secret=ours in _PEOPLE)
        if (pc.max(pc.binary_length(found)).as_py() or 0) > MAX_ID_BYTES:
            long = pc.fill_null(pc.greater(pc.binary_length(found), MAX_ID_BYTES), False)
            work.fault(long, "id_too_long", pc.utf8_slice_codeunits(found, 0, 40), secret=ours in _PEOPLE)
        return found

    def _text(self, work: _Work, ours: str) -> pa.Array | None:
        raw = self._raw(work, ours)
        if raw is None:
            return None
        found = texts(raw)
        note_damage(found, self._notes)
        return found

    def _number(self, work: _Work, ours: str) -> pa.Array | None:
        raw = self._raw(work, ours)
        if raw is None:
            return None
        found, bad = numbers(raw)
        if pc.any(bad).as_py():
            work.fault(bad, "not_a_number", texts(raw))
        return found

    def _time(self, work: _Work) -> pa.Array:
        raw = self._raw(work, "ts")
        if raw is None:
            return pa.nulls(work.num_rows, pa.int64())
        micros, bad = to_micros(raw, self._mapping.time, self._mapping.timezone)
        if pc.any(bad).as_py():
            work.fault(bad, "unreadable_time", texts(raw))
        return micros

    def _kind(self, work: _Work) -> pa.Array:
        usual = pa.scalar(self._mapping.kind and str(self._mapping.kind), pa.string())
        raw = self._raw(work, "kind")
        if raw is None:
            return pa.repeat(usual, work.num_rows) if usual.is_valid else pa.nulls(work.num_rows, pa.string())
        words = pc.dictionary_encode(texts(raw))
        known = [self._mapping.kind_of(w) for w in words.dictionary.to_pylist()]
        kinds = pa.array(known, pa.string()).take(words.indices)
        if "-" in known:
            work.fault(pc.fill_null(pc.equal(kinds, "-"), False), "left_out", texts(raw))
        return pc.fill_null(kinds, usual) if usual.is_valid else kinds

    def _value(self, work: _Work, columns: dict[str, Any]) -> pa.Array | None:
        total, price = self._number(work, "value"), self._number(work, "price")
        if total is None and price is not None:
            below = pc.fill_null(pc.less(price, 0.0), False)
            work.fault(below, "negative_value", texts(price))
            quantity = columns["quantity"]
            pieces = pc.fill_null(pc.abs(quantity), 1.0) if quantity is not None else pa.scalar(1.0)
            total = pc.multiply(price, pieces)
        if total is not None and self._mapping.money == "major":
            total = _minor(total, columns["currency"], self._settings.currency)
        stars = self._number(work, "rating")
        if stars is None:
            return total
        is_review = pc.fill_null(pc.equal(columns["kind"], "review"), False)
        return pc.if_else(is_review, stars, total if total is not None else pa.scalar(None, pa.float64()))

    def _props(self, work: _Work) -> pa.Array | None:
        wanted = [c for c in dict.fromkeys(self._mapping.props) if c in work.names]
        given = self._raw(work, "props")
        if not wanted:
            if given is None or given.null_count == len(given):
                return None
            return pa.array([_props_json({}, v) for v in given.to_pylist()], pa.string())
        rows = work.batch.select(wanted).to_pylist()
        extra = given.to_pylist() if given is not None else [None] * len(rows)
        return pa.array([_props_json(r, e) for r, e in zip(rows, extra, strict=True)], pa.string())

    def _split_query(self, columns: dict[str, Any]) -> None:
        """One column for both: an item where the kind needs one, a query elsewhere."""
        item, query = self._mapping.column("item_id"), self._mapping.column("query")
        if item is not None and item == query:
            needs = pc.fill_null(pc.is_in(columns["kind"], pa.array(NEEDS_ITEM)), False)
            none = pa.scalar(None, pa.string())
            columns["query"] = pc.if_else(needs, none, columns["query"])
            columns["item_id"] = pc.if_else(needs, columns["item_id"], none)

    def _refuse_not_items(self, work: _Work, item: pa.Array | None) -> None:
        if not self._not_items or item is None:
            return
        codes = pc.dictionary_encode(item)
        hits = [
            c is not None and any(p.match(c) for p in self._not_items) for c in codes.dictionary.to_pylist()
        ]
        if any(hits):
            flag = pc.fill_null(pa.array(hits).take(codes.indices), False)
            work.fault(flag, "not_a_product", item)

    def _with_impressions(self, work: _Work, table: pa.Table) -> pa.Table:
        raw = self._raw(work, "impressions")
        if raw is None or raw.null_count == len(raw):
            return table
        if pa.types.is_list(raw.type) or pa.types.is_large_list(raw.type):
            lists = raw
        else:
            lists = pc.split_pattern(texts(raw), self._mapping.separator)
        parent = pc.list_parent_indices(lists)
        start = pc.cast(lists.offsets, pa.int64()).to_numpy()
        position = np.arange(len(parent)) - (start[:-1] - start[0])[parent.to_numpy()]
        shown = table.take(parent)
        position = pa.array(position, pa.int64())
        event_id = shown["event_id"]
        numbered = pc.binary_join_element_wise(event_id, "shown", pc.cast(position, pa.string()), "#")
        none = pa.nulls(len(parent), pa.string())
        changed: dict[str, Any] = {
            "part": pc.cast(pc.add(position, 1), pa.int32()),
            "event_id": numbered,
            "kind": pa.repeat(pa.scalar("impression"), len(parent)),
            "item_id": ids(
                pc.list_flatten(lists), self._notes, integer=self._mapping.integer_ids, secret=False
            ),
            "position": position,
            "query": none,
            "text": none,
            "value": pa.nulls(len(parent), pa.float64()),
            "quantity": pa.nulls(len(parent), pa.float64()),
        }
        for name, values in changed.items():
            at = DRAFT_SCHEMA.get_field_index(name)
            shown = shown.set_column(at, DRAFT_SCHEMA.field(at), values)
        both = pa.concat_tables([table, shown])
        # an impression precedes the click on it: sort by row, shown ones first
        first = pc.equal(both["part"], 0)
        order = pc.sort_indices(
            pa.table({"row": both["row"], "own": first, "part": both["part"]}),
            sort_keys=[("row", "ascending"), ("own", "ascending"), ("part", "ascending")],
        )
        return both.take(order)


class _Work:
    """One chunk being drafted: its columns, its row numbers, and the faults found so far."""

    def __init__(self, batch: pa.RecordBatch, row: npt.NDArray[np.int64]) -> None:
        self.batch = batch
        self.row = row
        self.names = set(batch.schema.names)
        self._fault: pa.Array | None = None
        self._detail: pa.Array | None = None

    @property
    def num_rows(self) -> int:
        return len(self.row)

    def column(self, name: str) -> pa.Array | None:
        if name == ROW_NUMBER:
            return pa.array(self.row)
        return plain(self.batch.column(name)) if name in self.names else None

    def fault(self, where: pa.Array, code: str, value: pa.Array, *, secret: bool = False) -> None:
        """Mark rows; the first fault of a row stays. ``value`` is shown in reports unless it is secret."""
        if not pc.any(where).as_py():
            return
        none = pa.scalar(None, pa.string())
        shown = none if secret else value
        if self._fault is None or self._detail is None:
            self._fault, self._detail = (
                pa.nulls(self.num_rows, pa.string()),
                pa.nulls(self.num_rows, pa.string()),
            )
        fresh = pc.and_(pc.fill_null(where, False), self._fault.is_null())
        self._fault = pc.if_else(fresh, pa.scalar(code), self._fault)
        self._detail = pc.if_else(fresh, shown, self._detail)

    def table(self, columns: dict[str, Any]) -> pa.Table:
        none = {"fault": self._fault, "detail": self._detail}
        given = {
            "row": pa.array(self.row),
            "part": pa.array(np.zeros(self.num_rows, np.int32)),
            **columns,
            **none,
        }
        arrays = []
        for field in DRAFT_SCHEMA:
            array = given.get(field.name)
            if array is None:
                array = pa.nulls(self.num_rows, field.type)
            arrays.append(array if array.type == field.type else pc.cast(array, field.type, safe=False))
        return pa.Table.from_arrays(arrays, schema=DRAFT_SCHEMA)


def _position(work: _Work, raw: pa.Array | None) -> pa.Array | None:
    if raw is None:
        return None
    values, bad = numbers(raw)
    whole = pc.and_kleene(pc.is_finite(values), pc.equal(pc.floor(values), values))
    bad = pc.or_(bad, pc.fill_null(pc.invert(whole), False))
    work.fault(bad, "bad_position", texts(raw))
    near = pc.and_kleene(whole, pc.less(pc.abs(values), 1e9))
    kept = pc.if_else(pc.fill_null(near, False), values, pa.scalar(-1.0))
    return pc.cast(pc.if_else(values.is_valid(), kept, pa.scalar(None, pa.float64())), pa.int64())


def _upper(text: pa.Array | None) -> pa.Array | None:
    return None if text is None else pc.utf8_upper(pc.utf8_trim_whitespace(text))


def _consent(raw: pa.Array | None) -> pa.Array | None:
    """Purposes joined by commas, whether they came as a list, a JSON list or text."""
    if raw is None:
        return None
    if pa.types.is_list(raw.type) or pa.types.is_large_list(raw.type):
        return pc.binary_join(pc.cast(raw, pa.list_(pa.string())), ",")
    words = pc.dictionary_encode(texts(raw))
    return pa.array([_purposes(w) for w in words.dictionary.to_pylist()], pa.string()).take(words.indices)


def _purposes(text: str) -> str:
    if text.startswith("["):
        try:
            return ",".join(msgspec.json.decode(text, type=list[str]))
        except msgspec.DecodeError:
            return text
    return ",".join(word.strip() for word in text.split(","))


def _minor(total: pa.Array, currency: pa.Array | None, usual: str | None) -> pa.Array:
    """Major units to whole minor units, by each row's currency; what is not finite stays."""
    if currency is None or currency.null_count == len(currency):
        factor: Any = pa.scalar(float(minor_units(usual)))
    else:
        codes = pc.dictionary_encode(currency)
        units = pa.array([float(minor_units(c)) for c in codes.dictionary.to_pylist()], pa.float64())
        factor = pc.fill_null(units.take(codes.indices), float(minor_units(usual)))
    return pc.round(pc.multiply(total, factor), ndigits=0, round_mode="half_to_even")


def _props_json(kept: dict[str, Any], given: Any) -> str | None:
    props: dict[str, Any] = {k: v for k, v in kept.items() if v is not None}
    if isinstance(given, str):
        try:
            given = msgspec.json.decode(given)
        except msgspec.DecodeError:
            given = {"props": given}
    if isinstance(given, dict):
        props = {**given, **props}
    return to_json(props) if props else None
