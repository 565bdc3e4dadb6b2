"""Live events of every form on their one way into the shop: stored durably, learned from, or kept aside."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from penchant.core import GUEST_PREFIX, WISH_KINDS, Event, Identified
from penchant.core.errors import InputError, PenchantError
from penchant.data import Message, read_message
from penchant.engine import _collect_requests as cr
from penchant.engine import _requests as rq
from penchant.engine._people import known_person, own_name, unwanted, withheld

if TYPE_CHECKING:
    from penchant.engine._serving import Serving
    from penchant.engine._shop import Shop

CONFLICT = "another event has this id"
_IDS = ("user_id", "anonymous_id")
Request = TypeVar("Request")
Report = TypeVar("Report")


def take(
    shop: Shop,
    serving: Serving,
    events: Sequence[Event],
    *,
    said: Sequence[int | None] | None = None,
    identified: Iterable[Identified] = (),
    positions: Mapping[str, int] | None = None,
) -> list[str]:
    """Store checked events in one durable commit, keep conflicts aside, and let what serves learn from the new ones.

    Returns:
        One word an event; see ``Store.append``.
    """
    people = list(identified)
    if not events and not people and not positions:
        return []
    words = shop.store.append(events, said=said, identified=people, positions=positions)
    pairs = list(zip(events, words, strict=True))
    serving.observed([event for event, word in pairs if word == "stored" and _tells(event)])
    keep_aside(shop, [(CONFLICT, msgspec.to_builtins(e)) for e, word in pairs if word == "conflict"])
    return words


def _tells(event: Event) -> bool:
    """Whether what serves can learn from an event: it is about an item, or says what a person wants."""
    return event.item_id is not None or event.kind in WISH_KINDS


def keep_aside(shop: Shop, letters: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
    """Keep refused events, each with its reason, where ``dead_letters`` shows them; none of who allows nothing."""
    if not letters:
        return
    closed = unwanted(shop)
    kept = [one for one in letters if closed is None or not _names_one(one[1], closed)]
    shop.store.keep_aside(kept)


def _names_one(event: Mapping[str, Any], closed: Callable[[str], bool]) -> bool:
    """Whether an event that may have any shape is about a person of whom nothing may be kept."""
    user, guest = (event.get(name) for name in ("user_id", "anonymous_id"))
    people = [user, f"{GUEST_PREFIX}{guest}" if isinstance(guest, str) and not user else None]
    return any(closed(person) for person in people if isinstance(person, str) and person)


def collect(
    shop: Shop, serving: Serving, request: cr.CollectRequest, positions: Mapping[str, int] | None = None
) -> cr.CollectReport:
    """Read each message by its dialect, store the good events in one commit, and say what became of each message.

    Args:
        shop: Where to.
        serving: What learns of them.
        request: The messages.
        positions: How far their source is read with them, stored in the same commit.
    """
    messages = _read(shop, request)
    if request.dry_run:
        told = [_result(message, ["stored"] * len(message.events), False) for message in messages]
        return cr.CollectReport(results=told, stored=0)
    return _report(_store(shop, serving, messages, positions))


def collect_all(
    shop: Shop, serving: Serving, requests: Sequence[cr.CollectRequest]
) -> list[cr.CollectReport | PenchantError]:
    """Do the same for several requests with one commit."""
    read = [[] if request.dry_run else _read(shop, request) for request in requests]
    try:
        results = _store(shop, serving, [message for messages in read for message in messages], None)
    except InputError:  # a message that cannot be stored: it fails its own request alone
        return each_alone(partial(collect, shop, serving), requests)
    except PenchantError as error:
        return [error for _ in requests]
    found: list[cr.CollectReport | PenchantError] = []
    for request, messages in zip(requests, read, strict=True):
        own, results = results[: len(messages)], results[len(messages) :]
        found.append(collect(shop, serving, request) if request.dry_run else _report(own))
    return found


def each_alone(
    answer: Callable[[Request], Report], requests: Sequence[Request]
) -> list[Report | PenchantError]:
    """Answer requests one by one; an error stands in the place of its answer."""
    found: list[Report | PenchantError] = []
    for request in requests:
        try:
            found.append(answer(request))
        except PenchantError as error:
            found.append(error)
    return found


def _read(shop: Shop, request: cr.CollectRequest) -> list[Message]:
    now = shop.clock()
    return [
        _known(
            shop, read_message(request.form, raw, shop.config.data, now + at)
        )  # without a time they keep their order
        for at, raw in enumerate(request.messages)
    ]


def _known(shop: Shop, message: Message) -> Message:
    """A message with its ids as the shop keeps them, without what its person does not allow to keep."""
    events = [known_person(shop, event) for event in message.events]
    refused = [replace(part, row=named_columns(shop, part.row)) for part in message.refused]
    told = None if message.identified is None else known_person(shop, message.identified)
    kept_back = [withheld(shop, event) for event in events]  # every one: what it says of consent is noted
    closed = any(kept_back) or (
        told is not None and not shop.consent.trivial and not shop.consent.allowed(told.user_id)
    )
    if closed:
        return replace(message, events=[], refused=[], identified=None, withheld=True)
    return replace(message, events=events, refused=refused, identified=told)


def named_columns(shop: Shop, event: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of an event that was refused, with its ids as the shop keeps them."""
    plain = {name: value for name, value in event.items() if name not in _IDS}
    ids = {name: str(event[name]) for name in _IDS if isinstance(event.get(name), str | int)}
    return {**plain, **{name: own_name(shop, given) for name, given in ids.items()}}


def reason_of(error: InputError) -> str:
    """Why an event was refused, as it is kept: without the id of a person, which nobody would find there again."""
    if (error.path or "").rpartition(".")[2] not in _IDS:
        return str(error)
    return str(InputError(error.message, path=error.path, hint=error.hint))


def _report(results: list[cr.CollectResult]) -> cr.CollectReport:
    return cr.CollectReport(results=results, stored=sum(result.events for result in results))


def _store(
    shop: Shop, serving: Serving, messages: Sequence[Message], positions: Mapping[str, int] | None
) -> list[cr.CollectResult]:
    with shop.collecting:  # nobody takes an id between the look at it and the commit
        clashing = _clashing(shop, messages)
        good = [message for at, message in enumerate(messages) if at not in clashing]
        found = iter(
            take(
                shop,
                serving,
                [event for message in good for event in message.events],
                said=[message.said for message in good for _ in message.events],
                identified=[message.identified for message in good if message.identified is not None],
                positions=positions,
            )
        )
    results, letters = [], []
    for at, message in enumerate(messages):
        words = [] if at in clashing else [next(found) for _ in message.events]
        results.append(_result(message, words, at in clashing))
        letters += [(reason_of(part.error), part.row) for part in message.refused]
        letters += [(CONFLICT, msgspec.to_builtins(e)) for e in message.events] if at in clashing else []
    keep_aside(shop, letters)
    return results


def _clashing(shop: Shop, messages: Sequence[Message]) -> set[int]:
    """Messages whose id is taken by one of another number of products: theirs have other ids, and would slip in.

    An order of one product has the id of its message, one of several has a number behind it for each.
    """
    counts = [len(message.events) + len(message.refused) for message in messages]
    asked = {
        name: False
        for message, count in zip(messages, counts, strict=True)
        if message.id is not None and message.events
        for name in _names(message.id, count)
    }
    if asked:
        asked = dict(zip(asked, shop.store.known(list(asked)), strict=True))
    found: set[int] = set()
    first: dict[str, int] = {}
    for at, (message, count) in enumerate(zip(messages, counts, strict=True)):
        if message.id is None or not message.events:
            continue
        if first.setdefault(message.id, count) != count:  # in this very request
            found.add(at)
        one, start, last, beyond = (asked[name] for name in _names(message.id, count))
        if (start if count == 1 else one or beyond or start != last) and not message.refused:
            found.add(at)
    return found


def _names(message_id: str, count: int) -> list[str]:
    """The id of one product, and those of the first, of the last and of one beyond of several."""
    return [message_id, f"{message_id}#0", f"{message_id}#{count - 1}", f"{message_id}#{count}"]


def _result(message: Message, words: Sequence[str], clashes: bool) -> cr.CollectResult:
    counted = Counter(words)
    refused = "; ".join(str(part.error) for part in message.refused) or None
    if clashes or counted["conflict"]:
        hint = f"{CONFLICT}: send a new messageId"
        return cr.CollectResult(
            message_id=message.id, status="conflict", events=counted["stored"], error=hint
        )
    if message.withheld:
        return cr.CollectResult(message_id=message.id, status="withheld", error=rq.NOT_STORED["withheld"])
    if message.identified is not None:
        return cr.CollectResult(message_id=message.id, status="identified")
    if message.left_out is not None:
        return cr.CollectResult(
            message_id=message.id, status="ignored", error=f"not kept: {message.left_out}"
        )
    if counted["stored"]:
        return cr.CollectResult(
            message_id=message.id, status="stored", events=counted["stored"], error=refused
        )
    if counted["erased"]:
        return cr.CollectResult(message_id=message.id, status="erased", error=rq.NOT_STORED["erased"])
    if counted["duplicate"]:
        return cr.CollectResult(message_id=message.id, status="duplicate", error=refused)
    return cr.CollectResult(message_id=message.id, status="refused", error=refused)


def dead_letters(shop: Shop, request: cr.DeadLettersRequest) -> cr.DeadLettersReport:
    """What was refused live, the newest first."""
    kept, letters = shop.store.letters(limit=request.limit, before=request.before)
    return cr.DeadLettersReport(
        kept=kept,
        letters=[
            cr.DeadLetter(number=number, ts=ts, reason=reason, event=event)
            for number, ts, reason, event in letters
        ],
    )
