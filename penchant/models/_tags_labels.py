"""What the interest classifier learns: labels the shop supplies, or the categories bought from next.

Letters: R rows (one a person), U users, C tags.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penchant.core import DAY, INTEREST_LABEL, KIND_CODES, Snapshot
from penchant.core.errors import InputError, ModelError
from penchant.data import Sequences
from penchant.models._tags_features import (
    PATH_SEPARATOR,
    Categories,
    catalog_categories,
    events_of,
    keep_categories,
)

LABEL_SEPARATOR = "|"  # between several tags of one person where a file cannot hold lists
MAX_LEVEL = 6  # category paths are not followed deeper than this
MAX_HORIZON = 28 * DAY
# From the act that says most to the one that says least.
_STRENGTH = ("purchase", "cart_add", "wishlist", "review", "view", "click")
_ENOUGH = 100  # events of a kind below which a commoner kind is predicted instead


@dataclass(frozen=True, eq=False)
class Labels:
    """Tags of R people: ``y_RC`` holds 0 and 1; ``single`` says that each has exactly one."""

    names: tuple[str, ...]
    y_RC: npt.NDArray[np.float32]
    single: bool


def as_labels(tags: Sequence[str | Iterable[str]]) -> Labels:
    """Turn one tag or several tags for each person into a table of 0 and 1, tags in order of name.

    Example:
        >>> as_labels(["tea", "cake", "tea"]).y_RC.tolist()
        [[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]]
        >>> as_labels([["tea", "cake"], []]).single
        False
    """
    single = all(isinstance(entry, str) for entry in tags)
    rows = [[entry] if isinstance(entry, str) else sorted(set(entry)) for entry in tags]
    names = sorted({tag for row in rows for tag in row})
    number = {name: position for position, name in enumerate(names)}
    y_RC = np.zeros((len(rows), len(names)), np.float32)
    for row, own in enumerate(rows):
        y_RC[row, [number[tag] for tag in own]] = 1
    return Labels(tuple(names), y_RC, single)


def labels_from_users(
    users: pa.Table, column: str = INTEREST_LABEL
) -> tuple[npt.NDArray[np.int64], list[str] | list[list[str]]]:
    """Read the shop's own labels out of its user table.

    Args:
        users: One row a user. The column holds a tag, several tags joined by "|", or a list of tags.
        column: The name of that column.

    Returns:
        The rows that carry a label (R,), and the label of each: all single tags, or all lists of tags.

    Raises:
        InputError: There is no such column, or it holds neither text nor lists of text.

    Example:
        >>> labels_from_users(pa.table({"interest_label": ["tea", None, " cake "]}))
        (array([0, 2]), ['tea', 'cake'])
        >>> labels_from_users(pa.table({"interest_label": ["tea|cake", "tea"]}))[1]
        [['tea', 'cake'], ['tea']]
    """
    if column not in users.column_names:
        raise InputError("the user table has no label column", value=column, hint=f"add {column}")
    found: list[list[str]] = []
    values = users.column(column).to_pylist()
    several = any(isinstance(value, list) or LABEL_SEPARATOR in str(value) for value in values)
    for value in values:
        if not (value is None or isinstance(value, str | list)):
            raise InputError("a label must be text or a list of text", value=value, path=column)
        parts = value.split(LABEL_SEPARATOR) if isinstance(value, str) else (value or [])
        found.append([part.strip() for part in parts if part and part.strip()])
    rows = np.flatnonzero([bool(tags) for tags in found]).astype(np.int64)
    kept = [found[row] for row in rows]
    return rows, kept if several else [tags[0] for tags in kept]


def next_period_labels(
    snapshot: Snapshot, at: int, horizon: int, level: int, kind: str | None = None
) -> tuple[tuple[str, ...], npt.NDArray[np.float32]]:
    """Tell which categories each user takes something from in a period: names (C), (U, C) of 0 and 1.

    Args:
        snapshot: Holds the events of the period and the catalogue.
        at: Begin of the period, microseconds (inclusive).
        horizon: Its length, microseconds.
        level: How many steps of the category path make a tag, from 1.
        kind: The act that counts; None = purchase, or in a shop without purchases the strongest there is.
    """
    categories = catalog_categories(snapshot.catalog, snapshot.items, level)
    code = KIND_CODES[kind or strongest_kind(snapshot)]
    return categories.names, period_labels(snapshot, categories, code, at, horizon)


def period_labels(
    events: Sequences,
    categories: Categories,
    kind: int,
    at: int,
    horizon: int,
    rows_B: npt.NDArray[np.int64] | None = None,
) -> npt.NDArray[np.float32]:
    """As ``next_period_labels``, for known categories and some rows: (B, C) of 0 and 1."""
    part = events_of(events, rows_B, at, at + horizon)
    code = categories.item_N[part.item]
    keep = (code >= 0) & (part.kind == kind)
    y_BC = np.zeros((part.rows, len(categories.names)), np.float32)
    y_BC[part.row[keep], code[keep]] = 1
    return y_BC


def strongest_kind(events: Sequences) -> str:
    """Name the strongest kind of act that is not rare here; purchase where people buy.

    Raises:
        ModelError: No event turns to an item.
    """
    count = np.bincount(np.asarray(events.kind)[np.asarray(events.item) > 0], minlength=256)
    for least in (_ENOUGH, 1):
        for kind in _STRENGTH:
            if count[KIND_CODES[kind]] >= least:
                return kind
    raise ModelError("no event turns to an item: there are no interests to learn", hint="ingest events")


def last_moment(snapshot: Snapshot) -> int:
    """Just after the last event, or the snapshot's own time if that is earlier."""
    if not snapshot.num_events:
        raise ModelError("there are no events to learn interests from", hint="ingest events first")
    return min(snapshot.as_of, int(np.max(snapshot.ts)) + 1)


def auto_horizon(snapshot: Snapshot) -> int:
    """A sixth of the log in whole days (hours if it is shorter), at most four weeks; microseconds."""
    sixth = (last_moment(snapshot) - int(np.min(snapshot.ts))) // 6
    step = DAY if sixth >= DAY else DAY // 24
    return int(min(MAX_HORIZON, max(step, sixth // step * step)))


def choose_categories(
    snapshot: Snapshot, kind: int, period: tuple[int, int], level: int, max_tags: int, min_users: int
) -> tuple[Categories, int]:
    """Choose the tags: the most taken categories at one level of the catalogue, and that level.

    Args:
        snapshot: Only its events within the period are looked at.
        kind: Code of the act that is predicted.
        period: Begin and end, microseconds.
        level: Steps of the category path; 0 = the level at which people differ most: the largest sum of
            the tags' entropies, a deeper level only where it gains a quarter.
        max_tags: Keep this many at most, those that most people took from.
        min_users: Leave out categories that fewer people took from.

    Raises:
        ModelError: No category at any level was taken from by enough people.
    """
    at, until = period
    best, gain = None, 0.0
    for depth in range(1, _depth(snapshot) + 1) if level == 0 else (level,):
        every = catalog_categories(snapshot.catalog, snapshot.items, depth)
        users = period_labels(snapshot, every, kind, at, until - at).sum(axis=0)
        order = np.argsort(-users, kind="stable")[:max_tags]
        order = np.sort(order[users[order] >= min_users])
        share = users[order] / max(1, snapshot.num_users)
        entropy = float(-np.sum(_xlogx(share) + _xlogx(1 - share)))
        if len(order) and (best is None or entropy > 1.25 * gain):
            best, gain = (keep_categories(every, [every.names[place] for place in order]), depth), entropy
    if best is None:
        raise ModelError(
            f"no catalogue category was taken from by at least {min_users} people in a period",
            hint="ingest a catalogue with categories, supply interest_label for users, "
            "or lower min_users under [train.settings.tags]",
        )
    return best


def _depth(snapshot: Snapshot) -> int:
    """Steps of the longest category path, at least 1 and at most MAX_LEVEL."""
    paths = pa.chunked_array(snapshot.catalog.table["category"]).unique().drop_null().to_pylist()
    return min(MAX_LEVEL, max((path.count(PATH_SEPARATOR) + 1 for path in paths), default=1))


def _xlogx(share_C: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return share_C * np.log(np.maximum(share_C, 1e-12))
