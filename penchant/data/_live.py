"""One live event, held to the same rules as a file of them, without loading Ibis."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from penchant.core import Event, EventKind
from penchant.core.errors import InputError
from penchant.data._columns import MAX_ID_BYTES, clean_id
from penchant.data._draft import ID_COLUMNS
from penchant.data._ids import content_id
from penchant.data._rules import Limits, Rule, first_broken, limits_of, returns
from penchant.data._settings import Settings
from penchant.data._source_chunks import to_json

_PATHS = {
    "missing_user": "user_id",
    "missing_item": "item_id",
    "unknown_kind": "kind",
    "too_early": "ts",
    "too_late": "ts",
    "bad_currency": "currency",
    "bad_position": "position",
    "zero_quantity": "quantity",
    "negative_quantity": "quantity",
    "bad_consent": "consent",
    "too_long_text": "text",
}


def check_event(event: Event, settings: Settings, now: int) -> Event:
    """Judge and complete a live event by the rules of ``clean_events``.

    ``ts`` becomes ``now`` when it is missing, ``event_id`` a hash of the content; ids are freed of blanks and
    brought to Unicode form NFC; a purchase of a negative quantity becomes a refund.

    Raises:
        InputError: It breaks a rule; ``code`` of the rule is in the message's path and hint.

    Example:
        >>> view = Event(kind=EventKind.VIEW, user_id=" u1 ", item_id="shoe")
        >>> check_event(view, Settings(), now=1_720_000_000_000_000).user_id
        'u1'
    """
    row = event_fields(event)
    given = msgspec.structs.asdict(event)
    _judge(row, given, settings, now)
    changed = {name: row[name] for name in _COMPLETED if row[name] != given[name]}
    if row["kind"] != event.kind:
        changed["kind"] = EventKind(row["kind"])
    return msgspec.structs.replace(event, **changed) if changed else event


def check_draft(row: dict[str, Any], settings: Settings, now: int) -> Event:
    """Judge and complete one row of DRAFT_SCHEMA as a live event; see ``check_event``.

    Raises:
        InputError: It breaks a rule.
    """
    consent = None if row["consent"] is None else [p for p in row["consent"].split(",") if p]
    props = None if row["props"] is None else msgspec.json.decode(row["props"])
    _judge(row, {**row, "consent": consent, "props": props}, settings, now)
    own = {name: row[name] for name in _COMPLETED}
    kept = {name: row[name] for name in ("currency", "query", "text", "position")}
    return Event(kind=EventKind(row["kind"]), consent=consent, props=props, **own, **kept)


_COMPLETED = ("ts", "value", "quantity", *ID_COLUMNS)  # columns that judging may change


def _judge(row: dict[str, Any], given: Mapping[str, Any], settings: Settings, now: int) -> None:
    """Refuse a row that breaks a rule, or complete it; an error shows what was ``given``."""
    if row["ts"] is None:
        row["ts"] = now
    limits = _limits(settings, now)
    broken = first_broken(row, limits)
    if broken is not None:
        raise _refusal(broken, given)
    if returns(row, limits):
        row["kind"] = "refund"
        row["quantity"] = abs(row["quantity"])
        row["value"] = None if row["value"] is None else abs(row["value"])
    row["event_id"] = row["event_id"] or content_id(row)


_newest_limits: list[tuple[Settings, int, Limits]] = []


def _limits(settings: Settings, now: int) -> Limits:
    """The limits of a moment, kept for the other events of the same request."""
    for known, moment, limits in _newest_limits:
        if known is settings and moment == now:
            return limits
    limits = limits_of(settings, now)
    _newest_limits[:] = [(settings, now, limits)]
    return limits


def event_fields(event: Event) -> dict[str, Any]:
    """A live event in the columns of a draft: ids normalised, consent and properties as text."""
    row = msgspec.structs.asdict(event)
    row["kind"] = str(event.kind)
    row["fault"] = None
    for name in ID_COLUMNS:
        given = row[name]
        row[name] = clean_id(given)
        if given is not None and len((row[name] or "").encode("utf-8", "replace")) > MAX_ID_BYTES:
            row["fault"] = "id_too_long"
    for name in ("value", "quantity"):
        row[name] = None if row[name] is None else float(row[name])
    row["query"], row["text"] = row["query"] or None, row["text"] or None
    row["consent"] = None if event.consent is None else ",".join(event.consent)
    row["props"] = to_json(event.props) if event.props else None
    return row


def _refusal(rule: Rule, given: Mapping[str, Any]) -> InputError:
    field = _PATHS.get(rule.code, rule.field)
    value = given[field] if field in {"kind", "ts", "value", "quantity", "currency", "position"} else None
    if isinstance(value, float) and not math.isfinite(value):
        value = str(value)
    path = f"$.{field}" if field and field != "detail" else "$"
    return InputError(f"{rule.code}: {rule.says}", value=value, hint=rule.todo, path=path)
