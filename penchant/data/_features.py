"""What a person's behaviour comes to: one row of figures a person, as Ibis expressions.

The expressions run on any Ibis backend (DuckDB embedded by default) over a plain table of events:
``row`` (of the person), ``item`` (number, 0 = none), ``kind`` (code), ``ts`` (microseconds), ``ago``
(microseconds from the event to the ``as_of`` of the snapshot), ``amount`` (hundredths of a minor unit of the
main currency, or of a star; null = none) and ``category`` (1 to K, 0 = other or none).
Everything is summed as integers, so that the result does not depend on the order of rows, the number of
threads or the backend. Times of day and week are UTC.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from msgspec import Meta

from penchant.core import DAY, HOUR, INTEREST_LABEL, KIND_CODES, TARGET_CODES, USER_KEY, Ints, Noun, Snapshot
from penchant.data._batch import is_target
from penchant.data._ragged import user_blocks
from penchant.data._transform import FeatureTransform

if TYPE_CHECKING:
    import ibis.expr.types as ir

WEEK = 7 * DAY
CENTS = 100  # `amount` in hundredths, so that sums are exact
EVENT_BLOCK = 2_000_000  # events handed to the backend at a time
RECENT_DAYS = (7, 30)
DAY_PARTS = {"night": (0, 6), "morning": (6, 12), "afternoon": (12, 18), "evening": (18, 24)}
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_MONDAY = 4  # days from Thursday 1 January 1970 to the next Monday
EVENT_COLUMNS = {
    "row": "int32",
    "item": "int32",
    "kind": "int16",
    "ts": "int64",
    "ago": "int64",
    "amount": "int64",
    "category": "int16",
}
NOT_FEATURES = frozenset({USER_KEY, INTEREST_LABEL})  # who it is, and what is to be learned
RECIPE = "recipe"  # key of the recipe in the facts of a snapshot


class FeatureOptions(Noun, frozen=True):
    """What to know of a person beside the sequence of events."""

    num_categories: Annotated[int, Meta(ge=0, le=500)] = 24  # commonest categories that get a share each
    category_level: Annotated[int, Meta(ge=1, le=9)] = 1  # steps of the category path that make a category
    attributes: bool = True  # use what the shop says of its users


class FeatureRecipe(Noun, frozen=True):
    """How the features of a snapshot were made, so that the same can be made of other events.

    ``categories`` are the commonest of training time, by number of target events.
    """

    options: FeatureOptions
    categories: tuple[str, ...]
    transform: FeatureTransform

    def unknown(self) -> npt.NDArray[np.float32]:
        """Features of a person of whom nothing is known: (F,) float32."""
        figures = {name: [0.0 if name in _ZERO else None] for name in behaviour_names(self.categories)}
        raw = pa.table({name: pa.array(value, pa.float64()) for name, value in figures.items()})
        for rule in self.transform.rules:
            if rule.name not in figures:
                raw = raw.append_column(rule.name, pa.nulls(1))
        features: npt.NDArray[np.float32] = self.transform.apply(raw)[0]
        return features


def feature_recipe(snapshot: Snapshot) -> FeatureRecipe | None:
    """The recipe of a snapshot's features; None for one made by hand."""
    facts = snapshot.facts.get(RECIPE)
    return None if facts is None else msgspec.convert(facts, FeatureRecipe)


def behaviour(events: ir.Table, categories: Sequence[str]) -> ir.Table:
    """The figures of each row that has events, as one Ibis expression: ``row`` and ``behaviour_names``.

    Args:
        events: Columns as the head of this module says.
        categories: Names of categories 1 to K.
    """
    sums = _sums(events, len(categories))
    no_targets, no_events = sums.targets.nullif(0), sums.events.nullif(0)
    figures = {f"{kind} count": sums[f"kind {code}"] for kind, code in KIND_CODES.items()}
    figures |= {f"events in {days} days": sums[f"recent {days}"] for days in RECENT_DAYS}
    figures |= {
        "active days": sums.days,
        "days since last event": sums.last / DAY,
        "days since first event": sums.first / DAY,
        "days since last purchase": sums.last_purchase / DAY,
        "spend": sums.spend / CENTS,
        "refunded": sums.refunded / CENTS,
        "baskets": sums.baskets,
        "average basket": sums.spend / (sums.baskets * CENTS).nullif(0),
        "average stars": sums.stars / (sums.starred * CENTS).nullif(0),
        "distinct items": sums.items,
        "share of new items": sums.items / no_targets,
    }
    figures |= {f"share at {part}": sums[f"part {part}"] / no_events for part in DAY_PARTS}
    figures |= {f"share on {day}": sums[f"weekday {day}"] / no_events for day in WEEKDAYS}
    figures |= {
        f"share of {name}": sums[f"category {number}"] / no_targets
        for number, name in enumerate(categories, start=1)
    }
    return sums.select("row", **{name: value.cast("float64") for name, value in figures.items()})


def _sums(events: ir.Table, num_categories: int) -> ir.Table:
    """The whole numbers that all figures come from, a row a person."""
    day = events.ts - events.ts % DAY
    hour, weekday = events.ts % DAY, (day - _MONDAY * DAY) % WEEK
    bought = events.kind == KIND_CODES["purchase"]
    turned = events.kind.isin(TARGET_CODES) & (events.item > 0)
    wanted = {f"kind {code}": events.kind == code for code in KIND_CODES.values()}
    wanted |= {f"recent {days}": events.ago <= days * DAY for days in RECENT_DAYS}
    wanted |= {
        f"part {name}": (hour >= first * HOUR) & (hour < last * HOUR)
        for name, (first, last) in DAY_PARTS.items()
    }
    wanted |= {f"weekday {name}": weekday == number * DAY for number, name in enumerate(WEEKDAYS)}
    wanted |= {
        f"category {number}": turned & (events.category == number) for number in range(1, num_categories + 1)
    }
    return events.group_by("row").aggregate(
        events=events.count(),
        targets=events.count(where=turned),
        first=events.ago.max(),
        last=events.ago.min(),
        last_purchase=events.ago.min(where=bought),
        spend=events.amount.sum(where=bought),
        refunded=events.amount.abs().sum(where=events.kind == KIND_CODES["refund"]),
        stars=events.amount.sum(where=events.kind == KIND_CODES["review"]),
        starred=events.amount.count(where=events.kind == KIND_CODES["review"]),
        days=day.nunique(),
        items=events.item.nunique(where=turned),
        baskets=events.ts.nunique(where=bought),  # lines of one basket share their time
        **{name: events.count(where=condition) for name, condition in wanted.items()},
    )


# What these are for someone without events; all other figures are missing then.
_ZERO = frozenset(
    [f"{kind} count" for kind in KIND_CODES]
    + [f"events in {days} days" for days in RECENT_DAYS]
    + ["active days", "spend", "refunded", "baskets", "distinct items"]
)


def behaviour_names(categories: Sequence[str]) -> tuple[str, ...]:
    """Names of the figures of ``behaviour``, in order."""
    return (
        *(f"{kind} count" for kind in KIND_CODES),
        *(f"events in {days} days" for days in RECENT_DAYS),
        "active days",
        "days since last event",
        "days since first event",
        "days since last purchase",
        "spend",
        "refunded",
        "baskets",
        "average basket",
        "average stars",
        "distinct items",
        "share of new items",
        *(f"share at {part}" for part in DAY_PARTS),
        *(f"share on {day}" for day in WEEKDAYS),
        *(f"share of {name}" for name in categories),
    )


def event_table(snapshot: Snapshot, first: int, last: int, category_N: Ints) -> pa.Table:
    """The events of rows ``first`` to ``last`` in the form that ``behaviour`` reads."""
    begin, end = int(snapshot.ptr[first]), int(snapshot.ptr[last])
    item, ts = np.asarray(snapshot.item[begin:end]), np.asarray(snapshot.ts[begin:end])
    money = np.asarray(snapshot.value[begin:end], np.float64) * CENTS
    unknown = ~np.isfinite(money)
    if snapshot.foreign is not None and len(snapshot.foreign):
        left, right = np.searchsorted(snapshot.foreign, [begin, end])
        unknown[snapshot.foreign[left:right] - begin] = True
    amount = np.rint(np.where(unknown, 0.0, money)).astype(np.int64)
    row = np.repeat(np.arange(first, last, dtype=np.int32), np.diff(snapshot.ptr[first : last + 1]))
    return pa.table(
        {
            "row": row,
            "item": item,
            "kind": np.asarray(snapshot.kind[begin:end], np.int16),
            "ts": ts,
            "ago": snapshot.as_of - ts,
            "amount": pa.array(amount, mask=unknown),
            "category": np.asarray(category_N[item], np.int16),
        }
    )


def _run_on(backend: Any, events: pa.Table, categories: tuple[str, ...]) -> pa.Table:
    # by way of a file: every engine reads Parquet alike, while tables in memory lose their nulls on some
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "events.parquet"
        pq.write_table(events, path)
        return backend.to_pyarrow(behaviour(backend.read_parquet(str(path)), categories))


def _run_embedded(events: pa.Table, categories: tuple[str, ...]) -> pa.Table:
    import duckdb

    with duckdb.connect() as connection:
        connection.register("events", events)
        return connection.sql(_behaviour_sql(categories)).to_arrow_table()


@lru_cache(maxsize=64)
def _behaviour_sql(categories: tuple[str, ...]) -> str:
    """The expression in DuckDB's words; making it takes longer than running it on a small shop."""
    import ibis

    return str(ibis.to_sql(behaviour(ibis.table(EVENT_COLUMNS, name="events"), categories), dialect="duckdb"))


def raw_features(
    snapshot: Snapshot,
    options: FeatureOptions,
    categories: Sequence[str],
    *,
    backend: Any = None,
    block: int = EVENT_BLOCK,
) -> pa.Table:
    """Figures of behaviour and attributes of every row, as they are: U rows, nulls and NaN where missing.

    Args:
        snapshot: Its events, catalogue and attributes are read; its features are not.
        options: What to use.
        categories: Names of the categories to share the events out to.
        backend: An Ibis backend to run on; None = DuckDB, embedded.
        block: Events handed to the backend at a time, whole persons each; bounds the memory.
    """
    run = partial(_run_on, backend) if backend is not None else _run_embedded
    category_N = _category_numbers(snapshot, options.category_level, categories)
    names = behaviour_names(categories)
    figures = {
        name: np.full(snapshot.num_users, 0.0 if name in _ZERO else np.nan, np.float32) for name in names
    }
    for first, last in user_blocks(snapshot.ptr, block):
        table = event_table(snapshot, first, last, category_N)
        if not table.num_rows:
            continue
        found = run(table, tuple(categories))
        row = found["row"].to_numpy()
        for name in names:
            figure = found[name].to_numpy()
            figures[name][row] = np.nan_to_num(figure, nan=0.0) if name in _ZERO else figure
    raw = pa.table(figures)
    if options.attributes and snapshot.attributes is not None:
        raw = _with_attributes(raw, snapshot.attributes)
    return raw


def _with_attributes(raw: pa.Table, attributes: pa.Table) -> pa.Table:
    taken = set(raw.column_names)
    for name in attributes.column_names:
        if name not in NOT_FEATURES:
            raw = raw.append_column(f"{name} (attribute)" if name in taken else name, attributes.column(name))
    return raw


def item_categories(snapshot: Snapshot, level: int) -> list[str | None]:
    """The first ``level`` steps of the category path of every item, N long; None where there is none.

    Example:
        >>> from penchant.testing import toy_snapshot
        >>> toy = toy_snapshot([("u", "rye")], categories={"rye": "Grocery > Bread > Dark", "pen": "Office"})
        >>> item_categories(toy, 2)
        ['Office', 'Grocery > Bread']
    """
    codes, names = _short_paths(snapshot, level)
    return [names[code] if code >= 0 else None for code in codes.tolist()]


def _short_paths(snapshot: Snapshot, level: int) -> tuple[npt.NDArray[np.int64], list[str]]:
    """Number of the shortened path of every item (N,), -1 = none, and the distinct shortened paths."""
    table = snapshot.catalog.table
    if not table.num_rows or not snapshot.num_items:
        return np.full(snapshot.num_items, -1, np.int64), []
    place = pc.index_in(snapshot.items.array, value_set=table["id"].combine_chunks())
    full = table["category"].combine_chunks().dictionary_encode()
    short = [
        " > ".join(step.strip() for step in path.split(">")[:level]) for path in full.dictionary.to_pylist()
    ]
    names = sorted(set(short) - {""})
    number = {name: code for code, name in enumerate(names)}
    code_of = np.array([number.get(name, -1) for name in short] + [-1], np.int64)
    full_N = pc.fill_null(full.indices.take(place), len(short)).to_numpy(zero_copy_only=False)
    return code_of[full_N], names


def _category_numbers(snapshot: Snapshot, level: int, categories: Sequence[str]) -> npt.NDArray[np.int16]:
    """Number of the category of every item, by item number: (N + 1,), 0 = other or none."""
    codes, names = _short_paths(snapshot, level)
    number = {name: place for place, name in enumerate(categories, start=1)}
    of_code = np.array([number.get(name, 0) for name in names] + [0], np.int16)
    return np.concatenate([np.zeros(1, np.int16), of_code[codes]])


def top_categories(snapshot: Snapshot, options: FeatureOptions) -> tuple[str, ...]:
    """The commonest categories by number of target events, in order of name."""
    codes, names = _short_paths(snapshot, options.category_level)
    if not names or not options.num_categories:
        return ()
    count_N = np.zeros(snapshot.num_items + 1, np.int64)
    for begin in range(0, snapshot.num_events, EVENT_BLOCK):
        part = slice(begin, begin + EVENT_BLOCK)
        item = snapshot.item[part][is_target(snapshot.kind[part], snapshot.item[part])]
        count_N += np.bincount(item, minlength=len(count_N))
    count = np.bincount(codes[codes >= 0], weights=count_N[1:][codes >= 0], minlength=len(names))
    best = sorted(range(len(names)), key=lambda code: (-count[code], names[code]))[: options.num_categories]
    return tuple(sorted(names[code] for code in best if count[code] > 0))


def fit_recipe(snapshot: Snapshot, options: FeatureOptions) -> tuple[FeatureRecipe, pa.Table]:
    """Learn from a snapshot's own events how features are made; also returns the raw figures."""
    categories = top_categories(snapshot, options)
    raw = raw_features(snapshot, options, categories)
    transform = FeatureTransform.fit(raw, leave_out=NOT_FEATURES)
    return FeatureRecipe(options=options, categories=categories, transform=transform), raw


def with_features(snapshot: Snapshot, like: Snapshot | None = None) -> Snapshot:
    """The snapshot with features made anew from its own events.

    Args:
        snapshot: One made by hand, without a recipe, comes back as it is: we cannot remake its features.
        like: Normalise with the statistics of this (training) snapshot; None = with its own.
    """
    recipe = feature_recipe(snapshot if like is None else like)
    if recipe is None:
        return snapshot
    if like is None:
        return add_features(snapshot, recipe.options)
    return _featured(snapshot, recipe, raw_features(snapshot, recipe.options, recipe.categories))


def add_features(snapshot: Snapshot, options: FeatureOptions | None = None) -> Snapshot:
    """The snapshot with features, and a recipe for them, learned from its own events."""
    return _featured(snapshot, *fit_recipe(snapshot, options or FeatureOptions()))


def _featured(snapshot: Snapshot, recipe: FeatureRecipe, raw: pa.Table) -> Snapshot:
    return replace(
        snapshot,
        features=recipe.transform.apply(raw),
        feature_names=recipe.transform.names,
        facts=snapshot.facts | {RECIPE: msgspec.to_builtins(recipe)},
    )
