"""A proposed mapping for columns nobody has named before, from their names and their contents."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable
from pathlib import PurePath

import pyarrow as pa
import pyarrow.compute as pc

from penchant.core import KINDS, USER_KEY, EventKind
from penchant.data._columns import numbers, plain, texts
from penchant.data._draft import ROW_NUMBER
from penchant.data._mapping import KIND_WORDS, Mapping, What
from penchant.data._source import Source
from penchant.data._times import micros_of

# Names, lower-cased and without anything but letters and digits; the best first.
_NAMES: dict[str, str] = {
    "user_id": "userid customerid user customer householdid memberid buyerid uid accountid customerno shopperid"
    " personid clientid customernumber reviewerid member",
    "anonymous_id": "anonymousid visitorid deviceid cookieid guestid fullvisitorid visitor",
    "item_id": "itemid productid sku stockcode item product articleid asin goodsid offerid listingid contentid"
    " movieid articlenumber itemno productcode brandid reference",
    "ts": "timestamp ts time datetime date eventtime eventtimestamp createdat invoicedate orderdate"
    " transactiontimestamp transactiondate purchasedat unixreviewtime day orderpurchasetimestamp",
    "kind": "eventtype event eventname action actiontype behaviortype behavior behaviour kind type activity"
    " interaction feedbacktype",
    "session_id": "sessionid session basketid visitid invoiceno orderid transactionid cartid invoice basket",
    "price": "price unitprice itemprice",
    "value": "value salesvalue amount linetotal totalprice total revenue sales spend",
    "quantity": "quantity qty units count num",
    "currency": "currency currencycode",
    "query": "query searchquery searchterm keyword keywords",
    "text": "reviewtext review comment",
    "rating": "rating stars score overall",
    "position": "position",
    "impressions": "impressions impression shownitems",
    "event_id": "eventid messageid uuid",
}
_ORDER = [
    "rowinfile",
    "row",
    "rownumber",
    "step",
    "pos",
    "position",
    "index",
    "order",
    "seq",
    "sequence",
    "line",
    "linenumber",
]
_GUESSES: tuple[tuple[str, str], ...] = (
    ("remove", "cart_remove"),
    ("unfav", "-"),
    ("clickout|click out", "click"),
    ("interaction", "view"),
    ("search", "search"),
    ("filter|sort", "filter"),
    ("wish|fav|collect|like", "wishlist"),
    ("refund|return", "refund"),
    ("checkout", "checkout"),
    ("buy|bought|purchas|order|transact|sale|pay", "purchase"),
    ("cart|basket", "cart_add"),
    ("review|rat", "review"),
    ("click", "click"),
    ("view|detail|page", "view"),
)
_FORMATS = [
    f"{day}{clock}"
    for day in ("%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%Y/%m/%d", "%d-%m-%Y", "%m/%d/%y", "%Y.%m.%d")
    for clock in ("", " %H:%M", " %H:%M:%S")
]


def propose(source: Source, what: What = "events") -> tuple[Mapping, list[str]]:
    """A mapping to look over, and the words of what could not be found."""
    batch = source.sample().batch
    name = (
        re.sub(r"[^a-z0-9]+", "-", PurePath(source.name).name.lower().split(".")[0]).strip("-") or "mapping"
    )
    columns = source.columns
    if what == "events":
        return _events(name, columns, batch)
    named = _by_name(columns)
    if what == "users":
        key = named.get("user_id") or named.get("anonymous_id")
        found = Mapping(name=f"{name}-users", what="users", fields={USER_KEY: key or "?"})
        return found, [] if key else ["a user id"]
    fields: dict[str, str | list[str]] = {"id": named.get("item_id", "?")}
    lower = {_bare(c): c for c in reversed(columns)}
    for ours, words in {
        "title": "title name description productname",
        "price": "price unitprice",
        "brand": "brand manufacturer vendor",
        "category": "category department productcategory genre type",
    }.items():
        theirs = next((lower[w] for w in words.split() if w in lower), None)
        if theirs is not None and theirs != fields["id"]:
            fields[ours] = theirs
    used = {v for v in fields.values() if isinstance(v, str)}
    rest = [c for c in columns if c not in used]
    found = Mapping(name=f"{name}-catalog", what="catalog", fields=fields, ignore=_log_columns(rest, named))
    return found, [] if fields["id"] != "?" else ["a product id"]


def _log_columns(rest: Iterable[str], named: dict[str, str]) -> list[str]:
    """In a log that serves as a catalogue too, nothing of the events may end up in the catalogue."""
    return list(rest) if named.keys() & {"user_id", "anonymous_id", "ts"} else []


def _events(name: str, columns: list[str], batch: pa.RecordBatch) -> tuple[Mapping, list[str]]:
    named = _by_name(columns)
    samples = {c: plain(batch.column(c)) for c in batch.schema.names}
    _check_contents(named, samples)
    fields: dict[str, str | list[str]] = dict(named)
    form, rest = "auto", [c for c in columns if c not in named.values()]
    if "ts" not in fields:
        found = next((c for c in rest if _looks_like_time(samples.get(c))), None)
        order = next(
            (c for w in _ORDER for c in columns if _bare(c) == w and _numbers_once(samples.get(c))), None
        )
        if found is not None:
            fields["ts"] = found
        else:
            fields["ts"], form = order or ROW_NUMBER, "ordinal"
            if order is not None and fields.get("position") == order:
                del fields["position"]
    if form == "auto":
        form = _time_form(samples.get(str(fields["ts"])))
    kinds, usual = _kinds(fields, samples)
    if "query" not in fields and fields.get("item_id") and {"search", "filter"} & set(kinds.values()):
        fields["query"] = fields["item_id"]
    if form not in {"ordinal", "auto"} or "ts" not in fields:
        is_day = form == "day" or ("%H" not in form and "%" in form)
    else:
        is_day = _only_days(samples.get(str(fields["ts"])))
    used = {v for v in fields.values() if isinstance(v, str)}
    missing = [] if fields.keys() & {"user_id", "anonymous_id"} else ["a user id"]
    missing += [] if "item_id" in fields else ["a product id"]
    counter = _row_counter(fields, [c for c in columns if c not in used], samples)
    mapping = Mapping(
        name=name,
        fields=fields,
        kind=usual,
        kinds=kinds,
        time=form,
        integer_ids=_spreadsheet_ids(fields, samples),
        duplicates="keep" if is_day else None,
        props=counter,
        ignore=[c for c in columns if c not in used and c not in counter],
    )
    return mapping, missing


def _row_counter(
    fields: dict[str, str | list[str]], rest: list[str], samples: dict[str, pa.Array]
) -> list[str]:
    """The step or line number that tells rows apart which are alike in all else that is read; at most one.

    Left out, it would turn three looks within a second into one look and two duplicates.
    """
    used = [c for c in {v for v in fields.values() if isinstance(v, str)} if c in samples]
    if "event_id" in fields or not used:
        return []
    rows = list(zip(*(texts(samples[c]).to_pylist() for c in used), strict=True))
    repeated = len(rows) - len(set(rows))
    for word in _ORDER:
        for column in rest:
            if _bare(column) == word and column in samples:
                told = set(zip(rows, texts(samples[column]).to_pylist(), strict=True))
                if repeated and len(rows) - len(told) < repeated / 2:
                    return [column]
    return []


def _bare(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _by_name(columns: list[str]) -> dict[str, str]:
    lower = {_bare(c): c for c in reversed(columns)}
    found: dict[str, str] = {}
    for ours, words in _NAMES.items():
        theirs = next((lower[w] for w in words.split() if w in lower), None)
        if theirs is not None and theirs not in found.values():
            found[ours] = theirs
    if "user_id" in found and "anonymous_id" not in found:
        return found
    return found


def _check_contents(named: dict[str, str], samples: dict[str, pa.Array]) -> None:
    """A name alone is not enough: a price must be numbers, a time must be times, a kind must be few words."""
    for ours in ("price", "value", "quantity", "rating", "position"):
        column = samples.get(named.get(ours, ""))
        if column is not None and len(column):
            values, bad = numbers(column)
            if (pc.sum(bad).as_py() or 0) > 0.05 * len(column) or values.null_count == len(column):
                del named[ours]
    time = samples.get(named.get("ts", ""))
    if time is not None and len(time) and not _looks_like_time(time):
        del named["ts"]
    kind = samples.get(named.get("kind", ""))
    if kind is not None and len(kind) and len(pc.unique(kind)) > 100:
        del named["kind"]


def _some_texts(column: pa.Array | None) -> list[str]:
    if column is None:
        return []
    step = max(1, len(column) // 500)
    some = texts(column.take(pa.array(range(0, len(column), step)))) if len(column) else column
    return [t for t in some.to_pylist() if t is not None]


def _numbers_once(column: pa.Array | None) -> bool:
    """Whether a column gives every row a number of its own.

    One that starts again, as where a log was put together from files, would put later rows before earlier ones.
    """
    return column is not None and pc.count_distinct(column).as_py() == len(column)


def _looks_like_time(column: pa.Array | None) -> bool:
    if column is None:
        return False
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        return True
    some = _some_texts(column)
    if not some:
        return False
    good = [t for t in map(micros_of, some) if t is not None and 631_152_000 <= t / 1e6 <= 4_102_444_800]
    return len(good) >= 0.95 * len(some) or _time_form(column) != "auto"


def _time_form(column: pa.Array | None) -> str:
    if column is None or pa.types.is_temporal(column.type):
        return "auto"
    some = _some_texts(column)
    if not some or sum(micros_of(t) is not None for t in some) >= 0.9 * len(some):
        return "auto"
    fits = [f for f in _FORMATS if sum(_fits(t, f) for t in some) >= 0.95 * len(some)]
    return fits[0] if fits else "auto"


def _fits(text: str, form: str) -> bool:
    try:
        dt.datetime.strptime(text.strip(), form)
    except ValueError:
        return False
    return True


def _only_days(column: pa.Array | None) -> bool:
    if column is None:
        return False
    if pa.types.is_date(column.type):
        return True
    some = _some_texts(column)
    return bool(some) and all(re.fullmatch(r"\d{4}-?\d\d-?\d\d( 00:00:00)?", t) for t in some)


def _kinds(
    fields: dict[str, str | list[str]], samples: dict[str, pa.Array]
) -> tuple[dict[str, str], EventKind | None]:
    """Their words for kinds with ours, where ours does not follow by itself; and a kind for files without one."""
    column = samples.get(str(fields.get("kind", "")))
    if column is None:
        if fields.keys() & {"price", "value", "quantity"}:
            return {}, EventKind.PURCHASE
        return {}, EventKind.REVIEW if "rating" in fields else EventKind.VIEW
    kinds: dict[str, str] = {}
    for word in sorted(t for t in texts(pc.unique(column)).to_pylist() if t is not None):
        plain_word = word.strip().lower().replace(" ", "_").replace("-", "_")
        if word in KINDS or plain_word in KIND_WORDS:
            if word not in KINDS:
                kinds[word] = KIND_WORDS[plain_word]
            continue
        guess = next((kind for pattern, kind in _GUESSES if re.search(pattern, word.lower())), None)
        kinds[word] = guess or "-"
    return kinds, None


def _spreadsheet_ids(fields: dict[str, str | list[str]], samples: dict[str, pa.Array]) -> bool:
    """Whether whole numbers were written as 17850.0, as spreadsheets and data frames do with gaps."""
    for ours in ("user_id", "item_id"):
        some = _some_texts(samples.get(str(fields.get(ours, ""))))
        if some and all(re.fullmatch(r"\d+\.0", t) for t in some):
            return True
    return False
