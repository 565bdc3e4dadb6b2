"""Requests and responses about interests: the map, a person's own, and what a person wishes."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from penchant.core import Estimate, Id, Micros, Noun
from penchant.core.errors import InputError
from penchant.engine._operation import POSITIONAL

Interest = Annotated[str, Meta(min_length=1, max_length=200)]


class InterestsRequest(Noun, frozen=True):
    """See the map of interests."""

    k: Annotated[int, Meta(ge=1, le=50, description="items and following interests to show of each")] = 3


class Following(Noun, frozen=True):
    """An interest that people take up after another one, with its chance to be the next."""

    name: str
    chance: float
    lift: Annotated[float, Meta(description="that chance divided by the interest's usual one")]


class InterestRow(Noun, frozen=True):
    """One interest of the map."""

    name: str
    items: int
    usual: Annotated[float, Meta(description="share of all interests taken up anew that are this one")]
    examples: list[str]  # titles of its most popular items, or their ids
    next: list[Following]


class InterestsReport(Noun, frozen=True):
    """The map of interests, and how well it tells what comes next on people who chose nothing."""

    artifact: str
    by: str  # labels | clusters
    as_of: Micros
    interests: list[InterestRow]
    metrics: dict[str, Estimate] = {}


class PreferRequest(Noun, frozen=True):
    """Note what a person wants to see; without a wish the answer tells what holds."""

    user_id: Annotated[Id, Meta(description="the person", examples=["u1"], extra=POSITIONAL)] | None = None
    anonymous_id: Annotated[Id, Meta(description="the guest, instead of user_id")] | None = None
    explore: (
        Annotated[
            Literal["auto", "low", "off"],
            Meta(
                description="how much may be tried on this person: as the shop does, a quarter of it, nothing"
            ),
        ]
        | None
    ) = None
    reject: Annotated[
        list[Interest], Meta(max_length=100, description="interests to show nothing of any more")
    ] = []
    accept: Annotated[
        list[Interest], Meta(max_length=100, description="interests rejected earlier, back")
    ] = []
    accept_items: Annotated[
        list[Id], Meta(max_length=100, description="items turned down earlier, back")
    ] = []

    def check(self) -> None:
        """Refuse a request about nobody.

        Raises:
            InputError: Neither id is given.
        """
        if not self.user_id and not self.anonymous_id:
            raise InputError("whom is this about?", hint="give user_id or anonymous_id", path="$.user_id")


class Offered(Noun, frozen=True):
    """A new interest that a person was offered, and what became of it."""

    name: str
    outcomes: int  # offers that were seen and are decided
    rewards: int


class PlannedInterest(Noun, frozen=True):
    """An interest that will be offered next, and the held one that it follows from."""

    name: str
    chance: float
    because: str | None = None
    suggested: Annotated[bool, Meta(description="a language model named it, and its plans count")] = False


class SuggestedInterests(Noun, frozen=True):
    """What a language model would try on people who hold some interests, and what that counts."""

    model: str
    held: list[str]  # the interests that it was asked about
    interests: list[str]  # best first
    weight: Annotated[
        float, Meta(description="chances of the interests are multiplied by 1 + weight / place")
    ]
    ts: Micros  # when it was asked


class OwnInterests(Noun, frozen=True):
    """A person's place on the map of interests, and their wishes."""

    explore: Literal["auto", "low", "off"] = "auto"
    held: list[str] = []  # in the order they were taken up
    explored: list[Offered] = []
    rejected: list[str] = []
    rejected_items: list[str] = []
    planned: list[PlannedInterest] = []
    suggested: SuggestedInterests | None = None


class PlanRequest(Noun, frozen=True):
    """Let the shop's language model plan which new interests to try."""

    most: (
        Annotated[int, Meta(ge=1, description="questions to ask this time; none: as many as there are")]
        | None
    ) = None
    dry_run: Annotated[
        bool, Meta(description="ask nothing: tell how many questions wait, their cost, and what one says")
    ] = False


class PlanReport(Noun, frozen=True):
    """What was asked, what became of it, and how much the plans are to count."""

    model: str
    sets: Annotated[int, Meta(description="sets of interests that enough people hold, or held on their way")]
    people: Annotated[int, Meta(description="people who hold or held one of them")]
    asked: int
    planned: Annotated[int, Meta(description="sets that have a plan now")]
    waiting: Annotated[int, Meta(description="sets without a plan")]
    refused: Annotated[dict[str, int], Meta(description="answers that were of no use, by reason")] = {}
    dropped: Annotated[int, Meta(description="names in answers that were unknown, held or said before")] = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: Annotated[float, Meta(description="by the prices of the settings; of a dry run at most")] = 0.0
    weight: Annotated[
        float, Meta(description="chances of planned interests are multiplied by 1 + weight / place")
    ] = 0.0
    metrics: dict[str, Estimate] = {}  # of the next interest, with plans and without
    example: str | None = None  # the first question, word by word
    note: str | None = None
    seconds: float = 0.0


__all__ = [
    name
    for name, thing in list(globals().items())
    if isinstance(thing, type) and issubclass(thing, msgspec.Struct)
]
