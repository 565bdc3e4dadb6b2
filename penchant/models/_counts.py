"""What counted models share: the positive events of a snapshot, weights of a history, and choices by validation.

Legend: B users in a batch, T history length, N items, P positive events. Item numbers run from 1 to N.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from scipy import sparse

from penchant.core import ASKED_CODES, Bools, Floats, Ints, Run, Scorer, SequenceBatch, Snapshot, Target
from penchant.data import is_target
from penchant.models._readings import Reading, uphill

CHUNK_CELLS = 4_000_000  # cells of a dense block of scores: 32 MB of float64
CHUNK_PAIRS = 4_000_000  # matrix entries gathered at once: 64 MB
_BEGINNING, _BELIEVED = 10, 20.0  # first events of a person; events that popularity is worth beside them
_DRAWN = 5  # usual events that every item is given, so that one purchase or return proves little
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
    share_N: npt.NDArray[np.float32] = drawn_share(mine_N, event_N, usual).astype(np.float32)
    return share_N


def drawn_share(part_N: Ints, event_N: Ints, usual: float) -> npt.NDArray[np.float64]:
    """How much of each item's events are of one sort, in units of what is usual, drawn to 1 where events are few."""
    share_N: npt.NDArray[np.float64] = (part_N / usual + _DRAWN) / (event_N + _DRAWN)
    return share_N


def named_shares(share_AN: Mapping[Target, npt.NDArray[np.float32]]) -> dict[str, npt.NDArray[np.float32]]:
    """Arrays by what is asked for, under the names by which they are kept."""
    return {f"share.{target}": share_N for target, share_N in share_AN.items()}


def shares_named(arrays: Mapping[str, np.ndarray[Any, Any]]) -> dict[Target, npt.NDArray[np.float32]]:
    """The same, back from their names."""
    return {target: arrays[f"share.{target}"] for target in ASKED_CODES if f"share.{target}" in arrays}


def arrays_of(arrays: Mapping[str, np.ndarray[Any, Any]], start: str) -> dict[str, np.ndarray[Any, Any]]:
    """Those whose names begin so, by what is left of their names."""
    return {name.removeprefix(start): array for name, array in arrays.items() if name.startswith(start)}


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
    validate = run.validate
    if validate is None:
        return make(start)
    found = uphill(lambda tried: validate(make(tried["value"])), {"value": start}, [("value", values)])
    return make(found["value"])
