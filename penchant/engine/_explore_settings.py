"""How a shop explores: the ``[explore]`` table of ``shop.toml``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

from msgspec import Meta

from penchant.core import Noun
from penchant.engine._sight import LearnerKind
from penchant.policy import Best, FastCB, Rule, Softmax, SquareCB, Thompson

Method = Literal["greedy", "ucb", "thompson", "softmax", "squarecb", "fastcb"]


class ExploreSettings(Noun, frozen=True):
    """How the shop explores: the ``[explore]`` table. The defaults won the experiments in the lab log."""

    on: Annotated[bool, Meta(description="false is the kill switch: the best comes first for certain")] = True
    method: Annotated[Method, Meta(description="how expectations become chances")] = "ucb"
    floor: Annotated[
        float, Meta(ge=0, le=1, description="share of slots spread evenly, so that every candidate can come")
    ] = 0.02
    fresh_share: Annotated[
        float, Meta(ge=0, le=1, description="share of slots kept for items without history")
    ] = 0.09
    fresh_until: Annotated[int, Meta(ge=1, description="outcomes after which an item is fresh no longer")] = (
        60
    )
    learner: Annotated[
        LearnerKind,
        Meta(
            description="who learns what is expected: hybrid of items, people and labels, linear of shared features; "
            "neural_linear and bootstrap also of the network's last layer, by a posterior or by heads; diag_linucb is "
            "hybrid, and clusters of people for items without history"
        ),
    ] = "hybrid"
    scale: (
        Annotated[
            float,
            Meta(
                gt=0,
                description="bonus of ucb (2), width of thompson (1), temperature of softmax (.05), gamma of squarecb "
                "(100), fastcb (10); none given: the number in brackets",
            ),
        ]
        | None
    ) = None
    wait_minutes: Annotated[
        int, Meta(ge=1, description="an impression without an outcome by then is a no")
    ] = 60
    attention: Annotated[
        Literal["slots", "cascade"],
        Meta(
            description="how people look at an answer: each slot so often, whatever becomes of the others, or from the "
            "top down and perhaps no further after a reward"
        ),
    ] = "slots"
    per_day: (
        Annotated[int, Meta(ge=0, description="answers a person and day that may explore; none given: all")]
        | None
    ) = None
    categories: (
        Annotated[
            list[str],
            Meta(
                description="categories that may be explored, such as Grocery > Bread; others come only as the best"
            ),
        ]
        | None
    ) = None
    max_loss: (
        Annotated[
            float,
            Meta(
                ge=0,
                le=1,
                description="share of expected rewards that exploring may cost in all, by pessimistic expectations",
            ),
        ]
        | None
    ) = None
    half_life_days: (
        Annotated[float, Meta(gt=0, description="days after which half of what was learned has faded")] | None
    ) = None

    retrieval: Annotated[
        Literal["score", "bound"],
        Meta(
            description="by what items become candidates: the model's score, or what they could be worth at best, "
            "so that items little known come in"
        ),
    ] = "score"
    change_every: (
        Annotated[
            int,
            Meta(
                ge=10,
                description="test items for change; an unchanged one is called changed, and what its outcomes said "
                "forgotten, once in so many of its outcomes on average; none given: no test",
            ),
        ]
        | None
    ) = None

    def __post_init__(self) -> None:
        """Refuse what does not go together: a learner without items has none to test."""
        if self.change_every is not None and self.learner == "linear":
            raise ValueError(
                "change_every tests items, of which the learner linear knows nothing by themselves"
            )

    def rule(self) -> Rule:
        """The method with its scale."""
        made: dict[Method, tuple[Callable[[float], Rule], float]] = {
            "greedy": (lambda _: Best(), 0.0),
            "ucb": (Best, 2.0),
            "thompson": (Thompson, 1.0),
            "softmax": (Softmax, 0.05),
            "squarecb": (SquareCB, 100.0),
            "fastcb": (FastCB, 10.0),
        }
        rule, usual = made[self.method]
        return rule(usual if self.scale is None else self.scale)
