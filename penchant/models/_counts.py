"""What counted models share: the positive events of a snapshot, and scoring by a sparse item-to-item matrix.

Legend: B users in a batch, T history length, N items, Q asked items, K answer items, P positive events,
E stored pairs. Item numbers run from 1 to N; rows and columns of a matrix are item numbers, 0 included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt
from scipy import sparse

from penchant.core import ASKED_CODES, Bools, Floats, Ints, Run, Scorer, SequenceBatch, Snapshot, Target
from penchant.data import is_target
from penchant.models._readings import DECAYS, Reading, Readings, kinds_in, search_reading

CHUNK_CELLS = 4_000_000  # cells of a dense block of scores: 32 MB of float64
CHUNK_PAIRS = 4_000_000  # matrix entries gathered at once: 64 MB
_BEGINNING, _BELIEVED = 10, 20.0  # first events of a person; events that popularity is worth beside them
_DRAWN = 5  # usual events that every item is given, so that one purchase proves little
NEGLIGIBLE = 1e-6  # history weights below this share of the newest event's are left out


@dataclass(frozen=True, eq=False)
class Positives:
    """The events by which people turned to an item, sorted by (user, ts, arrival).

    A refund, a removal from the cart or a checkout stays out: it says nothing in favour of the item.
    """

    user: npt.NDArray[np.int32]  # (P,) row of the user
    item: npt.NDArray[np.int32]  # (P,) 1 to N
    kind: npt.NDArray[np.uint8]  # (P,)
    ts: npt.NDArray[np.int64]  # (P,)


def positives(snapshot: Snapshot) -> Positives:
    """Collect the positive events of a snapshot."""
    keep = is_target(snapshot.kind, snapshot.item)
    user = np.repeat(np.arange(snapshot.num_users, dtype=np.int32), np.diff(snapshot.ptr))
    return Positives(
        user=user[keep],
        item=np.asarray(snapshot.item)[keep],
        kind=np.asarray(snapshot.kind)[keep],
        ts=np.asarray(snapshot.ts)[keep],
    )


def target_counts(snapshot: Snapshot) -> npt.NDArray[np.float64]:
    """How often people turned to each item: (N + 1,)."""
    return np.bincount(positives(snapshot).item, minlength=snapshot.num_items + 1).astype(np.float64)


def beginnings(snapshot: Snapshot) -> npt.NDArray[np.float32]:
    """Log of each item's share of what people begin with, for somebody of whom nothing is known: (N + 1,).

    Counted are the first ten events by which the later half of the people turned to an item, beside twenty shared out
    by popularity. Newcomers want what newcomers wanted lately rather than what regulars buy most.

    Example:
        >>> from penchant.testing import toy_snapshot
        >>> toy = toy_snapshot([("u", "tea"), ("v", "rum"), ("v", "rum")])
        >>> np.exp(beginnings(toy)).astype(float).round(2).tolist()
        [0.1, 0.59, 0.31]
    """
    found = positives(snapshot)
    count_N = np.bincount(found.item, minlength=snapshot.num_items + 1)
    begin_P = np.searchsorted(found.user, found.user)
    place_P, start_P = np.arange(len(found.user)) - begin_P, found.ts[begin_P]
    late_P = start_P >= np.median(start_P[place_P == 0]) if len(start_P) else np.zeros(0, np.bool_)
    counted = found.item[(place_P < _BEGINNING) & late_P]
    first_N = np.bincount(counted, minlength=snapshot.num_items + 1)
    share_N = (count_N + 0.5) / (count_N.sum() + 0.5)
    drawn_N = first_N + _BELIEVED * share_N
    log_N: npt.NDArray[np.float32] = np.log(drawn_N / drawn_N.sum()).astype(np.float32)
    return log_N


def history_weights(batch: SequenceBatch, decay: float) -> npt.NDArray[np.float64]:
    """Weigh each event of a batch by ``decay ** age``: (B, T), 0 where the event is not positive.

    The newest positive event has age 0; events that are not positive neither count nor age the others.
    """
    return age_weights(positive_events(batch), decay)


def read_weights(batch: SequenceBatch, reading: Reading) -> npt.NDArray[np.float64]:
    """Weigh each event of a batch by its kind and age: (B, T); as ``history_weights`` for a plain reading."""
    named_BT = batch.mask_BT & (batch.item_BT > 0)
    weight_BT = age_weights(positive_events(batch), reading.decay, named_BT)
    weight_BT *= reading.weight_K[batch.kind_BT]
    return weight_BT


def positive_events(batch: SequenceBatch) -> Bools:
    """Which events of a batch speak for their item: (B, T)."""
    return is_target(batch.kind_BT.astype(np.uint8), batch.item_BT) & batch.mask_BT


def age_weights(counted_BT: Bools, decay: float, weighed_BT: Bools | None = None) -> npt.NDArray[np.float64]:
    """``decay ** (number of newer counted events)`` for weighed events, else 0: (B, T). None weighs the counted."""
    newer_BT = counted_BT[:, ::-1].cumsum(axis=1)[:, ::-1] - counted_BT
    weight_BT: npt.NDArray[np.float64] = np.power(float(decay), newer_BT)
    weight_BT[~(counted_BT if weighed_BT is None else weighed_BT) | (weight_BT < NEGLIGIBLE)] = 0.0
    return weight_BT


def user_item_matrix(found: Positives, num_users: int, num_items: int, max_history: int) -> sparse.csr_array:
    """Make the 0/1 matrix of who turned to what: (U, N + 1) float32.

    Of a person with more than ``max_history`` distinct items the most recent ones count: pairs grow with
    the square of a history, and a handful of bots or resellers would otherwise cost more than all others.
    """
    width = num_items + 1
    key = found.user.astype(np.int64) * width + found.item
    # The last occurrence of each (user, item) says how recent the item is.
    distinct, last_from_end = np.unique(key[::-1], return_index=True)
    user = distinct // width
    position = len(key) - 1 - last_from_end
    order = np.lexsort((-position, user))
    user = user[order]
    start = np.searchsorted(user, user, side="left")
    recent = order[np.arange(len(order)) - start < max_history]
    keep = np.sort(recent)
    rows, columns = distinct[keep] // width, distinct[keep] % width
    ones = np.ones(len(keep), np.float32)
    return sparse.csr_array((ones, (rows, columns)), shape=(num_users, width))


def came_back(found: Positives, width: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """How many people turned to each item more than once, and how many ever did: (width,) each."""
    key = np.sort(found.user.astype(np.int64) * width + found.item)
    first = np.diff(key, prepend=-1) > 0
    again = first & ~np.append(first[1:], True)  # the next is the same
    item = key % width
    return np.bincount(item[again], minlength=width), np.bincount(item[first], minlength=width)


def popularity_prior(found: Positives, num_items: int) -> npt.NDArray[np.float32]:
    """How often each item was turned to, as a share of the most frequent: (N + 1,) in [0, 1]."""
    counts = np.bincount(found.item, minlength=num_items + 1).astype(np.float64)
    share: npt.NDArray[np.float64] = counts / max(counts.max(initial=0.0), 1.0)
    return share.astype(np.float32)


def kind_share(found: Positives, num_items: int, target: Target) -> npt.NDArray[np.float32]:
    """How much of each item's events are of one kind, (N + 1,); 1 = as usual in the shop, drawn to it where few."""
    if target == "any":
        return np.ones(num_items + 1, np.float32)
    event_N = np.bincount(found.item, minlength=num_items + 1)
    mine_N = np.bincount(found.item[found.kind == ASKED_CODES[target]], minlength=num_items + 1)
    usual = max(int(mine_N.sum()), 1) / max(1, int(event_N.sum()))
    share_N: npt.NDArray[np.float32] = ((mine_N / usual + _DRAWN) / (event_N + _DRAWN)).astype(np.float32)
    return share_N


def named_shares(share_AN: Mapping[Target, npt.NDArray[np.float32]]) -> dict[str, npt.NDArray[np.float32]]:
    """Arrays by what is asked for, under the names by which they are kept."""
    return {f"share.{target}": share_N for target, share_N in share_AN.items()}


def shares_named(arrays: Mapping[str, np.ndarray[Any, Any]]) -> dict[Target, npt.NDArray[np.float32]]:
    """The same, back from their names."""
    return {target: arrays[f"share.{target}"] for target in ASKED_CODES if f"share.{target}" in arrays}


def item_blocks(cost_I: Ints | Floats, budget: float) -> Iterator[tuple[int, int]]:
    """Cut item numbers into runs whose summed cost stays near ``budget``, so that memory stays flat."""
    total = np.cumsum(cost_I, dtype=np.float64)
    start = 0
    while start < len(total):
        spent = total[start - 1] if start else 0.0
        end = max(int(np.searchsorted(total, spent + budget, side="right")), start + 1)
        yield start, end
        start = end


def strongest(block: sparse.csr_array, limit: int) -> sparse.csr_array:
    """Keep at most ``limit`` entries of each row: those of the greatest magnitude."""
    counts = np.diff(block.indptr)
    if counts.max(initial=0) <= limit:
        return block
    keep = np.ones(block.nnz, np.bool_)
    size = np.abs(block.data)
    for row in np.flatnonzero(counts > limit):
        start, end = block.indptr[row], block.indptr[row + 1]
        weakest = np.argpartition(size[start:end], end - start - limit)[: end - start - limit]
        keep[start + weakest] = False
    indptr = np.r_[0, np.cumsum(np.minimum(counts, limit))]
    return sparse.csr_array((block.data[keep], block.indices[keep], indptr), shape=block.shape)


Fitted = TypeVar("Fitted", bound=Scorer)


def best_by_validation(
    make: Callable[[float], Fitted], values: Sequence[float], start: float, run: Run
) -> Fitted:
    """Climb along ordered values from ``start`` while validation improves; ``start`` without validation.

    How fast a history fades differs between shops more than anything else counted models can be told:
    the next of a series follows the last item, the next grocery basket follows them all.
    """
    best = make(start)
    if run.validate is None:
        return best
    best_figure, place = run.validate(best), values.index(start)
    for step in (1, -1):
        moved = False
        for value in values[place + step :: step] if place + step >= 0 else ():
            model = make(value)
            figure = run.validate(model)
            if figure <= best_figure:
                break
            best, best_figure, moved = model, figure, True
        if moved:
            break
    return best


@dataclass(frozen=True, eq=False)
class NeighbourModel:
    """A scorer whose score is linear in the history: ``prior + sum over t of decay^age_t * M[item_t]``.

    ``M`` is sparse, (N + 1, N + 1) in CSR form (``indptr``, ``indices``, ``data``), open to models that carry it as a
    bias. ``popular`` (N + 1,) in [0, 1], times ``config.prior``, decides where the history is silent, so that somebody
    new gets the popular items. Asked for one kind of event, the history is read as ``config.readings`` says for it.
    """

    Config: ClassVar[type[msgspec.Struct]]
    usual_decay: ClassVar[float]  # where nobody asked for one and there is no validation

    config: Any  # has `decay` and `prior`, and `readings` where it can tell kinds apart
    indptr: npt.NDArray[np.int64]  # (N + 2,)
    indices: npt.NDArray[np.int32]  # (E,)
    data: npt.NDArray[np.float32]  # (E,)
    popular: npt.NDArray[np.float32]  # (N + 1,)
    share_AN: Mapping[Target, npt.NDArray[np.float32]] = field(default_factory=dict)  # ``kind_share``

    def __post_init__(self) -> None:
        for array in (self.indptr, self.indices, self.data, self.popular):
            if array.flags.owndata:
                array.flags.writeable = False

    @classmethod
    def from_matrix(cls, config: Any, matrix: sparse.csr_array, popular: Floats) -> Self:
        """Wrap a fitted matrix; a decay left open becomes the usual one."""
        return cls(
            config=cls._closed(config, cls.usual_decay),
            indptr=matrix.indptr.astype(np.int64),
            indices=matrix.indices.astype(np.int32),
            data=matrix.data.astype(np.float32),
            popular=np.asarray(popular, np.float32),
        )

    @staticmethod
    def _closed(config: Any, decay: float) -> Any:
        return config if config.decay is not None else msgspec.structs.replace(config, decay=decay)

    def with_decay(self, decay: float) -> Self:
        """The same matrix with histories that fade otherwise."""
        return replace(self, config=msgspec.structs.replace(self.config, decay=decay))

    def settled(self, decay: float | None, run: Run) -> Self:
        """The same with its decay decided: as asked, else by validation, else the usual one."""
        if decay is not None:
            return self.with_decay(decay)
        return best_by_validation(self.with_decay, DECAYS, self.usual_decay, run)

    def by_kinds(self, run: Run, snapshot: Snapshot, found: Positives) -> Self:
        """The same with a reading for each question that ``run`` can validate, unless the config has them.

        Args:
            run: What validates, and for which questions.
            snapshot: What was learned from: where it holds one kind of event only, there is one way to read.
            found: Its positive events.
        """
        if self.config.readings is not None:
            return self._with_readings(self.config.readings, found)
        kinds = kinds_in(snapshot)
        plain, readings = Reading(self.config.decay), {}
        for target, validate in run.validations.items() if len(kinds) > 1 else ():

            def measure(
                reading: Reading, target: Target = target, validate: Callable[[Scorer], float] = validate
            ) -> float:
                return validate(self._with_readings({target: reading}, found))

            readings[target] = search_reading(measure, plain, kinds)
        return self._with_readings({t: r for t, r in readings.items() if r != plain}, found)

    def _with_readings(self, readings: Readings, found: Positives) -> Self:
        shares = {t: kind_share(found, self.num_items, t) for t, reading in readings.items() if reading.lift}
        return replace(self, config=msgspec.structs.replace(self.config, readings=readings), share_AN=shares)

    @property
    def num_items(self) -> int:
        """N."""
        return len(self.popular) - 1

    @property
    def matrix(self) -> sparse.csr_array:
        """``M``, (N + 1, N + 1)."""
        width = len(self.popular)
        return sparse.csr_array((self.data, self.indices, self.indptr), shape=(width, width))

    def widened(self, num_items: int) -> Self:
        """The same with items added at the end of which nothing was counted."""
        more = num_items - self.num_items
        return replace(
            self,
            indptr=np.r_[self.indptr, np.full(more, self.indptr[-1])],
            popular=np.r_[self.popular, np.zeros(more, np.float32)],
            share_AN={t: np.r_[share_N, np.ones(more, np.float32)] for t, share_N in self.share_AN.items()},
        )

    def scores(self, batch: SequenceBatch) -> npt.NDArray[np.float32]:
        """Score every item for every row: (B, N + 1) float32, column 0 is -inf."""
        return self._read(batch, self.config.prior * self.popular)

    def _read(self, batch: SequenceBatch, prior: Floats | None = None) -> npt.NDArray[np.float32]:
        """Score by the history alone, plus a prior: (B, N + 1) float32, column 0 is -inf."""
        weight_BT, lifted = self._weights(batch)
        out_BN = self.weighted_rows(batch.item_BT, weight_BT, prior)
        for rows, lift_N in lifted:
            out_BN[rows] *= lift_N
        return out_BN

    def _weights(
        self, batch: SequenceBatch
    ) -> tuple[npt.NDArray[np.float64], list[tuple[npt.NDArray[np.intp], Floats]]]:
        """The weight of every event, (B, T), and what multiplies the scores of some rows: their numbers, (N + 1,)."""
        weight_BT = history_weights(batch, self.config.decay)
        lifted: list[tuple[npt.NDArray[np.intp], Floats]] = []
        for target, reading in (getattr(self.config, "readings", None) or {}).items():
            rows = batch.rows_asked(ASKED_CODES[target])
            if len(rows):
                weight_BT[rows] = read_weights(batch.take(rows), reading)
                if reading.lift:
                    lifted.append((rows, self.share_AN[target] ** reading.lift))
        return weight_BT, lifted

    def evidence(self, batch: SequenceBatch) -> npt.NDArray[np.float32]:
        """What the history alone says: (B, N + 1), column 0 is 0."""
        found_BN = self._read(batch)
        found_BN[:, 0] = 0.0
        return found_BN

    def related(self, items_Q: Ints) -> npt.NDArray[np.float32]:
        """Score every item as a companion of each given item: (Q, N + 1) float32, column 0 is -inf."""
        items_Q1 = np.asarray(items_Q, np.int64).reshape(-1, 1)
        known_Q1 = (items_Q1 > 0).astype(np.float64)
        return self.weighted_rows(items_Q1, known_Q1, self.config.prior * self.popular)

    def affinity(self, history_T: Ints, items_K: Ints) -> npt.NDArray[np.float32]:
        """Say how much each history item (oldest first) speaks for each answer item: (T, K) float32.

        Summed over the history this is the score without the prior: an exact account, not a guess.
        """
        history_T = np.asarray(history_T, np.int64)
        items_K = np.asarray(items_K, np.int64)
        weight_T = age_weights(history_T[None] > 0, self.config.decay)[0]
        out_TK = np.zeros((len(history_T), len(items_K)), np.float32)
        row = np.zeros(self.num_items + 1, np.float32)
        for t in np.flatnonzero(weight_T):
            start, end = self.indptr[history_T[t]], self.indptr[history_T[t] + 1]
            columns = self.indices[start:end]
            row[columns] = self.data[start:end]
            out_TK[t] = weight_T[t] * row[items_K]
            row[columns] = 0.0
        return out_TK

    def weighted_rows(
        self, item_BT: Ints, weight_BT: Floats, prior: Floats | None = None
    ) -> npt.NDArray[np.float32]:
        """Sum rows of ``M``: prior + sum over t of ``weight[b, t] * M[item[b, t]]``, (B, N + 1) float32.

        Each cell is summed in float64 in the order of the history, whatever else is in the batch: one row
        alone gives the same bits as the same row among others. Memory: a fixed block beside the answer.
        """
        width = self.num_items + 1
        item_BT = np.asarray(item_BT, np.int64)
        out = np.empty((len(item_BT), width), np.float32)
        pairs_B = np.where(weight_BT != 0, self.indptr[item_BT + 1] - self.indptr[item_BT], 0).sum(axis=1)
        cost_B = np.maximum(pairs_B / CHUNK_PAIRS, width / CHUNK_CELLS)
        for start, end in item_blocks(cost_B, 1.0):
            out[start:end] = self._block(item_BT[start:end], weight_BT[start:end])
        if prior is not None:
            out += prior
        out[:, 0] = -np.inf
        return out

    def sparse_evidence(self, batch: SequenceBatch) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """``evidence`` of a batch of one row without its zeros: items in order (K,), and the same bits (K,)."""
        weight_BT, lifted = self._weights(batch)
        cell_E, amount_E = self._entries(batch.item_BT[0], weight_BT[0])
        item_K, place_E = np.unique(cell_E, return_inverse=True)
        amount_K = np.bincount(place_E, amount_E, minlength=len(item_K)).astype(np.float32)
        for _, lift_N in lifted:
            amount_K *= lift_N[item_K]
        return item_K.astype(np.int64), amount_K

    def _entries(
        self, item_P: Ints, weight_P: Floats
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float64]]:
        """All stored pairs of some items, one row after another: columns (E,) and weighted values (E,)."""
        start_P = self.indptr[item_P]
        length_P = np.where(weight_P != 0, self.indptr[item_P + 1] - start_P, 0)
        ends_P = length_P.cumsum()
        # Positions of all entries of all rows wanted, one run after another, without a Python loop.
        total = int(ends_P[-1]) if len(ends_P) else 0
        entry_E = np.arange(total) + np.repeat(start_P - ends_P + length_P, length_P)
        return self.indices[entry_E], self.data[entry_E] * np.repeat(weight_P, length_P)

    def _block(self, item_BT: Ints, weight_BT: Floats) -> npt.NDArray[np.float64]:
        width = self.num_items + 1
        row_P, position_P = np.nonzero(weight_BT)
        item_P = item_BT[row_P, position_P]
        cell_E, amount_E = self._entries(item_P, weight_BT[row_P, position_P])
        cell_E = cell_E + np.repeat(row_P * width, self.indptr[item_P + 1] - self.indptr[item_P])
        flat = np.bincount(cell_E, amount_E, minlength=len(item_BT) * width)
        return flat.reshape(len(item_BT), width).astype(np.float64, copy=False)

    def arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """All that was learned: ``indptr``, ``indices``, ``data``, ``popular``, ``decay``, and ``share.KIND``."""
        return {
            **named_shares(self.share_AN),
            "decay": np.array([self.config.decay], np.float64),
            "indptr": self.indptr,
            "indices": self.indices,
            "data": self.data,
            "popular": self.popular,
        }

    @classmethod
    def restore(cls, config: Any, arrays: Mapping[str, np.ndarray[Any, Any]]) -> Self:
        """Rebuild from ``arrays()``; a decay that ``config`` leaves open is the one that was learned."""
        return cls(
            config=cls._closed(config, float(arrays["decay"][0])),
            indptr=arrays["indptr"],
            indices=arrays["indices"],
            data=arrays["data"],
            popular=arrays["popular"],
            share_AN=shares_named(arrays),
        )
