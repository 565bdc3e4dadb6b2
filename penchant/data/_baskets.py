"""Baskets: what a person takes along at one visit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from penchant.core import HOUR, Bools, EventKind, Ints, Snapshot, iso
from penchant.core.errors import InputError
from penchant.data._batch import is_target
from penchant.data._ragged import offsets
from penchant.data._splits import Cases

VISIT = HOUR  # a pause so long ends a visit


def basket_size(snapshot: Snapshot) -> float:
    """Mean number of distinct items bought at one visit; 0 where nothing was bought.

    Example:
        >>> from penchant.testing import toy_snapshot
        >>> basket_size(toy_snapshot([("u", "milk", 0), ("u", "tea", 0), ("v", "milk", 0)]))
        1.5
    """
    position = np.flatnonzero(_bought(snapshot))
    if not len(position):
        return 0.0
    basket = _baskets(snapshot, position)
    pair = basket * (snapshot.num_items + 1) + snapshot.item[position]
    return len(np.unique(pair)) / int(basket[-1] + 1)


def next_baskets(snapshot: Snapshot, cases: Cases) -> Cases:
    """The same people asked only for what they bought at their next visit; who bought nothing is left out.

    Args:
        snapshot: What happened, with the time after the split.
        cases: Of a time split of it.

    Raises:
        InputError: Nobody bought anything after the split.
    """
    at = cases.history.as_of
    row_C = cases.user_C
    position = np.flatnonzero(_bought(snapshot) & (np.asarray(snapshot.ts) >= at))
    row = np.searchsorted(snapshot.ptr, position, side="right") - 1
    asked = np.isin(row, row_C)
    position, row = position[asked], row[asked]
    if not len(position):
        raise InputError("nobody bought anything after the split", value=iso(at))
    basket = _baskets(snapshot, position)
    buyer, first = np.unique(row, return_index=True)
    mine = basket == basket[first][np.searchsorted(buyer, row)]
    position, row = position[mine], row[mine]
    item = np.asarray(snapshot.item[position], np.int32)
    pair = row * np.int64(snapshot.num_items + 1) + item
    distinct = np.sort(np.unique(pair, return_index=True)[1])
    kept = cases.take(np.flatnonzero(np.isin(row_C, buyer)))
    return replace(
        kept,
        target_ptr=offsets(np.bincount(np.searchsorted(buyer, row[distinct]), minlength=len(buyer))),
        target_item=item[distinct],
        name=f"next basket after {iso(at)}",
    )


def _bought(snapshot: Snapshot) -> Bools:
    """Which events are purchases of a known item."""
    kind = np.asarray(snapshot.kind)
    bought_M: Bools = is_target(kind, snapshot.item) & (kind == EventKind.PURCHASE.code)
    return bought_M


def _baskets(snapshot: Snapshot, position: Ints) -> Ints:
    """Number of the basket of each purchase, from 0."""
    row = np.searchsorted(snapshot.ptr, position, side="right") - 1
    ts = np.asarray(snapshot.ts)[position]
    return np.cumsum((np.diff(row, prepend=row[:1]) > 0) | (np.diff(ts, prepend=ts[:1]) >= VISIT))
