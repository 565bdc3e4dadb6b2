"""The forms of event log that other systems export, each recognised by its fields."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import pyarrow as pa

from penchant.core import USER_KEY, EventKind
from penchant.data._columns import MAX_ID_BYTES, Notes, clean_id, is_damaged, parse_money
from penchant.data._dialects_nested import Parsed, ga4, google_retail, segment, shopify
from penchant.data._draft import DRAFT_SCHEMA, ID_COLUMNS
from penchant.data._mapping import CATALOG_FIELDS, EVENT_FIELDS, Mapping
from penchant.data._settings import Settings, minor_units
from penchant.data._source_chunks import Chunk, to_json

Expand = Callable[[dict[str, Any]], list[Parsed]]
_MONEY = {"price", "value"}


@dataclass(frozen=True)
class Dialect:
    """A known form. ``look`` returns its mapping when the columns are its own; ``expand`` reads nested rows."""

    name: str
    look: Callable[[Sequence[str]], Mapping | None]
    expand: Expand | None = None
    uses: frozenset[str] = frozenset()


def _nested(name: str, signs: Iterable[str], any_of: Iterable[str], uses: str, expand: Expand) -> Dialect:
    must, some = set(signs), set(any_of)

    def look(columns: Sequence[str]) -> Mapping | None:
        have = set(columns)
        return Mapping(name=name, fields={}) if must <= have and (not some or some & have) else None

    return Dialect(name, look, expand, frozenset({*must, *some, *uses.split()}))


def _canonical(columns: Sequence[str]) -> Mapping | None:
    have = set(columns)
    time = next((c for c in ("ts", "timestamp") if c in have), None)
    if "kind" not in have or time is None or not have & {"user_id", "anonymous_id"}:
        return None
    fields: dict[str, str | list[str]] = {n: n for n in columns if n in EVENT_FIELDS - {"price", "rating"}}
    return Mapping(name="canonical", fields={**fields, "ts": time}, money="minor")


def _personalize(columns: Sequence[str]) -> Mapping | None:
    if not {"USER_ID", "ITEM_ID", "TIMESTAMP"} <= set(columns):
        return None
    names = {
        "user_id": "USER_ID",
        "item_id": "ITEM_ID",
        "ts": "TIMESTAMP",
        "kind": "EVENT_TYPE",
        "impressions": "IMPRESSION",
        "recommendation_id": "RECOMMENDATION_ID",
    }
    # what EVENT_VALUE means is the shop's own choice (a price, stars, a share watched): it stays a property
    props = [c for c in ("EVENT_VALUE",) if c in columns]
    return Mapping(
        name="amazon-personalize", fields=_present(names, columns), kind=EventKind.VIEW, props=props
    )


def _gorse(columns: Sequence[str]) -> Mapping | None:
    if not {"FeedbackType", "UserId", "ItemId"} <= set(columns):
        return None
    names = {
        "user_id": "UserId",
        "item_id": "ItemId",
        "ts": "Timestamp",
        "kind": "FeedbackType",
        "text": "Comment",
    }
    props = [c for c in ("Value",) if c in columns]
    return Mapping(name="gorse", fields=_present(names, columns), props=props)


def _present(names: dict[str, str], columns: Sequence[str]) -> dict[str, str | list[str]]:
    return {ours: theirs for ours, theirs in names.items() if theirs in columns}


DIALECTS: tuple[Dialect, ...] = (
    _nested(
        "ga4",
        {"event_name", "event_timestamp"},
        {"user_pseudo_id", "user_id"},
        "event_params items ecommerce event_date",
        ga4,
    ),
    _nested(
        "segment",
        {"messageId"},
        {"userId", "anonymousId"},
        "type event properties timestamp originalTimestamp sentAt receivedAt context",
        segment,
    ),
    _nested(
        "google-retail",
        {"eventType", "visitorId"},
        (),
        "eventTime productDetails purchaseTransaction searchQuery attributionToken sessionId userInfo offset",
        google_retail,
    ),
    _nested("shopify", {"name", "clientId", "timestamp", "data"}, (), "id customer", shopify),
    Dialect("amazon-personalize", _personalize),
    Dialect("gorse", _gorse),
    Dialect("canonical", _canonical),
)


def draft_objects(
    chunk: Chunk, expand: Expand, settings: Settings, notes: Notes, props: Sequence[str] = ()
) -> pa.Table:
    """The events of nested rows, (events,) rows of DRAFT_SCHEMA; every row gives at least one."""
    events: list[dict[str, Any]] = []
    for row, item in zip(chunk.row.tolist(), chunk.objects, strict=True):
        try:
            found = expand(item)
        except (KeyError, TypeError, ValueError, AttributeError, msgspec.MsgspecError) as error:
            found = [Parsed(fault="damaged_row", detail=f"unexpected form: {error}"[:200])]
        extra = {p: item[p] for p in props if item.get(p) is not None}
        for part, event in enumerate(found or [Parsed()]):
            events.append(draft_row(event, row, part, settings, notes, extra))
    return pa.Table.from_pylist(events, schema=DRAFT_SCHEMA)


def draft_row(
    event: Parsed, row: int, part: int, settings: Settings, notes: Notes, extra: dict[str, Any]
) -> dict[str, Any]:
    """One event of a nested row in the columns of DRAFT_SCHEMA."""
    out: dict[str, Any] = {"row": row, "part": part, "fault": event.fault, "detail": event.detail}
    for name in ID_COLUMNS:
        raw = getattr(event, name)
        nested = isinstance(raw, dict | list)  # no id: nobody would find the person under its spelling
        text = clean_id(None if raw is None or nested else str(raw))
        if text is not None and len(text.encode("utf-8", "replace")) > MAX_ID_BYTES:
            out["fault"] = out["fault"] or "id_too_long"
        out[name] = text
    for name in ("query", "text"):
        value = getattr(event, name)
        out[name] = None if value is None or value == "" else str(value)
        if out[name] and is_damaged(out[name]):
            notes.add("encoding_damage", 1, [repr(out[name])])
    out["ts"], out["kind"] = event.ts, event.kind
    currency = str(event.currency).strip().upper() if event.currency else None
    out["currency"] = currency
    quantity, fault = _amount(event.quantity)
    price, price_fault = _amount(event.price)
    out["fault"] = out["fault"] or fault or price_fault
    out["quantity"] = quantity
    if event.stars is not None:
        out["value"], fault = _amount(event.stars)
        out["fault"] = out["fault"] or fault
    elif price is not None:
        out["fault"] = out["fault"] or ("negative_value" if price < 0 else None)
        total = price * minor_units(currency or settings.currency)
        pieces = 1.0 if quantity is None or event.is_total else abs(quantity)
        out["value"] = float(round(total * pieces)) if abs(total * pieces) < 1e300 else float("inf")
    if event.position is not None:
        whole = isinstance(event.position, int | float | str) and str(event.position).lstrip("-").isdigit()
        out["position"] = int(event.position) if whole and abs(int(event.position)) < 10**9 else -1
    out["consent"] = event.consent
    kept = {**event.props, **extra}
    out["props"] = to_json(kept) if kept else None
    return out


def _amount(value: Any) -> tuple[float | None, str | None]:
    if value is None or value == "":
        return None, None
    if isinstance(value, str):
        try:
            return float(value), None
        except ValueError:
            value, _ = parse_money(value)
            return value, None if value is not None else "not_a_number"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None, "not_a_number"
    return float(value), None


# What other people call the id of a product, the best word first.
ITEM_WORDS = [
    "product_id",
    "item_id",
    "sku",
    "productid",
    "itemid",
    "product_code",
    "item",
    "stockcode",
    "stock_code",
    "asin",
    "article_id",
    "articleid",
    "product",
    "id",
]
USER_WORDS = [
    "user_id",
    "household_id",
    "customer_id",
    "userid",
    "customerid",
    "householdid",
    "visitor_id",
    "member_id",
    "user",
    "customer",
]
_CATALOG_WORDS: dict[str, tuple[str, ...]] = {
    "title": ("title", "name", "product_name", "productname", "item_name", "product_title"),
    "description": ("description", "product_description", "body_html"),
    "link": ("link", "url", "product_url"),
    "image_link": ("image_link", "image", "image_url", "imageurl", "images"),
    "brand": ("brand", "manufacturer", "vendor"),
    "gtin": ("gtin", "ean", "upc", "barcode", "gtin13"),
    "price": ("price", "unit_price", "unitprice", "list_price", "product_price"),
    "currency": ("currency", "price_currency", "currency_code", "pricecurrency"),
    "cost": ("cost", "cost_of_goods_sold", "purchase_price"),
    "available_quantity": ("available_quantity", "stock", "current_stock", "inventory", "inventory_quantity"),
    "category": ("google_product_category", "product_type_path", "category_path", "categories", "category"),
    "rating": ("rating", "average_rating", "star_rating"),
    "publish_time": ("publish_time", "published_at", "release_date", "availability_date"),
    "labels": ("labels", "tags"),
}
_LEVELS = (
    "department",
    "division",
    "category_l1",
    "product_category",
    "category",
    "category_l2",
    "subcategory",
)
_LEVELS_AFTER = (
    "sub_category",
    "product_type",
    "category_l3",
    "style",
    "commodity_desc",
    "sub_commodity_desc",
)
_TIMES = {"ts", "timestamp", "time", "event_time", "date", "datetime", "created_at", "transaction_timestamp"}


def catalog_mapping(columns: Sequence[str], *, sure: bool = False) -> Mapping | None:
    """The mapping of a catalogue, told by its columns; None when it is none.

    ``sure`` when somebody said that it is one: then an id is enough.
    """
    lower = {c.lower().lstrip("@"): c for c in reversed(columns)}
    key = next((lower[w] for w in ("id", *ITEM_WORDS) if w in lower), None)
    if "productgroupid" in lower and key is None:
        key = lower["productgroupid"]
    person = any(w in lower for w in USER_WORDS)
    if key is None or person or (_TIMES & set(lower) and not sure):
        return None  # a log of people is never taken for a catalogue: their columns would end up in it
    fields: dict[str, str | list[str]] = {"id": key}
    for ours in sorted(CATALOG_FIELDS - {"id"}):
        words = _CATALOG_WORDS.get(ours, (ours,))
        theirs = next((lower[w] for w in words if w in lower and lower[w] != key), None)
        if theirs is not None:
            fields[ours] = theirs
    levels = [lower[w] for w in (*_LEVELS, *_LEVELS_AFTER) if w in lower]
    if levels and fields.get("category") in {None, *levels}:
        fields["category"] = levels
    telling = set(fields) - {"id", "size", "language", "rating", "currency"}
    if not sure and not (telling or "offers" in lower or ("type" in lower and "sku" in lower)):
        return None
    return Mapping(name="catalog", what="catalog", fields=fields)


def users_mapping(columns: Sequence[str], *, sure: bool = False) -> Mapping | None:
    """The mapping of a table of users, one row a user: a user id, no item and no time; else None."""
    lower = {c.lower(): c for c in reversed(columns)}
    words = (*USER_WORDS, "id") if sure or "interest_label" in lower else USER_WORDS
    key = next((lower[w] for w in words if w in lower), None)
    if key is None or (not sure and (_TIMES & set(lower) or any(w in lower for w in ITEM_WORDS[:-1]))):
        return None
    return Mapping(name="users", what="users", fields={USER_KEY: key})
