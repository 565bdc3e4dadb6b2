"""Everybody who learns: the contract of learners, and that the policies made of them have honest odds."""

from dataclasses import replace

import numpy as np
import pytest

from penchant.core import Candidates, Query, Slate, Vocabulary
from penchant.core.errors import InputError
from penchant.policy import (
    Best,
    Bootstrap,
    Clusters,
    Hybrid,
    Learned,
    Softmax,
    Spread,
    SquareCB,
    Thompson,
    Voter,
    draw_slate,
    sampled,
)
from penchant.testing import PolicyTests

F, C, N = 4, 3, 50
FRESH_N = np.arange(N + 1) % 5 == 0
LABELS_NL = np.arange(N + 1)[:, None] % 3


def prior():
    return np.r_[-1.0, np.zeros(F - 1)], np.r_[0.5, np.full(F - 1, 0.4)]


def linear():
    return Hybrid(*prior(), LABELS_NL, FRESH_N, Spread(item=0.0, fresh=0.0, taste=0.0), shared=True)


LEARNERS = {
    "hybrid": lambda: Hybrid(*prior(), LABELS_NL, FRESH_N),
    "linear": linear,
    "neural_linear": lambda: Hybrid(*prior(), LABELS_NL, FRESH_N, shared=True),
    "bootstrap": lambda: Bootstrap(*prior(), FRESH_N),
    "diag_linucb": lambda: Clusters(Hybrid(*prior(), LABELS_NL, FRESH_N), FRESH_N, C),
}


def features(name, num_items=N, person=0):
    """Random shared features; where clusters are read, the weights of the person's."""
    draw = np.random.default_rng(9)
    feature_NF = np.c_[np.ones(num_items), draw.normal(size=(num_items, F - 1))]
    cluster_NC = np.tile(np.eye(C)[person % C], (num_items, 1))
    return np.c_[feature_NF, cluster_NC] if name == "diag_linucb" else feature_NF


def taught(name, outcomes=60, num_items=6):
    """Item 5 is liked by all, the others by nobody."""
    learner, feature_NF = LEARNERS[name](), features(name, num_items)
    for n in range(outcomes):
        item = n % num_items + 1
        learner.learn(f"p{n % 7}", item, feature_NF[item - 1], item == 5)
    return learner


class LearnedSuite(PolicyTests):
    """The suite, with candidates as learners take them; outcomes were learned before."""

    __test__ = False
    name = ""
    rule = Best(bonus=1.0)
    floor = 0.0

    def make(self, num_items):
        learner = taught(self.name, num_items=max(min(num_items, N), 6))
        items = Vocabulary([f"i{n}" for n in range(1, N + 1)])
        return Learned(self.name, learner, self.rule, self.floor, items)

    def candidates(self, num_items, seed=0):
        plain = PolicyTests.candidates(num_items, seed)
        return replace(plain, subject="u", feature_NF=features(self.name, num_items))


def suite(name, rule, floor):
    made = {"__test__": True, "name": name, "rule": rule, "floor": floor}
    return type(f"Test{name.title().replace('_', '')}{type(rule).__name__}", (LearnedSuite,), made)


TestLinearUpper = suite("linear", Best(bonus=1.0), 0.05)
TestLinearThompson = suite("linear", Thompson(), 0.0)
TestNeuralLinearUpper = suite("neural_linear", Best(bonus=2.0), 0.0)
TestNeuralLinearThompson = suite("neural_linear", Thompson(), 0.02)
TestBootstrapThompson = suite("bootstrap", Thompson(), 0.0)
TestBootstrapUpper = suite("bootstrap", Best(bonus=1.0), 0.1)
TestDiagLinucbUpper = suite("diag_linucb", Best(bonus=1.0), 0.0)
TestDiagLinucbThompson = suite("diag_linucb", Thompson(0.5), 0.05)
TestHybridSquareCB = suite("hybrid", SquareCB(10.0), 0.0)


def test_without_features_nothing_can_be_expected():
    policy = Learned("linear", linear(), Best(), 0.0, Vocabulary(["a"]))
    with pytest.raises(InputError, match="features"):
        policy.odds(PolicyTests.candidates(3), np.array([1]))


@pytest.mark.parametrize("name", LEARNERS)
def test_what_is_rewarded_is_expected_more(name):
    fresh, learner = LEARNERS[name](), taught(name, 120)
    about = "x", np.arange(1, 7), features(name, 6)
    before, (after, std_N) = fresh.expect(*about)[0], learner.expect(*about)
    assert after.argmax() == 4
    assert after[4] > before[4] + 0.1
    assert ((after > 0) & (after < 1)).all()
    assert (std_N >= 0).all()
    assert learner.updates == learner.shown_N.sum() == 120


@pytest.mark.parametrize("name", LEARNERS)
def test_what_is_known_shrinks_what_is_not_and_fades_and_is_reset(name):
    about = "x", np.array([1, 2, 3, 5]), features(name, 6)[[0, 1, 2, 4]]
    fresh, learner = LEARNERS[name](), taught(name, 240)
    assert learner.expect(*about)[1].sum() < fresh.expect(*about)[1].sum()
    if name != "linear":  # items have nothing of their own there
        learner.reset(5)
        again = learner.expect(*about)
        assert again[0][3] < taught(name, 240).expect(*about)[0][3]
        assert again[1][3] > taught(name, 240).expect(*about)[1][3]
    learner.forget(1e-9)
    for got, new in zip(learner.expect(*about), fresh.expect(*about), strict=True):
        np.testing.assert_allclose(got, new, atol=1e-6)


@pytest.mark.parametrize("name", LEARNERS)
def test_a_no_that_was_hardly_seen_says_little(name):
    seen, unseen = LEARNERS[name](), LEARNERS[name]()
    row = features(name, 6)[0]
    for _ in range(20):
        seen.learn("u", 1, row, False)
        unseen.learn("u", 1, row, False, 0.05)
    about = "x", np.array([1]), row[None]
    start = LEARNERS[name]().expect(*about)[0][0]
    assert seen.expect(*about)[0][0] < unseen.expect(*about)[0][0] <= start + 1e-9


@pytest.mark.parametrize("name", LEARNERS)
def test_same_outcomes_same_bits(name):
    about = "x", np.arange(1, 7), features(name, 6)
    for one, two in zip(taught(name).expect(*about), taught(name).expect(*about), strict=True):
        assert one.tobytes() == two.tobytes()


def test_updates_of_the_policy_are_those_of_its_learner():
    policy = Learned("linear", linear(), Softmax(0.1), 0.0, Vocabulary(["a", "b"]))
    none = np.zeros(2, np.float32)
    candidates = Candidates(np.array([1, 2]), none, none, "t", "u", features("linear", 2))
    policy.choose(candidates, Query("u", 0, k=2), np.random.default_rng(0))
    slate = Slate(
        recommendation_id="r", ts=0, subject="u", items=[], policy_id=policy.id, model_id="m", seed=0
    )
    policy.update(slate, {"a": 1.0, "b": 0.0, "unknown": 1.0})
    policy.update(
        Slate(recommendation_id="r", ts=0, subject="v", items=[], policy_id="p", model_id="m", seed=0),
        {"a": 1},
    )
    assert policy.learner.updates == 2
    assert policy.odds(candidates, np.array([1]))[0] > policy.odds(candidates, np.array([2]))[0]


# -- linear: what the shared weights do not know ---------------------------------------------------------------


def test_the_bonus_of_shared_weights_is_that_of_linucb_beside_the_mean():
    learner, feature_NF = linear(), features("linear", 6)
    for n in range(30):
        learner.learn(f"p{n}", n % 6 + 1, feature_NF[n % 6], n % 4 == 0)
    _, std_N = learner.expect("x", np.arange(1, 7), feature_NF, 1e-6)  # a small reach: the slope
    away_NF = feature_NF - feature_NF.mean(0)
    wanted_N = np.sqrt([x @ learner.cov_FF @ x for x in away_NF])
    mean_N, _ = learner.expect("x", np.arange(1, 7), feature_NF)
    from scipy.stats import norm

    var = np.array([x @ learner.cov_FF @ x for x in feature_NF]) + learner.spread.person**2
    np.testing.assert_allclose(
        std_N, norm.pdf(norm.ppf(mean_N)) * wanted_N / np.sqrt(1 + var.mean()), rtol=1e-4
    )


def test_a_direction_that_was_never_tried_is_unsure():
    learner = Hybrid(np.zeros(2), np.ones(2), LABELS_NL, FRESH_N, Spread(0.0, 0.0, 0.3, 0.0), shared=True)
    for n in range(50):
        learner.learn(f"p{n}", 1, np.array([1.0, 0.0]), n % 2 == 0)
    _, std_N = learner.expect("x", np.array([1, 2, 3]), np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))
    assert std_N[2] > 1.7 * std_N[0]


# -- bootstrap ------------------------------------------------------------------------------------------------


def test_heads_expect_nothing_before_anything_is_known():
    heads = Bootstrap(*prior(), FRESH_N)
    assert heads.weight_MF.mean(0) == pytest.approx(prior()[0])
    assert heads.weight_MF.std(0) == pytest.approx(prior()[1])
    assert heads.item_MN.mean(0) == pytest.approx(0.0)


def test_heads_lie_as_far_apart_as_the_posterior_is_wide():
    """Of one rate the exact posterior is known: the spread of the heads is near it, on average over draws."""
    found = []
    for seed in range(30):
        heads = Bootstrap(
            np.zeros(1), np.ones(1), np.zeros(2, bool), Spread(item=1e-9, fresh=1e-9), seed=seed
        )
        for n in range(100):
            heads.learn("u", 1, np.ones(1), n % 4 == 0)
        found.append([heads.weight_MF.mean(), heads.weight_MF.std()])
    grid = np.linspace(-4, 4, 4001)
    from scipy.stats import norm

    log = norm.logpdf(grid) + 25 * norm.logcdf(grid) + 75 * norm.logsf(grid)
    weight = np.exp(log - log.max())
    weight /= weight.sum()
    mean = (weight * grid).sum()
    deviation = np.sqrt((weight * (grid - mean) ** 2).sum())
    got = np.mean(found, axis=0)
    assert got[0] == pytest.approx(mean, abs=deviation / 2)
    assert got[1] == pytest.approx(deviation, rel=0.35)


def test_thompson_over_heads_is_the_share_of_their_votes():
    heads, feature_NF = taught("bootstrap"), features("bootstrap", 6)
    about = "u", np.arange(1, 7), feature_NF
    assert isinstance(heads, Voter)
    mean_N, std_N = heads.expect(*about)
    rule = sampled(Thompson(), heads, *about)
    candidates = Candidates(about[1], mean_N, std_N, "t")
    first_N = draw_slate(rule, candidates, 1, 0.0, np.random.default_rng(0)).first_N
    votes_N = np.bincount(heads.opinions(*about).argmax(1), minlength=6) / 16
    assert first_N.tolist() == votes_N.tolist()
    assert sampled(Softmax(), heads, *about) == Softmax()
    assert sampled(Thompson(), linear(), *about) == Thompson()


# -- clusters -------------------------------------------------------------------------------------------------


def test_clusters_learn_apart_of_items_without_history_alone():
    learner = LEARNERS["diag_linucb"]()
    rows = [features("diag_linucb", 6, person)[4] for person in range(C)]
    for n in range(150):
        learner.learn(f"a{n}", 5, rows[0], True)
        learner.learn(f"b{n}", 5, rows[1], False)
    assert FRESH_N[5]
    chance = [learner.expect("x", np.array([5]), row[None])[0][0] for row in rows]
    assert chance[0] > chance[2] + 0.2 > chance[1] + 0.4
    for n in range(150):
        learner.learn(f"a{n}", 4, rows[0], True)
        learner.learn(f"b{n}", 4, rows[1], False)
    known = [learner.expect("x", np.array([4]), row[None])[0][0] for row in rows]
    assert known[0] == known[1] == known[2]


def test_an_edge_that_many_took_is_known_better():
    learner = LEARNERS["diag_linucb"]()
    rows = [features("diag_linucb", 6, person)[4] for person in range(C)]
    for n in range(100):
        learner.learn(f"a{n}", 5, rows[0], n % 3 == 0)
    few, many = (learner.expect("x", np.array([5]), row[None])[1][0] for row in (rows[1], rows[0]))
    assert few > many
    nobody = np.r_[rows[0][:F], np.zeros(C)]
    assert learner.expect("x", np.array([5]), nobody[None])[1][0] < many
