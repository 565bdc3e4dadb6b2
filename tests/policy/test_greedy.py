import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from penchant.core import Candidates, Query
from penchant.policy import Best, Explorer
from penchant.testing import PolicyTests

RNG = np.random.default_rng(0)
GREEDY = Explorer(Best())


class TestGreedy(PolicyTests):
    @staticmethod
    def make(num_items):
        return GREEDY

    def test_a_minus_infinity_is_never_shown(self):
        choice = GREEDY.choose(self.candidates(3), Query("u", 0, k=3), RNG)
        assert 0 not in choice.index_K.tolist()


@given(st.lists(st.integers(0, 4), min_size=1, max_size=30), st.integers(1, 30))
def test_ties_go_to_the_earlier_candidate(scores, k):
    mean = np.array(scores, np.float32)
    candidates = Candidates(np.arange(1, len(mean) + 1), mean, np.zeros_like(mean), "t")
    got = GREEDY.choose(candidates, Query("u", 0, k=k), RNG).index_K.tolist()
    assert got == sorted(range(len(scores)), key=lambda n: (-scores[n], n))[:k]


def test_odds_are_zero_from_the_first_difference():
    candidates = Candidates(np.array([5, 6, 7]), np.float32([3, 2, 1]), np.zeros(3, np.float32), "t")
    assert GREEDY.odds(candidates, np.array([5, 7, 6])).tolist() == [1, 0, 0]
