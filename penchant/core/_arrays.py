"""The nouns that are arrays: vocabularies, catalogue, snapshot, batch, history, candidates.

Letters: B users in a batch, T history length, N items, K slate length, R interests, D width, F features,
U users, M events. Item numbers run from 1 to N; 0 means "no item". Arrays are read-only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penchant.core._kinds import TARGET_CODES

HISTORY_EVENTS = 400  # newest events of a person that a store keeps at hand and a model may look at
HISTORY_SHOWN = 100  # and newest items that the person was shown

Ints = npt.NDArray[np.integer]
Floats = npt.NDArray[np.floating]
Bools = npt.NDArray[np.bool_]


class Vocabulary:
    """Ids and their numbers, 1 to N; number 0 is everything unknown.

    Example:
        >>> items = Vocabulary(["a", "b"])
        >>> items.number("b"), items.number("z"), items.id(1), len(items)
        (2, 0, 'a', 2)
    """

    def __init__(self, ids: Sequence[str] | pa.Array) -> None:
        array = ids if isinstance(ids, pa.Array) else pa.array(list(ids), pa.string())
        self.array: pa.Array = array  # (N,) without the zero

    def __len__(self) -> int:
        return len(self.array)

    @cached_property
    def ids(self) -> list[str]:
        """All ids, in order of their numbers from 1 (N long)."""
        return list(self.array.to_pylist())

    @cached_property
    def _index(self) -> dict[str, int]:
        return {key: number for number, key in enumerate(self.ids, start=1)}

    def number(self, key: str | None) -> int:
        """Number of an id; 0 when unknown."""
        return self._index.get(key, 0) if key is not None else 0

    def numbers(self, keys: Sequence[str | None]) -> npt.NDArray[np.int64]:
        """Numbers of ids, (len(keys),) int64; 0 where unknown."""
        index: dict[str | None, int] = self._index  # type: ignore[assignment]
        return np.array([index.get(k, 0) for k in keys], np.int64)

    def numbers_in(self, column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
        """The same of a column of a table, without making its ids Python's.

        Example:
            >>> Vocabulary(["a", "b"]).numbers_in(pa.chunked_array([["b", None], ["z"]])).tolist()
            [2, 0, 0]
        """
        import pyarrow.compute as pc

        place = pc.index_in(column.combine_chunks(), value_set=self.array)
        return np.asarray(pc.fill_null(pc.add(place, 1), 0), np.int64)

    def renumbering(self, other: Vocabulary) -> npt.NDArray[np.int64]:
        """Number here of every number of another vocabulary, (its N + 1,); 0 where unknown.

        Example:
            >>> Vocabulary(["a", "b"]).renumbering(Vocabulary(["b", "z"])).tolist()
            [0, 2, 0]
        """
        return np.concatenate([np.zeros(1, np.int64), self.numbers(other.ids)])

    def id(self, number: int) -> str:
        """Id of a number from 1 to N."""
        if number < 1:
            raise IndexError(number)
        return self.ids[number - 1]


@dataclass(frozen=True, eq=False)
class Catalog:
    """The items a shop offers. ``table`` has CATALOG_SCHEMA, sorted by id, one row an id."""

    table: pa.Table
    vectors: dict[str, Floats] = field(
        default_factory=dict
    )  # modality/encoder id -> (rows of table, D) float32
    as_of: int = 0


@dataclass(frozen=True, eq=False)
class Snapshot:
    """Everything known strictly before ``as_of``, as memory-mapped arrays sorted by (user, ts, arrival).

    ``user`` events of row u are ``ptr[u]:ptr[u + 1]``. ``features`` are normalised with statistics of
    this snapshot; ``feature_names`` names their columns. ``attributes`` is what the shop says of these
    users: a row a user, in the order of ``users``, nulls where it says nothing.
    """

    as_of: int
    users: Vocabulary  # subjects; number u + 1 is row u
    items: Vocabulary
    ptr: npt.NDArray[np.int64]  # (U + 1,)
    item: npt.NDArray[np.int32]  # (M,) 0 = event without an item
    kind: npt.NDArray[np.uint8]  # (M,) EventKind.code
    ts: npt.NDArray[np.int64]  # (M,)
    value: npt.NDArray[np.float32]  # (M,) NaN = none
    features: npt.NDArray[np.float32]  # (U, F)
    feature_names: tuple[str, ...]
    catalog: Catalog
    fingerprint: str
    attributes: pa.Table | None = None  # (U rows)
    foreign: npt.NDArray[np.int64] | None = None  # positions of events in another than the main currency
    facts: dict[str, Any] = field(default_factory=dict)  # JSON-ready: options, feature recipe, currency

    @property
    def num_users(self) -> int:
        """U."""
        return len(self.ptr) - 1

    @property
    def num_items(self) -> int:
        """N; arrays indexed by item number have N + 1 rows."""
        return len(self.items)

    @property
    def num_events(self) -> int:
        """M."""
        return len(self.item)


@dataclass(frozen=True, eq=False)
class SequenceBatch:
    """B histories of at most T events, oldest first, padded on the right with 0.

    Made by ``penchant.data.sequence_batch`` alone, for training and for a live request alike.
    ``gap_BT`` is log(1 + seconds since the event before); 0 for the first. ``target_BT`` (training only)
    is the next item to predict after each position, 0 = none. Beside it ``later_BT`` (training only) is the item
    of the next event of kind ``later_kind_BT``, however far ahead: the next purchase, say. ``asked_B`` is the kind of
    event that each row is asked about, an ``EventKind.code``; 0, or None for all rows, means: whatever comes next.
    ``shown_BS`` are the newest items that were shown (impressions) since the first event of the row, 0 = none, oldest
    first; ``shown_age_BS`` how many events are newer than each. None where nobody was shown anything.
    """

    item_BT: npt.NDArray[np.int64]
    kind_BT: npt.NDArray[np.int64]
    gap_BT: npt.NDArray[np.float32]
    value_BT: npt.NDArray[np.float32]
    mask_BT: Bools
    user_BF: npt.NDArray[np.float32]
    target_BT: npt.NDArray[np.int64] | None = None
    later_BT: npt.NDArray[np.int64] | None = None
    later_kind_BT: npt.NDArray[np.int64] | None = None
    asked_B: npt.NDArray[np.int64] | None = None
    shown_BS: npt.NDArray[np.int64] | None = None
    shown_age_BS: npt.NDArray[np.int64] | None = None

    @property
    def length_B(self) -> npt.NDArray[np.int64]:
        """Number of real events of each row; may be 0."""
        return self.mask_BT.sum(axis=1)  # type: ignore[no-any-return]

    def rows_asked(self, code: int) -> npt.NDArray[np.intp]:
        """Numbers of the rows that are asked about one kind of event, 0 = any."""
        if self.asked_B is None:
            return np.arange(len(self.item_BT) if code == 0 else 0)
        return np.flatnonzero(self.asked_B == code)

    def take(self, rows: Ints | slice) -> SequenceBatch:
        """Some of the rows."""
        arrays: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        part: dict[str, Any] = {name: None if a is None else a[rows] for name, a in arrays.items()}
        return SequenceBatch(**part)


@dataclass(frozen=True, eq=False)
class History:
    """The last events of one person that models read (``SEQUENCE_KINDS`` with an item), oldest first.

    ``shown_item`` are the newest items that the person was shown, ``HISTORY_SHOWN`` at most, oldest first: they take
    nobody's place among the events.
    """

    subject: str
    ts: npt.NDArray[np.int64]  # (T,)
    kind: npt.NDArray[np.uint8]  # (T,)
    item: list[str | None]  # (T,) item ids
    value: npt.NDArray[np.float32]  # (T,) NaN = none
    event_id: list[str]  # (T,)
    older_items: frozenset[str] = frozenset()  # items turned to by events that fell out of the window
    shown_item: list[str] = field(default_factory=list)  # (S,)
    shown_ts: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))  # (S,)

    @property
    def seen(self) -> frozenset[str]:
        """Every item the person ever turned to, in the window or before it; what was only shown is not among them."""
        turned = np.isin(self.kind, TARGET_CODES).tolist()
        return self.older_items | {i for i, t in zip(self.item, turned, strict=True) if t and i is not None}


@dataclass(frozen=True, eq=False)
class Candidates:
    """Items that may be shown, with the model's mean and how unsure it is."""

    item_N: npt.NDArray[np.int64]
    mean_N: Floats
    std_N: Floats
    source: str  # which retriever or model proposed them
    subject: str = ""  # whom they are for, where a policy learns about people
    feature_NF: Floats | None = None  # what a policy that learns sees of each


@dataclass(frozen=True)
class Query:
    """One request for items, as policies see it."""

    subject: str
    now: int
    k: int
    surface: str = "default"
    purpose: str = "personalise"
    seed: int = 0
