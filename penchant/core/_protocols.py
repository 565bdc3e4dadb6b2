"""The seams: what a lower room needs from a higher one, and what plug-ins promise.

Entry-point groups: ``penchant.models`` (classes fulfilling ``Model``), ``penchant.encoders`` (``Encoder``),
``penchant.stores`` (``Store``), ``penchant.policies`` (``Policy``). Our own register the same way.
``penchant.testing`` ships the conformance suite of each.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, Self, runtime_checkable

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penchant.core._arrays import (
    HISTORY_EVENTS,
    Bools,
    Candidates,
    Floats,
    History,
    Ints,
    Query,
    SequenceBatch,
    Snapshot,
)
from penchant.core._kinds import Target
from penchant.core._types import ErasureReceipt, Estimate, Event, Identified, PackedCandidates, Slate

Progress = Callable[[str, int, int | None, Mapping[str, float]], None]
"""Called with (what is being done, units done, units in all or None, figures such as loss)."""


def no_progress(task: str, done: int, total: int | None, figures: Mapping[str, float]) -> None:
    """A ``Progress`` that says nothing."""


@dataclass(frozen=True)
class Run:
    """The facts of one training run that are not part of a model's configuration.

    ``checkpoints``: a folder for resumable state, None to keep none. ``validate`` scores a scorer on held
    out users, higher is better; None when there is nothing to validate on. One that is a ``PairedValidation`` can
    also tell a gain from noise. It asks about events of the kind ``target``; ``others`` ask the same people about
    others, so that one model can settle how it answers each.
    """

    seed: int = 0
    device: str = "cpu"
    checkpoints: Path | None = None
    validate: Callable[[Scorer], float] | None = None
    target: Target = "any"
    others: Mapping[Target, Callable[[Scorer], float]] = field(default_factory=dict)
    progress: Progress = no_progress

    @property
    def validations(self) -> dict[Target, Callable[[Scorer], float]]:
        """Whatever can be validated, by what is asked; empty where nothing can."""
        return {} if self.validate is None else {self.target: self.validate, **self.others}


def leads() -> bool:
    """Whether this process may write and speak: it is alone, or the first of those that ``torchrun`` started."""
    return os.environ.get("RANK", "0") == "0"


@runtime_checkable
class PairedValidation(Protocol):
    """A ``Run.validate`` that knows how sure it is: it asks two scorers about the same held-out users."""

    def __call__(self, scorer: Scorer) -> float:
        """One figure, higher is better."""
        ...

    def gain(self, scorer: Scorer, than: Scorer, level: float) -> Estimate:
        """What the first reaches more than the second, paired by user, with an interval of that level."""
        ...


@runtime_checkable
class Scorer(Protocol):
    """Something fitted that ranks items for people. Works on arrays alone, needs no store, is immutable."""

    @property
    def config(self) -> Any:
        """The configuration it was fitted with, a ``msgspec.Struct``."""
        ...

    def scores(self, batch: SequenceBatch) -> Floats:
        """Score every item for every row: (B, N + 1) float32, higher is better, column 0 is -inf."""
        ...

    def related(self, items_Q: Ints) -> Floats:
        """Score every item as a companion of each given item: (Q, N + 1) float32, column 0 is -inf."""
        ...

    def affinity(self, history_T: Ints, items_K: Ints) -> Floats:
        """Say how much each history item speaks for each answer item: (T, K) float32, 0 = nothing."""
        ...


@runtime_checkable
class Model(Scorer, Protocol):
    """A fitted scorer that can be stored as arrays and restored. One class a file, registered by name."""

    Config: ClassVar[type[msgspec.Struct]]

    def arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """All that was learned, as named arrays: with ``config`` enough to ``restore``."""
        ...

    @classmethod
    def restore(cls, config: Any, arrays: Mapping[str, np.ndarray[Any, Any]]) -> Self:
        """Rebuild from ``arrays()``; must not need torch."""
        ...


@runtime_checkable
class CountedModel(Model, Protocol):
    """A model that fits itself, by counting or in closed form; neural ones go through the training loop."""

    @classmethod
    def fit(cls, snapshot: Snapshot, config: Any, run: Run) -> Self:
        """Learn from a snapshot. Same snapshot, config and seed give the same bits."""
        ...


Modality = Literal["text", "image"]


class Encoder(Protocol):
    """Reads what a catalogue says or shows of an item: a text, or the bytes of a picture, becomes a vector.

    Making one is cheap; its weights are loaded when it first reads. It never downloads anything.
    """

    name: ClassVar[str]
    modality: ClassVar[Modality]
    width: ClassVar[int]  # D

    @property
    def id(self) -> str:
        """A hash of its weights and of how they are used: vectors of equal ids may be compared, and kept."""
        ...

    def encode(self, contents: Sequence[Any]) -> npt.NDArray[np.float32]:
        """Unit vectors of some contents, (n, D) float32; a row of zeros for one that it cannot read.

        Args:
            contents: Of its modality: ``str`` for text, ``bytes`` for pictures.
        """
        ...


@runtime_checkable
class VectorIndex(Protocol):
    """Finds items by their vectors. Items are numbered from 1; row 0 of the vectors is none.

    An item leaves by being allowed no longer: filters, stock and deletion are one mask.
    """

    kind: str
    """``exact``, or the name of the approximation."""

    def search(
        self, query_RD: Floats, k: int, allowed_N: Bools
    ) -> tuple[np.ndarray[Any, np.dtype[np.int64]], np.ndarray[Any, np.dtype[np.float32]]]:
        """The k allowed items with the highest score, in item order, and their exact scores: (K,), (K,).

        The score is the best dot product with the R rows of ``query_RD``, plus the bias of the item where the index
        was built with one. Never an item that is not allowed; fewer
        than k only where fewer are allowed. An approximate index may miss some of the best, as measured when it was
        built. Ties are cut in item order.
        """
        ...

    def extended(
        self,
        vec_AD: np.ndarray[Any, np.dtype[np.float32]],
        bias_A: np.ndarray[Any, np.dtype[np.float32]] | None = None,
    ) -> Self:
        """An index with items added at the end; they are numbered on from the last.

        Their bias is 0 unless it is given, which only an index that was built with one can take.
        """
        ...


@runtime_checkable
class Searcher(Protocol):
    """A scorer that finds one person's best items without a score for each item of the catalogue."""

    def best(
        self, batch: SequenceBatch, allowed_N: Bools, limit: int
    ) -> tuple[np.ndarray[Any, np.dtype[np.int64]], np.ndarray[Any, np.dtype[np.float32]]]:
        """The ``limit`` best allowed items of a batch of one row, in item order, and their scores."""
        ...


class Policy(Protocol):
    """Turns candidates into a slate with honest odds, and learns from outcomes."""

    id: str

    def choose(self, candidates: Candidates, query: Query, rng: np.random.Generator) -> Choice:
        """Pick ``query.k`` items (fewer when there are fewer candidates)."""
        ...

    def odds(self, candidates: Candidates, chosen_K: Ints) -> Floats:
        """Chance of each chosen item in its slot given the slots above: (K,) in (0, 1]."""
        ...

    def update(self, slate: Slate, outcome: Mapping[str, float]) -> None:
        """Learn from what became of a slate: item id -> reward."""
        ...


@dataclass(frozen=True, eq=False)
class Choice:
    """What a policy picked: positions into the candidates, their odds, and whether each was explored.

    ``first_N`` is the chance of every candidate to come first; None where the best comes for certain.
    """

    index_K: Ints
    odds_K: Floats
    explored_K: np.ndarray[Any, np.dtype[np.bool_]]
    first_N: Floats | None = None


@dataclass(frozen=True, eq=False)
class LoadReport:
    """What a bulk load did: rows in = accepted + already_stored + refused.num_rows + erased."""

    accepted: int
    already_stored: int  # same event id, same content, stored before this load: nothing to do
    refused: pa.Table  # EVENT_SCHEMA columns + source, row, reason, detail: duplicates and conflicts
    erased: int  # events of erased people, dropped by their tombstone
    late: int  # accepted, but more than a day older than the newest event stored before
    version: int  # of the event table after the load


@dataclass(frozen=True)
class StoreStatus:
    """Counts and sizes of what is at rest."""

    events: int
    journal_events: int
    subjects: int | None
    items: int
    first_ts: int | None
    last_ts: int | None
    table_version: int
    decisions: int
    bytes: int
    detail: dict[str, Any] = field(default_factory=dict)


class Store(Protocol):
    """What happened, at rest. One writer at a time; any number of readers.

    Guarantee: an event acknowledged by ``append`` or ``load`` is never lost and never counted twice.
    """

    num_buckets: int

    def load(self, batches: Iterable[pa.RecordBatch], *, source: str) -> LoadReport:
        """Write accepted rows (EVENT_SCHEMA + ``row`` int64, the row in the source) in one atomic commit.

        Memory stays flat: batches are consumed one by one. Either all of it becomes visible or nothing.
        """
        ...

    def append(
        self,
        events: Sequence[Event],
        *,
        said: Sequence[int | None] | None = None,
        identified: Iterable[Identified] = (),
        positions: Mapping[str, int] | None = None,
    ) -> list[str]:
        """Store live events durably (fsynced) and add them to the live histories, in order.

        Every event has ``event_id`` and ``ts`` set. Returns one word each:
        ``stored | duplicate | conflict | erased``.

        Args:
            events: What happened.
            said: The time each sender gave, where ``ts`` was completed or corrected by when it came; None where it gave
                none. Two events of one id are the same if these and all else agree. Left out: the ``ts``.
            identified: Guests who turned out to be somebody, stored in the same commit.
            positions: How far sources outside are read with this call, stored in the same commit.
        """
        ...

    def known(self, event_ids: Sequence[str]) -> list[bool]:
        """Whether events of these ids are stored."""
        ...

    def keep_aside(self, letters: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
        """Keep refused live events durably, each a reason and the columns of an event; only the newest stay."""
        ...

    def letters(
        self, *, limit: int = 100, before: int | None = None
    ) -> tuple[int, list[tuple[int, int, str, dict[str, Any]]]]:
        """How many refused events are kept; and number, time, reason and event of some, the newest first."""
        ...

    def guests(self, subject: str) -> list[str]:
        """The guests that turned out to be this user, as subjects; an erasure takes them along."""
        ...

    def positions(self) -> dict[str, int]:
        """How far each source outside was read."""
        ...

    def scan(
        self,
        *,
        bucket: int | None = None,
        subject: str | None = None,
        columns: Sequence[str] | None = None,
        as_of: int | None = None,
        since: int | None = None,
    ) -> pa.Table:
        """Events with since <= ts < as_of, of one bucket or all, ordered by (subject, ts, seq); journal included.

        Events of guests who were identified before ``as_of`` are those of the user they turned out to be.

        Args:
            bucket: One bucket, or None for all.
            subject: One person, or None for all; not together with ``bucket``.
            columns: Names of TABLE_SCHEMA; None for all of them.
            as_of: Only events before this time, in microseconds.
            since: Only events at or after this time.
        """
        ...

    def history(self, subject: str, limit: int = HISTORY_EVENTS) -> History:
        """The last events of one person, fresh to the last acknowledged event. Empty when unknown."""
        ...

    def put_catalog(self, table: pa.Table) -> None:
        """Replace rows by id, add new ones (CATALOG_SCHEMA). Atomic."""
        ...

    def catalog(self) -> pa.Table:
        """The whole catalogue, sorted by id."""
        ...

    def put_users(self, table: pa.Table) -> int:
        """Merge user attributes by ``user_id``, atomically; returns how many rows were of erased people."""
        ...

    def users(self) -> pa.Table:
        """All user attributes, sorted by ``user_id``."""
        ...

    def log_decision(self, slate: Slate, candidates: Callable[[], PackedCandidates] | None = None) -> bool:
        """Write a slate to the decision log (group committed; ``flush`` forces it out); False when it is full.

        ``candidates`` makes what the log says of the candidates when the slate is written.
        """
        ...

    def decisions(self, subject: str | None = None, *, newest: int | None = None) -> Iterator[Slate]:
        """Logged slates in order of time; with ``newest`` the last so many single answers."""
        ...

    def flush(self) -> None:
        """Make everything handed over durable."""
        ...

    def compact(self) -> int:
        """Move the journal into the table; returns how many events moved."""
        ...

    def erase(self, subject: str) -> ErasureReceipt:
        """Remove a person from every store and leave a tombstone that refuses their late events."""
        ...

    def export(self, subject: str) -> dict[str, Any]:
        """Everything kept about a person, as JSON-ready values."""
        ...

    def last_ts(self) -> int | None:
        """Time of the newest event, as in ``status``; cheap enough for every request."""
        ...

    def table_version(self) -> int:
        """Version of the event table, as in ``status``; cheap enough for every request."""
        ...

    def status(self) -> StoreStatus:
        """Counts and sizes. Looks at every file: not for requests that must be fast."""
        ...

    def close(self) -> None:
        """Flush and release the locks."""
        ...


class Cipher(Protocol):
    """Encrypts what is at rest, under a key of each person; the privacy room implements it, the store only calls it."""

    def bind(self, person: Callable[[str], bytes]) -> None:
        """Take over how the store names people; called before anything else."""
        ...

    def encrypt(self, subject: str, field: str, plain: bytes) -> bytes:
        """Seal bytes under the person's own key."""
        ...

    def decrypt(self, subject: str, field: str, sealed: bytes) -> bytes:
        """Open sealed bytes; raises ``StorageError`` when the key was destroyed."""
        ...

    def flush(self) -> None:
        """Make new keys durable; called before anything that they sealed is."""
        ...

    def destroy(self, person: bytes) -> int:
        """Destroy a person's key for good, by the store's name for them; returns how many keys went."""
        ...

    def close(self) -> None:
        """Flush and release."""
        ...
