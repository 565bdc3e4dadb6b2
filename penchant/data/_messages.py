"""Live messages in the forms of other systems: the same dialects as in files, held to the same rules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from penchant.core import Event, Identified
from penchant.core.errors import InputError
from penchant.data._columns import Notes
from penchant.data._dialects import DIALECTS, draft_row
from penchant.data._dialects_nested import Parsed, ga4_measurement
from penchant.data._draft import DRAFT_SCHEMA
from penchant.data._live import check_draft
from penchant.data._settings import Settings
from penchant.data._times import micros_of

_EXPAND: dict[str, Callable[[dict[str, Any]], list[Parsed]]] = {
    **{dialect.name: dialect.expand for dialect in DIALECTS if dialect.expand is not None},
    "ga4-measurement": ga4_measurement,
}
MESSAGE_FORMS = tuple(_EXPAND)
# Where each form says when something happened, by the sender's own clock.
_SAID = {"segment": ("originalTimestamp", "timestamp"), "ga4-measurement": ("timestamp_micros",)}
_BLANK: dict[str, Any] = dict.fromkeys(DRAFT_SCHEMA.names)
_SAYING = [name for name in DRAFT_SCHEMA.names if name not in {"row", "part", "fault", "detail"}]
_IDS = {"segment": ("messageId",), "shopify": ("id",)}


@dataclass(frozen=True)
class RefusedPart:
    """One event of a message that cannot be believed: why, and what it said."""

    error: InputError
    row: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Message:
    """What one message says: its events, those of them that cannot be believed, or whom it identifies.

    A message without any of these is of a kind that a shop's interests do not need; ``left_out`` names it.
    ``said`` is the time the sender gave, None where it gave none: a message sent again says the same, while the
    time of its events may have been corrected by when it came.
    """

    id: str | None = None
    events: list[Event] = field(default_factory=list)
    refused: list[RefusedPart] = field(default_factory=list)
    identified: Identified | None = None
    left_out: str | None = None
    said: int | None = None
    withheld: bool = False  # set by who knows that the person allows nothing


def read_message(form: str, message: Any, settings: Settings, now: int) -> Message:
    """Read one live message.

    Args:
        form: One of ``MESSAGE_FORMS``.
        message: The message as JSON values.
        settings: What the shop believes.
        now: When it came, in microseconds.

    Example:
        >>> view = {"type": "track", "event": "Product Viewed", "messageId": "m1", "userId": "u1",
        ...         "properties": {"product_id": "shoe"}}
        >>> read_message("segment", view, Settings(), now=1_720_000_000_000_000).events[0].item_id
        'shoe'
    """
    if not isinstance(message, dict):
        error = InputError("a message must be a JSON object", value=type(message).__name__)
        return Message(refused=[RefusedPart(error)])
    own = next((message[name] for name in _IDS.get(form, ()) if isinstance(message.get(name), str)), None)
    said = next((micros_of(message[n]) for n in _SAID.get(form, ()) if message.get(n) is not None), None)
    joins = (
        message.get("type") if form == "segment" and message.get("type") in ("identify", "alias") else None
    )
    if form == "segment":
        message = _as_received(message, now)
    try:
        parsed = _EXPAND[form](_as_signup(message) if joins else message)
        drafts = [draft_row(part, 0, n, settings, Notes(), {}) for n, part in enumerate(parsed or [Parsed()])]
        for draft in drafts:
            for text in draft.values():
                if isinstance(text, str):
                    text.encode()  # half a surrogate pair cannot be stored
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, msgspec.MsgspecError) as error:
        odd = InputError("the message has an unexpected form", value=str(error)[:200])
        return Message(own, refused=[RefusedPart(odd)])
    found = Message(own, said=said)
    for draft in drafts:
        row = {**_BLANK, **draft}
        if row["fault"] == "left_out":
            return replace(found, left_out=str(row["detail"])[:100])
        try:
            found.events.append(check_draft(row, settings, now))
        except InputError as error:
            found.refused.append(RefusedPart(error, {name: row[name] for name in _SAYING}))
    return found if joins is None or found.refused else _joined(found, joins)


def _as_received(message: dict[str, Any], now: int) -> dict[str, Any]:
    """A call as the service archives it: what a library calls ``timestamp`` becomes ``originalTimestamp``."""
    if message.get("receivedAt") is not None or message.get("sentAt") is None:
        return message
    made = message.get("originalTimestamp") or message.get("timestamp")
    return {**message, "originalTimestamp": made, "timestamp": None, "receivedAt": now}


def _as_signup(message: dict[str, Any]) -> dict[str, Any]:
    """``identify`` says whose a device is, ``alias`` that an earlier id was somebody's: read as an event of both."""
    guest = message.get("previousId" if message["type"] == "alias" else "anonymousId")
    return {**message, "type": "track", "event": "Signed Up", "anonymousId": guest, "properties": None}


def _joined(found: Message, call: str) -> Message:
    (event,) = found.events
    if event.user_id is None or event.anonymous_id is None or event.ts is None:
        return replace(found, events=[], left_out=f"{call} that joins nobody")
    return replace(
        found,
        events=[],
        identified=Identified(anonymous_id=event.anonymous_id, user_id=event.user_id, ts=event.ts),
    )
