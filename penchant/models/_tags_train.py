"""From a shop's data to fitted interest tags with an honest test: one function for the engine.

Where users carry labels, a seeded fifth of them is held out. Otherwise time is: the test asks, as of the
start of the last period, from which categories people took in it; nothing later was fitted or chosen on.

Letters: R rows of training, P people of the test, U users, C tags.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from penchant.core import (
    DAY,
    INTEREST_LABEL,
    KIND_CODES,
    USER_KEY,
    Ints,
    Run,
    Snapshot,
    iso,
    rng,
)
from penchant.core.errors import ModelError
from penchant.models._tags import MIN_ROWS, BehaviourView, Tags, TagsConfig, join_columns
from penchant.models._tags_features import Categories, behaviour
from penchant.models._tags_fit import fit_tags, refit_tags
from penchant.models._tags_labels import (
    Labels,
    as_labels,
    auto_horizon,
    choose_categories,
    labels_from_users,
    last_moment,
    period_labels,
    strongest_kind,
)

HELD_OUT = 5  # one person in five is kept for the test of shop labels


@dataclass(frozen=True, eq=False)
class TrainedTags:
    """A model fitted on everything, and what a model fitted without the test said of the test.

    ``baselines`` holds (P, C) probabilities under the same test: "base rate", and for next-period categories
    "same as last period", the chance of a tag given whether the person had it in the period before. What
    they say outright is in ``baseline_decisions``: "same as last period" the same tags again, and "base rate"
    what reaches the best F1 on the training rows, as the model's own thresholds do. It cannot tell people
    apart, and saying a tag of everybody has a better F1 than never saying it, so that is every tag that
    occurs. "base rate, from one half" has the same probabilities, with the decisions that make the fewest
    errors. With softmax the base rate, like the model, says the likeliest tag.
    """

    model: Tags
    source: Literal["interest_label", "next period"]
    names: tuple[str, ...]
    subjects: list[str]  # (P,) who was tested
    probability_PC: npt.NDArray[np.float32]
    decision_PC: npt.NDArray[np.bool_]  # what the model says outright, at its own thresholds
    label_PC: npt.NDArray[np.float32]
    baselines: dict[str, npt.NDArray[np.float64]]
    baseline_decisions: dict[str, npt.NDArray[np.bool_]] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)  # sizes and times, ready for JSON


def train_tags(
    snapshot: Snapshot, users: pa.Table | None, config: TagsConfig | None = None, run: Run | None = None
) -> TrainedTags:
    """Fit interest tags: on the shop's labels where users carry any, else on next-period categories.

    Args:
        snapshot: All events and the catalogue; may be empty where users carry labels.
        users: What the shop says of its users, keyed by ``user_id``; None = nothing.
        config: Settings; None = all defaults.
        run: Seed, device and progress; None = seed 0 on the CPU.

    Raises:
        ModelError: There are neither labels nor categories enough to learn, or they do not differ.
        MissingExtra: torch is not installed.
    """
    config, run = config or TagsConfig(), run or Run()
    if users is not None and INTEREST_LABEL in users.column_names:
        rows_R, tags = labels_from_users(users)
        if len(rows_R) >= MIN_ROWS:
            return _on_labels(snapshot, users.take(pa.array(rows_R)), tags, config, run)
    return _on_periods(snapshot, users, config, run)


# -- labels of the shop ------------------------------------------------------------------------------------


def _on_labels(
    snapshot: Snapshot, users: pa.Table, tags: Sequence[Any], config: TagsConfig, run: Run
) -> TrainedTags:
    labels = as_labels(tags)
    subjects = users.column(USER_KEY).cast(pa.string()).to_pylist()
    view, categories = _optional_view(snapshot, config)
    table = pa.table(_own_columns(users) if config.attributes or view is None else {})
    if view is not None:
        rows_R = snapshot.users.numbers(subjects) - 1
        at, kind = last_moment(snapshot), KIND_CODES[view.kind]
        matrix = behaviour(snapshot, categories, kind, at, view.horizon, rows_R)
        table = join_columns(table, matrix, view.categories)
    test_R = held_out_rows(labels, run.seed)
    learn = np.flatnonzero(~test_R)
    model = fit_tags(table.take(pa.array(learn)), _rows(labels, learn), config, run, view=view)
    test = np.flatnonzero(test_R)
    probability_PC = model.predict(table.take(pa.array(test)))
    chances, said = _base_rate(model, len(test))
    return TrainedTags(
        model=refit_tags(model, table, labels, run),
        source="interest_label",
        names=labels.names,
        subjects=[subjects[row] for row in test],
        probability_PC=probability_PC,
        decision_PC=model.decide(probability_PC),
        label_PC=labels.y_RC[test],
        baselines=chances,
        baseline_decisions=said,
        facts={"trained_on": len(learn), "tested_on": len(test), "features": len(model.transform.names)},
    )


def held_out_rows(labels: Labels, seed: int) -> npt.NDArray[np.bool_]:
    """Choose one row in five for the test, spread evenly over the tags: (R,).

    People are lined up by their rarest tag; a tag that fewer than five people carry may stay out of the test.
    """
    count_C = labels.y_RC.sum(axis=0)
    rarity_RC = np.where(labels.y_RC > 0, count_C, np.inf)
    rarest_R = np.where(labels.y_RC.any(axis=1), rarity_RC.argmin(axis=1), -1)
    test_R = np.zeros(len(rarest_R), np.bool_)
    draw = rng(seed, "tags", "held out")
    for tag in np.unique(rarest_R):
        rows = draw.permutation(np.flatnonzero(rarest_R == tag))
        test_R[rows[: len(rows) // HELD_OUT]] = True
    if not test_R.any():  # every tag is rare
        test_R[draw.permutation(len(test_R))[: max(1, len(test_R) // HELD_OUT)]] = True
    return test_R


def _rows(labels: Labels, rows: Ints) -> Labels:
    return Labels(labels.names, labels.y_RC[rows], labels.single)


def _optional_view(snapshot: Snapshot, config: TagsConfig) -> tuple[BehaviourView | None, Categories]:
    """How to look at events beside the shop's own columns; None where there are no events."""
    nowhere = Categories((), np.full(snapshot.num_items + 1, -1, np.int32))
    if not snapshot.num_events:
        return None, nowhere
    level = 1
    try:
        kind = strongest_kind(snapshot)
        period = int(np.min(snapshot.ts)), last_moment(snapshot)
        categories, level = _choose(snapshot, kind, period, config)
    except ModelError:  # no catalogue, or no event turns to it: counts, recency and spend remain
        kind, categories = "purchase", nowhere
    return _view(snapshot, config, kind, level, categories), categories


def _choose(
    snapshot: Snapshot, kind: str, period: tuple[int, int], config: TagsConfig
) -> tuple[Categories, int]:
    code = KIND_CODES[kind]
    return choose_categories(snapshot, code, period, config.level, config.max_tags, config.min_users)


def _view(
    snapshot: Snapshot, config: TagsConfig, kind: str, level: int, categories: Categories
) -> BehaviourView:
    return BehaviourView(
        kind=kind,
        level=level,
        categories=categories.names,
        horizon=_horizon(snapshot, config),
        currency=snapshot.facts.get("currency"),
    )


def _horizon(snapshot: Snapshot, config: TagsConfig) -> int:
    days = config.horizon_days
    return auto_horizon(snapshot) if days is None else max(1, round(days * DAY))


def _own_columns(users: pa.Table) -> dict[str, pa.ChunkedArray]:
    """Columns of the user table that may be features."""
    return {name: users.column(name) for name in users.column_names if name not in {USER_KEY, INTEREST_LABEL}}


# -- categories of the next period -------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Lookout:
    """Makes rows for any moment: features from before it, tags from the period after it."""

    snapshot: Snapshot
    attributes: pa.Table  # (U) rows; no columns where the shop says nothing of its users
    categories: Categories
    view: BehaviourView
    max_rows: int
    seed: int

    def active(self, at: int) -> npt.NDArray[np.int64]:
        """Rows of people with an event before a moment, a sample if there are too many."""
        ptr = np.asarray(self.snapshot.ptr)
        rows = np.flatnonzero(np.diff(ptr) > 0)
        rows = rows[np.asarray(self.snapshot.ts)[ptr[rows]] < at]
        if len(rows) > self.max_rows:
            rows = np.sort(rng(self.seed, "tags", "sample").choice(rows, self.max_rows, replace=False))
        return rows

    def labels(self, at: int, rows_B: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """What people took in the period from ``at`` on: (B, C)."""
        kind = KIND_CODES[self.view.kind]
        return period_labels(self.snapshot, self.categories, kind, at, self.view.horizon, rows_B)

    def rows(self, moments: Sequence[int]) -> _Rows:
        """Features and labels as of several moments, one below the other."""
        who = [self.active(at) for at in moments]
        pairs = list(zip(moments, who, strict=True))
        kind, horizon = KIND_CODES[self.view.kind], self.view.horizon
        matrix = [behaviour(self.snapshot, self.categories, kind, at, horizon, rows) for at, rows in pairs]
        row_R = np.concatenate(who)
        own = self.attributes.take(pa.array(row_R)) if self.attributes.num_columns else pa.table({})
        return _Rows(
            row_R=row_R,
            table=join_columns(own, np.concatenate(matrix), self.view.categories),
            y_RC=np.concatenate([self.labels(at, rows) for at, rows in pairs]),
            earlier_RC=np.concatenate([self.labels(at - horizon, rows) for at, rows in pairs]),
        )


@dataclass(frozen=True, eq=False)
class _Rows:
    row_R: npt.NDArray[np.int64]  # whose row it is
    table: pa.Table
    y_RC: npt.NDArray[np.float32]
    earlier_RC: npt.NDArray[np.float32]  # tags of the period before


def _on_periods(snapshot: Snapshot, users: pa.Table | None, config: TagsConfig, run: Run) -> TrainedTags:
    kind, horizon = strongest_kind(snapshot), _horizon(snapshot, config)
    end, first = last_moment(snapshot), int(np.min(snapshot.ts))
    moments = [end - step * horizon for step in range(1, config.windows + 2)]  # newest first
    moments = [at for at in moments if at > first]
    if len(moments) < 2:
        raise ModelError(
            "the log is too short to learn next-period interests from",
            value=f"{(end - first) / DAY:.3g} days",
            hint=f"it must span more than two periods of {horizon / DAY:.3g} days; "
            "lower horizon_days under [train.settings.tags]",
        )
    test_at, learn = moments[0], moments[1:]
    categories, level = _choose(snapshot, kind, (learn[0], test_at), config)
    view = _view(snapshot, config, kind, level, categories)
    attributes = _attributes(snapshot, users) if config.attributes else pa.table({})
    lookout = _Lookout(snapshot, attributes, categories, view, config.max_rows // len(learn), run.seed)
    seen, test = lookout.rows(learn), lookout.rows([test_at])
    labels = Labels(categories.names, seen.y_RC, single=False)
    model = fit_tags(seen.table, labels, _sigmoid(config), run, groups=seen.row_R, view=view)
    probability_PC = model.predict(test.table)
    chances, said = _base_rate(model, len(test.row_R))
    again = lookout.rows(moments[: config.windows])
    return TrainedTags(
        model=refit_tags(model, again.table, Labels(categories.names, again.y_RC, single=False), run),
        source="next period",
        names=categories.names,
        subjects=snapshot.users.array.take(pa.array(test.row_R)).to_pylist(),
        probability_PC=probability_PC,
        decision_PC=model.decide(probability_PC),
        label_PC=test.y_RC,
        baselines=chances | {"same as last period": _persistence(seen, test)},
        baseline_decisions=said | {"same as last period": test.earlier_RC > 0},
        facts={
            "kind": kind,
            "level": level,
            "horizon_days": horizon / DAY,
            "tested_from": iso(test_at),
            "tested_until": iso(end),
            "trained_on": len(seen.row_R),
            "tested_on": len(test.row_R),
            "features": len(model.transform.names),
        },
    )


def _sigmoid(config: TagsConfig) -> TagsConfig:
    if config.mode == "softmax":
        raise ModelError(
            "people take from several categories in a period: softmax cannot say so",
            value=config.mode,
            hint="set mode under [train.settings.tags] to auto or sigmoid, or supply one interest_label for each user",
        )
    return config


def _attributes(snapshot: Snapshot, users: pa.Table | None) -> pa.Table:
    """What the shop says of each user of the snapshot: (U) rows, null where it says nothing."""
    if users is None:
        users, place = snapshot.attributes, None
    else:
        key = users.column(USER_KEY).cast(pa.string()).combine_chunks()
        place = pc.index_in(snapshot.users.array, value_set=key)
    if users is None:
        return pa.table({})
    own = pa.table(_own_columns(users))
    return own if place is None or not own.num_columns else own.take(place)


def _base_rate(
    model: Tags, people: int
) -> tuple[dict[str, npt.NDArray[np.float64]], dict[str, npt.NDArray[np.bool_]]]:
    """The base rate's rows of ``baselines`` and of ``baseline_decisions``, for so many people."""
    chance_PC = np.tile(model.base_rate_C, (people, 1))
    if model.softmax:
        return {"base rate": chance_PC}, {}
    chances = {"base rate": chance_PC, "base rate, from one half": chance_PC}
    return chances, {"base rate": chance_PC > 0, "base rate, from one half": chance_PC >= 0.5}


def _persistence(seen: _Rows, test: _Rows) -> npt.NDArray[np.float64]:
    """The chance of each tag given whether the person had it in the period before: (P, C)."""
    y, had = seen.y_RC.astype(np.float64), seen.earlier_RC.astype(np.float64)
    base_C = y.mean(axis=0)
    again_C = ((y * had).sum(axis=0) + base_C) / (had.sum(axis=0) + 1)
    fresh_C = ((y * (1 - had)).sum(axis=0) + base_C) / ((1 - had).sum(axis=0) + 1)
    return np.asarray(np.where(test.earlier_RC > 0, again_C, fresh_C), np.float64)
