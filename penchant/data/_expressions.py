"""Cleaning as Ibis expressions: a draft in, events and reasons out, on any engine that Ibis speaks to.

Only functions that every engine has: comparisons, CASE, COALESCE, concatenation, MD5, regular expressions of the
common core. What no two engines do alike (reading times, Unicode normal forms) happens before, in Arrow.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import ibis
import ibis.expr.types as ir
import pyarrow as pa

from penchant.core import EVENT_SCHEMA, GUEST_PREFIX
from penchant.data._draft import DRAFT_SCHEMA
from penchant.data._ids import HASHED, SEPARATOR
from penchant.data._rules import RULES, Limits, is_return

PLACE = "place"


def clean_expression(
    draft: ir.Table, limits: Limits, *, odd: bool = True, empty: frozenset[str] = frozenset()
) -> ir.Table:
    """Judge and normalise a draft.

    Args:
        draft: A table of DRAFT_SCHEMA on any backend, or unbound.
        limits: The numbers of the rules.
        odd: False when it is known that all ids are plain ASCII, which spares the rule about odd characters.
        empty: Columns known to hold nothing but nulls, which spares looking at them.

    Returns:
        EVENT_SCHEMA, ``row`` and ``part`` of the draft, ``detail``, and ``reason``: the code of the first rule
        broken, null for an event that is accepted. Columns beyond DRAFT_SCHEMA are handed through.
    """
    t = draft.mutate(**{c: ibis.null(_type_of(c)) for c in empty}) if empty else draft
    refund = is_return(t, limits)
    reason = ibis.cases(
        *[
            (rule.breaks(t, limits).fill_null(False), ibis.literal(rule.code))
            for rule in RULES
            if rule.breaks is not None and (odd or not rule.odd_only)
        ],
        else_=ibis.null("string"),
    )
    value = _absolute(refund, t.value)
    quantity = _absolute(refund, t.quantity)
    kind = ibis.cases((refund, ibis.literal("refund")), else_=t.kind)
    t2 = t.mutate(kind=kind, value=value, quantity=quantity, reason=reason)
    derived = hash_expression(t2, empty)
    event_id = derived if "event_id" in empty else ibis.coalesce(t2.event_id, derived)
    guest = ibis.literal(GUEST_PREFIX) + t2.anonymous_id
    t3 = t2.mutate(
        event_id=event_id, subject=ibis.coalesce(t2.user_id, guest), position=t2.position.cast("int32")
    )
    further = [c for c in draft.columns if c not in DRAFT_SCHEMA.names]
    return t3.select(*EVENT_SCHEMA.names, "row", "part", "reason", "detail", *further)


def hash_expression(t: ir.Table, empty: frozenset[str] = frozenset()) -> ir.StringValue:
    """The id of an event without one: a hash of its content, the same as ``penchant.data._ids.content_id``."""
    parts: list[Any] = []
    for letter, name in HASHED:
        if name in empty:
            continue
        column: Any = t[name]
        if name in {"value", "quantity"}:
            # NaN, infinite and absurd numbers are refused anyway; a cast must not fail on them
            believable = column.abs() < 1e15
            tame = ibis.cases((believable, column), else_=ibis.literal(0.0))
            scaled = (tame * 1000.0).round().cast("int64")
            column = ibis.cases((believable, scaled), else_=ibis.null("int64"))
        if not column.type().is_string():
            column = column.cast("string")
        parts.append(ibis.literal(letter) + column)
    whole: Any = ibis.literal(SEPARATOR).join(parts)  # nulls are left out
    digest: ir.StringValue = whole.hexdigest("md5")
    return digest


@lru_cache(maxsize=256)
def clean_sql(limits: Limits, columns: tuple[str, ...], *, odd: bool, empty: frozenset[str]) -> str:
    """The cleaning as one DuckDB query over a table named ``draft``, giving only some columns of the result.

    The draft has one more column, ``place``, which is given back: an engine with threads keeps no order.
    """
    draft = ibis.table({**_ibis_schema(), PLACE: "int64"}, name="draft")
    cleaned = clean_expression(draft, limits, odd=odd, empty=empty)
    return str(ibis.to_sql(cleaned.select(*columns, PLACE), dialect="duckdb"))


def _ibis_schema() -> Any:
    return ibis.Schema.from_pyarrow(pa.schema([f.with_nullable(True) for f in DRAFT_SCHEMA]))


def _type_of(name: str) -> Any:
    return _ibis_schema()[name]


def _absolute(refund: Any, number: Any) -> Any:
    return ibis.cases((refund, number.abs()), else_=number)
