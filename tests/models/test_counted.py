import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from penchant.core import KIND_CODES, Run
from penchant.core.errors import InputError, ModelError
from penchant.data import sequence_batch, time_split
from penchant.evaluation import rank_metrics
from penchant.models import (
    EASE,
    IALS,
    EASEConfig,
    IALSConfig,
    ItemKNN,
    ItemKNNConfig,
    Popularity,
    PopularityConfig,
    RecentPopularity,
    RecentPopularityConfig,
    Transitions,
    TransitionsConfig,
    _counts,
    _item_knn,
    _transitions,
    model_kinds,
)
from penchant.testing import ModelTests, checkerboard_snapshot, markov_snapshot, toy_snapshot
from penchant.training import fit_model


class TestPopularity(ModelTests):
    kind = "popularity"
    personal = False


class TestPopularityByKind(ModelTests):
    kind = "popularity"
    config = {"kind_weights": {"purchase": 3.0, "view": 0.5}}
    personal = False


class TestRecentPopularity(ModelTests):
    kind = "recent_popularity"
    personal = False


class TestItemKNN(ModelTests):
    kind = "item_knn"


class TestFrequency(ModelTests):
    kind = "frequency"
    companions = False


def test_frequency_fades():
    toy = toy_snapshot([("u", "milk"), ("u", "milk"), ("u", "rum")])
    batch = sequence_batch(toy, np.array([0]), 10)
    order = [fit_model("frequency", toy, {"decay": d}, Run()).scores(batch)[0].argmax() for d in (1.0, 0.4)]
    assert order == [1, 2]


class TestTransitions(ModelTests):
    kind = "transitions"


class TestEASE(ModelTests):
    kind = "ease"


class TestIALS(ModelTests):
    kind = "ials"
    config = {"embedding_size": 8}


# -- what counts ---------------------------------------------------------------------------------------------


def dense(model):
    size = model.num_items + 1
    return sparse.csr_array((model.data, model.indices, model.indptr), shape=(size, size)).toarray()


def test_only_turning_to_an_item_counts():
    liked = [("u", "a", 0), ("u", "b", 1), ("v", "b", 0), ("v", "c", 1)]
    noise = [
        ("u", "c", 2, kind) for kind in ("refund", "cart_remove", "impression", "checkout", "promo_click")
    ]
    items = ["a", "b", "c"]
    for kind, config in (("popularity", {}), ("item_knn", {}), ("transitions", {}), ("ease", {"reg": 1.0})):
        plain = fit_model(kind, toy_snapshot(liked, items=items), config, Run())
        noisy = fit_model(kind, toy_snapshot(liked + noise, items=items), config, Run())
        for name, array in plain.arrays().items():
            np.testing.assert_array_equal(array, noisy.arrays()[name])


def test_a_refund_in_the_history_says_nothing():
    snapshot = markov_snapshot(users=50, items=10)
    model = Transitions.fit(snapshot, TransitionsConfig(), Run())
    batch = sequence_batch(snapshot, np.arange(5), 50)
    kind_BT = batch.kind_BT.copy()
    kind_BT[:, 1] = KIND_CODES["refund"]
    item_BT = batch.item_BT.copy()
    item_BT[:, 1] = 0
    refunded = model.scores(replace(batch, kind_BT=kind_BT))
    np.testing.assert_array_equal(refunded, model.scores(replace(batch, item_BT=item_BT)))
    assert (refunded != model.scores(batch)).any()


def test_kind_weights():
    toy = toy_snapshot([("u", "a", 0, "view"), ("v", "a", 0, "view"), ("u", "b", 1, "purchase")])
    share = Popularity.fit(toy, PopularityConfig(kind_weights={"purchase": 6.0}), Run()).share
    assert share.tolist() == [0.0, 0.25, 0.75]
    with pytest.raises(InputError, match="refund"):
        Popularity.fit(toy, PopularityConfig(kind_weights={"refund": 1.0}), Run())


def test_recent_popularity_fades_by_half():
    toy = toy_snapshot([("u", "a", 0), ("v", "a", 0), ("w", "a", 0), ("u", "b", 10)])
    share = RecentPopularity.fit(toy, RecentPopularityConfig(half_life_days=10.0), Run()).share
    np.testing.assert_allclose(share, [0, 0.6, 0.4], rtol=1e-6)
    sudden = RecentPopularity.fit(toy, RecentPopularityConfig(half_life_days=0.5), Run()).share
    assert sudden[2] > 0.99


def test_recent_popularity_takes_its_half_life_from_the_log():
    short = toy_snapshot([("u", "a", 0), ("u", "b", 8)])
    long = toy_snapshot([("u", "a", 0), ("u", "b", 365)])
    once = toy_snapshot([("u", "a", 3), ("u", "b", 3)])
    days = [
        RecentPopularity.fit(toy, RecentPopularityConfig(), Run()).config.half_life_days
        for toy in (short, long, once)
    ]
    assert days == [2.0, 7.0, 7.0]


# -- fast paths against slow, obvious twins ------------------------------------------------------------------

logs = st.lists(
    st.lists(st.integers(1, 8), min_size=0, max_size=12).map(tuple), min_size=1, max_size=8
).filter(lambda users: any(users))


def toy_of(users):
    events = [
        (f"u{u:02d}", f"i{item}", step) for u, items in enumerate(users) for step, item in enumerate(items)
    ]
    return toy_snapshot(events, items=[f"i{n}" for n in range(1, 9)])


@settings(deadline=None, max_examples=60)
@given(
    users=logs, window=st.integers(1, 6), shrink=st.sampled_from([0.0, 1.0, 7.5]), budget=st.integers(1, 40)
)
def test_transitions_equal_their_twin(users, window, shrink, budget):
    expected = np.zeros((9, 9))
    for items in users:
        for here, item in enumerate(items):
            for distance in range(1, window + 1):
                if here + distance < len(items):
                    expected[item, items[here + distance]] += 1 / distance
    rows = expected.sum(axis=1, keepdims=True) + shrink
    expected /= np.sqrt(np.where(rows > 0, rows, 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_transitions, "BLOCK_PAIRS", budget)
        model = Transitions.fit(toy_of(users), TransitionsConfig(window=window, shrink=shrink), Run())
    np.testing.assert_allclose(dense(model), expected, rtol=1e-5, atol=1e-7)


@settings(deadline=None, max_examples=60)
@given(users=logs, shrink=st.sampled_from([0.0, 10.0]), budget=st.integers(1, 40))
def test_item_knn_equals_its_twin(users, shrink, budget):
    expected = np.zeros((9, 9))
    for i in range(1, 9):
        for j in range(1, 9):
            n_i = sum(i in items for items in users)
            n_j = sum(j in items for items in users)
            both = sum(i in items and j in items for items in users)
            if i == j:
                both = sum(items.count(i) > 1 for items in users)
            if both:
                expected[i, j] = both / (np.sqrt(n_i * n_j) + shrink)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_item_knn, "BLOCK_PAIRS", budget)
        model = ItemKNN.fit(toy_of(users), ItemKNNConfig(shrink=shrink), Run())
    np.testing.assert_allclose(dense(model), expected, rtol=1e-5, atol=1e-7)


@settings(deadline=None, max_examples=40)
@given(users=logs, reg=st.sampled_from([1.0, 50.0]))
def test_ease_equals_its_twin(users, reg):
    x = np.array([[float(item in items) for item in range(1, 9)] for items in users])
    inverse = np.linalg.inv(x.T @ x + reg * np.eye(8))
    expected = -inverse / np.diag(inverse)
    np.fill_diagonal(expected, 0)
    known = x.sum(axis=0) > 0
    model = EASE.fit(toy_of(users), EASEConfig(reg=reg), Run())
    np.testing.assert_allclose(dense(model)[1:, 1:], expected * known * known[:, None], rtol=1e-3, atol=1e-5)


def test_ease_leaves_rare_items_to_popularity():
    toy = toy_snapshot([(f"u{u}", item, n) for u in range(9) for n, item in enumerate("abcd"[: 2 + u % 3])])
    model = EASE.fit(toy, EASEConfig(reg=1.0, max_items=3), Run())
    assert not dense(model)[4].any()
    assert dense(model)[1:4, 1:4].any()
    scores = model.scores(sequence_batch(toy, np.array([0]), 10))
    assert scores[0, 4] == np.float32(model.config.prior * model.popular[4])


def test_ease_says_when_its_equations_break_down():
    toy = toy_snapshot([(f"u{u}", f"i{i}", i) for u in range(3) for i in range(40)])
    with pytest.raises(ModelError, match="raise reg"):
        EASE.fit(toy, EASEConfig(reg=1e-12), Run())


@pytest.mark.parametrize(
    "wrong", [{"reg": 0.0}, {"reg": -1.0}, {"reg": 1e-300}, {"confidence": 0.5}, {"confidence": 1e20}]
)
def test_ials_refuses_what_has_no_solution(wrong):
    with pytest.raises(InputError, match=f"settings of ials.*{next(iter(wrong))}"):
        fit_model("ials", markov_snapshot(users=20, items=8), wrong, Run())


@pytest.mark.parametrize("reg", [1e-4, 1e6])
@pytest.mark.parametrize("confidence", [1.0, 1e6])
def test_ials_solves_for_everybody_within_its_bounds(reg, confidence):
    pytest.importorskip("implicit.cpu.als")
    few = toy_snapshot([("u", "a"), ("u", "b"), ("v", "a")])
    for snapshot in (few, markov_snapshot(users=30, items=8), checkerboard_snapshot()):
        model = fit_model("ials", snapshot, {"reg": reg, "confidence": confidence}, Run())
        batch = sequence_batch(snapshot, np.arange(snapshot.num_users), 50)
        assert np.isfinite(model.scores(batch)[:, 1:]).all()
        assert np.isfinite(model.affinity(np.array([1, 2]), np.array([1, 2]))).all()


@pytest.mark.parametrize("where", ["library", "vectors", "people"])
def test_ials_says_when_its_equations_break_down(where, monkeypatch):
    als = pytest.importorskip("implicit.cpu.als")
    from implicit.recommender_base import ModelFitError

    def broken(learner, *_, **__):
        if where == "library":
            raise ModelFitError("NaN encountered in factors")
        vectors = np.zeros((9, 64), np.float32)
        vectors[1:, 0] = np.nan if where == "vectors" else 1e10
        learner.item_factors = vectors

    monkeypatch.setattr(als.AlternatingLeastSquares, "fit", broken)
    with pytest.raises(ModelError, match=r"nearer to their defaults.*\[train.settings.ials\]"):
        fit_model("ials", markov_snapshot(users=20, items=8), {}, Run())


def test_the_suite_notices_memory_without_bound(monkeypatch):
    """A model that holds a score for each event of each row, all at once, fails the suite."""

    def wasteful(self, batch):
        return np.zeros((*batch.item_BT.shape, len(self.share)), np.float32).max(axis=1)

    monkeypatch.setattr(Popularity, "scores", wasteful)
    with pytest.raises(AssertionError):
        TestPopularity().test_memory_is_bounded()


def test_ials_folds_in_as_its_library_does():
    als = pytest.importorskip("implicit.cpu.als")
    threadpoolctl = pytest.importorskip("threadpoolctl")
    snapshot = markov_snapshot(users=80, items=20)
    config = IALSConfig(embedding_size=6, confidence=5.0, reg=0.3, decay=1.0, prior=0.0)
    model = IALS.fit(snapshot, config, Run())
    with threadpoolctl.threadpool_limits(1, "blas"):
        library = als.AlternatingLeastSquares(factors=6, regularization=0.3, alpha=5.0, num_threads=1)
        library.item_factors = np.array(model.vectors)
        held = sparse.csr_matrix(
            (np.ones(3, np.float32), ([0, 0, 0], [3, 8, 13])), shape=(1, snapshot.num_items + 1)
        )
        person = library.recalculate_user(np.array([0]), held)
    batch = sequence_batch(
        toy_snapshot([("u", f"i{n}", n) for n in (3, 8, 13)], items=[f"i{n}" for n in range(1, 21)]),
        np.array([0]),
        9,
    )
    np.testing.assert_allclose(
        model.scores(batch)[0, 1:], (model.vectors @ person.ravel())[1:], rtol=2e-3, atol=1e-4
    )


@settings(deadline=None, max_examples=50)
@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(1, 9),
    length=st.integers(1, 6),
    cells=st.integers(1, 60),
)
def test_weighted_rows_equal_a_dense_product(seed, rows, length, cells):
    rng = np.random.default_rng(seed)
    matrix = sparse.random_array((12, 12), density=0.3, rng=rng, dtype=np.float32).tocsr()
    model = Transitions.from_matrix(TransitionsConfig(), matrix, np.zeros(12))
    item_BT = rng.integers(0, 12, (rows, length))
    weight_BT = rng.random((rows, length)) * (rng.random((rows, length)) < 0.6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_counts, "CHUNK_CELLS", cells)
        patch.setattr(_counts, "CHUNK_PAIRS", cells)
        found = model.weighted_rows(item_BT, weight_BT)
    expected = np.einsum("bt,btn->bn", weight_BT, matrix.toarray()[item_BT])
    np.testing.assert_allclose(found[:, 1:], expected[:, 1:], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["transitions", "item_knn", "ease", "ials"])
def test_affinity_is_an_exact_account_of_the_score(kind):
    snapshot = markov_snapshot(users=80, items=20)
    config = {"embedding_size": 8} if kind == "ials" else {}
    model = fit_model(kind, snapshot, config, Run())
    batch = sequence_batch(snapshot, np.array([4]), 50)
    history = batch.item_BT[0, : batch.length_B[0]]
    account = model.affinity(history, np.arange(1, 21)).sum(axis=0) + model.config.prior * model.popular[1:]
    np.testing.assert_allclose(account, model.scores(batch)[0, 1:], rtol=1e-4, atol=1e-5)


def test_neighbours_keep_the_strongest():
    snapshot = markov_snapshot(users=200, items=30, follow=0.5)
    whole = dense(Transitions.fit(snapshot, TransitionsConfig(), Run()))
    few = dense(Transitions.fit(snapshot, TransitionsConfig(neighbours=4), Run()))
    assert ((few > 0).sum(axis=1) <= 4).all()
    assert (np.sort(whole, axis=1)[:, -4:] == np.sort(few, axis=1)[:, -4:]).all()


def test_heavy_people_count_with_their_last_items():
    events = [("bot", f"i{n:03d}", n) for n in range(200)] + [("u", "i000", 0), ("u", "i001", 1)]
    model = ItemKNN.fit(toy_snapshot(events), ItemKNNConfig(max_history=10, shrink=0.0), Run())
    matrix = dense(model)
    assert matrix[1, 2] == 1.0  # only u pairs them: the bot's early items are not counted
    assert not matrix[50].any()
    assert matrix[195, 196] == 1.0


def test_the_share_that_comes_back_is_of_everybody_who_had_the_item():
    """Heavy people came back to an item that their last ones no longer name: the share is theirs as well."""
    heavy = [(f"h{u}", "milk" if n < 3 else f"x{n:02d}", n) for u in range(5) for n in range(15)]
    light = [("u", "milk", 0), ("u", "x03", 1)]
    model = ItemKNN.fit(toy_snapshot(heavy + light), ItemKNNConfig(max_history=10, shrink=0.0), Run())
    assert dense(model)[1, 1] == np.float32(5 / 6)


# -- what is decided by validation ----------------------------------------------------------------------------


def test_decay_follows_validation():
    snapshot = markov_snapshot(users=100, items=15)

    def wants(value):
        return Run(validate=lambda scorer: -abs(scorer.config.decay - value))

    for kind, config in (
        ("transitions", {}),
        ("item_knn", {}),
        ("ease", {}),
        ("ials", {"embedding_size": 4}),
    ):
        found = [fit_model(kind, snapshot, config, wants(value)).config.decay for value in (0.4, 0.7, 1.0)]
        assert found == [0.4, 0.7, 1.0]
        asked = fit_model(kind, snapshot, {**config, "decay": 0.55}, wants(1.0))
        assert asked.config.decay == 0.55


def test_half_life_follows_validation():
    toy = toy_snapshot([("u", "a", 0), ("u", "b", 400)])
    for wanted in (1.0, 30.0, 90.0):
        run = Run(validate=lambda scorer, wanted=wanted: -abs(scorer.config.half_life_days - wanted))
        assert RecentPopularity.fit(toy, RecentPopularityConfig(), run).config.half_life_days == wanted


def test_a_decay_that_was_learned_is_stored():
    snapshot = markov_snapshot(users=60, items=15)
    run = Run(validate=lambda scorer: scorer.config.decay)
    model = Transitions.fit(snapshot, TransitionsConfig(), run)
    assert Transitions.restore(TransitionsConfig(), model.arrays()).config.decay == 1.0


# -- golden bands and speed -----------------------------------------------------------------------------------

# kind, settings, HR@10 and NDCG@10 with repeats allowed, on the last fifth of three months of 300 households.
BANDS = [
    ("popularity", {}, 0.685, 0.184),
    ("recent_popularity", {}, 0.674, 0.178),
    ("item_knn", {"decay": 1.0}, 0.78, 0.261),
    ("transitions", {"decay": 1.0}, 0.85, 0.338),
    ("ease", {"decay": 1.0, "max_items": 1500}, 0.783, 0.242),
    ("ials", {"decay": 0.97}, 0.819, 0.270),
    ("frequency", {"decay": 1.0}, 0.882, 0.453),
    ("habits", {}, 0.881, 0.459),
]


@pytest.fixture(scope="module")
def split(groceries):
    return time_split(groceries, share=0.2)


@pytest.mark.parametrize(("kind", "config", "hits", "gain"), BANDS)
def test_golden_bands(split, kind, config, hits, gain):
    train, cases = split
    model = fit_model(kind, train, config, Run())
    found = rank_metrics(model, cases, ks=(10,), seen="allow", groups=[]).metrics
    assert found["HR@10"].value == pytest.approx(hits, abs=0.03)
    assert found["NDCG@10"].value == pytest.approx(gain, abs=0.015)


@pytest.mark.slow
def test_single_person_within_half_a_millisecond():
    snapshot = markov_snapshot(users=20_000, items=12_000, length=30, follow=0.6)
    for kind in ("popularity", "item_knn", "transitions"):
        model = fit_model(kind, snapshot, {}, Run())
        batches = [sequence_batch(snapshot, np.array([row]), 50) for row in range(200)]
        taken = []
        for batch in batches:
            begun = time.perf_counter()
            model.scores(batch)
            taken.append(time.perf_counter() - begun)
        assert np.median(taken) < 0.5e-3, kind


def test_all_built_in_kinds_are_installed():
    assert {
        "popularity",
        "recent_popularity",
        "item_knn",
        "transitions",
        "ease",
        "ials",
        "sequence",
        "tags",
    } <= set(model_kinds())
