"""What the interest classifier looks at: one row of behaviour figures for each person, as of a moment.

Letters: B people, C categories, F features, M events, N items. A missing figure is NaN; the model's own
``FeatureTransform`` fills and normalises. Only events strictly before ``at`` count.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from penchant.core import DAY, KIND_CODES, KINDS, TARGET_CODES, Bools, Catalog, Ints, Vocabulary
from penchant.data import Sequences

PERIODS = 6  # how many past periods the regularity of a habit is counted over
Float64s = npt.NDArray[np.float64]
PATH_SEPARATOR = " > "
# Never acts of interest of their own: what we showed, and what a person did to a page rather than an item.
_COUNTED_KINDS = tuple(kind for kind in KINDS if kind not in {"impression", "promo_view", "filter", "signup"})
_WHOLE = ("tenure", "recency", "active days", "events recently", "distinct items", "spend", "spend recently", "stars")


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


def named_categories(catalog: Catalog, items: Vocabulary, level: int, names: tuple[str, ...]) -> Categories:
    """Place items in the given categories only, as a fitted model needs it for a later catalogue."""
    every = catalog_categories(catalog, items, level)
    return keep_categories(every, names)


def keep_categories(categories: Categories, names: tuple[str, ...]) -> Categories:
    """The same items, with only the named categories left, in the order given."""
    number = {name: position for position, name in enumerate(names)}
    code = np.array([number.get(name, -1) for name in categories.names] + [-1], np.int32)
    return Categories(tuple(names), code[categories.item_N])


@dataclass(frozen=True, eq=False)
class _Part:
    """Events of the chosen people before a moment, with the row of each."""

    rows: int
    row: npt.NDArray[np.int64]
    item: npt.NDArray[np.int64]
    kind: npt.NDArray[np.int64]
    ts: npt.NDArray[np.int64]
    value: Float64s


def events_of(events: Sequences, rows_B: Ints | None, since: int | None, until: int) -> _Part:
    """Take the events of some rows with since <= ts < until, in order."""
    ptr = np.asarray(events.ptr, np.int64)
    if rows_B is None:
        sizes = np.diff(ptr)
        position = np.arange(ptr[0], ptr[-1])
    else:
        sizes = ptr[np.asarray(rows_B) + 1] - ptr[rows_B]
        shift = ptr[rows_B] - np.concatenate([[0], np.cumsum(sizes)[:-1]])
        position = np.arange(int(sizes.sum())) + np.repeat(shift, sizes)
    row = np.repeat(np.arange(len(sizes)), sizes)
    ts = np.asarray(events.ts)[position]
    keep = ts < until if since is None else (ts < until) & (ts >= since)
    position, row = position[keep], row[keep]
    return _Part(
        len(sizes),
        row,
        np.asarray(events.item)[position].astype(np.int64),
        np.asarray(events.kind)[position].astype(np.int64),
        ts[keep].astype(np.int64),
        np.asarray(events.value)[position].astype(np.float64),
    )


def behaviour_names(categories: tuple[str, ...]) -> tuple[str, ...]:
    """Names of the columns of ``behaviour``, in order: 8 + kinds + 5 for each category."""
    counts = tuple(f"{kind} count" for kind in _COUNTED_KINDS)
    blocks = ("share", "share recently", "bought recently", "days since", "regularity")
    return _WHOLE + counts + tuple(f"{block}: {name}" for block in blocks for name in categories)


def behaviour(
    events: Sequences, categories: Categories, kind: int, at: int, horizon: int, rows_B: Ints | None = None
) -> npt.NDArray[np.float32]:
    """Describe people by what they did before a moment: (B, F) float32, columns as ``behaviour_names``.

    Args:
        events: A snapshot or live sequences.
        categories: C categories and where each item lies.
        kind: Code of the event kind that is to be predicted, such as purchase.
        at: The moment, microseconds; later events are not looked at.
        horizon: Length of a period, microseconds; "recently" means within one period before ``at``.
        rows_B: The people wanted; None for all.
    """
    part = events_of(events, rows_B, None, at)
    recent = part.ts >= at - horizon
    whole = _whole(part, recent, at)
    counts = np.stack([np.bincount(part.row[part.kind == KIND_CODES[name]], minlength=part.rows) for name in _COUNTED_KINDS], 1)
    blocks = _by_category(part, categories, kind, at, horizon)
    return np.concatenate([whole, np.log1p(counts), *blocks], axis=1).astype(np.float32)


def _whole(part: _Part, recent: Bools, at: int) -> Float64s:
    """Figures over all of a person's events: (B, 8)."""

    def per_row(weight: Float64s | None, keep: Bools) -> Float64s:
        return np.bincount(part.row[keep], None if weight is None else weight[keep], part.rows).astype(np.float64)

    every = np.ones(len(part.row), np.bool_)
    first, last = np.full(part.rows, np.nan), np.full(part.rows, np.nan)
    first[part.row[::-1]], last[part.row] = part.ts[::-1], part.ts  # sorted by time: the outermost wins
    paid = (part.kind == KIND_CODES["purchase"]) & np.isfinite(part.value) & (part.value > 0)
    starred = (part.kind == KIND_CODES["review"]) & np.isfinite(part.value)
    days = np.unique(part.row * 1_000_000 + part.ts // DAY)
    with_item = part.item > 0
    pairs = np.unique(part.row[with_item] << 32 | part.item[with_item])
    with np.errstate(invalid="ignore", divide="ignore"):
        stars = per_row(part.value, starred) / per_row(None, starred)
    columns = [
        np.log1p((at - first) / DAY),
        np.log1p((at - last) / DAY),
        np.log1p(np.bincount(days // 1_000_000, minlength=part.rows)),
        np.log1p(per_row(None, recent)),
        np.log1p(np.bincount(pairs >> 32, minlength=part.rows)),
        np.log1p(per_row(part.value, paid & every)),
        np.log1p(per_row(part.value, paid & recent)),
        stars,
    ]
    return np.stack(columns, 1)


def _by_category(
    part: _Part, categories: Categories, kind: int, at: int, horizon: int
) -> list[Float64s]:
    """Five blocks of (B, C): share, recent share, recent count, days since, share of periods with one."""
    num = len(categories.names)
    code = categories.item_N[part.item]
    turned = (code >= 0) & np.isin(part.kind, TARGET_CODES)
    bought = (code >= 0) & (part.kind == kind)
    cell = part.row * num + code
    recent = part.ts >= at - horizon

    def table(keep: Bools) -> Float64s:
        return np.bincount(cell[keep], minlength=part.rows * num).reshape(part.rows, num).astype(np.float64)

    share, share_recent = (_shares(table(keep)) for keep in (turned, turned & recent))
    last = np.full(part.rows * num, np.nan)
    last[cell[bought]] = part.ts[bought]
    since = np.log1p((at - last) / DAY).reshape(part.rows, num)
    return [share, share_recent, np.log1p(table(bought & recent)), since, _regularity(part, cell, bought, num, at, horizon)]


def _shares(count_BC: Float64s) -> Float64s:
    """Rows that sum to 1, or to 0 where nothing was counted."""
    return count_BC / np.maximum(count_BC.sum(axis=1, keepdims=True), 1)


def _regularity(
    part: _Part, cell: npt.NDArray[np.int64], bought: Bools, num: int, at: int, horizon: int
) -> Float64s:
    """Share of a person's last PERIODS periods that saw the category: (B, C); periods before the first event do not count."""
    age = (at - 1 - part.ts) // horizon
    keep = bought & (age < PERIODS)
    marks = np.unique(cell[keep] * PERIODS + age[keep]) // PERIODS
    seen = np.bincount(marks, minlength=part.rows * num).reshape(part.rows, num)
    lived = np.ones(part.rows)
    np.maximum.at(lived, part.row, np.minimum(age + 1, PERIODS))
    return seen / lived[:, None]
