"""Peeking, planned looks, CUPED and arm sizes: what they promise, on simulated people."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penchant.core import rng
from penchant.evaluation import arm_of, cuped, difference, sample_ratio, spending_boundaries, spent

LOOKS = range(200, 2001, 200)


def false_alarms(look, runs=300):
    """Share of A/A experiments in which some look is significant."""
    found = 0
    for seed in range(runs):
        values = rng(seed, "aa").normal(0, 1, (2, 1000))
        found += any(look(values[0, : n // 2], values[1, : n // 2], n, k) for k, n in enumerate(LOOKS))
    return found / runs


def test_peeking_breaks_the_fixed_test_only():
    shares = [n / 2000 for n in LOOKS]
    bounds = spending_boundaries(shares)
    naive = false_alarms(lambda t, c, n, k: difference(t, c, planned=n, boundary=1.96).significant)
    always = false_alarms(lambda t, c, n, k: difference(t, c, planned=2000).significant)
    planned = false_alarms(lambda t, c, n, k: difference(t, c, planned=2000, boundary=bounds[k]).significant)
    assert naive > 0.12
    assert always <= 0.05
    assert 0.02 <= planned <= 0.085


def test_boundaries_of_the_books():
    # Lan & DeMets 1983, O'Brien-Fleming spending, two-sided .05
    np.testing.assert_allclose(spending_boundaries([0.5, 1.0]), [2.963, 1.969], atol=0.005)
    np.testing.assert_allclose(
        spending_boundaries([0.2, 0.4, 0.6, 0.8, 1.0]), [4.877, 3.357, 2.680, 2.290, 2.031], atol=0.006
    )
    assert spent(1.0) == pytest.approx(0.05)
    with pytest.raises(ValueError, match="rise"):
        spending_boundaries([0.5, 0.5])


def test_a_further_look_leaves_earlier_lines_alone():
    few, more = spending_boundaries([0.3, 0.6]), spending_boundaries([0.3, 0.6, 0.65, 1.0])
    np.testing.assert_allclose(few, more[:2])


def test_cuped_takes_away_what_was_known():
    draw = rng(3)
    before = draw.gamma(2.0, 1.0, 4000)
    after = 0.8 * before + draw.normal(0, 1, 4000)
    rho2 = np.corrcoef(before, after)[0, 1] ** 2
    treated = after[:2000] + 0.2
    found = cuped(treated, after[2000:], before[:2000], before[2000:])
    assert found.variance_cut == pytest.approx(rho2, abs=0.02)
    assert found.control_U.var() == pytest.approx(after[2000:].var() * (1 - rho2), rel=0.1)
    plain = difference(treated, after[2000:], planned=4000)
    adjusted = difference(found.treated_U, found.control_U, planned=4000)
    assert adjusted.variance < 0.75 * plain.variance
    assert adjusted.estimate.value == pytest.approx(0.2, abs=0.1)
    constant = cuped(treated, after[2000:], np.ones(2000), np.ones(2000))
    assert constant.variance_cut == 0.0


def test_a_difference_by_hand():
    treated, control = np.array([1.0, 2.0, 3.0]), np.array([0.0, 1.0, 2.0])
    found = difference(treated, control, planned=6, boundary=2.0)
    assert found.estimate.value == 1.0
    assert found.variance == pytest.approx(2 / 3)
    assert found.estimate.high == pytest.approx(1 + 2 * np.sqrt(2 / 3))
    assert found.relative.value == 1.0
    assert not found.significant
    assert difference(control - 5, control - 5, planned=6).relative is None


def test_arms_have_their_shares_and_salts_are_independent():
    ids = [f"u{n}" for n in range(20_000)]
    one = np.array([arm_of(i, "one", [0.2, 0.8]) for i in ids])
    two = np.array([arm_of(i, "two", [0.2, 0.8]) for i in ids])
    assert (one == 0).mean() == pytest.approx(0.2, abs=0.01)
    assert ((one == 0) & (two == 0)).mean() == pytest.approx(0.04, abs=0.006)


@given(st.text(min_size=1), st.lists(st.floats(0.05, 1), min_size=2, max_size=5))
def test_an_arm_is_always_one_of_them(unit, weights):
    shares = [w / sum(weights) for w in weights]
    assert 0 <= arm_of(unit, "salt", shares) < len(shares)
    assert arm_of(unit, "salt", shares) == arm_of(unit, "salt", shares)


def test_sample_ratio_holds_under_peeking_and_finds_losses():
    alarms = 0
    for seed in range(200):
        arm = np.cumsum(rng(seed, "srm").random(4000) < 0.5)
        alarms += any(
            sample_ratio([int(arm[n - 1]), n - int(arm[n - 1])], [0.5, 0.5]) < 0.05
            for n in range(200, 4001, 200)
        )
    assert alarms / 200 <= 0.05
    assert sample_ratio([9000, 10_000], [0.5, 0.5]) < 0.001
