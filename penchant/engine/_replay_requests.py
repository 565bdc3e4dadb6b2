"""What ``replay`` takes and gives."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from msgspec import Meta

from penchant.core import Estimate, Noun
from penchant.core.errors import InputError
from penchant.engine._operation import InFile, OutFile
from penchant.engine._sight import LearnerKind
from penchant.evaluation import SupportGate


class ReplayRequest(Noun, frozen=True):
    """Ask what another policy would have earned."""

    policy: Annotated[
        str,
        Meta(
            description="greedy, uniform, epsilon:SHARE, softmax:TEMPERATURE, ucb:BONUS, thompson:SCALE, "
            "squarecb:SCALE or fastcb:SCALE, each with +FLOOR for a share spread evenly, by what was expected when the "
            "answer was logged; with LEARNER/ before it (hybrid, linear, neural_linear, bootstrap, diag_linucb) by "
            "what that learner would have expected; for a file also column:NAME, or any name beside --odds",
            examples=["softmax:0.1"],
        ),
    ]
    log: (
        Annotated[
            InFile,
            Meta(
                description="CSV or Parquet with item_id, reward and odds (also under Open Bandit's names), "
                "optionally position, user_id, logger; none given: the shop's own decision log"
            ),
        ]
        | None
    ) = None
    odds: (
        Annotated[
            InFile,
            Meta(
                description="the new policy as a CSV of item_id, odds and optionally position; for a file only"
            ),
        ]
        | None
    ) = None
    where: Annotated[
        list[str],
        Meta(description="conditions on the file's columns, all must hold, such as: campaign = men"),
    ] = []
    outcome: Annotated[
        Literal["click", "cart_add", "purchase"],
        Meta(description="what counts as success of a shown item (shop's own log)"),
    ] = "purchase"
    money: Annotated[
        bool, Meta(description="count the value of the outcome in minor units, not whether there was one")
    ] = False
    days: Annotated[
        float, Meta(gt=0, le=365, description="days an outcome may take; younger answers are left out")
    ] = 7.0
    by: Annotated[
        list[str], Meta(description="also by parts: surface or a user attribute; for a file any column")
    ] = []
    level: Annotated[float, Meta(gt=0.5, lt=1, description="of the intervals")] = 0.95
    seed: Annotated[int, Meta(ge=0, lt=2**32, description="seed of the folds")] = 0
    html: Annotated[OutFile, Meta(description="also write the report as HTML here")] | None = None

    def check(self) -> None:
        """Refuse what only a file can have, and what none can.

        Raises:
            InputError: Odds or conditions are given without a file, or a learner with one.
        """
        if self.log is None and (self.odds is not None or self.where):
            raise InputError(
                "odds and conditions go with a log file", hint="give --log FILE too", path="$.log"
            )
        if self.log is not None and self.odds is None and self.parted()[0] is not None:
            raise InputError(
                "a learner needs to see people and items, which a log file does not show",
                value=self.policy,
                hint="leave LEARNER/ away, or replay the shop's own log",
                path="$.policy",
            )

    def parted(self) -> tuple[LearnerKind | None, str]:
        """The learner that is named before the rule, if any, and the rule."""
        name, _, rule = self.policy.partition("/")
        known = next((kind for kind in get_args(LearnerKind) if kind == name and rule), None)
        return (known, rule) if known is not None else (None, self.policy)


class ReplayPart(Noun, frozen=True):
    """A part of the answers."""

    name: str
    answers: int
    value: Estimate
    logged: Estimate
    difference: Estimate
    verdict: str
    reason: str


class ReplayReport(Noun, frozen=True):
    """What a log says of a policy it was not made by."""

    policy: str
    log: str
    answers: int
    slots: int
    people: int | None  # None where the log does not say who was answered
    estimator: str
    value: Estimate
    logged: Estimate
    difference: Estimate
    estimates: dict[str, Estimate]
    gates: list[SupportGate]
    verdict: Literal["worth an A/B test", "not enough support", "worse"]
    reason: str
    parts: list[ReplayPart] = []
    notes: list[str] = []
    seconds: float = 0.0


__all__ = ["ReplayPart", "ReplayReport", "ReplayRequest"]
