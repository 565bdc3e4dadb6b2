"""Requests and responses of the operations. The same structs validate Python, CLI and REST input."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import Meta

from penchant.core import Estimate, Event, Id, Micros, Noun, Purpose, SeenRule, Slate, Target, subject_of
from penchant.core.errors import InputError
from penchant.engine._operation import POSITIONAL, InFile, OutFile
from penchant.privacy import Choice

if TYPE_CHECKING:
    from penchant.evaluation import Reliability

K = Annotated[int, Meta(ge=1, le=1000, description="how many items")]
Seed = Annotated[int, Meta(ge=0, lt=2**32, description="seed; same seed, same bits")]
ItemIds = list[Id]
Objective = Literal["interest", "value"]
_MOST_EVENTS = 10_000  # in one request


class PersonRequest(Noun, frozen=True):
    """What every request about one person says."""

    user_id: Annotated[Id, Meta(description="the person", examples=["u1"], extra=POSITIONAL)] | None = None
    anonymous_id: Annotated[Id, Meta(description="the guest, instead of user_id")] | None = None

    def check(self) -> None:
        """Refuse a request about nobody.

        Raises:
            InputError: Neither id is given.
        """
        if not self.user_id and not self.anonymous_id:
            raise InputError("whom is this about?", hint="give user_id or anonymous_id", path="$.user_id")

    @property
    def subject(self) -> str:
        """The person."""
        return subject_of(self.user_id, self.anonymous_id)


class InitRequest(Noun, frozen=True):
    """Make a folder into a shop."""

    name: Annotated[str, Meta(max_length=200, description="the shop's name")] | None = None
    currency: Annotated[
        str, Meta(pattern="^[A-Z]{3}$", description="currency of rows that name none (ISO 4217)")
    ] = "USD"


class InitReport(Noun, frozen=True):
    """Where the shop is and what it is called."""

    path: str
    name: str
    currency: str
    next: list[str]


class FilesRequest(Noun, frozen=True):
    """Read files into the shop."""

    files: Annotated[
        list[InFile],
        Meta(
            min_length=1,
            description="CSV, JSONL or Parquet, plain, .gz or .zst",
            examples=[["export.csv"]],
            extra=POSITIONAL,
        ),
    ]
    mapping: (
        Annotated[InFile, Meta(description="TOML file with [[mapping]] tables for unknown columns")] | None
    ) = None
    write_mapping: Annotated[
        bool,
        Meta(description="write the proposed mapping of unknown columns to shop.toml instead of refusing"),
    ] = False


class IngestRequest(FilesRequest, frozen=True):
    """Read event files or user tables into the shop."""


class CatalogRequest(FilesRequest, frozen=True):
    """Read catalogue files into the shop."""


class Refusal(Noun, frozen=True):
    """Rows set aside for one reason, with examples. ``broken``: they are damaged, not merely incomplete."""

    reason: str
    count: int
    examples: list[str] = []
    broken: bool = False


class FileReport(Noun, frozen=True):
    """What became of one file. rows = accepted + already_stored + refused + erased + withheld.

    ``withheld`` rows are of people who allow no purpose. ``erased`` rows are of erased people and were passed over.
    ``broken`` of the refused rows cannot be believed: they are damaged, or the file had rows and none of them could
    be used.
    """

    file: str
    what: str  # events | users | catalog
    dialect: str
    rows: int
    accepted: int
    already_stored: int = 0
    refused: int = 0
    erased: int = 0
    withheld: int = 0
    broken: int = 0
    refusals: list[Refusal] = []
    notes: list[str] = []
    quarantine: str | None = None
    seconds: float = 0.0


class IngestReport(Noun, frozen=True):
    """What became of the files. When ``broken`` is not 0 the command line ends with exit code 7."""

    files: list[FileReport]
    rows: int
    accepted: int
    refused: int
    erased: int = 0
    withheld: int = 0
    broken: int = 0


class DoctorRequest(Noun, frozen=True):
    """Examine the data at rest."""

    html: Annotated[OutFile, Meta(description="also write the report as HTML here")] | None = None


class ObserveRequest(Noun, frozen=True):
    """Tell the shop what just happened."""

    events: Annotated[
        list[Event],
        Meta(
            min_length=0,
            max_length=_MOST_EVENTS,
            description="events, oldest first; one that does not fit is refused alone",
            examples=[[{"kind": "view", "user_id": "u1", "item_id": "shoe-7"}]],
        ),
    ]


class ObservedRequest(ObserveRequest, frozen=True):
    """The same request before anybody looked at its events."""

    events: Annotated[list[Any], Meta(max_length=_MOST_EVENTS)]


class EventResult(Noun, frozen=True):
    """What became of one event."""

    event_id: str | None
    status: Literal["stored", "duplicate", "conflict", "erased", "refused", "withheld"]
    error: str | None = None

    @classmethod
    def of(cls, event_id: str | None, word: str) -> EventResult:
        """What the store's word about an event means to the sender."""
        errors = {
            "conflict": "another event has this event_id: send a new id",
            "erased": "this person was erased: their events are refused",
            "withheld": "this person allows no purpose: nothing is kept",
        }
        return msgspec.convert({"event_id": event_id, "status": word, "error": errors.get(word)}, cls)


class ObserveReport(Noun, frozen=True):
    """What became of the events, one result each, in order."""

    results: list[EventResult]
    stored: int


class TrainRequest(Noun, frozen=True):
    """Learn from everything stored, choose on a held-out time window, and promote the best."""

    models: Annotated[
        list[str], Meta(description="model kinds to try; empty means all that fit this shop")
    ] = []
    size: Annotated[str, Meta(description="size dial of the sequence model; auto chooses from the data")] = (
        "auto"
    )
    seed: Seed = 0
    device: Annotated[str, Meta(description="cpu, cuda or auto")] = "auto"
    seen: Annotated[
        SeenRule, Meta(description="may answers repeat items the person had? auto asks the data")
    ] = "auto"
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
    device: Annotated[str, Meta(description="cpu, cuda or auto")] = "auto"
    seen: Annotated[
        SeenRule, Meta(description="may answers repeat items the person had? auto asks the data")
    ] = "auto"
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


class RecommendRequest(Noun, frozen=True):
    """Ask for items for one person, or for many at once."""

    user_id: Annotated[Id, Meta(description="the person", examples=["u1"])] | None = None
    anonymous_id: Annotated[Id, Meta(description="the guest")] | None = None
    users: (
        Annotated[
            InFile,
            Meta(
                description="many people: a file with one user id a line, or the word all",
                extra={"file": "in", "words": ["all"]},
            ),
        ]
        | None
    ) = None
    k: K = 10
    allow: Annotated[ItemIds, Meta(description="only these items")] | None = None
    deny: Annotated[ItemIds, Meta(description="none of these items")] = []
    filters: Annotated[
        list[str], Meta(description="conditions on catalogue fields, all must hold, such as: price <= 2000")
    ] = []
    target: Annotated[
        Target | None,
        Meta(
            description="predict the next event of this kind, any = of whichever; none: as `shop.toml` says"
        ),
    ] = None
    objective: Annotated[
        Objective | None,
        Meta(
            description="interest ranks by what is most likely wanted, value by chance times price less cost; "
            "none: as `shop.toml` says"
        ),
    ] = None
    seen: Annotated[SeenRule, Meta(description="may answers repeat items the person had?")] = "auto"
    explore: Annotated[
        Literal["auto", "off"],
        Meta(description="auto: as shop.toml says; off: the best comes first for certain, its odds are 1"),
    ] = "auto"
    purpose: Annotated[
        Purpose, Meta(description="personalise uses the person's history; analytics answers without it")
    ] = "personalise"
    surface: Annotated[str, Meta(max_length=100, description="where the slate is shown")] = "default"
    seed: (
        Annotated[
            int, Meta(ge=0, lt=2**32, description="seed of the draw; none given: another one each time")
        ]
        | None
    ) = None
    now: (
        Annotated[
            dt.datetime, Meta(description="moment of the answer; none given: this one, none of a zone: UTC")
        ]
        | None
    ) = None
    out: Annotated[OutFile, Meta(description="Parquet file for the answers of many people")] | None = None


class BatchReport(Noun, frozen=True):
    """What a batch of recommendations wrote."""

    out: str
    users: int
    rows: int
    unknown_users: int
    model_id: str
    policy_id: str
    degraded: bool
    seconds: float


class SimilarRequest(Noun, frozen=True):
    """Ask for the companions of an item."""

    item_id: Annotated[Id, Meta(description="the item", examples=["shoe-7"], extra=POSITIONAL)]
    k: K = 10
    filters: Annotated[
        list[str], Meta(description="conditions on catalogue fields, all must hold, such as: price <= 2000")
    ] = []


class SimilarItem(Noun, frozen=True):
    """A companion and how strongly it goes with the item."""

    item_id: str
    score: float
    title: str | None = None


class SimilarReport(Noun, frozen=True):
    """The companions of an item, best first."""

    item_id: str
    items: list[SimilarItem]
    model_id: str
    degraded: bool = False
    note: str | None = None


class ProfileRequest(PersonRequest, frozen=True):
    """Ask what a person is interested in."""

    k: Annotated[int, Meta(ge=1, le=100, description="interests per horizon, and predicted tags")] = 8


class Evidence(Noun, frozen=True):
    """An event an interest rests on."""

    kind: str
    item_id: str
    title: str | None
    ts: Micros


class Interest(Noun, frozen=True):
    """One interest: a readable tag, its share of the attention, how unusual that is, and its evidence."""

    tag: str
    weight: Annotated[float, Meta(description="share of the person's weighted attention, 0 to 1")]
    lift: Annotated[float, Meta(description="that share divided by the shop's; above 1 is more than usual")]
    events: int
    evidence: list[Evidence] = []


class PredictedTag(Noun, frozen=True):
    """A tag the classifier gives the person, with its calibrated probability."""

    tag: str
    probability: float
    base_rate: float | None = None
    because: list[str] = []


class Profile(Noun, frozen=True):
    """What a person is interested in: now (last days), this month, and over the lifetime."""

    subject: str
    events: int
    first_ts: Micros | None
    last_ts: Micros | None
    now: list[Interest]
    month: list[Interest]
    lifetime: list[Interest]
    predicted: list[PredictedTag] = []
    note: str | None = None


class StatusRequest(Noun, frozen=True):
    """Ask how the shop stands."""


class ModelStatus(Noun, frozen=True):
    """One artifact on disk."""

    id: str
    kind: str
    as_of: Micros
    promoted: bool
    metrics: dict[str, Estimate] = {}
    failed: str | None = None  # why it was taken back when it was to serve


class Status(Noun, frozen=True):
    """How the shop stands."""

    path: str
    name: str
    version: str
    events: int
    journal_events: int
    items: int
    first_ts: Micros | None
    last_ts: Micros | None
    decisions: int
    bytes: int
    models: list[ModelStatus]
    serving: str | None
    degraded: bool
    note: str | None = None


class PromoteRequest(Noun, frozen=True):
    """Let a model serve."""

    artifact: Annotated[
        str,
        Meta(description="artifact id, or a unique beginning of it", examples=["3f9ac1"], extra=POSITIONAL),
    ]


class RollbackRequest(Noun, frozen=True):
    """Return to the model that served before."""


class PromotionReport(Noun, frozen=True):
    """Which model serves now and which did before."""

    promoted: str
    kind: str
    previous: str | None


class EraseRequest(PersonRequest, frozen=True):
    """Remove a person from everything."""


class ExportRequest(PersonRequest, frozen=True):
    """Give out everything kept about a person."""

    out: Annotated[OutFile, Meta(description="also write it as JSON here")] | None = None


class ExportReport(Noun, frozen=True):
    """Everything kept about a person."""

    subject: str
    events: list[dict[str, Any]]
    decisions: list[Slate]
    attributes: dict[str, Any]
    profile: Profile
    refused: list[dict[str, Any]] = []  # rows in the quarantine: source, row, reason, detail, raw
    consent: list[Choice] = []
    erased: bool = False


__all__ = [
    name
    for name, thing in list(globals().items())
    if isinstance(thing, type) and issubclass(thing, Noun) and thing.__module__ == __name__
]
