"""Behaviour features, next-period labels, and the one function that trains tags from a shop's data."""

from __future__ import annotations

import dataclasses

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penchant.core import DAY, INTEREST_LABEL, KIND_CODES, History, Run, Snapshot, Vocabulary, rng
from penchant.core.errors import ModelError
from penchant.data import live_sequences
from penchant.models import TagsConfig, TrainedTags, next_period_labels, train_tags
from penchant.models._tags_features import (
    behaviour,
    behaviour_names,
    catalog_categories,
    keep_categories,
    say,
)
from penchant.models._tags_labels import (
    as_labels,
    auto_horizon,
    choose_categories,
    last_moment,
    strongest_kind,
)
from penchant.models._tags_train import held_out_rows
from penchant.models._tags_train import train_tags as train
from penchant.testing import snapshot_from_arrays, toy_snapshot
from penchant.testing._toys import START

PATHS = {"rye": "Food > Bread", "oat": "Food > Bread", "gouda": "Food > Cheese", "lamp": "Home > Light"}
WEEK = 7 * DAY
FAST = TagsConfig(epochs=25, horizon_days=7, min_users=5, level=2, windows=3)


def shop(num_users: int = 150, weeks: int = 8, kind: str = "purchase", seed: int = 0) -> Snapshot:
    """People who keep to two of six categories; each week they take from each of theirs with chance .8."""
    draw = rng(seed, "shop")
    items = [f"i{number}" for number in range(12)]
    categories = {item: f"Shop > C{number // 2}" for number, item in enumerate(items)}
    row, item, ts = [], [], []
    for user in range(num_users):
        for own in draw.choice(6, size=2, replace=False):
            for week in np.flatnonzero(draw.random(weeks) < 0.8):
                row.append(user)
                item.append(1 + items.index(f"i{own * 2 + draw.integers(2)}"))
                ts.append(START + int(week) * WEEK + int(draw.integers(WEEK)))
    names = sorted(items)
    return snapshot_from_arrays(
        users=Vocabulary([f"u{user:03d}" for user in range(num_users)]),
        items=Vocabulary(names),
        row=row,
        item=[1 + names.index(items[number - 1]) for number in item],
        kind=np.full(len(row), KIND_CODES[kind], np.uint8),
        ts=ts,
        categories=categories,
        as_of=START + weeks * WEEK,
    )


@pytest.fixture(scope="module")
def trained() -> TrainedTags:
    return train_tags(shop(), None, FAST, Run(seed=1))


def test_categories_follow_the_level() -> None:
    toy = toy_snapshot([("u", "rye")], items=["gouda", "lamp", "nail", "oat", "rye"], categories=PATHS)
    top, full = (catalog_categories(toy.catalog, toy.items, level) for level in (1, 2))
    assert top.names == ("Food", "Home")
    assert top.item_N.tolist() == [-1, 0, 1, -1, 0, 0]
    assert full.names == ("Food > Bread", "Food > Cheese", "Home > Light")
    kept = keep_categories(full, ["Home > Light", "Gone", "Food > Bread"])
    assert kept.item_N.tolist() == [-1, -1, 0, -1, 2, 2]


def test_categories_of_items_that_the_catalogue_lacks() -> None:
    toy = toy_snapshot([("u", "rye")], categories=PATHS)
    found = catalog_categories(toy.catalog, Vocabulary(["nail", "rye"]), 1)
    assert found.item_N.tolist() == [-1, -1, 0]


def test_next_period_labels_hold_the_period_and_nothing_else() -> None:
    toy = toy_snapshot(
        [("u", "rye", 4), ("u", "gouda", 5), ("u", "lamp", 12), ("v", "oat", 11), ("v", "lamp", 6, "view")],
        categories=PATHS,
    )
    names, y = next_period_labels(toy, START + 5 * DAY, WEEK, 2)
    assert names == ("Food > Bread", "Food > Cheese", "Home > Light")
    assert y.tolist() == [[0, 1, 0], [1, 0, 0]]
    assert next_period_labels(toy, START + 5 * DAY, WEEK, 1, "view")[1].tolist() == [[0, 0], [0, 1]]


def test_strongest_kind() -> None:
    views = [("u", "rye", day, "view") for day in range(120)]
    assert strongest_kind(toy_snapshot(views)) == "view"
    assert strongest_kind(toy_snapshot([*views, ("u", "rye", 3)])) == "view"  # one purchase is too few
    assert strongest_kind(toy_snapshot([*views, *(("u", "rye", day) for day in range(100))])) == "purchase"
    assert strongest_kind(toy_snapshot([("u", "rye", 1), ("u", "rye", 2, "view")])) == "purchase"
    with pytest.raises(ModelError, match="no event turns to an item"):
        strongest_kind(toy_snapshot([("u", None, 1, "search")]))


def test_horizon_is_a_sixth_of_the_log() -> None:
    assert auto_horizon(toy_snapshot([("u", "rye", 0), ("u", "rye", 60)])) == 10 * DAY
    assert auto_horizon(toy_snapshot([("u", "rye", 0), ("u", "rye", 600)])) == 28 * DAY
    assert auto_horizon(toy_snapshot([("u", "rye", 0), ("u", "rye", 1)])) == 4 * DAY // 24


def test_behaviour_figures() -> None:
    toy = toy_snapshot(
        [
            ("u", "rye", 0),
            ("u", "rye", 1),
            ("u", "gouda", 8, "view"),
            ("u", "rye", 9),
            ("u", "gouda", 9.5, "review"),
            ("u", "lamp", 12),
            ("v", "lamp", 20),
        ],
        values=[100, 200, np.nan, 300, 4, 999, 5],
        categories=PATHS,
    )
    categories = catalog_categories(toy.catalog, toy.items, 2)
    at = START + 10 * DAY
    table = behaviour(toy, categories, KIND_CODES["purchase"], at, WEEK)
    figure = dict(zip(behaviour_names(categories.names), table[0], strict=True))
    assert figure["days since first event"] == pytest.approx(np.log1p(10))
    assert figure["days since last event"] == pytest.approx(np.log1p(0.5))
    assert figure["active days"] == pytest.approx(np.log1p(5))  # START is not at midnight: 9 and 9.5 differ
    assert figure["events recently"] == pytest.approx(np.log1p(3))
    assert figure["distinct items"] == pytest.approx(np.log1p(2))
    assert figure["spend"] == pytest.approx(np.log1p(600))
    assert figure["spend recently"] == pytest.approx(np.log1p(300))
    assert figure["mean stars"] == 4
    assert figure["purchase count"] == pytest.approx(np.log1p(3))
    assert figure["view count"] == pytest.approx(np.log1p(1))
    assert figure["share: Food > Bread"] == pytest.approx(3 / 5)
    assert figure["recent share: Food > Cheese"] == pytest.approx(2 / 3)
    assert figure["recent count: Food > Bread"] == pytest.approx(np.log1p(1))
    assert figure["recent count: Food > Cheese"] == 0  # seen and reviewed, not bought
    assert figure["freshness: Food > Bread"] == pytest.approx(2 ** (-1 / 7))
    assert figure["freshness: Home > Light"] == 0
    assert figure["regularity: Food > Bread"] == 1  # in both periods lived
    nobody = dict(zip(behaviour_names(categories.names), table[1], strict=True))
    assert np.isnan(nobody["days since last event"])
    assert nobody["share: Home > Light"] == nobody["purchase count"] == 0


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_the_future_changes_no_feature(data: st.DataObject) -> None:
    days = st.floats(0, 30, allow_nan=False)
    event = st.tuples(
        st.sampled_from("uvw"), st.sampled_from(sorted(PATHS)), days, st.sampled_from(["purchase", "view"])
    )
    events = data.draw(st.lists(event, min_size=1, max_size=30))
    at = START + 15 * DAY
    early = [entry for entry in events if round(entry[2] * DAY) + START < at]
    users = [(user, None, 0.0, "search") for user in "uvw"]
    both = [toy_snapshot([*users, *part], categories=PATHS) for part in (events, early)]
    categories = catalog_categories(both[0].catalog, both[0].items, 2)
    full, cut = (behaviour(toy, categories, KIND_CODES["purchase"], at, WEEK) for toy in both)
    np.testing.assert_array_equal(full, cut)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(-1, 2), min_size=1, max_size=6))
def test_chosen_rows_are_those_of_the_whole(rows: list[int]) -> None:
    toy = toy_snapshot(
        [("u", "rye", 1), ("w", "lamp", 2), ("w", "rye", 3), ("v", "oat", 4, "view")], categories=PATHS
    )
    categories = catalog_categories(toy.catalog, toy.items, 2)
    args = (toy, categories, KIND_CODES["purchase"], START + 9 * DAY, WEEK)
    whole = behaviour(*args)
    empty = toy_snapshot([("u", "rye", 99)], categories=PATHS)
    none = behaviour(empty, categories, KIND_CODES["purchase"], START, WEEK)
    expected = np.stack([none[0] if row < 0 else whole[row] for row in rows])
    np.testing.assert_array_equal(behaviour(*args, np.array(rows)), expected)


def test_a_live_history_gives_the_features_of_the_snapshot() -> None:
    toy = shop(5)
    categories = catalog_categories(toy.catalog, toy.items, 2)
    rows = slice(toy.ptr[3], toy.ptr[4])
    ids = [toy.items.id(number) for number in toy.item[rows]]
    history = History("u003", toy.ts[rows], toy.kind[rows], ids, toy.value[rows], [""] * len(ids))
    live = live_sequences([history], toy.items, np.zeros((1, 0)))
    args = (categories, KIND_CODES["purchase"], toy.as_of, WEEK)
    np.testing.assert_array_equal(behaviour(live, *args), behaviour(toy, *args)[3:4])


def test_level_is_chosen_where_people_differ_most() -> None:
    toy = shop()
    code = KIND_CODES["purchase"]
    period = (toy.as_of - WEEK, toy.as_of)
    categories, level = choose_categories(toy, code, period, 0, 64, 5)
    assert level == 2  # everybody is in "Shop"
    assert len(categories.names) == 6
    few, _ = choose_categories(toy, code, period, 2, 3, 5)
    assert len(few.names) == 3
    with pytest.raises(ModelError, match="lower min_users"):
        choose_categories(toy, code, period, 2, 64, 10_000)


def test_next_period_tags_beat_the_base_rate_and_last_period(trained: TrainedTags) -> None:
    assert trained.source == "next period"
    truth = trained.label_PC

    def loss(probability: np.ndarray) -> float:
        return float(np.mean((probability - truth) ** 2))

    assert loss(trained.probability_PC) < 0.6 * loss(trained.baselines["base rate"])
    assert loss(trained.probability_PC) < 0.9 * loss(trained.baselines["same as last period"])
    assert (trained.decision_PC == (truth > 0)).mean() > 0.85
    again = trained.baseline_decisions["same as last period"]
    assert again.shape == truth.shape
    assert (trained.decision_PC == (truth > 0)).mean() > (again == (truth > 0)).mean()


def test_the_base_rate_decides_at_its_best(trained: TrainedTags) -> None:
    """By tag no constant answer has a better F1, none fewer errors, than the two rows of the base rate."""
    truth = trained.label_PC > 0
    said = trained.baseline_decisions
    assert set(said) == {"base rate", "base rate, from one half", "same as last period"}
    assert said["base rate"].all()  # its F1 is 2 r / (1 + r), that of silence 0
    rate = trained.baselines["base rate"][0]
    assert ((said["base rate, from one half"] == (rate >= 0.5)).all(axis=0)).all()
    assert said.keys() - {"same as last period"} <= trained.baselines.keys()
    assert truth.any(axis=0).all()


def test_money_in_another_currency_is_missing() -> None:
    toy = toy_snapshot(
        [("u", "rye", 0), ("u", "rye", 1), ("v", "rye", 2), ("v", "rye", 3), ("v", "oat", 4)],
        values=[100, 9_000, 8_000, 50, 7],
        categories=PATHS,
    )
    mixed = dataclasses.replace(toy, foreign=np.array([1, 2]))
    categories = catalog_categories(toy.catalog, toy.items, 2)
    names = behaviour_names(categories.names)
    for rows, spent in ((None, [100, 57]), (np.array([1, -1, 0]), [57, 0, 100])):
        found = behaviour(mixed, categories, KIND_CODES["purchase"], toy.as_of, WEEK, rows)
        for name in ("spend", "spend recently"):
            np.testing.assert_allclose(found[:, names.index(name)], np.log1p(spent), rtol=1e-6)
        whole = behaviour(toy, categories, KIND_CODES["purchase"], toy.as_of, WEEK, rows)
        np.testing.assert_array_equal(np.delete(found, [5, 6], 1), np.delete(whole, [5, 6], 1))


def test_what_the_engine_needs_is_there(trained: TrainedTags) -> None:
    people = len(trained.subjects)
    assert trained.probability_PC.shape == trained.label_PC.shape == (people, len(trained.names))
    assert trained.names == trained.model.names
    facts = msgspec.json.decode(msgspec.json.encode(trained.facts))
    assert facts["kind"] == "purchase"
    assert facts["level"] == 2
    assert facts["horizon_days"] == 7
    assert facts["tested_on"] == people
    assert facts["tested_until"] > facts["tested_from"]


def test_the_test_period_is_not_learned_from(trained: TrainedTags) -> None:
    toy = shop()
    ts = np.array(toy.ts)
    late = ts >= last_moment(toy) - WEEK
    item = np.array(toy.item)
    item[late] = 1 + item[late] % 12  # another last week
    other = train_tags(dataclasses.replace(toy, item=item), None, FAST, Run(seed=1))
    np.testing.assert_array_equal(other.probability_PC, trained.probability_PC)
    assert (other.label_PC != trained.label_PC).any()
    assert (other.model.weights["direct.weight"] != trained.model.weights["direct.weight"]).any()


def test_the_served_model_describes_and_explains(trained: TrainedTags) -> None:
    toy = shop()
    at = last_moment(toy)
    table = trained.model.describe(toy, toy.items, toy.catalog, at, rows_B=np.array([0, -1]))
    probability = trained.model.predict(table)
    assert np.isfinite(probability).all()
    assert np.abs(probability[1] - trained.model.base_rate_C).max() < 0.35  # a stranger is like anybody
    best = trained.model.names[int(probability[0].argmax())]
    found = trained.model.explain(table.slice(0, 1), best)
    assert found
    assert best in found[0].text
    assert "than usual" in found[0].text


def test_same_seed_same_bits(trained: TrainedTags) -> None:
    again = train_tags(shop(), None, FAST, Run(seed=1))
    np.testing.assert_array_equal(again.probability_PC, trained.probability_PC)
    for name, array in trained.model.arrays().items():
        np.testing.assert_array_equal(array, again.model.arrays()[name])


def test_people_are_sampled_where_there_are_too_many() -> None:
    config = msgspec.structs.replace(FAST, max_rows=90, epochs=3)
    found = train_tags(shop(), None, config)
    assert found.facts["trained_on"] == 90
    assert found.facts["tested_on"] == 30


def test_a_shop_without_purchases_predicts_views() -> None:
    found = train_tags(shop(kind="view"), None, msgspec.structs.replace(FAST, epochs=3))
    assert found.facts["kind"] == "view"
    assert found.model.view is not None
    assert found.model.view.kind == "view"


def test_attributes_of_users_are_features_only_if_wanted() -> None:
    toy = shop()
    users = pa.table(
        {"user_id": [f"u{user:03d}" for user in range(0, 150, 2)], "plan": ["gold", "free", None] * 25}
    )
    config = msgspec.structs.replace(FAST, epochs=2)
    with_them = train_tags(toy, users, config).model.transform.names
    assert "plan = gold" in with_them
    without = train_tags(toy, users, msgspec.structs.replace(config, attributes=False)).model.transform.names
    assert "plan = gold" not in without


def test_labels_of_the_shop_come_first() -> None:
    toy = shop()
    draw = rng(2, "labels")
    visits = draw.poisson(5, 200)
    users = pa.table(
        {
            "user_id": [f"u{user:03d}" for user in range(200)],  # 50 of them have no events
            "visits": visits,
            INTEREST_LABEL: ["fan" if count > 5 else None if count == 0 else "guest" for count in visits],
        }
    )
    found = train_tags(toy, users, msgspec.structs.replace(FAST, epochs=40))
    labelled = sum(label is not None for label in users[INTEREST_LABEL].to_pylist())
    assert found.source == "interest_label"
    assert found.names == ("fan", "guest")
    assert found.model.softmax
    assert len(found.subjects) == pytest.approx(labelled / 5, abs=2)
    assert not set(found.subjects) & {f"u{user:03d}" for user in np.flatnonzero(visits == 0)}
    right = (found.probability_PC.argmax(axis=1) == found.label_PC.argmax(axis=1)).mean()
    assert right > 0.85 > found.baselines["base rate"].max()
    names = found.model.transform.names
    assert "visits" in names
    assert any(name.startswith("regularity: ") for name in names)


def test_labels_need_no_events() -> None:
    nothing = toy_snapshot([("u", None, 0, "search")])
    empty = dataclasses.replace(
        nothing,
        ptr=nothing.ptr * 0,
        **{name: getattr(nothing, name)[:0] for name in ("item", "kind", "ts", "value")},
    )
    for snapshot in (nothing, empty):
        users = pa.table(
            {
                "user_id": [f"u{n}" for n in range(60)],
                "x": range(60),
                INTEREST_LABEL: ["low"] * 30 + ["high"] * 30,
            }
        )
        found = train(snapshot, users, TagsConfig(epochs=40))
        assert (found.probability_PC.argmax(axis=1) == found.label_PC.argmax(axis=1)).mean() > 0.8
    assert found.model.view is None
    assert found.model.predict({"x": [1]}).argmax() == found.names.index("low")


def test_several_labels_of_a_user() -> None:
    users = pa.table(
        {
            "user_id": [f"u{n}" for n in range(80)],
            "x": range(80),
            INTEREST_LABEL: ["tea|cake"] * 40 + ["tea"] * 40,
        }
    )
    found = train(toy_snapshot([("u0", "rye")]), users, TagsConfig(epochs=40))
    assert not found.model.softmax
    assert found.names == ("cake", "tea")


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from("aaaaabbc"), min_size=5, max_size=80), st.integers(0, 9))
def test_a_fifth_is_held_out_and_is_spread_over_the_tags(tags: list[str], seed: int) -> None:
    labels = as_labels(tags)
    held = held_out_rows(labels, seed)
    assert 1 <= held.sum() <= len(tags) // 5 + 1
    for tag, column in zip(labels.names, labels.y_RC.T, strict=True):
        if (count := tags.count(tag)) >= 5:
            assert column[held].sum() == count // 5


@pytest.mark.parametrize(
    ("events", "says"),
    [
        ([("u", "rye", 0), ("u", "rye", 0)], "too short"),
        ([("u", "rye", day) for day in range(40)], "no catalogue category"),
        ([("u", None, 0, "search")], "no event turns to an item"),
    ],
)
def test_what_cannot_be_learned_is_said(events: list[tuple[str, str | None, int]], says: str) -> None:
    with pytest.raises(ModelError, match=says):
        train_tags(toy_snapshot(events, categories=PATHS), None)


def test_softmax_for_baskets_is_refused() -> None:
    with pytest.raises(ModelError, match="softmax"):
        train_tags(shop(), None, msgspec.structs.replace(FAST, mode="softmax"))


def test_words() -> None:
    assert say("recent count: Tea", "view", False) == "Tea: fewer recent view events than usual"
    assert say("spend", "purchase", True) == "spend: more than usual"
    assert (
        say("colon: in a shop's own column", "purchase", True)
        == "colon: in a shop's own column: more than usual"
    )
