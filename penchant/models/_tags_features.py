"""What the interest classifier looks at: one row of behaviour figures for each person, as of a moment.

Letters: B people, C categories, F features, M events, N items. A missing figure is NaN; the model's own
``FeatureTransform`` fills and normalises. Only events strictly before ``at`` count. Money in another than the
main currency of a snapshot is missing; live sequences come without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from penchant.core import (
    DAY,
    KIND_CODES,
    KINDS,
    TARGET_CODES,
    WISH_KINDS,
    Bools,
    Catalog,
    Ints,
    Snapshot,
    Vocabulary,
)
from penchant.data import Sequences

PERIODS = 6  # how many past periods the regularity of a habit is counted over
Float64s = npt.NDArray[np.float64]
PATH_SEPARATOR = " > "
# Never acts of interest of their own: what we showed, and what a person did to a page rather than an item.
_UNCOUNTED = {"impression", "promo_view", "filter", "signup", *WISH_KINDS}
_COUNTED_KINDS = tuple(kind for kind in KINDS if kind not in _UNCOUNTED)
_WHOLE = (
    "days since first event",
    "days since last event",
    "active days",
    "events recently",
    "distinct items",
    "spend",
    "spend recently",
    "mean stars",
)
_BLOCKS = ("share", "recent share", "recent count", "freshness", "regularity")


@dataclass(frozen=True, eq=False)
class Categories:
    """Catalogue categories as tags: their names and the category of every item.

    ``item_N`` has N + 1 entries, from item number to the position in ``names``; -1 = none of them.
    """

    names: tuple[str, ...]
    item_N: npt.NDArray[np.int32]


def shorten(path: str, level: int) -> str:
    """First ``level`` steps of a category path.

    Example:
        >>> shorten("Grocery > Bread > Rye", 2)
        'Grocery > Bread'
    """
    return PATH_SEPARATOR.join(path.split(PATH_SEPARATOR)[:level])


def catalog_categories(catalog: Catalog, items: Vocabulary, level: int) -> Categories:
    """All categories of a catalogue at one level of their paths, in order of name.

    Args:
        catalog: The catalogue; its ``category`` column holds paths joined by " > ".
        items: The items to place, N of them; those without a category get -1.
        level: How many steps of the path make a tag, from 1.
    """
    table = catalog.table
    place = pc.index_in(items.array, value_set=table["id"].combine_chunks())
    paths = pc.take(table["category"].combine_chunks(), place).dictionary_encode()
    short = [shorten(path, level) if path else None for path in paths.dictionary.to_pylist()]
    names = sorted({name for name in short if name})
    number = {name: position for position, name in enumerate(names)}
    code = np.array([number[name] if name else -1 for name in short] + [-1], np.int32)
    index = pc.fill_null(paths.indices, len(short)).to_numpy(zero_copy_only=False)
    return Categories(tuple(names), np.concatenate([np.full(1, -1, np.int32), code[index]]))


def keep_categories(categories: Categories, names: Sequence[str]) -> Categories:
    """The same items, with only the named categories left, in the order given."""
    number = {name: position for position, name in enumerate(names)}
    code = np.array([number.get(name, -1) for name in categories.names] + [-1], np.int32)
    return Categories(tuple(names), code[categories.item_N])


@dataclass(frozen=True, eq=False)
class EventPart:
    """Events of the chosen people before a moment, with the row of each."""

    rows: int
    row: npt.NDArray[np.int64]
    item: npt.NDArray[np.int64]
    kind: npt.NDArray[np.int64]
    ts: npt.NDArray[np.int64]
    value: Float64s


def events_of(events: Sequences, rows_B: Ints | None, since: int | None, until: int) -> EventPart:
    """Take the events of some rows (-1 = a row without any) with since <= ts < until, in order."""
    ptr = np.asarray(events.ptr, np.int64)
    if rows_B is None:
        sizes = np.diff(ptr)
        position = np.arange(ptr[0], ptr[-1])
    else:
        rows_B = np.asarray(rows_B, np.int64)
        known = rows_B >= 0
        sizes = np.where(known, ptr[rows_B + 1] - ptr[rows_B], 0)
        shift = ptr[rows_B] - (np.cumsum(sizes) - sizes)
        position = np.arange(int(sizes.sum())) + np.repeat(shift, sizes)
    row = np.repeat(np.arange(len(sizes)), sizes)
    ts = np.asarray(events.ts)[position]
    keep = ts < until if since is None else (ts < until) & (ts >= since)
    position, row = position[keep], row[keep]
    value = np.asarray(events.value)[position].astype(np.float64)
    if isinstance(events, Snapshot) and events.foreign is not None and len(events.foreign):
        value[np.isin(position, events.foreign)] = np.nan  # cents and pence do not add up
    return EventPart(
        len(sizes),
        row,
        np.asarray(events.item)[position].astype(np.int64),
        np.asarray(events.kind)[position].astype(np.int64),
        ts[keep].astype(np.int64),
        value,
    )


def behaviour_names(categories: Sequence[str]) -> tuple[str, ...]:
    """Names of the columns of ``behaviour``, in order: 8 + one a kind + 5 a category.

    Example:
        >>> behaviour_names(["Tea"])[-2:]
        ('freshness: Tea', 'regularity: Tea')
    """
    counts = tuple(f"{kind} count" for kind in _COUNTED_KINDS)
    return _WHOLE + counts + tuple(f"{block}: {name}" for block in _BLOCKS for name in categories)


def behaviour(
    events: Sequences, categories: Categories, kind: int, at: int, horizon: int, rows_B: Ints | None = None
) -> npt.NDArray[np.float32]:
    """Describe people by what they did before a moment: (B, F) float32, columns as ``behaviour_names``.

    Counts, days and money are logarithms of 1 + the figure; shares, freshness and regularity lie in 0 to 1.

    Args:
        events: A snapshot or live sequences.
        categories: C categories and where each item lies.
        kind: Code of the event kind that is to be predicted, such as purchase.
        at: The moment, microseconds; later events are not looked at.
        horizon: Length of a period, microseconds; "recent" means within one period before ``at``.
        rows_B: The people wanted, -1 = somebody without events; None for all.
    """
    part = events_of(events, rows_B, None, at)
    recent_M = part.ts >= at - horizon
    counts = [
        np.bincount(part.row[part.kind == KIND_CODES[name]], minlength=part.rows) for name in _COUNTED_KINDS
    ]
    blocks = _by_category(part, categories, kind, at, horizon, recent_M)
    whole = _whole(part, recent_M, at)
    return np.concatenate([whole, np.log1p(np.stack(counts, 1)), *blocks], axis=1).astype(np.float32)


def _whole(part: EventPart, recent_M: Bools, at: int) -> Float64s:
    """Figures over all of a person's events: (B, 8)."""

    def total(keep: Bools, weight: Float64s | None = None) -> Float64s:
        return np.bincount(part.row[keep], None if weight is None else weight[keep], part.rows).astype(
            np.float64
        )

    first, last = np.full(part.rows, np.nan), np.full(part.rows, np.nan)
    first[part.row[::-1]], last[part.row] = part.ts[::-1], part.ts  # sorted by time: the outermost wins
    paid = (part.kind == KIND_CODES["purchase"]) & (part.value > 0)
    starred = (part.kind == KIND_CODES["review"]) & np.isfinite(part.value)
    with np.errstate(invalid="ignore", divide="ignore"):
        stars = total(starred, part.value) / total(starred)
    day = part.ts // DAY
    spans = int(day.max(initial=0) - day.min(initial=0)) + 1
    with_item = part.item > 0
    columns = [
        np.log1p((at - first) / DAY),
        np.log1p((at - last) / DAY),
        np.log1p(_distinct(part.row, day - day.min(initial=0), spans, part.rows)),
        np.log1p(total(recent_M)),
        np.log1p(
            _distinct(part.row[with_item], part.item[with_item], int(part.item.max(initial=0)) + 1, part.rows)
        ),
        np.log1p(total(paid, part.value)),
        np.log1p(total(paid & recent_M, part.value)),
        stars,
    ]
    return np.stack(columns, 1)


def _distinct(row_M: Ints, code_M: Ints, size: int, rows: int) -> Ints:
    """Number of different codes (0 <= code < size) of each row: (B,)."""
    key = np.sort(
        row_M * size + code_M, kind="stable"
    )  # numpy's own unique hashes, and is several times slower here
    fresh = np.ones(len(key), np.bool_)
    fresh[1:] = key[1:] != key[:-1]
    return np.bincount(key[fresh] // size, minlength=rows)


def _by_category(
    part: EventPart, categories: Categories, kind: int, at: int, horizon: int, recent_M: Bools
) -> list[Float64s]:
    """The five blocks of (B, C): share, recent share, recent count, freshness, regularity.

    Shares are of all events that turn to an item; the other three look at the predicted kind alone. Freshness
    halves with every period since the last one; regularity is the share of the last periods that saw one.
    """
    num = len(categories.names)
    code = categories.item_N[part.item]
    turned = (code >= 0) & np.isin(part.kind, TARGET_CODES)
    wanted = (code >= 0) & (part.kind == kind)
    cell = part.row * num + code

    def table(keep: Bools) -> Float64s:
        return np.bincount(cell[keep], minlength=part.rows * num).reshape(part.rows, num).astype(np.float64)

    last = np.full(part.rows * num, -np.inf)
    last[cell[wanted]] = part.ts[wanted]
    fresh = np.exp2((last - at) / horizon).reshape(part.rows, num)
    regular = _regularity(part, cell, wanted, num, at, horizon)
    return [
        _shares(table(turned)),
        _shares(table(turned & recent_M)),
        np.log1p(table(wanted & recent_M)),
        fresh,
        regular,
    ]


def _shares(count_BC: Float64s) -> Float64s:
    """Rows that sum to 1, or to 0 where nothing was counted."""
    return np.asarray(count_BC / np.maximum(count_BC.sum(axis=1, keepdims=True), 1))


def _regularity(part: EventPart, cell: Ints, wanted: Bools, num: int, at: int, horizon: int) -> Float64s:
    """Share of a person's last PERIODS periods, none before their first event, with the category: (B, C)."""
    age = (at - 1 - part.ts) // horizon
    keep = wanted & (age < PERIODS)
    seen = np.zeros(part.rows * num * PERIODS, np.bool_)
    seen[cell[keep] * PERIODS + age[keep]] = True
    lived = np.ones(part.rows)
    lived[part.row[::-1]] = np.minimum(age[::-1] + 1, PERIODS)  # the first event is the oldest
    return np.asarray(seen.reshape(part.rows, num, PERIODS).sum(axis=2) / lived[:, None])


def say(feature: str, kind: str, more: bool) -> str:
    """Put one feature into words: which way it differs from what is usual.

    Example:
        >>> say("freshness: Tea", "purchase", True)
        'Tea: last purchase more recent than usual'
    """
    block, colon, name = feature.partition(": ")
    if not colon or block not in _BLOCKS:
        return f"{feature}: {'more' if more else 'less'} than usual"
    words = {
        "share": f"{'larger' if more else 'smaller'} share of attention than usual",
        "recent share": f"{'larger' if more else 'smaller'} share of recent attention than usual",
        "recent count": f"{'more' if more else 'fewer'} recent {kind} events than usual",
        "freshness": f"last {kind} {'more recent' if more else 'longer ago'} than usual",
        "regularity": f"{kind} in {'more' if more else 'fewer'} periods than usual",
    }
    return f"{name}: {words[block]}"
