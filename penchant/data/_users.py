"""What a shop says of its users: one row a user, columns as they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penchant.core import INTEREST_LABEL, USER_KEY
from penchant.data._catalog import finished, json_list
from penchant.data._clean import damaged_table
from penchant.data._columns import MAX_ID_BYTES, Notes, ids, numbers, plain, texts
from penchant.data._mapping import Mapping
from penchant.data._recognise import Recognised
from penchant.data._report import CleaningReport, Tally
from penchant.data._rules import is_odd_id
from penchant.data._settings import Settings
from penchant.data._source import Source
from penchant.data._source_chunks import to_json


def read_users(
    source: Source, recognised: Recognised, settings: Settings
) -> tuple[pa.Table, pa.Table, CleaningReport]:
    """Read a table of users whole: ``user_id`` and every other column as numbers, text or lists.

    A guest is named as everywhere: ``anon:`` and the ``anonymous_id``.

    Columns of text that hold nothing but numbers become numbers; lists written as JSON, or ``interest_label``
    with several labels in one cell, become lists. Of several rows of one user the last one stays.

    Returns:
        (users,) sorted by ``user_id``; refused rows with row, reason, detail, subject and raw; the report.
    """
    tally = Tally()
    tables, rows, damaged = [], [], []
    for chunk in source.chunks():
        tally.rows += len(chunk.row) + len(chunk.damaged)
        if chunk.damaged:
            damaged.append(damaged_table(chunk))
        if len(chunk.row):
            tables.append(pa.Table.from_batches([chunk.batch]))
            rows.append(chunk.row)
    whole = pa.concat_tables(tables, promote_options="permissive") if tables else source.sample().batch
    number = np.concatenate(rows) if rows else np.zeros(0, np.int64)
    mapping = recognised.mapping
    key = mapping.column(USER_KEY) or USER_KEY
    users = _typed(whole, key, mapping, tally.notes)
    keys = users[USER_KEY].to_pylist()
    reason = _reasons(keys)
    keep = np.array([r is None for r in reason], bool)
    refused = _refused(whole, number, keys, reason)
    users = users.filter(pa.array(keep)).sort_by(USER_KEY)
    tally.accepted = users.num_rows
    return users, *finished(source, recognised, tally, damaged, refused)


def _typed(whole: pa.Table, key: str, mapping: Mapping, notes: Notes) -> pa.Table:
    columns: dict[str, pa.Array] = {
        USER_KEY: ids(plain(whole[key]), notes, integer=mapping.integer_ids)
        if key in whole.schema.names
        else pa.nulls(whole.num_rows, pa.string())
    }
    for name in whole.schema.names:
        if name != key and name != USER_KEY and name not in mapping.ignore:
            columns[name] = _column(plain(whole[name]), mapping, is_label=name == INTEREST_LABEL)
    return pa.table(columns)


def _column(column: pa.Array, mapping: Mapping, *, is_label: bool) -> pa.Array:
    kind = column.type
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return column
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pc.cast(column, pa.list_(pa.string()))
    text = texts(column)
    if not is_label:
        values, bad = numbers(text)
        plain_numbers = not pc.any(pc.match_substring_regex(text, "[^0-9eE.+-]")).as_py()
        if text.null_count < len(text) and plain_numbers and not pc.any(bad).as_py():
            return values
    filled = [t for t in text.to_pylist() if t is not None]
    if filled and all(t.startswith("[") and json_list(t) is not None for t in filled):
        lists = [None if t is None else [str(v) for v in json_list(t) or []] for t in text.to_pylist()]
        return pa.array(lists, pa.list_(pa.string()))
    if is_label and any(mapping.separator in t for t in filled):
        split = [None if t is None else _labels(t, mapping.separator) for t in text.to_pylist()]
        return pa.array(split, pa.list_(pa.string()))
    return text


def _labels(text: str, separator: str) -> list[str]:
    return [label for part in text.split(separator) if (label := part.strip())]


def _reasons(keys: list[str | None]) -> list[str | None]:
    last = {key: at for at, key in enumerate(keys)}
    out: list[str | None] = []
    for at, key in enumerate(keys):
        if key is None:
            out.append("missing_id")
        elif len(key.encode("utf-8", "replace")) > MAX_ID_BYTES:
            out.append("id_too_long")
        elif is_odd_id(key):
            out.append("bad_id")
        else:
            out.append(None if last[key] == at else "replaced")
    return out


def _refused(
    whole: pa.Table, number: Any, keys: list[str | None], reason: list[str | None]
) -> list[dict[str, Any]]:
    at = [n for n, r in enumerate(reason) if r is not None]
    items = whole.take(pa.array(at, pa.int64())).to_pylist() if at else []
    return [
        {"row": int(number[n]), "reason": reason[n], "detail": None, "subject": keys[n], "raw": to_json(item)}
        for n, item in zip(at, items, strict=True)
    ]
