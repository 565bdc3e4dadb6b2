import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from penchant.evaluation import bootstrap_means, proportion
from penchant.evaluation._beyond import coverage
from penchant.evaluation._estimate import resample_weights


@given(n=st.integers(1, 5000), data=st.data())
def test_proportion_equals_wilson_of_scipy(n, data):
    hits = data.draw(st.integers(0, n))
    found = proportion(hits, n)
    known = binomtest(hits, n).proportion_ci(method="wilson")
    assert found.low == pytest.approx(known.low, abs=1e-12)
    assert found.high == pytest.approx(known.high, abs=1e-12)
    assert found.low <= found.value <= found.high


def test_nothing_observed_is_no_number():
    with pytest.raises(ValueError, match="at least one"):
        proportion(0, 0)
    with pytest.raises(ValueError, match="at least one"):
        bootstrap_means(np.empty((0, 1)))


def test_resamples_draw_everybody_as_often():
    weights = np.concatenate(list(resample_weights(40, seed=1, resamples=600)))
    assert weights.shape == (600, 40)
    assert (weights.sum(axis=1) == 40).all()
    np.testing.assert_allclose(weights.mean(axis=0), 1, atol=0.2)


def test_bootstrap_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(200):
        values = rng.exponential(size=(80, 1))
        found = bootstrap_means(values, seed=seed, resamples=300)[0]
        covered += found.low <= 1.0 <= found.high
    assert 0.88 <= covered / 200 <= 0.98


def test_cases_of_one_person_are_drawn_together():
    """A hundred copies of each person know no more than the person."""
    values = np.random.default_rng(0).random((30, 1))
    alone = bootstrap_means(values)[0]
    copied = bootstrap_means(np.repeat(values, 100, axis=0), np.repeat(np.arange(30), 100))[0]
    fooled = bootstrap_means(np.repeat(values, 100, axis=0))[0]
    assert copied.n == 30
    assert copied.value == pytest.approx(alone.value)
    assert copied.low == pytest.approx(alone.low)
    assert copied.high == pytest.approx(alone.high)
    assert fooled.high - fooled.low < (alone.high - alone.low) / 5


def test_a_bootstrap_does_not_claim_certainty():
    bounded = np.array([True, False])
    constant = bootstrap_means(np.zeros((50, 2)), bounded=bounded)
    assert constant[0].method == "wilson"
    assert constant[0].high == pytest.approx(proportion(0, 50).high)
    assert constant[1].high == 0
    few = bootstrap_means(np.array([[0.5], [1.0]]), bounded=np.array([True]))[0]
    assert few.low < 0.3


def test_same_seed_same_bits():
    values = np.random.default_rng(0).random((60, 3))
    assert bootstrap_means(values, seed=5) == bootstrap_means(values, seed=5)
    assert bootstrap_means(values, seed=5) != bootstrap_means(values, seed=6)


@settings(max_examples=60, deadline=None)
@given(
    lists=st.lists(
        st.tuples(st.integers(0, 4), st.lists(st.integers(0, 9), min_size=2, max_size=2)),
        min_size=1,
        max_size=8,
    )
)
def test_coverage_equals_a_jackknife_by_hand(lists):
    user = np.array([u for u, _ in lists])
    top = np.array([items for _, items in lists])

    def covered(keep):
        return len({i for row in top[keep] for i in row if i > 0}) / 9

    people = sorted(set(user.tolist()))
    whole = covered(np.ones(len(user), bool))
    without = np.array([covered(user != u) for u in people])
    spread = np.sqrt((len(people) - 1) / len(people) * ((without - without.mean()) ** 2).sum())
    found = coverage(top, user, 9)
    assert found.value == pytest.approx(whole)
    assert found.high == pytest.approx(min(1, whole + 1.959964 * spread), abs=1e-6)
    assert found.low == pytest.approx(max(0, whole - 1.959964 * spread), abs=1e-6)
    assert found.n == len(people)
