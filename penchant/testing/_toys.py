"""Small snapshots with known structure, for tests and conformance suites."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penchant.core import CATALOG_SCHEMA, DAY, KIND_CODES, Catalog, Snapshot, Vocabulary, rng

START = 1_700_000_000_000_000  # the first event of a toy: November 2023


def toy_snapshot(
    events: Sequence[tuple[str, str | None] | tuple[str, str | None, int] | tuple[str, str | None, int, str]],
    *,
    items: Sequence[str] | None = None,
    values: Sequence[float] | None = None,
    features: npt.ArrayLike | None = None,
    categories: dict[str, str] | None = None,
    attributes: pa.Table | None = None,
    as_of: int | None = None,
) -> Snapshot:
    """Make a snapshot from plain tuples ``(user, item[, day[, kind]])``.

    Args:
        events: In any order; a stable sort by (user, day) keeps the given order where days tie. The day
            counts from 0 and defaults to the event's place in the list; the kind defaults to purchase.
        items: The vocabulary; None = the items of the events and of ``categories``, sorted.
        values: One an event; None = no values.
        features: (U, F); None = no features.
        categories: Item id -> category path.
        attributes: One row a user, in sorted order of users.
        as_of: Microseconds; None = one day after the last event.

    Example:
        >>> toy = toy_snapshot([("v", "b"), ("u", "a", 5), ("u", "b", 3, "view")])
        >>> toy.ptr.tolist(), toy.item.tolist(), toy.kind.tolist()
        ([0, 2, 3], [2, 1, 2], [3, 11, 11])
    """
    full = [(*event, *(place, "purchase")[len(event) - 2 :]) for place, event in enumerate(events)]
    categories = categories or {}
    users = Vocabulary(sorted({event[0] for event in full}))
    known = {event[1] for event in full if event[1] is not None} | set(categories)
    vocabulary = Vocabulary(sorted(known) if items is None else list(items))
    row = users.numbers([event[0] for event in full]) - 1
    ts = np.array([START + round(event[2] * DAY) for event in full], np.int64)
    return snapshot_from_arrays(
        users=users,
        items=vocabulary,
        row=row,
        item=vocabulary.numbers([event[1] for event in full]),
        kind=np.array([KIND_CODES[event[3]] for event in full], np.uint8),
        ts=ts,
        value=values,
        features=features,
        categories=categories,
        attributes=attributes,
        as_of=as_of,
    )


def snapshot_from_arrays(
    *,
    users: Vocabulary,
    items: Vocabulary,
    row: npt.ArrayLike,
    item: npt.ArrayLike,
    kind: npt.ArrayLike,
    ts: npt.ArrayLike,
    value: npt.ArrayLike | None = None,
    features: npt.ArrayLike | None = None,
    categories: dict[str, str] | None = None,
    attributes: pa.Table | None = None,
    as_of: int | None = None,
) -> Snapshot:
    """Make a snapshot from event columns (M,) in order of arrival; ``row`` is the user's row from 0."""
    row, ts = np.asarray(row, np.int64), np.asarray(ts, np.int64)
    order = np.lexsort((ts, row))
    ptr = np.zeros(len(users) + 1, np.int64)
    np.cumsum(np.bincount(row, minlength=len(users)), out=ptr[1:])
    value_M = np.full(len(row), np.nan) if value is None else np.asarray(value)
    table = np.zeros((len(users), 0)) if features is None else np.asarray(features)
    return Snapshot(
        as_of=as_of if as_of is not None else int(ts.max(initial=START)) + DAY,
        users=users,
        items=items,
        ptr=ptr,
        item=np.asarray(item)[order].astype(np.int32),
        kind=np.asarray(kind)[order].astype(np.uint8),
        ts=ts[order],
        value=value_M[order].astype(np.float32),
        features=table.astype(np.float32),
        feature_names=tuple(f"feature_{column}" for column in range(table.shape[1])),
        catalog=_catalog(items, categories or {}),
        fingerprint="toy",
        attributes=attributes,
    )


def _catalog(items: Vocabulary, categories: dict[str, str]) -> Catalog:
    ids = sorted(items.ids)
    columns = {name: pa.nulls(len(ids), CATALOG_SCHEMA.field(name).type) for name in CATALOG_SCHEMA.names}
    columns["id"] = pa.array(ids, pa.string())
    columns["title"] = pa.array([f"Item {key}" for key in ids], pa.string())
    columns["category"] = pa.array([categories.get(key) for key in ids], pa.string())
    return Catalog(pa.table(columns, schema=CATALOG_SCHEMA))


def checkerboard_snapshot(users: int = 50, items: int = 20) -> Snapshot:
    """Even users take even items, odd users odd ones, each but one: item number u % ``items`` + 1.

    The withheld item must come back first for every user (the checkerboard test of ``implicit``). Orders are
    rotated per user so that no item is always last. ``items`` must be even.
    """
    if items % 2:
        raise ValueError("a checkerboard needs an even number of items")
    events: list[tuple[str, str | None, int]] = []
    for user in range(users):
        withheld = user % items
        own = [item for item in range(user % 2, items, 2) if item != withheld]
        turn = (user // 2) % max(1, len(own))
        events += [(f"u{user:04d}", f"i{item:04d}", day) for day, item in enumerate(own[turn:] + own[:turn])]
    return toy_snapshot(events, items=[f"i{item:04d}" for item in range(items)])


def withheld_item(user: int, items: int) -> int:
    """Item number that ``checkerboard_snapshot`` withheld from a user row."""
    return user % items + 1


def markov_snapshot(
    users: int = 300,
    items: int = 30,
    *,
    length: int = 12,
    follow: float = 0.9,
    seed: int = 0,
) -> Snapshot:
    """Walks in which item i is followed by i + 1 (mod ``items``) with chance ``follow``, else by any item.

    A model that reads order reaches a hit rate at 1 near ``follow``; popularity stays near 1 / items. Lengths
    vary from half of ``length`` to ``length``; all items are equally popular.
    """
    draw = rng(seed, "markov")
    lengths = draw.integers(max(2, length // 2), length + 1, size=users)
    walk = np.empty((users, length), np.int64)
    walk[:, 0] = draw.integers(items, size=users)
    for step in range(1, length):
        jump = draw.random(users) >= follow
        walk[:, step] = np.where(jump, draw.integers(items, size=users), (walk[:, step - 1] + 1) % items)
    row = np.repeat(np.arange(users), lengths)
    step_M = np.concatenate([np.arange(n) for n in lengths])
    start = draw.integers(0, 30, size=users)
    return snapshot_from_arrays(
        users=Vocabulary([f"u{user:05d}" for user in range(users)]),
        items=Vocabulary([f"i{item:04d}" for item in range(items)]),
        row=row,
        item=walk[row, step_M] + 1,
        kind=np.full(len(row), KIND_CODES["purchase"], np.uint8),
        ts=START + (start[row] + step_M) * DAY,
    )
