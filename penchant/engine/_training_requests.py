"""Requests and responses of training and measuring models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import Meta

from penchant.core import Estimate, Noun, SeenRule, Target
from penchant.core.errors import InputError
from penchant.engine._operation import OutFile
from penchant.engine._requests import Seed

if TYPE_CHECKING:
    from penchant.evaluation import Reliability

Device = Annotated[str, Meta(description="cpu, cuda or auto")]
SeenAsked = Annotated[
    SeenRule, Meta(description="may answers repeat items the person had? auto asks the data")
]


class TrainRequest(Noun, frozen=True):
    """Learn from everything stored, choose on a held-out time window, and promote the best."""

    models: Annotated[
        list[str], Meta(description="model kinds to try; empty means all that fit this shop")
    ] = []
    size: Annotated[str, Meta(description="size dial of the sequence model; auto chooses from the data")] = (
        "auto"
    )
    seed: Seed = 0
    device: Device = "auto"
    seen: SeenAsked = "auto"
    promote: Annotated[
        bool, Meta(description="let the best model serve at once, unless the newest events call it worse")
    ] = True
    update: Annotated[
        bool, Meta(description="let the serving model learn on from what is new, instead of beginning anew")
    ] = False

    def check(self) -> None:
        """Refuse what an update does not choose.

        Raises:
            InputError: ``update`` stands beside model kinds, a size or a rule.
        """
        if self.update and (self.models or self.size != "auto" or self.seen != "auto"):
            raise InputError(
                "an update goes on with the model that serves, as it is",
                hint="leave out models, size and seen, or train anew without update",
                path="$.update",
            )


class CalibrationLevel(Noun, frozen=True):
    """Items that were given about one probability, and the share of them that came true."""

    about: float
    said: float  # on average
    came: Estimate
    count: int


class CalibrationReport(Noun, frozen=True):
    """Whether probabilities come true, on people who took no part in finding them."""

    ece: Estimate  # expected calibration error of the likeliest item
    log_loss: Estimate  # of the next item, in nats
    levels: list[CalibrationLevel]

    @classmethod
    def of(cls, found: Reliability | None) -> CalibrationReport | None:
        """What was measured, as a response."""
        if found is None:
            return None
        levels = [CalibrationLevel(**msgspec.structs.asdict(level)) for level in found.levels]
        return cls(ece=found.ece, log_loss=found.log_loss, levels=levels)


class MetricRow(Noun, frozen=True):
    """One model on the leaderboard."""

    model: str
    metrics: dict[str, Estimate]
    seconds: float
    note: str | None = None
    difference: dict[str, Estimate] = {}  # against counted transitions, paired by user
    by_group: dict[str, dict[str, Estimate]] = {}
    by_length: dict[str, dict[str, Estimate]] = {}
    baskets: dict[str, Estimate] = {}  # on each person's next basket, where people buy baskets
    baskets_difference: dict[str, Estimate] = {}  # against the frequency of the own history, paired by user
    by_popularity: dict[str, dict[str, Estimate]] = {}  # of targets that so many people had turned to before
    calibration: CalibrationReport | None = None


class LeaderboardReport(Noun, frozen=True):
    """Models side by side under one protocol."""

    protocol: str
    users: int
    items: int
    seen: SeenRule
    rows: list[MetricRow]
    verdict: str
    by: list[str] = []  # the user attributes that were asked for
    baskets: str | None = None  # what the figures on baskets are measured on; None where there are no baskets


class TagReport(Noun, frozen=True):
    """How well the interest tags are known, beside the base rate."""

    labels: str  # where the labels come from
    classes: list[str]
    metrics: dict[str, Estimate]
    base_rate: dict[str, Estimate]  # with several tags a person it says what is best for F1: every tag
    users: int
    note: str | None = None  # why the tags are not used, where they know no more than the base rate
    base_rate_from_half: dict[str, Estimate] = {}  # the same, but a tag is said from one half: best accuracy


class Gate(Noun, frozen=True):
    """How a new model compares with the one that served, on people and events that neither learned from."""

    against: str
    says: str
    difference: Estimate | None = None  # new minus old, paired by person; None where they cannot be compared
    refused: bool = False


class TrainReport(Noun, frozen=True):
    """What was learned and what serves now."""

    leaderboard: LeaderboardReport | None  # None after an update
    tags: TagReport | None
    artifacts: dict[str, str]  # model kind -> artifact id
    promoted: str | None
    promoted_kind: str | None
    gate: Gate | None = None  # None where no model served
    notes: list[str] = []
    seconds: float = 0.0


class TuneRequest(Noun, frozen=True):
    """Search the settings of the sequence model on the people who choose."""

    minutes: Annotated[float, Meta(gt=0, le=10_080, description="how long to search in this call")] = 30.0
    trials: (
        Annotated[int, Meta(ge=1, description="stop after so many trials, those of earlier calls counted")]
        | None
    ) = None
    size: Annotated[str, Meta(description="size dial to start from; auto chooses from the data")] = "auto"
    seed: Seed = 0
    device: Device = "auto"
    seen: SeenAsked = "auto"
    apply: Annotated[
        bool, Meta(description="write the settings found to shop.toml, for every later training")
    ] = False


class TuneTrial(Noun, frozen=True):
    """Settings that were tried. Of a trial that was given up, validation is that of its best epoch."""

    number: int
    state: Literal["finished", "given up", "failed"]
    validation: float | None
    settings: dict[str, Any]
    epochs: int
    seconds: float
    present: bool = False  # the settings as they were


class TuneReport(Noun, frozen=True):
    """What a search for settings found: on the people who chose, and on others who had no say."""

    protocol: str
    measure: str
    present: dict[str, Estimate]  # the settings as they were: validation, held_out
    best: dict[str, Estimate]
    difference: dict[str, Estimate]  # best minus present, paired by person; {} where nothing better was found
    settings: dict[str, Any]  # what differs from the settings as they were
    toml: str  # the same for shop.toml
    applied: bool
    trials: list[TuneTrial]
    importance: dict[str, float] = {}  # share of the spread of validation that each setting explains
    verdict: str = ""
    seconds: float = 0.0


class RecountRequest(Noun, frozen=True):
    """Bring the promoted model's counts up to date without training."""


class RecountReport(Noun, frozen=True):
    """What serves after a recount."""

    promoted: str
    previous: str  # what it was counted from
    kind: str
    as_of: int
    events: int
    seconds: float


class SizesRequest(Noun, frozen=True):
    """Ask what every size of the sequence model costs to train."""

    items: (
        Annotated[int, Meta(ge=1, description="size of the catalogue; the shop's own when left out")] | None
    ) = None
    targets: (
        Annotated[int, Meta(ge=1, description="events learned from in an epoch; those stored when left out")]
        | None
    ) = None


class SizeRow(Noun, frozen=True):
    """One word on the dial: what it sets, and what follows. Memory in millions of bytes, all of it float32."""

    size: str
    width: int
    depth: int  # blocks
    heads: int
    feedforward: int  # hidden units of a block's gated layer
    length: int  # events looked back on
    batch: int  # targets in one step
    learning_rate: float
    horizon: int  # targets seen in all, at most
    parameters: int
    weights_mb: float
    gradients_mb: float
    optimiser_mb: float  # AdamW's two moments
    averages_mb: float  # the running average and the best one
    activations_mb: float  # of one step, histories of full length
    training_mb: float  # all of the above
    mflop_per_target: float  # millions of operations, forward and backward
    tflop_per_epoch: float


class SizesReport(Noun, frozen=True):
    """Every size of the sequence model, computed from its settings for so many items and events."""

    items: int
    targets: int
    rows: list[SizeRow]


class EvaluateRequest(Noun, frozen=True):
    """Measure on the newest time window, on people who took no part in any choice."""

    models: Annotated[
        list[str],
        Meta(description="model kinds; empty means: evaluate takes the promoted one, compare takes all"),
    ] = []
    share: Annotated[
        float, Meta(gt=0, lt=0.9, description="share of the target events in the test window")
    ] = 0.1
    target: Annotated[
        Target | None, Meta(description="ask what people do next of this kind; none: as `shop.toml` says")
    ] = None
    by: Annotated[list[str], Meta(description="user attributes to report by")] = []
    seen: Annotated[
        SeenRule, Meta(description="may answers repeat items the person had? auto: as it was trained")
    ] = "auto"
    seed: Seed = 0
    html: Annotated[OutFile, Meta(description="also write the report as HTML here")] | None = None


class CompareRequest(EvaluateRequest, frozen=True):
    """Measure several models side by side, with paired differences."""


__all__ = [
    name
    for name, thing in list(globals().items())
    if isinstance(thing, type) and issubclass(thing, Noun) and thing.__module__ == __name__
]
