"""One model, several questions: what will this person look at next, and what will they buy?"""

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from penchant.core import ASKED_CODES, KIND_CODES, Run, rng
from penchant.data import (
    later_cases,
    sequence_batch,
    target_kinds,
    time_split,
    training_windows,
    window_batch,
)
from penchant.evaluation import rank_metrics, validation_metric
from penchant.models import (
    Frequency,
    FrequencyConfig,
    Popularity,
    PopularityConfig,
    Reading,
    Transitions,
    TransitionsConfig,
    uphill,
)
from penchant.models._readings import search_reading
from penchant.testing import toy_snapshot
from penchant.training import fit_model, update_model

LOOKED, BOUGHT = 10, 4  # items that people look at, and others that they buy


def events(user, draw):
    """A walk over looks; after every third look somebody buys what goes with the group of the last one."""
    place = int(draw.integers(LOOKED))
    for step in range(12):
        place = (place + 1) % LOOKED if draw.random() < 0.8 else int(draw.integers(LOOKED))
        yield (user, f"look{place:02d}", 2 * step, "view")
        if step % 3 == 2:
            yield (user, f"own{place % BOUGHT}", 2 * step + 1, "purchase")


@pytest.fixture(scope="module")
def shop():
    draw = rng(0, "kinds")
    return toy_snapshot([event for n in range(120) for event in events(f"u{n:03d}", draw)])


@pytest.fixture(scope="module")
def halves(shop):
    train, cases = time_split(shop, at=int(np.quantile(shop.ts, 0.7)), target="purchase")
    return train, cases, later_cases(shop, train, target="view")


@pytest.fixture(scope="module")
def run(halves):
    _, bought, looked = halves
    validate, other = (validation_metric(cases, seen="allow") for cases in (bought, looked))
    return Run(validate=validate, target="purchase", others={"view": other})


def top(model, snapshot, target, k=BOUGHT):
    """The k best items of everybody, as ids."""
    batch = sequence_batch(snapshot, np.arange(snapshot.num_users), 50, asked=ASKED_CODES[target])
    best = np.argsort(-model.scores(batch), axis=1)[:, :k]
    return {snapshot.items.id(int(n)) for n in best.ravel()}


def test_the_next_event_of_a_kind_is_found_in_order(shop):
    windows = training_windows(shop, 7, overlap=3)
    later = (KIND_CODES["view"], KIND_CODES["purchase"])
    batch = window_batch(shop, windows, np.arange(len(windows)), later)
    plain = window_batch(shop, windows, np.arange(len(windows)))
    np.testing.assert_array_equal(batch.target_BT, plain.target_BT)
    assert plain.later_BT is None
    found = 0
    for b, row in enumerate(windows.row_W):
        last = shop.ptr[row + 1]
        for t in range(int(batch.length_B[b])):
            position = windows.start_W[b] + t
            asks = position + 1 >= windows.seen_W[b]
            code = later[position % 2] if asks else 0
            ahead = [m for m in range(position + 1, last) if shop.kind[m] == code]
            assert batch.later_kind_BT[b, t] == code
            assert batch.later_BT[b, t] == (shop.item[ahead[0]] if ahead else 0)
            found += bool(ahead)
    assert found > 500


def test_kinds_that_happen_often_can_be_asked_about(shop):
    assert target_kinds(shop) == ("view", "purchase")
    alone = toy_snapshot([(f"u{n}", "tea", 0, "view") for n in range(200)])
    assert target_kinds(alone) == ()
    rare = toy_snapshot([(f"u{n}", "tea", 0, "view") for n in range(200)] + [("u0", "tea", 1, "purchase")])
    assert target_kinds(rare) == ("view",)


def test_cases_of_a_kind(halves):
    _, bought, looked = halves
    items = bought.history.items
    assert {items.id(int(n))[:3] for n in bought.target_item} == {"own"}
    assert {items.id(int(n))[:3] for n in looked.target_item} == {"loo"}
    assert (bought.batch(np.arange(3), 9).asked_B == KIND_CODES["purchase"]).all()


@pytest.mark.parametrize("kind", ["popularity", "recent_popularity", "transitions", "frequency"])
def test_counted_models_answer_what_is_asked(kind, halves, run):
    train, *_ = halves
    model = fit_model(kind, train, {}, run)
    restored = type(model).restore(model.config, model.arrays())
    for target, begins in (("purchase", "own"), ("view", "look")):
        batch = sequence_batch(train, np.arange(20), 50, asked=ASKED_CODES[target])
        np.testing.assert_array_equal(restored.scores(batch), model.scores(batch))
        if kind in ("popularity", "recent_popularity"):
            assert all(item.startswith(begins) for item in top(model, train, target))
    named, unnamed = (
        rank_metrics(model, cases, ks=(2,), seen="allow", groups=[]).metrics["NDCG@2"].value
        for cases in (halves[1], replace(halves[1], target="any"))
    )
    assert named > unnamed + 0.02


def test_readings_are_found_on_validation_and_only_there(halves, run):
    train, *_ = halves
    assert fit_model("transitions", train, {}, Run()).config.readings == {}
    found = Transitions.fit(train, TransitionsConfig(), run)
    assert found.config.readings["purchase"].lift > 0
    again = Transitions.fit(train, found.config, Run())
    assert again.config == found.config
    alone = toy_snapshot([(f"u{n % 9}", f"i{n % 7}", n) for n in range(90)])
    part, cases = time_split(alone, share=0.3)
    one_kind = Transitions.fit(
        part, TransitionsConfig(), Run(validate=validation_metric(cases, seen="allow"))
    )
    assert one_kind.config.readings == {}


def test_what_nobody_counted_can_be_added_to_a_reading(halves, run):
    train = halves[0]
    model = Transitions.fit(train, TransitionsConfig(), run)
    assert model.share_AN
    batch = sequence_batch(train, np.arange(9), 50, asked=ASKED_CODES["purchase"])
    wide = model.widened(model.num_items + 3).scores(batch)
    np.testing.assert_array_equal(wide[:, :-3], model.scores(batch))
    assert not wide[:, -3:].any()


def test_what_was_sent_back_speaks_against_an_item():
    rows = [("u", "pan", 0), ("u", "pot", 1), ("u", "pan", 2, "refund"), ("v", "pan", 0)]
    toy = toy_snapshot(rows)
    readings = {"any": Reading(decay=1.0, kinds={"refund": -1.0})}
    model = Frequency.fit(toy, FrequencyConfig(prior=0.0, decay=1.0, readings=readings), Run())
    plain = Frequency.fit(toy, FrequencyConfig(prior=0.0, decay=1.0), Run())
    batch = sequence_batch(toy, np.array([0]), 10)
    pan, pot = toy.items.number("pan"), toy.items.number("pot")
    assert plain.scores(batch)[0, pan] == plain.scores(batch)[0, pot] > 0
    assert model.scores(batch)[0, pan] == 0
    assert model.scores(batch)[0, pot] == plain.scores(batch)[0, pot]


def test_what_was_shown_is_read_apart_from_what_people_did():
    rows = [("u", "pan", 0), ("u", "pot", 1, "impression"), ("u", "lid", 2), ("u", "cup", 3, "impression")]
    toy = toy_snapshot([*rows, ("v", "pan", 0), ("w", "cup", 0, "impression")])
    pan, pot, lid, cup = (toy.items.number(item) for item in ("pan", "pot", "lid", "cup"))
    batch = sequence_batch(toy, np.arange(3), 10)
    assert batch.item_BT.tolist() == [[pan, lid], [pan, 0], [0, 0]]
    assert batch.shown_BS.tolist() == [[pot, cup], [0, 0], [cup, 0]]
    assert batch.shown_age_BS.tolist() == [[1, 0], [0, 0], [0, 0]]
    short = sequence_batch(toy, np.array([0]), 1)
    assert short.shown_BS.tolist() == [[0, cup]], "nothing that is older than the first event"
    assert sequence_batch(toy, np.array([0]), 10, end=np.array([2])).shown_BS.tolist() == [[pot]]
    readings = {"any": Reading(decay=0.5, kinds={"impression": 0.1})}
    model = Frequency.fit(toy, FrequencyConfig(prior=0.0, decay=0.5, readings=readings), Run())
    scores = model.scores(batch)[:, [pan, pot, lid, cup]]
    np.testing.assert_allclose(scores, [[0.5, 0.05, 1, 0.1], [1, 0, 0, 0], [0, 0, 0, 0.1]], rtol=1e-6)
    item_K, amount_K = model.sparse_evidence(batch.take(np.array([0])))
    np.testing.assert_array_equal(amount_K, model.evidence(batch)[0, item_K])
    assert set(item_K) == {pan, pot, lid, cup}


def test_what_was_shown_may_be_found_to_speak():
    """Here everybody buys what they were shown last."""
    seen = [
        (f"u{n:02d}", f"own{(n * 7 + step) % 9}", 2 * step + late, kind)
        for n in range(90)
        for step in range(8)
        for late, kind in enumerate(("impression", "purchase"))
    ]
    toy = toy_snapshot([*seen, *[(f"u{n:02d}", f"look{n % 5}", 2, "view") for n in range(90)]])
    train, cases = time_split(toy, at=int(np.unique(toy.ts)[10]), target="purchase")
    end_C = toy.ptr[cases.user_C] + np.diff(train.ptr)[cases.user_C]
    cases = replace(cases, history=toy, end_C=end_C + 1)  # once more something was shown
    model = fit_model(
        "frequency", train, {}, Run(validate=validation_metric(cases, seen="allow"), target="purchase")
    )
    assert model.config.readings["purchase"].kinds["impression"] > 0


def test_a_search_goes_uphill_from_where_it_starts():
    tried = []

    def measure(reading):
        tried.append(reading)
        return -abs(reading.kinds.get("cart_add", 1.0) - 10.0) - abs(reading.kinds.get("refund", 0.0) + 1.0)

    found = search_reading(measure, Reading(0.97), ["view", "cart_add", "refund"])
    assert found == Reading(0.97, {"cart_add": 10.0, "refund": -1.0})
    assert len(tried) < 20
    assert uphill(lambda v: -abs(v["x"] - 2), {"x": 1.0}, [("x", (0.0, 1.0, 2.0, 3.0))]) == {"x": 2.0}


NETWORK = {"size": "tiny", "dropout": 0.0, "epochs": 12.0, "batch": 128, "counts": False}


@pytest.fixture(scope="module")
def network(halves):
    pytest.importorskip("torch")
    return fit_model("sequence", halves[0], NETWORK, Run(seed=1))


def test_it_answers_what_is_asked(network, halves):
    train = halves[0]
    assert network.config.asked == ("view", "purchase")
    assert all(item.startswith("own") for item in top(network, train, "purchase", k=1))
    assert all(item.startswith("look") for item in top(network, train, "view", k=1))


def test_it_knows_more_than_popularity_of_the_next_purchase(network, halves):
    plain = Popularity.fit(halves[0], PopularityConfig(), Run())
    own, floor = (
        rank_metrics(m, halves[1], ks=(1,), seen="allow", groups=[]).metrics["HR@1"].value
        for m in (network, plain)
    )
    assert own > floor + 0.1


def test_rows_with_different_questions_share_a_batch(network, halves):
    train = halves[0]
    one = sequence_batch(train, np.arange(4), 50, asked=ASKED_CODES["purchase"])
    other = sequence_batch(train, np.arange(4), 50)
    mixed = one.take(np.arange(4))
    mixed.asked_B[2:] = 0
    scores = network.scores(mixed)
    np.testing.assert_allclose(scores[:2, 1:], network.scores(one)[:2, 1:], atol=1e-5)
    np.testing.assert_allclose(scores[2:, 1:], network.scores(other)[2:, 1:], atol=1e-5)


def test_updates_go_on_with_the_same_questions(network, shop, halves):
    updated = update_model("sequence", network, halves[0].items, shop, halves[0].as_of, Run())
    assert updated.config.asked == network.config.asked
    first = np.argsort(
        -updated.scores(sequence_batch(shop, np.arange(120), 50, asked=ASKED_CODES["purchase"]))
    )
    bought = [shop.items.id(int(n)).startswith("own") for n in first[:, 0]]
    assert np.mean(bought) > 0.9


def test_blends_are_found_for_each_question(halves, run):
    pytest.importorskip("torch")
    model = fit_model("sequence", halves[0], {"size": "tiny", "epochs": 2.0}, run)
    assert set(model.config.blends) == {"view"}
    restored = type(model).restore(model.config, model.arrays())
    batch = sequence_batch(halves[0], np.arange(9), 50, asked=ASKED_CODES["view"])
    np.testing.assert_array_equal(restored.scores(batch), model.scores(batch))
    mine = msgspec.to_builtins(model.config.blends["view"]) | {"counts_weight": 3.5}
    given = fit_model("sequence", halves[0], {"size": "tiny", "epochs": 2.0, "blends": {"view": mine}}, run)
    assert given.config.blends["view"].counts_weight == 3.5


def test_newcomers_join_a_model_of_several_kinds(halves, run):
    pytest.importorskip("torch")
    train = halves[0]
    angle = 2 * np.pi * np.arange(train.num_items + 1) / train.num_items
    content = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    content[0] = 0
    said = replace(train, catalog=replace(train.catalog, vectors={"text/circle": content[1:]}))
    settings = {"size": "tiny", "epochs": 1.0, "own_weight": 1.0, "content_weight": 1.0, "lending": 1.0}
    model = fit_model("sequence", said, settings, run)
    wide = model.extended(np.concatenate([content, content[[3]]]))
    for target in ("any", "purchase"):
        batch = sequence_batch(train, np.arange(9), 50, asked=ASKED_CODES[target])
        before, after = model.scores(batch), wide.scores(batch)
        np.testing.assert_allclose(after[:, 1:-1], before[:, 1:], rtol=1e-4, atol=1e-4)
        assert np.isfinite(after[:, -1]).all()


def test_models_of_before_answer_all_questions_alike(halves):
    pytest.importorskip("torch")
    model = fit_model("sequence", halves[0], {"size": "tiny", "epochs": 1.0, "asked": ()}, Run())
    arrays = {name: array for name, array in model.arrays().items() if not name.startswith("own.")}
    restored = type(model).restore(model.config, arrays)
    plain = sequence_batch(halves[0], np.arange(9), 50)
    asked = sequence_batch(halves[0], np.arange(9), 50, asked=ASKED_CODES["purchase"])
    np.testing.assert_array_equal(restored.scores(plain), model.scores(plain))
    np.testing.assert_array_equal(restored.scores(asked), model.scores(plain))


def test_a_log_of_one_kind_has_no_questions():
    pytest.importorskip("torch")
    toy = toy_snapshot([(f"u{n % 20}", f"i{(n // 20 + n) % 7}", n) for n in range(300)])
    model = fit_model("sequence", toy, {"size": "tiny", "epochs": 1.0, "counts": False}, Run())
    assert model.config.asked == ()
    assert "asked" not in model.weights
