"""The catalogue: products of any feed, brought to Google Merchant names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from penchant.core import CATALOG_SCHEMA
from penchant.data._catalog_nested import flat_products, is_nested
from penchant.data._clean import REFUSED_SCHEMA, damaged_table
from penchant.data._columns import MAX_ID_BYTES, clean_id, is_damaged, parse_money
from penchant.data._mapping import Mapping
from penchant.data._recognise import Recognised
from penchant.data._report import CleaningReport, Tally
from penchant.data._rules import is_odd_id
from penchant.data._settings import Settings, minor_units
from penchant.data._source import Source
from penchant.data._source_chunks import Chunk, as_text, to_json
from penchant.data._times import micros_of

MAX_TEXT = 65_536
_TEXTS = (
    "item_group_id",
    "title",
    "description",
    "link",
    "image_link",
    "brand",
    "gtin",
    "condition",
    "color",
    "size",
)
_AVAILABILITY = {
    "instock": "in_stock",
    "true": "in_stock",
    "1": "in_stock",
    "available": "in_stock",
    "limitedavailability": "in_stock",
    "outofstock": "out_of_stock",
    "soldout": "out_of_stock",
    "false": "out_of_stock",
    "0": "out_of_stock",
    "discontinued": "out_of_stock",
    "preorder": "preorder",
    "presale": "preorder",
    "backorder": "backorder",
}


def read_catalog(
    source: Source, recognised: Recognised, settings: Settings
) -> tuple[pa.Table, pa.Table, CleaningReport]:
    """Read a catalogue whole.

    Knows Google Merchant feeds, schema.org ``Product`` JSON-LD, and products with variants as in the agentic
    commerce protocols; other tables by their mapping. A missing title, price or category is no reason to refuse
    a product. Of several rows with one id the last one stays. What has no column of its own goes to
    ``attributes``.

    Returns:
        (products,) CATALOG_SCHEMA sorted by id; refused rows with row, reason, detail, subject and raw; the
        report: events = accepted + refused.
    """
    tally = Tally()
    products: dict[str, tuple[int, dict[str, Any]]] = {}
    refused: list[dict[str, Any]] = []
    damaged = []
    for chunk in source.chunks():
        tally.rows += len(chunk.row) + len(chunk.damaged)
        if chunk.damaged:
            damaged.append(damaged_table(chunk))
        for row, item, reason in _products(chunk, recognised.mapping, settings, tally):
            if reason is not None:
                refused.append(_refusal(row, reason, item))
                continue
            before, old = products.get(item["id"], (0, None))
            if old == item:
                tally.notes.add("same_product", 1)
            elif old is not None:
                refused.append(_refusal(before, "replaced", old))
            products[item["id"]] = (row, item)
    tally.accepted = len(products)
    table = pa.Table.from_pylist([item for _, item in products.values()], schema=_nullable(CATALOG_SCHEMA))
    table = table.sort_by("id").cast(CATALOG_SCHEMA)
    return table, *finished(source, recognised, tally, damaged, refused)


def _nullable(schema: pa.Schema) -> pa.Schema:
    return pa.schema([f.with_nullable(True) for f in schema])


def finished(
    source: Source,
    recognised: Recognised,
    tally: Tally,
    damaged: list[pa.Table],
    refused: list[dict[str, Any]],
) -> tuple[pa.Table, CleaningReport]:
    """The refused rows as one table, and the report about all."""
    rows = pa.concat_tables([*damaged, pa.Table.from_pylist(refused, schema=REFUSED_SCHEMA)])
    if rows.num_rows:
        tally.refuse(rows)
    report = tally.report(
        source=source.name,
        sha256=source.sha256,
        format=source.format,
        what=recognised.what,
        dialect=recognised.dialect,
        ignored=recognised.ignored,
        props=[],
        remarks=source.remarks,
    )
    return rows, report


def _refusal(row: int, reason: str, item: dict[str, Any]) -> dict[str, Any]:
    shown = item.get("id")
    detail = None if shown is None else str(shown)[:60]
    return {
        "row": row,
        "reason": reason,
        "detail": detail,
        "raw": to_json({k: v for k, v in item.items() if v}),
    }


def _products(
    chunk: Chunk, mapping: Mapping, settings: Settings, tally: Tally
) -> Iterator[tuple[int, dict[str, Any], str | None]]:
    for row, item in _distinct(chunk, mapping, tally):
        found = flat_products(item) if is_nested(item) else [_mapped(item, mapping)]
        for flat in found:
            product = _product(flat, mapping, settings, tally)
            yield row, product, _problem(product)


def _distinct(chunk: Chunk, mapping: Mapping, tally: Tally) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows that say something new: a log read as a catalogue repeats each product thousands of times."""
    rows, keep = chunk.row, [c for c in chunk.batch.schema.names if c not in mapping.ignore]
    try:
        table = pa.Table.from_batches([chunk.batch.select(keep)])
        table = table.append_column("#at", pa.array(np.arange(len(rows))))
        last = table.group_by(keep).aggregate([("#at", "max")])["#at_max"].to_numpy()
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid, pa.ArrowKeyError):
        last = np.arange(len(rows))  # lists and structs cannot be compared: every row is looked at
    last = np.sort(last)
    tally.notes.add("same_product", len(rows) - len(last))
    yield from zip(rows[last].tolist(), chunk.pick(last), strict=True)


def _problem(product: dict[str, Any]) -> str | None:
    key = product["id"]
    if key is None:
        return "missing_id"
    if len(key.encode("utf-8", "replace")) > MAX_ID_BYTES:
        return "id_too_long"
    return "bad_id" if is_odd_id(key) else None


def _mapped(item: dict[str, Any], mapping: Mapping) -> dict[str, Any]:
    """A row in our names; the rest under ``attributes``."""
    out: dict[str, Any] = {}
    used: set[str] = set(mapping.ignore)
    for ours, theirs in mapping.fields.items():
        columns = [theirs] if isinstance(theirs, str) else theirs
        used.update(columns)
        values = [item.get(c) for c in columns]
        out[ours] = values[0] if len(values) == 1 else [v for v in values if v not in (None, "")]
    labels = [item[c] for c in sorted(item) if re.fullmatch(r"custom_label_\d", c) and item[c]]
    if labels:
        out["labels"] = [*_list(out.get("labels"), mapping.separator), *map(str, labels)]
        used.update(c for c in item if c.startswith("custom_label_"))
    out["attributes"] = {k: v for k, v in item.items() if k not in used and v is not None and v != ""}
    return out


def _product(flat: dict[str, Any], mapping: Mapping, settings: Settings, tally: Tally) -> dict[str, Any]:
    raw_id = flat.get("id")
    out: dict[str, Any] = dict.fromkeys(CATALOG_SCHEMA.names)
    out["id"] = clean_id(_id_text(raw_id))
    for name in _TEXTS:
        out[name] = _text(flat.get(name), tally)
    out["language"] = _text(flat.get("language"), tally)
    attributes: dict[str, Any] = dict(flat.get("attributes") or {})
    currency = flat.get("currency")
    currency = str(currency).strip().upper() if currency else None
    in_minor = flat.get("minor", mapping.money == "minor")
    for name in ("price", "cost"):
        amount, named = _money(flat.get(name))
        currency = currency or named
        if flat.get(name) not in (None, "") and amount is None:
            tally.notes.add("bad_price", 1, [str(flat[name])[:40]])
            attributes[name] = flat[name]
        factor = 1 if in_minor else minor_units(currency or settings.currency)
        out[name] = None if amount is None else float(round(amount * factor))
    out["currency"] = (currency or settings.currency) if out["price"] is not None or currency else None
    out["availability"] = _availability(flat.get("availability"), attributes)
    for name in ("available_quantity", "rating"):
        out[name] = _number(flat.get(name))
    out["publish_time"] = micros_of(flat.get("publish_time"))
    out["category"] = _category(flat.get("category"))
    out["labels"] = _list(flat.get("labels"), mapping.separator) or None
    out["attributes"] = to_json(attributes) if attributes else None
    return out


def _id_text(value: Any) -> str | None:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return as_text(value)


def _text(value: Any, tally: Tally) -> str | None:
    if isinstance(value, list):
        value = value[0] if value else None
    if isinstance(value, dict):
        value = value.get("name") or value.get("url")
    text = as_text(value)
    if not text:
        return None
    if is_damaged(text):
        tally.notes.add("encoding_damage", 1, [repr(text[:60])])
    if len(text) > MAX_TEXT:
        tally.notes.add("truncated", 1, [text[:40]])
        text = text[:MAX_TEXT]
    return text


def _money(value: Any) -> tuple[float | None, str | None]:
    if isinstance(value, bool) or value is None or value == "":
        return None, None
    if isinstance(value, int | float):
        return (float(value), None) if 0 <= float(value) < 1e13 else (None, None)
    amount, currency = parse_money(str(value))
    return (amount, currency) if amount is not None and 0 <= amount < 1e13 else (None, None)


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) else None


def _availability(value: Any, attributes: dict[str, Any]) -> str | None:
    if value in (None, ""):
        return None
    word = re.sub(r"[^a-z0-9]", "", str(as_text(value)).lower().rsplit("/", 1)[-1])
    known = _AVAILABILITY.get(word)
    if known is None:
        attributes["availability"] = value
    return known


def _category(value: Any) -> str | None:
    """A path with its levels joined by " > "; a level that repeats the one above it is dropped."""
    if isinstance(value, str) and value.startswith("["):
        value = json_list(value) or value
    parts = value if isinstance(value, list) else [value]
    levels = [level.strip() for part in parts if part not in (None, "") for level in str(part).split(">")]
    path = [v for n, v in enumerate(levels) if v and (n == 0 or v != levels[n - 1])]
    return " > ".join(path) or None


def _list(value: Any, separator: str) -> list[str]:
    if value in (None, ""):
        return []
    if isinstance(value, str):
        value = json_list(value) or re.split(re.escape(separator) + "|,", value)
    items = value if isinstance(value, list) else [value]
    return [text for v in items if v is not None and (text := str(v).strip())]


def json_list(text: str) -> list[Any] | None:
    """A JSON list in text; None when it is none."""
    try:
        return msgspec.json.decode(text, type=list[Any])
    except msgspec.DecodeError:
        return None
