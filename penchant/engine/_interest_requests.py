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


class OwnInterests(Noun, frozen=True):
    """A person's place on the map of interests, and their wishes."""

    explore: Literal["auto", "low", "off"] = "auto"
    held: list[str] = []  # in the order they were taken up
    explored: list[Offered] = []
    rejected: list[str] = []
    rejected_items: list[str] = []
    planned: list[PlannedInterest] = []


__all__ = [
    name
    for name, thing in list(globals().items())
    if isinstance(thing, type) and issubclass(thing, msgspec.Struct)
]
