"""Behaviour figures against an obvious loop, and that they know nothing of other people or later times."""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import replace

import ibis
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penchant.core import DAY, KIND_CODES, KINDS, TARGET_KINDS, Snapshot
from penchant.data import (
    FeatureOptions,
    add_features,
    before,
    feature_recipe,
    item_categories,
    raw_features,
    with_features,
)
from penchant.data._features import behaviour_names
from penchant.testing import toy_snapshot

CATEGORIES = {"a": "Food > Bread", "b": "Food > Milk", "c": "Toys", "d": ""}
NAMES = ("Food", "Toys")

event = st.tuples(
    st.sampled_from(["u", "v", "w"]),
    st.sampled_from(["a", "b", "c", "d", None]),
    st.integers(0, 40) | st.sampled_from([0.25, 0.5, 0.75, 1.5]),
    st.sampled_from(KINDS),
    st.sampled_from([math.nan, 0.0, -250.0, 1999.0, 4.5]),
)


def shop(rows: list) -> Snapshot:
    return toy_snapshot([row[:4] for row in rows], values=[row[4] for row in rows], categories=CATEGORIES)


def slow_figures(snapshot: Snapshot, row: int) -> dict[str, float | None]:
    """What ``behaviour`` promises, said with loops."""
    shown = item_categories(snapshot, 1)
    foreign = set() if snapshot.foreign is None else set(snapshot.foreign.tolist())
    events = []
    for m in range(snapshot.ptr[row], snapshot.ptr[row + 1]):
        money = None if math.isnan(snapshot.value[m]) or m in foreign else float(snapshot.value[m])
        events.append((int(snapshot.item[m]), KINDS[snapshot.kind[m] - 1], int(snapshot.ts[m]), money))
    when = [dt.datetime(1970, 1, 1) + dt.timedelta(microseconds=ts) for _, _, ts, _ in events]
    targets = [e for e in events if e[1] in TARGET_KINDS and e[0]]
    bought = [e for e in events if e[1] == "purchase"]
    stars = [e[3] for e in events if e[1] == "review" and e[3] is not None]
    baskets = len({e[2] for e in bought})
    spend = sum(e[3] for e in bought if e[3] is not None)
    n = len(events)

    def ago(found: list) -> float | None:
        return min((snapshot.as_of - e[2]) / DAY for e in found) if found else None

    figures: dict[str, float | None] = {f"{kind} count": sum(e[1] == kind for e in events) for kind in KINDS}
    for days in (7, 30):
        figures[f"events in {days} days"] = sum(snapshot.as_of - e[2] <= days * DAY for e in events)
    figures |= {
        "active days": len({moment.date() for moment in when}),
        "days since last event": ago(events),
        "days since first event": max(((snapshot.as_of - e[2]) / DAY for e in events), default=None),
        "days since last purchase": ago(bought),
        "spend": spend,
        "refunded": sum(abs(e[3]) for e in events if e[1] == "refund" and e[3] is not None),
        "baskets": baskets,
        "average basket": spend / baskets if baskets and any(e[3] is not None for e in bought) else None,
        "average stars": sum(stars) / len(stars) if stars else None,
        "distinct items": len({e[0] for e in targets}),
        "share of new items": len({e[0] for e in targets}) / len(targets) if targets else None,
    }
    parts = {"night": range(6), "morning": range(6, 12), "afternoon": range(12, 18), "evening": range(18, 24)}
    for part, hours in parts.items():
        figures[f"share at {part}"] = sum(moment.hour in hours for moment in when) / n if n else None
    days = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
    for number, day in enumerate(days):
        figures[f"share on {day}"] = sum(moment.weekday() == number for moment in when) / n if n else None
    for name in NAMES:
        inside = sum(shown[e[0] - 1] == name for e in targets)
        figures[f"share of {name}"] = inside / len(targets) if targets else None
    return figures


@given(st.lists(event, min_size=1, max_size=40), st.integers(1, 50))
@settings(max_examples=40, deadline=None)
def test_figures_equal_the_loop(rows: list, block: int) -> None:
    snapshot = shop(rows)
    raw = raw_features(snapshot, FeatureOptions(), NAMES, block=block)
    assert tuple(raw.column_names) == behaviour_names(NAMES)
    for row, found in enumerate(raw.to_pylist()):
        for name, expected in slow_figures(snapshot, row).items():
            if expected is None:
                assert math.isnan(found[name]), name
            else:
                assert found[name] == pytest.approx(expected, rel=1e-6), name


def test_another_backend_gives_the_same_figures() -> None:
    snapshot = shop(
        [("u", "a", 1, "purchase", 100.0), ("u", "c", 3, "view", math.nan), ("v", "b", 2, "review", 4.0)]
    )
    embedded = raw_features(snapshot, FeatureOptions(), NAMES)
    other = raw_features(snapshot, FeatureOptions(), NAMES, backend=ibis.duckdb.connect())
    for name in embedded.column_names:
        assert other[name].to_numpy().tobytes() == embedded[name].to_numpy().tobytes(), name


def test_money_in_another_currency_is_not_added_up() -> None:
    snapshot = shop(
        [("u", "a", 1, "purchase", 100.0), ("u", "c", 3, "purchase", 7.0), ("v", "b", 2, "purchase", 9.0)]
    )
    foreign = replace(snapshot, foreign=np.array([1, 2]))
    spend = raw_features(foreign, FeatureOptions(), NAMES)["spend"].to_pylist()
    assert spend == [100.0, 0.0]
    cut = before(foreign, int(snapshot.ts[1]))
    assert cut.foreign.tolist() == [1]
    assert cut.value[cut.foreign].tolist() == [9.0]


def test_categories_are_the_commonest_of_the_snapshot_itself() -> None:
    events = [("u", "a", 1), ("u", "b", 2), ("v", "c", 3), ("v", "c", 8), ("v", "c", 9), ("v", "d", 4)]
    snapshot = add_features(toy_snapshot(events, categories=CATEGORIES), FeatureOptions(num_categories=1))
    recipe = feature_recipe(snapshot)
    assert recipe is not None
    assert recipe.categories == ("Toys",)
    early = before(snapshot, int(snapshot.ts.min()) + 3 * DAY)
    assert feature_recipe(early).categories == ("Food",)
    assert "share of Food" in early.feature_names
    assert early.features.shape == (2, len(early.feature_names))


def test_features_are_standardised_on_the_snapshot_and_reusable_on_another() -> None:
    rows = [(f"u{n % 7}", "abcd"[n % 4], n % 30, KINDS[n % 16]) for n in range(200)]
    snapshot = add_features(toy_snapshot(rows, categories=CATEGORIES))
    column = snapshot.feature_names.index("active days")
    assert snapshot.features[:, column].mean() == pytest.approx(0, abs=1e-5)
    assert np.isfinite(snapshot.features).all()
    again = with_features(snapshot)
    assert again.features.tobytes() == snapshot.features.tobytes()
    early = before(snapshot, snapshot.as_of - 20 * DAY)
    like = with_features(early, like=snapshot)
    assert like.feature_names == snapshot.feature_names
    assert like.facts["recipe"] == snapshot.facts["recipe"]


def test_attributes_are_features_but_labels_are_not() -> None:
    attributes = pa.table({"age": [30, None], "spend": [1.0, 2.0], "interest_label": ["x", "y"]})
    snapshot = add_features(replace(toy_snapshot([("u", "a", 1), ("v", "b", 2)]), attributes=attributes))
    assert "age" in snapshot.feature_names
    assert "spend (attribute)" in snapshot.feature_names
    assert not any("label" in name for name in snapshot.feature_names)
    bare = with_features(snapshot)
    assert bare.feature_names == snapshot.feature_names


def test_an_unknown_person_looks_like_one_without_events() -> None:
    rows = [(f"u{n % 7}", "abcd"[n % 4], n % 30, KINDS[n % 16]) for n in range(200)]
    attributes = pa.table({"city": ["Rome", "Oslo", None, "Rome", "Oslo", "Rome", "Oslo"]})
    snapshot = add_features(replace(toy_snapshot(rows, categories=CATEGORIES), attributes=attributes))
    recipe = feature_recipe(snapshot)
    nobody = recipe.unknown()
    assert nobody.shape == (snapshot.features.shape[1],)
    gone = before(snapshot, int(snapshot.ts.min()))
    raw = raw_features(gone, recipe.options, recipe.categories)
    silent = recipe.transform.apply(raw)[2]  # without a city
    assert np.array_equal(nobody, silent)


def test_a_snapshot_made_by_hand_keeps_its_features() -> None:
    toy = toy_snapshot([("u", "a", 1), ("v", "b", 2)], features=[[1.0], [2.0]])
    assert with_features(toy) is toy
    assert feature_recipe(toy) is None
    assert len(KIND_CODES) == sum(name.endswith(" count") for name in behaviour_names(()))
