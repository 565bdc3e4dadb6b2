"""The rules that every event must pass, in one list: each as an Ibis expression and as plain Python.

The Ibis side judges files, on embedded DuckDB or on any engine that Ibis speaks to; the Python side judges one
live event without loading Ibis. A property test proves that both agree. A row is refused for the first
rule it breaks.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from penchant.core import GUEST_PREFIX, KINDS
from penchant.data._columns import MAX_ID_BYTES
from penchant.data._draft import ID_COLUMNS, NEEDS_ITEM
from penchant.data._settings import Settings

# Control characters, and the marks that change the direction of writing: never part of an id.
ODD_CHARACTERS = r"[\x00-\x1f\x7f-\x{9f}\x{200e}\x{200f}\x{202a}-\x{202e}\x{2066}-\x{2069}]"
_odd = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_CURRENCY = r"^[A-Z][A-Z][A-Z]"
_CONSENT = r"^((personalise|analytics)(,(personalise|analytics))*)?"
MAX_POSITION, MAX_QUERY, MAX_TEXT = 100_000, 4096, 65_536


@dataclass(frozen=True)
class Limits:
    """The numbers the rules need, from the settings and the clock."""

    earliest: int
    latest: int
    max_value: float
    max_quantity: float
    refunds: bool  # a purchase of a negative quantity is a refund


Row = Mapping[str, Any]


@dataclass(frozen=True)
class Rule:
    """Something a row can be refused for. ``breaks`` is the Ibis side, ``fails`` the plain one.

    ``field`` is what is shown of an offending row; None where it would show who it was. A rule without
    sides is found by a reader or the store; it is listed here for its words.
    """

    code: str
    says: str
    costs: str
    todo: str
    field: str | None = None
    breaks: Callable[[Any, Limits], Any] | None = None
    fails: Callable[[Row, Limits], bool] | None = None
    severity: Literal["error", "warning", "info"] = "warning"
    odd_only: bool = False  # can only be broken by ids with unusual characters
    broken: bool = False  # the row itself is damaged, not merely incomplete or left out on purpose
    about: tuple[
        str, ...
    ] = ()  # columns of which one must be given for it to be broken; none: it may always be


def _fault(code: str) -> dict[str, Any]:
    return {
        "breaks": lambda t, _: t.fault == code,
        "fails": lambda r, _: r.get("fault") == code,
        "field": "detail",
        "about": ("fault",),
    }


def _blank(value: Any) -> bool:
    return value is None or value == ""


def _bad_number(value: float | None) -> bool:
    return value is not None and not math.isfinite(value)


RULES: tuple[Rule, ...] = (
    Rule(
        "damaged_row",
        "a row that cannot be read: broken quotes, a wrong number of fields, or JSON that is not",
        "its event is missing",
        "look at the row in the quarantine file and export it again",
        severity="error",
        broken=True,
    ),
    Rule(
        "bad_encoding",
        "a row with bytes that are not UTF-8",
        "its event is missing",
        "save the file as UTF-8",
        severity="error",
        broken=True,
    ),
    Rule(
        "left_out",
        "an event of a kind that the mapping leaves out on purpose",
        "nothing, if that is what you want",
        'map the kind in shop.toml ([mapping.kinds]) to keep it, instead of "-"',
        severity="info",
        **_fault("left_out"),
    ),
    Rule(
        "missing_user",
        "no user_id and no anonymous_id",
        "nobody's interests are learned from it",
        "send a customer id, or at least a cookie or device id as anonymous_id",
        "kind",
        lambda t, _: t.user_id.isnull() & t.anonymous_id.isnull(),
        lambda r, _: _blank(r["user_id"]) and _blank(r["anonymous_id"]),
    ),
    Rule(
        "unreadable_time",
        "a time that is no date we can read",
        "the event cannot be placed in anyone's history",
        "set `time` of the mapping to the format, as in %d/%m/%Y %H:%M",
        severity="error",
        broken=True,
        **_fault("unreadable_time"),
    ),
    Rule(
        "missing_time",
        "no time",
        "the event cannot be placed in anyone's history",
        'export the time, or map an order column with time = "ordinal"',
        "kind",
        lambda t, _: t.ts.isnull(),
        lambda r, _: r["ts"] is None,
    ),
    Rule(
        "too_early",
        "a time before the earliest day believed",
        "dates such as 1970-01-01 are usually a zero that stands for nothing",
        "correct the clock or the unit of time; or set data.earliest in shop.toml",
        "ts",
        lambda t, m: t.ts < m.earliest,
        lambda r, m: r["ts"] < m.earliest,
        broken=True,
    ),
    Rule(
        "too_late",
        "a time in the future",
        "it would make yesterday's training see tomorrow",
        "correct the clock, the zone or the unit of time; or set data.ahead_days in shop.toml",
        "ts",
        lambda t, m: t.ts > m.latest,
        lambda r, m: r["ts"] > m.latest,
        broken=True,
    ),
    Rule(
        "unknown_kind",
        "a kind of event that is not one of ours",
        "what the person did is not used",
        "map the word under [mapping.kinds] in shop.toml",
        "kind",
        lambda t, _: t.kind.isnull() | ~t.kind.isin(list(KINDS)),
        lambda r, _: r["kind"] is None or str(r["kind"]) not in KINDS,
    ),
    Rule(
        "missing_item",
        "no item, where the kind needs one",
        "it says that something happened but not to what",
        "export the product id with every view, cart, purchase and review",
        "kind",
        lambda t, _: t.kind.isin(list(NEEDS_ITEM)) & t.item_id.isnull(),
        lambda r, _: str(r["kind"]) in NEEDS_ITEM and _blank(r["item_id"]),
    ),
    Rule(
        "not_a_product",
        "an item code that the mapping declares to be no product",
        "nothing: postage and fees are not wants",
        "edit not_items of the mapping in shop.toml to keep it",
        severity="info",
        **_fault("not_a_product"),
    ),
    Rule(
        "id_too_long",
        f"an id of more than {MAX_ID_BYTES} bytes",
        "its event is missing",
        "send the id alone, not a whole address or token",
        broken=True,
        **_fault("id_too_long"),
    ),
    Rule(
        "bad_id",
        "an id with control characters or marks of writing direction",
        "two ids that look the same would be two people or two products",
        "remove line breaks, tabs, NUL and invisible marks from ids",
        None,
        lambda t, _: _any_odd(t),
        lambda r, _: any(r[c] is not None and is_odd_id(r[c]) for c in ID_COLUMNS),
        odd_only=True,
        broken=True,
    ),
    Rule(
        "reserved_id",
        f"a user_id that begins with {GUEST_PREFIX}, the mark of guests",
        "its event is missing; the refused row counts as the guest's when that is exported or erased",
        "send what follows the mark as anonymous_id, with user_id empty",
        None,
        lambda t, _: t.user_id.startswith(GUEST_PREFIX),
        lambda r, _: (r["user_id"] or "").startswith(GUEST_PREFIX),
    ),
    Rule(
        "not_a_number",
        "a price, value or quantity that is no number",
        "the money of the line is unknown",
        "export numbers with a decimal point and without words",
        broken=True,
        **_fault("not_a_number"),
    ),
    Rule(
        "impossible_value",
        "a value that is not finite (NaN or infinite)",
        "sums and averages of the shop would turn into nothing",
        "export a number, or leave the cell empty",
        "value",
        lambda t, _: _not_finite(t.value) | _not_finite(t.quantity),
        lambda r, _: _bad_number(r["value"]) or _bad_number(r["quantity"]),
        broken=True,
        about=("value", "quantity"),
    ),
    Rule(
        "zero_quantity",
        "a quantity of 0",
        "nothing changed hands",
        "leave such lines out of the export; or leave the quantity empty",
        "kind",
        lambda t, _: t.quantity == 0,
        lambda r, _: r["quantity"] == 0,
        about=("quantity",),
    ),
    Rule(
        "negative_quantity",
        "a negative quantity where it is no refund",
        "it would count as less than nothing",
        'send refunds as kind = "refund"; or set data.negative_quantity = "refund"',
        "quantity",
        lambda t, m: (t.quantity < 0) & ~is_return(t, m),
        lambda r, m: r["quantity"] is not None and r["quantity"] < 0 and not returns(r, m),
        about=("quantity",),
    ),
    Rule(
        "negative_value",
        "a negative price or value",
        "it would lower what a person spent",
        "send money given back as a refund with a positive value",
        "value",
        lambda t, m: (t.fault == "negative_value") | (t.value < 0) & ~is_return(t, m),
        lambda r, m: (
            r.get("fault") == "negative_value"
            or (r["value"] is not None and r["value"] < 0 and not returns(r, m))
        ),
        about=("fault", "value"),
    ),
    Rule(
        "absurd_value",
        "a value or quantity beyond what the settings believe",
        "one such line outweighs a year of the shop",
        "correct it; or raise data.max_value or data.max_quantity in shop.toml",
        "value",
        lambda t, m: (t.value.abs() > m.max_value) | (t.quantity.abs() > m.max_quantity),
        lambda r, m: (
            (r["value"] is not None and abs(r["value"]) > m.max_value)
            or (r["quantity"] is not None and abs(r["quantity"]) > m.max_quantity)
        ),
        broken=True,
        about=("value", "quantity"),
    ),
    Rule(
        "bad_currency",
        "a currency that is no three-letter code",
        "the money cannot be compared with other money",
        "use ISO 4217 codes such as EUR",
        "currency",
        lambda t, _: ~t.currency.re_search(_CURRENCY + r"\z"),
        lambda r, _: r["currency"] is not None and re.search(_CURRENCY + r"\Z", r["currency"]) is None,
        broken=True,
        about=("currency",),
    ),
    Rule(
        "bad_position",
        f"a position that is no whole number from 0 to {MAX_POSITION}",
        "where it was shown is unknown",
        "send the place in the list, counted from 0",
        "position",
        lambda t, _: (t.fault == "bad_position") | (t.position < 0) | (t.position > MAX_POSITION),
        lambda r, _: (
            r.get("fault") == "bad_position"
            or (r["position"] is not None and not 0 <= r["position"] <= MAX_POSITION)
        ),
        broken=True,
        about=("fault", "position"),
    ),
    Rule(
        "too_long_text",
        f"a query of more than {MAX_QUERY} or a text of more than {MAX_TEXT} characters",
        "its event is missing",
        "shorten the text before it is sent",
        "kind",
        lambda t, _: (t.query.length() > MAX_QUERY) | (t.text.length() > MAX_TEXT),
        lambda r, _: len(r["query"] or "") > MAX_QUERY or len(r["text"] or "") > MAX_TEXT,
        broken=True,
        about=("query", "text"),
    ),
    Rule(
        "bad_consent",
        "a consent for a purpose that is not one of ours",
        "it is not clear what the person allowed",
        "use personalise, analytics, or both",
        "consent",
        lambda t, _: ~t.consent.re_search(_CONSENT + r"\z"),
        lambda r, _: r["consent"] is not None and re.search(_CONSENT + r"\Z", r["consent"]) is None,
        broken=True,
        about=("consent",),
    ),
    Rule(
        "missing_id",
        "a product or a user without an id",
        "nothing can refer to it",
        "export the id in every row",
        severity="error",
        broken=True,
    ),
    Rule(
        "replaced",
        "a product or a user whose id comes again further down",
        "nothing: the last row stays",
        "export every id once",
        severity="info",
    ),
    Rule(
        "duplicate",
        "an event that is already there: the same id, the same content",
        "nothing: it is counted once",
        'if identical rows are separate events, set duplicates = "keep" in shop.toml; if a column that was '
        "left out (a step, a line number) tells them apart, name it in props",
        severity="info",
    ),
    Rule(
        "conflict",
        "an event id that was used before for something else",
        "which of the two is right is unknown; the first one stays",
        "give every event an id of its own",
        severity="error",
        broken=True,
    ),
)
RULE: dict[str, Rule] = {rule.code: rule for rule in RULES}


def is_odd_id(text: str) -> bool:
    """Whether an id holds control characters or marks of writing direction."""
    return _odd.search(text) is not None


def limits_of(settings: Settings, now: int) -> Limits:
    """The numbers of the rules at a moment."""
    return Limits(
        earliest=settings.earliest_ts,
        latest=settings.latest_ts(now),
        max_value=settings.max_value,
        max_quantity=settings.max_quantity,
        refunds=settings.negative_quantity == "refund",
    )


def first_broken(row: Row, limits: Limits) -> Rule | None:
    """The first rule that one event breaks, in plain Python; None when it passes."""
    given = tuple([name for name in _OFTEN_MISSING if row.get(name) is not None])
    for rule, fails in _rules_about(given):
        if fails(row, limits):
            return rule
    return None


_OFTEN_MISSING = tuple(dict.fromkeys(name for rule in RULES for name in rule.about))


@lru_cache(maxsize=256)
def _rules_about(given: tuple[str, ...]) -> list[tuple[Rule, Callable[[Row, Limits], bool]]]:
    """The rules that an event can break of which so much is given: live events pay for every one."""
    return [
        (rule, rule.fails)
        for rule in RULES
        if rule.fails is not None and (not rule.about or set(rule.about) & set(given))
    ]


def returns(row: Row, limits: Limits) -> bool:
    """Whether one event is a purchase taken back."""
    return (
        limits.refunds
        and str(row["kind"]) == "purchase"
        and row["quantity"] is not None
        and row["quantity"] < 0
    )


def is_return(t: Any, limits: Limits) -> Any:
    """The same as an Ibis expression."""
    import ibis

    if not limits.refunds:
        return ibis.literal(False)
    return ((t.kind == "purchase") & (t.quantity < 0)).fill_null(False)


def _not_finite(number: Any) -> Any:
    # engines disagree about isinf, and agree that NaN is above every number, where they compare it at all
    return number.isnan() | (number.abs() > sys.float_info.max)


def _any_odd(t: Any) -> Any:
    broken = None
    for name in ID_COLUMNS:
        one = t[name].re_search(ODD_CHARACTERS).fill_null(False)
        broken = one if broken is None else broken | one
    return broken
