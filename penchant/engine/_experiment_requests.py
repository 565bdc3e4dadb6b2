"""What the operations on experiments take and give, and what is kept of an experiment."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from penchant.core import Estimate, Id, Micros, Noun
from penchant.core.errors import InputError
from penchant.engine._operation import POSITIONAL, OutFile
from penchant.engine._requests import PersonRequest

Name = Annotated[
    str,
    Meta(
        pattern="^[a-z0-9][a-z0-9_-]{0,63}$",
        description="name of the experiment: small letters, digits, - and _",
        examples=["new-slate"],
        extra=POSITIONAL,
    ),
]


class StartExperimentRequest(Noun, frozen=True):
    """Begin an experiment; from now on everybody has an arm."""

    name: Name
    arms: Annotated[
        list[Id], Meta(min_length=2, max_length=10, description="the first one is the control")
    ] = msgspec.field(default_factory=lambda: ["control", "treatment"])
    shares: Annotated[list[float], Meta(description="of the arms, summing to 1; none given: all alike")] = []
    metric: Annotated[
        str, Meta(description="what decides, per person: EVENT:any, EVENT:count or EVENT:value")
    ] = "purchase:any"
    guardrails: Annotated[
        list[str],
        Meta(
            description="what must not get worse, relative to the control: refund:count <= 10%, purchase:value >= -5%"
        ),
    ] = []
    days: Annotated[
        float,
        Meta(
            gt=0, le=365, description="days after a person's entry that count; each person counts once over"
        ),
    ] = 7.0
    exposed: Annotated[
        Literal["slate", "event"],
        Meta(description="who takes part: whoever got a recommendation, or whoever did anything"),
    ] = "slate"
    divert: Annotated[
        Literal["user", "user+item"],
        Meta(
            description="user+item: items have arms too, and people see those of their own: for exploration itself"
        ),
    ] = "user"
    monitor: Annotated[
        Literal["always", "planned"],
        Meta(
            description="always: look whenever you like, without an end; planned: narrower, until the planned people"
        ),
    ] = "planned"
    people: (
        Annotated[
            int, Meta(ge=20, description="people in all arms together; none given: from effect and the past")
        ]
        | None
    ) = None
    effect: Annotated[
        float, Meta(gt=0, le=10, description="smallest relative effect worth finding, for the planned people")
    ] = 0.05
    before: Annotated[
        float,
        Meta(
            ge=0, le=365, description="days before the start that the outcome is adjusted by (CUPED); 0: not"
        ),
    ] = 28.0
    level: Annotated[float, Meta(gt=0.5, lt=1, description="of the intervals")] = 0.95

    def check(self) -> None:
        """Refuse arms that cannot be.

        Raises:
            InputError: Names repeat, or the shares are not one an arm and 1 together.
        """
        if len(set(self.arms)) < len(self.arms):
            raise InputError("arms need different names", value=self.arms, path="$.arms")
        if self.shares and (
            len(self.shares) != len(self.arms) or not math.isclose(sum(self.shares), 1.0, abs_tol=1e-6)
        ):
            raise InputError("give one share an arm, 1 together", value=self.shares, path="$.shares")
        if any(not 0 < share < 1 for share in self.shares):
            raise InputError("shares lie between 0 and 1", value=self.shares, path="$.shares")


class Look(Noun, frozen=True):
    """A planned look: when, and at which share of the planned people."""

    ts: Micros
    fraction: float


class Experiment(Noun, frozen=True):
    """An experiment as it is kept: no word about any person, since a hash tells everybody's arm."""

    name: str
    salt: str
    arms: list[str]
    shares: list[float]
    metric: str
    guardrails: list[str]
    days: float
    exposed: Literal["slate", "event"]
    divert: Literal["user", "user+item"]
    monitor: Literal["always", "planned"]
    people: int
    before: float
    level: float
    start_ts: Micros
    looks: list[Look] = []
    stop_ts: Micros | None = None
    stopped: str | None = None  # why


class AssignRequest(PersonRequest, frozen=True, kw_only=True):
    """Ask which arm somebody is in."""

    experiment: Annotated[str, Meta(description="name of the experiment", examples=["new-slate"])]
    items: Annotated[
        list[Id],
        Meta(max_length=100_000, description="where items have arms: those among these of the person's own"),
    ] = []


class Assignment(Noun, frozen=True):
    """The arm of somebody; the control once the experiment is over."""

    experiment: str
    subject: str
    arm: str
    running: bool
    items: list[str] = []


class ReportExperimentRequest(Noun, frozen=True):
    """Look at an experiment."""

    name: Name
    html: Annotated[OutFile, Meta(description="also write the report as HTML here")] | None = None


class StopExperimentRequest(Noun, frozen=True):
    """End an experiment."""

    name: Name
    why: Annotated[str, Meta(max_length=1000, description="for the record")] = "by hand"


class ArmReport(Noun, frozen=True):
    """One arm: who is in it, and what a person does on average."""

    arm: str
    entered: int  # people who took part so far
    people: int  # of them, those whose days are over: they count
    mean: Estimate | None  # of the metric, as if this were the only look; None with fewer than two people
    items: int | None = None  # where items have arms
    discovered: int | None = None  # of them, those with three or more successes with the arm's own people


class ArmDifference(Noun, frozen=True):
    """An arm against the control, by an interval that holds at this look and all others."""

    arm: str
    metric: str
    difference: Estimate
    relative: Estimate | None
    variance_cut: float  # share of the variance that the time before explained
    verdict: Literal["better", "worse", "open"]


class GuardrailReport(Noun, frozen=True):
    """A guardrail: broken when the whole interval lies beyond the limit."""

    guardrail: str
    arm: str
    relative: Estimate | None
    broken: bool


class ExperimentReport(Noun, frozen=True):
    """How an experiment stands."""

    name: str
    status: Literal["running", "stopped"]
    verdict: Literal[
        "ship", "keep the control", "keep running", "no difference found", "cannot be read", "stopped"
    ]
    says: str
    metric: str
    arms: list[ArmReport]
    differences: list[ArmDifference]
    guardrails: list[GuardrailReport]
    sample_ratio: float  # p value that the arms have the sizes they should have
    planned: int
    fraction: float  # of the planned people
    monitor: str
    start_ts: Micros
    stop_ts: Micros | None = None
    notes: list[str] = []


__all__ = [
    "ArmDifference",
    "ArmReport",
    "AssignRequest",
    "Assignment",
    "Experiment",
    "ExperimentReport",
    "GuardrailReport",
    "Look",
    "ReportExperimentRequest",
    "StartExperimentRequest",
    "StopExperimentRequest",
]
