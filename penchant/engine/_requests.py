"""Requests and responses of the operations. The same structs validate Python, CLI and REST input."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any, Literal, cast

from msgspec import Meta

from penchant.core import Estimate, Event, Id, Micros, Noun, Purpose, SeenRule, Slate, Target, subject_of
from penchant.core.errors import InputError
from penchant.engine._interest_requests import OwnInterests
from penchant.engine._json import check_number
from penchant.engine._operation import POSITIONAL, InFile, OutFile
from penchant.privacy import Choice

K = Annotated[int, Meta(ge=1, le=1000, description="how many items")]
DEFAULT_K = 10
Seed = Annotated[int, Meta(ge=0, lt=2**32, description="seed; same seed, same bits")]
ItemIds = list[Id]
Filters = Annotated[
    list[str], Meta(description="conditions on catalogue fields, all must hold, such as: price <= 2000")
]
Objective = Literal["interest", "value"]
ShelfName = Literal[
    "personal", "similar", "bought_together", "buy_again", "trending", "on_sale", "new", "complete_cart"
]
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

    events: list[Any]

    def check(self) -> None:
        """Refuse more events than one request may hold.

        Raises:
            TooLarge: There are more.
        """
        check_number(len(self.events), _MOST_EVENTS, "events")


EventStatus = Literal["stored", "duplicate", "conflict", "erased", "refused", "withheld"]
NOT_STORED = {  # why, for the sender
    "conflict": "another event has this event_id: send a new id",
    "erased": "this person was erased: their events are refused",
    "withheld": "this person allows no purpose: nothing is kept",
}


class EventResult(Noun, frozen=True):
    """What became of one event."""

    event_id: str | None
    status: EventStatus
    error: str | None = None

    @classmethod
    def of(cls, event_id: str | None, word: str) -> EventResult:
        """What the store's word about an event means to the sender."""
        return cls(event_id=event_id, status=cast("EventStatus", word), error=NOT_STORED.get(word))


class ObserveReport(Noun, frozen=True):
    """What became of the events, one result each, in order."""

    results: list[EventResult]
    stored: int


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
    scenario: (
        Annotated[str, Meta(max_length=100, description="a scenario of `shop.toml`, which says all the rest")]
        | None
    ) = None
    k: Annotated[K, Meta(description="how many items; none: as the scenario says, else 10")] | None = None
    shelf: Annotated[ShelfName, Meta(description="which row of items is asked for")] = "personal"
    items: Annotated[
        ItemIds,
        Meta(max_length=100, description="what the shelf is about: the product of the page, the cart"),
    ] = []
    allow: Annotated[ItemIds, Meta(description="only these items")] | None = None
    deny: Annotated[ItemIds, Meta(description="none of these items")] = []
    filters: Filters = []
    rules: Annotated[
        list[str], Meta(description="rules of this answer, such as: boost 1.5 when brand = National")
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
    mmr: Annotated[float, Meta(ge=0, le=1, description="diversity by marginal relevance")] | None = None
    dpp: Annotated[float, Meta(ge=0, le=1, description="diversity by determinants")] | None = None
    calibration: (
        Annotated[float, Meta(ge=0, le=1, description="interests in the person's own proportions")] | None
    ) = None
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
    cursor: (
        Annotated[str, Meta(max_length=16_000, description="of the answer before: goes on without repeats")]
        | None
    ) = None
    explain: Annotated[bool, Meta(description="tell what each stage did: `stages` in the answer")] = False
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


class StockItem(Noun, frozen=True):
    """What changed of one item; what is left out stays. Money in minor units."""

    item_id: Id
    availability: Literal["in_stock", "out_of_stock", "preorder", "backorder"] | None = None
    available_quantity: (
        Annotated[
            float, Meta(ge=0, le=1e12, description="0 means out of stock, unless availability says else")
        ]
        | None
    ) = None
    price: Annotated[float, Meta(ge=0, le=1e13)] | None = None
    cost: Annotated[float, Meta(ge=0, le=1e13)] | None = None


class StockRequest(Noun, frozen=True):
    """Say what changed in the stock."""

    items: Annotated[
        list[StockItem],
        Meta(
            min_length=1,
            max_length=_MOST_EVENTS,
            description="items and what changed of them",
            examples=[[{"item_id": "shoe-7", "available_quantity": 0}]],
        ),
    ]


class StockReport(Noun, frozen=True):
    """What became of it."""

    changed: int
    unknown: list[str]  # items that the catalogue does not have: read them with `catalog` first


class SimilarRequest(Noun, frozen=True):
    """Ask for the companions of an item."""

    item_id: Annotated[Id, Meta(description="the item", examples=["shoe-7"], extra=POSITIONAL)]
    k: K = 10
    filters: Filters = []


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
    recommendation_id: str | None = (
        None  # for events that came from it; none where the shop is open to read alone
    )
    degraded: bool = False
    note: str | None = None


class SearchRequest(Noun, frozen=True):
    """Search the catalogue."""

    query: Annotated[
        str,
        Meta(
            description="what is looked for, at most 200 characters", examples=["green tea"], extra=POSITIONAL
        ),
    ]
    user_id: Annotated[Id, Meta(description="the person", examples=["u1"])] | None = None
    anonymous_id: Annotated[Id, Meta(description="the guest")] | None = None
    scenario: (
        Annotated[
            str, Meta(max_length=100, description="a scenario of `shop.toml`: its k, filters and rules")
        ]
        | None
    ) = None
    k: Annotated[K, Meta(description="how many items; none: as the scenario says, else 10")] | None = None
    filters: Filters = []
    personal: Annotated[
        float, Meta(ge=0, le=10, description="weight of the person's interests beside the text's 1; 0: none")
    ] = 0.3
    semantic: Annotated[
        Literal["auto", "on", "off"],
        Meta(description="also by meaning: auto where an encoder without torch is installed, on with any"),
    ] = "auto"


class SearchItem(Noun, frozen=True):
    """An item that was found: its score, and what it is made of."""

    item_id: str
    score: float
    text: Annotated[float, Meta(description="how well its text fits, 1 is the best of the catalogue")]
    interest: Annotated[float, Meta(description="how it stands for this person among those found, 0 to 1")]
    title: str | None = None


class SearchReport(Noun, frozen=True):
    """What was found, best first."""

    query: str
    items: list[SearchItem]
    found: int  # by their texts, at most 200
    corrected: str | None  # what was searched for, where the catalogue lacks a word
    model_id: str
    recommendation_id: str | None = (
        None  # for events that came from it; none where the shop is open to read alone
    )
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
    interests: OwnInterests | None = None  # where a map of interests is trained
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
    letters: list[dict[str, Any]] = []  # live events kept aside: number, ts, reason, event
    erased: bool = False


__all__ = [
    name
    for name, thing in list(globals().items())
    if isinstance(thing, type) and issubclass(thing, Noun) and thing.__module__ == __name__
]
