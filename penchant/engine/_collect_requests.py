"""What ``collect`` takes and gives."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta

from penchant.core import Noun
from penchant.engine._json import check_number

MessageForm = Literal["segment", "ga4", "ga4-measurement", "google-retail", "shopify"]
MOST_MESSAGES = 10_000  # in one request


class CollectRequest(Noun, frozen=True):
    """Tell the shop what just happened in the words of another system."""

    form: Annotated[
        MessageForm,
        Meta(
            description="whose words: segment is RudderStack's too; ga4 is the export", examples=["segment"]
        ),
    ]
    messages: Annotated[
        list[dict[str, Any]],
        Meta(
            max_length=MOST_MESSAGES,
            description="messages as that system sends them, oldest first; one that does not fit is refused alone",
            examples=[[{"type": "identify", "userId": "u1", "anonymousId": "c9"}]],
        ),
    ]
    dry_run: Annotated[bool, Meta(description="only say which messages would be refused; store nothing")] = (
        False
    )


class CollectedRequest(CollectRequest, frozen=True):
    """The same request before anybody looked at its messages."""

    messages: list[Any]

    def check(self) -> None:
        """Refuse more messages than one request may hold.

        Raises:
            TooLarge: There are more.
        """
        check_number(len(self.messages), MOST_MESSAGES, "messages")


class CollectResult(Noun, frozen=True):
    """What became of one message.

    ``stored``: it is on disk (of a dry run: it would be), all of it or, where ``error`` says so, the part that can be
    believed. ``duplicate``: it was there already. ``conflict``: another message has its id; this one is kept aside.
    ``ignored``: it is of a kind that interests do not need, such as a page view. ``identified``: it joined a guest to a
    user. ``refused``: nothing of it can be believed; it is kept aside. ``erased``: the person was erased.
    ``withheld``: the person allows no purpose, nothing is kept.
    """

    message_id: str | None
    status: Literal[
        "stored", "duplicate", "conflict", "erased", "refused", "ignored", "identified", "withheld"
    ]
    events: int = 0  # stored from it
    error: str | None = None


class CollectReport(Noun, frozen=True):
    """What became of the messages, one result each, in order."""

    results: list[CollectResult]
    stored: int  # events


class ConsumeRequest(Noun, frozen=True):
    """Read the shop's Kafka topics to their ends."""


class ConsumeReport(Noun, frozen=True):
    """What was read from Kafka."""

    messages: int
    stored: int  # events
    results: dict[str, int]  # what became of the messages: how many of each word of `observe` or `collect`
    positions: dict[str, int]  # where each partition is read on, as kafka:TOPIC:PARTITION


class WebhooksRequest(Noun, frozen=True):
    """Look at messages that webhooks have not taken."""

    retry: Annotated[bool, Meta(description="try those that were given up once more")] = False


class Delivery(Noun, frozen=True):
    """A message that is to be delivered: ``waiting`` for its next try, or ``dead``, given up."""

    id: str
    webhook: str
    type: str  # the operation it tells of
    ts: int
    tries: int
    state: Literal["waiting", "dead"]
    said: str | None  # what came of the last try


class WebhooksReport(Noun, frozen=True):
    """What is not delivered, the oldest first."""

    deliveries: list[Delivery]
    retried: int = 0


class DeadLettersRequest(Noun, frozen=True):
    """Look at what was refused live and kept aside."""

    limit: Annotated[int, Meta(ge=1, le=1000, description="how many, the newest first")] = 100
    before: (
        Annotated[int, Meta(ge=1, le=2**62, description="only letters with a smaller number: the next page")]
        | None
    ) = None


class DeadLetter(Noun, frozen=True):
    """One event that was refused: when, why, and what it said."""

    number: int
    ts: int
    reason: str
    event: dict[str, Any]


class DeadLettersReport(Noun, frozen=True):
    """What is kept aside, the newest first."""

    kept: int  # in all
    letters: list[DeadLetter]


_NOUNS = [
    name
    for name, thing in list(globals().items())
    if isinstance(thing, type) and issubclass(thing, Noun) and thing.__module__ == __name__
]
__all__ = ["MessageForm", *_NOUNS]
