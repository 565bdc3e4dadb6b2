"""From chance to expected value."""

import numpy as np
import pytest

from penchant.core import rng
from penchant.models import RankChance, expected_value


@pytest.mark.parametrize("law", [RankChance(0.0, 1.5), RankChance(5.0, 2.0), RankChance(1.0, 0.5)])
def test_the_law_of_ranks_is_recovered(law):
    chance = law.of(np.arange(1, 201), 200)
    assert chance.sum() == pytest.approx(1)
    ranks = rng(0, "ranks").choice(np.arange(1, 201), 20_000, p=chance)
    found = RankChance.fit(ranks, 200).of(np.arange(1, 201), 200)
    assert found[:10] == pytest.approx(chance[:10], rel=0.15, abs=0.003)


def test_ranks_that_say_nothing_give_the_usual_law():
    assert RankChance.fit(np.array([]), 9) == RankChance()
    assert RankChance.fit(np.array([np.inf, np.inf]), 9) == RankChance()


def test_what_may_not_be_shown_stays_out():
    score = np.float32([-np.inf, 3, -np.inf, 1])
    value = expected_value(score, np.array([0, 1, 100, 10.0]), RankChance(1.0, 1.0))
    assert np.isneginf(value[[0, 2]]).all()
    assert value[3] > value[1] > 0


def test_one_price_for_all_changes_no_order():
    score = np.r_[-np.inf, rng(0, "scores").normal(size=50)].astype(np.float32)
    value = expected_value(score, np.r_[0, np.full(50, 7.0)], RankChance(2.0, 1.3))
    np.testing.assert_array_equal(np.argsort(-value[1:]), np.argsort(-score[1:]))
