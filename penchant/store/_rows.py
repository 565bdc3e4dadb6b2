"""Events one by one: the row that stands for an event, and rows to Arrow and back."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Any

import msgspec
import pyarrow as pa

from penchant.core import EVENT_SCHEMA, TABLE_SCHEMA, Cipher, Event, bucket_of, subject_of
from penchant.core.errors import InputError, StorageError
from penchant.store._hashing import CONTENT_COLUMNS, hash_content

SEALED = (
    "query",
    "text",
    "props",
)  # what a person wrote or a shop attached: encrypted when there is a cipher
_LIMIT = 1 << 63
_MARK = "sealed:"  # what was stored before a shop was sealed stays readable


_content_of = attrgetter(*CONTENT_COLUMNS)


class Row(msgspec.Struct, omit_defaults=True):
    """One event in the columns of EVENT_SCHEMA, as it lies in the journal."""

    event_id: str
    ts: int
    subject: str
    kind: str
    user_id: str | None = None
    anonymous_id: str | None = None
    session_id: str | None = None
    item_id: str | None = None
    value: float | None = None
    quantity: float | None = None
    currency: str | None = None
    query: str | None = None
    text: str | None = None
    recommendation_id: str | None = None
    position: int | None = None
    consent: str | None = None
    props: str | None = None

    def content_hash(self, said: int | None) -> int:
        """Hash of what the event says; equal to ``hash_contents`` of the same row in Arrow where ``said`` is ``ts``.

        ``said`` is the time its sender gave. Where ours was completed or corrected by when it came, an event sent again
        has another ``ts`` and is still the same event.
        """
        values: tuple[Any, ...] = _content_of(self)
        return hash_content(values if said == self.ts else (said, *values[1:]))


class Stored(msgspec.Struct, frozen=True):
    """A row with its place in the order of arrival."""

    seq: int
    row: Row


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Row).decode
_encode_props = msgspec.json.Encoder(order="sorted").encode


def event_row(event: Event) -> Row:
    """Put an event into the columns of EVENT_SCHEMA: props as JSON with sorted keys, consent comma separated.

    Raises:
        InputError: event_id, ts or the person is missing, or a number is out of range.

    Example:
        >>> event_row(Event(kind="view", event_id="e1", ts=5, user_id="u1", item_id="i")).subject
        'u1'
    """
    if event.event_id is None or event.ts is None:
        raise InputError("an event to be stored needs event_id and ts", value=event.event_id or event.ts)
    if not (event.user_id or event.anonymous_id):
        raise InputError("an event needs a user_id or an anonymous_id", value=event.event_id)
    if not -_LIMIT <= event.ts < _LIMIT:
        raise InputError("ts is out of range", value=event.ts, hint="send microseconds since 1970")
    return Row(
        event_id=event.event_id,
        ts=event.ts,
        subject=subject_of(event.user_id, event.anonymous_id),
        kind=event.kind.value if hasattr(event.kind, "value") else str(event.kind),
        user_id=event.user_id or None,
        anonymous_id=event.anonymous_id or None,
        session_id=event.session_id,
        item_id=event.item_id,
        value=_number(event.value),
        quantity=_number(event.quantity),
        currency=event.currency,
        query=event.query,
        text=event.text,
        recommendation_id=event.recommendation_id,
        position=event.position,
        consent=None if event.consent is None else ",".join(event.consent),
        props=None if event.props is None else _encode_props(event.props).decode(),
    )


def _number(value: float | None) -> float | None:
    """A number that JSON can hold: no NaN and no infinity; 5 and 5.0 are the same."""
    return None if value is None or not math.isfinite(value) else float(value)


def encode_row(row: Row, cipher: Cipher | None) -> bytes:
    """A row as JSON, free text sealed."""
    if cipher is not None:
        sealed = {name: _seal(cipher, row.subject, name, getattr(row, name)) for name in SEALED}
        row = msgspec.structs.replace(row, **sealed)
    return _encode(row)


def decode_row(body: bytes, cipher: Cipher | None) -> Row:
    """The opposite of ``encode_row``."""
    row = _decode(body)
    if cipher is not None:
        for name in SEALED:
            setattr(row, name, _open(cipher, row.subject, name, getattr(row, name)))
    return row


def _seal(cipher: Cipher, subject: str, name: str, plain: str | None) -> str | None:
    if plain is None:
        return None
    return _MARK + base64.b64encode(cipher.encrypt(subject, name, plain.encode())).decode()


def _open(cipher: Cipher, subject: str, name: str, sealed: str | None) -> str | None:
    """Plain text; None when the person's key was destroyed, which is what destroying it is for."""
    if sealed is None or not sealed.startswith(_MARK):
        return sealed
    try:
        return cipher.decrypt(subject, name, base64.b64decode(sealed.removeprefix(_MARK))).decode()
    except StorageError:
        return None


def seal_table(table: pa.Table, cipher: Cipher | None) -> pa.Table:
    """Encrypt the free-text cells of a table that has ``subject``."""
    return table if cipher is None else _convert(table, cipher, _seal)


def unseal_table(table: pa.Table, cipher: Cipher | None) -> pa.Table:
    """Decrypt what ``seal_table`` encrypted."""
    return table if cipher is None else _convert(table, cipher, _open)


def _convert(table: pa.Table, cipher: Cipher, change: Any) -> pa.Table:
    subjects = None
    for name in SEALED:
        index = table.schema.get_field_index(name)
        if index < 0 or table[name].null_count == len(table):
            continue
        subjects = table["subject"].to_pylist() if subjects is None else subjects
        cells = [
            change(cipher, s, name, cell) for s, cell in zip(subjects, table[name].to_pylist(), strict=True)
        ]
        table = table.set_column(index, table.schema.field(index), pa.array(cells, pa.string()))
    return table


def rows_to_table(rows: Sequence[Stored], columns: Iterable[str] = TABLE_SCHEMA.names) -> pa.Table:
    """Arrow table of stored rows with these columns of TABLE_SCHEMA."""
    arrays, fields = [], []
    for name in columns:
        field = TABLE_SCHEMA.field(name)
        if name == "seq":
            cells: list[Any] = [stored.seq for stored in rows]
        elif name == "bucket":
            cells = [bucket_of(stored.row.subject) for stored in rows]
        else:
            cells = [getattr(stored.row, name) for stored in rows]
        arrays.append(pa.array(cells, field.type))
        fields.append(field)
    return pa.table(arrays, schema=pa.schema(fields))


def conform(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Bring a batch to EVENT_SCHEMA and ``row``.

    Raises:
        InputError: naming the column that is missing, of another type, or empty where it must not be.
    """
    columns = []
    for field in [*EVENT_SCHEMA, pa.field("row", pa.int64())]:
        index = batch.schema.get_field_index(field.name)
        if index < 0:
            raise InputError("a batch of events lacks a column", value=field.name)
        column = batch.column(index)
        if column.type != field.type:
            try:
                column = column.cast(field.type)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                raise InputError(
                    f"column {field.name} must be {field.type}", value=str(column.type)
                ) from error
        if not field.nullable and column.null_count:
            raise InputError(f"column {field.name} must not be empty", path=f"{column.null_count} rows")
        columns.append(column)
    return pa.record_batch(columns, schema=EVENT_SCHEMA.append(pa.field("row", pa.int64())))
