"""The nouns that travel as JSON: events, queries, slates, estimates, artifacts."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import Meta

from penchant.core._kinds import EventKind

Id = Annotated[str, Meta(min_length=1, max_length=512)]
Micros = Annotated[int, Meta(description="microseconds since 1970, UTC")]
SeenRule = Literal["auto", "exclude", "allow"]
Purpose = Literal["personalise", "analytics"]


class Noun(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all JSON nouns: frozen, strict, keyword-only."""


class Event(Noun, frozen=True):
    """Something a person did. Needs ``user_id`` or ``anonymous_id``.

    ``ts`` None means now. ``value`` is the money of the whole line in minor units (cents), or the stars
    of a review. ``event_id`` None means: derive it from the content, so that the same event sent twice
    counts once.

    Example:
        >>> Event(kind=EventKind.VIEW, user_id="u1", item_id="shoe-7").kind.code
        3
    """

    kind: EventKind
    event_id: Id | None = None
    ts: Micros | None = None
    user_id: Id | None = None
    anonymous_id: Id | None = None
    session_id: Id | None = None
    item_id: Id | None = None
    value: float | None = None
    quantity: float | None = None
    currency: Annotated[str, Meta(pattern="^[A-Z]{3}$")] | None = None
    query: Annotated[str, Meta(max_length=4096)] | None = None
    text: Annotated[str, Meta(max_length=65536)] | None = None
    recommendation_id: Id | None = None
    position: Annotated[int, Meta(ge=0, le=100_000)] | None = None
    consent: list[Purpose] | None = None
    props: dict[str, Any] | None = None


class Identified(Noun, frozen=True):
    """A guest who turned out to be somebody: from ``ts`` on it is known that the device is the user's.

    Every event with both ids says so too.
    """

    anonymous_id: Id
    user_id: Id
    ts: Micros


class Reason(Noun, frozen=True):
    """Why an item is in a slate: a short sentence and what it rests on."""

    text: str
    kind: str  # history | interest | popular | explored
    item_id: str | None = None  # the item of the person's own history it rests on
    weight: float | None = None
    interest: str | None = None  # new to the person, where the item was chosen to offer it


class SlateItem(Noun, frozen=True):
    """One slot of a slate."""

    item_id: str
    score: float
    odds: Annotated[float, Meta(gt=0, le=1, description="chance of this item here, given the slots above")]
    explored: bool
    reasons: list[Reason] = []
    title: str | None = None  # as the catalogue had it then
    pinned: bool = False  # a rule gave it the slot: nothing was drawn, its odds are 1
    probability: (
        Annotated[
            float,
            Meta(
                ge=0,
                le=1,
                description="chance that the person's next event turns to this item; null where the model has none",
            ),
        ]
        | None
    ) = None


class PackedCandidates(Noun, frozen=True):
    """A ``CandidateSet`` as the decision log keeps it: float32 numbers as bytes, little endian (base64 in JSON)."""

    item_ids: list[str]
    mean: bytes
    std: bytes
    score: bytes
    odds: bytes = b""
    seen: bytes = b""
    space: str = ""

    def unpack(self) -> CandidateSet:
        """The same with lists of numbers, seven digits each: more are not there in 32 bits."""
        return CandidateSet(
            item_ids=self.item_ids,
            mean=_digits(self.mean),
            std=_digits(self.std),
            score=_digits(self.score),
            odds=_digits(self.odds),
            seen=_digits(self.seen),
            space=self.space,
        )


def _digits(packed: bytes) -> list[float]:
    """The numbers with seven digits each; a start reads millions of them."""
    number_N = np.frombuffer(packed, "<f4").astype(np.float64)
    size_N = np.abs(number_N)
    plain_N = (size_N > 1e-12) & (size_N < 1e15)  # where powers of ten are exact
    # Digits before the point, then an integer of seven digits over a power of ten: rounded once, as text would be.
    before_N = np.floor(np.log10(np.where(plain_N, size_N, 1.0))).astype(np.int64) + 1
    up_N, down_N = 10.0 ** np.maximum(7 - before_N, 0), 10.0 ** np.maximum(before_N - 7, 0)
    found: list[float] = (np.rint(number_N * up_N / down_N) / up_N * down_N).tolist()
    for at in np.flatnonzero(~plain_N).tolist():
        found[at] = float(f"{number_N[at]:.7g}")
    return found


class CandidateSet(Noun, frozen=True):
    """What the policy chose from. The lists are parallel, in the order the policy saw them.

    Estimators of other policies need it: what else could have been shown, and how good it was held to be. With
    ``seed``, ``policy_hash`` and ``updates`` of the slate the draw can be made again.
    """

    item_ids: list[str]
    mean: list[float]  # what the policy held each for: the expected reward, or the model's score
    std: list[float] = []  # how unsure it was of each; empty: the policy does not say
    score: list[float] = []  # the model's score of each, which the policy began from; empty: it is the mean
    odds: list[float] = []  # chance of each to be first; empty: the best comes first for certain
    seen: list[float] = []  # what the policy saw of the person; empty: nothing beyond the scores
    space: str = ""  # what these numbers mean: those of another network or map cannot be compared


class Stage(Noun, frozen=True):
    """What one stage did on the way to an answer."""

    name: str  # score, offered, rule, candidates, expected, boosted, interests, rerank, draw
    says: str
    left: int  # items after it
    values: dict[str, float] = {}  # what it said of the items shown


class Slate(Noun, frozen=True):
    """An answer, and at the same time its row in the decision log.

    ``odds`` of the slots multiply to ``joint_odds``, the chance of this slate in this order.
    """

    recommendation_id: str
    ts: Micros
    subject: str
    items: list[SlateItem]
    policy_id: str
    model_id: str
    seed: int
    surface: str = "default"
    degraded: bool = False
    note: str | None = None  # why the answer is degraded or empty
    policy_hash: str = ""  # of the policy's settings: another setting, another hash
    updates: int = 0  # outcomes the policy had learned from by then
    explore: bool = False  # whether anything but the best could have come
    explore_reason: str = ""  # why it explored or did not: every refusal is named here
    joint_odds: float = 1.0
    num_candidates: int = 0
    candidates_hash: str = ""  # of the candidates' ids in their order
    candidates: CandidateSet | None = None  # in the decision log; answers leave it out

    cursor: str | None = None  # for the next page; not in the decision log
    stages: list[Stage] | None = None  # where the request asks to explain; not in the decision log

    @property
    def item_ids(self) -> list[str]:
        """The items, first slot first."""
        return [item.item_id for item in self.items]

    @property
    def odds(self) -> list[float]:
        """The odds of each slot given the slots above it."""
        return [item.odds for item in self.items]


class Estimate(Noun, frozen=True):
    """A number with its uncertainty; metrics, gaps and forecasts are never bare floats.

    Example:
        >>> str(Estimate(value=0.0852, low=0.0815, high=0.0889, n=22363, method="normal"))
        '0.0852 [0.0815, 0.0889]'
    """

    value: float
    low: float
    high: float
    n: int
    method: str
    level: float = 0.95

    def __post_init__(self) -> None:
        """Figures often come from numpy; JSON takes plain numbers only."""
        for name in ("value", "low", "high"):
            msgspec.structs.force_setattr(self, name, float(getattr(self, name)))

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"

    @property
    def signed(self) -> str:
        """As text with signs, for a difference."""
        return f"{self.value:+.4f} [{self.low:+.4f}, {self.high:+.4f}]"


class Artifact(Noun, frozen=True):
    """The manifest of something learned. ``id`` is the hash of everything else in it and of its files."""

    id: str
    kind: str  # the model plug-in that made it and can restore it
    config: dict[str, Any]
    as_of: Micros
    parents: list[str] = []
    metrics: dict[str, Estimate] = {}
    facts: dict[str, Any] = {}  # what serving must know: seen rule, sizes, blend weights, class names
    files: dict[str, str] = {}  # file name -> sha256
    code_version: str = ""
    fingerprint: str = ""  # of the snapshot it learned from


class ErasureReceipt(Noun, frozen=True):
    """What an erasure removed, store by store, and that a byte search found nothing left."""

    subject: str
    ts: Micros
    removed: dict[str, int]  # store -> rows, entries or files
    bytes_searched: int
    remaining: list[str] = []  # files that still hold the id: must be empty
