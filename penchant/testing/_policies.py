"""The conformance suite of policies: subclass it in a test module and give ``make``."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from penchant.core import Candidates, Policy, Query


class PolicyTests:
    """What every policy must hold.

    Example:
        ``class TestGreedy(PolicyTests): make = staticmethod(lambda n: Explorer(Best()))``
    """

    make: Callable[[int], Policy]
    """Gives a policy ready to choose among items 1 to ``num_items``; a subclass sets it as a static method."""

    @staticmethod
    def candidates(num_items: int, seed: int = 0) -> Candidates:
        """Random candidates, some tied and one that must never be shown (-inf)."""
        rng = np.random.default_rng(seed)
        mean = rng.integers(0, 5, num_items).astype(np.float32)
        mean[0] = -np.inf
        return Candidates(np.arange(1, num_items + 1), mean, np.ones(num_items, np.float32), "test")

    def test_slate_is_k_distinct_candidates(self) -> None:
        """k distinct positions into the candidates, with odds in (0, 1]."""
        choice = self.make(50).choose(self.candidates(50), Query("u", 0, k=10), np.random.default_rng(0))
        assert len(set(choice.index_K.tolist())) == 10
        assert ((choice.odds_K > 0) & (choice.odds_K <= 1)).all()
        assert len(choice.explored_K) == 10

    def test_what_may_not_be_shown_is_not(self) -> None:
        """A candidate of mean -inf is in no slate, however many slots there are, and has no odds."""
        policy, candidates = self.make(20), self.candidates(20)
        choice = policy.choose(candidates, Query("u", 0, k=20), np.random.default_rng(0))
        assert len(choice.index_K) == 19
        assert 0 not in choice.index_K
        assert policy.odds(candidates, candidates.item_N[:1]).tolist() == [0.0]

    def test_fewer_candidates_than_slots(self) -> None:
        """A short list gives a short slate, an empty one an empty slate."""
        empty = Candidates(np.empty(0, np.int64), np.empty(0, np.float32), np.empty(0, np.float32), "test")
        query = Query("u", 0, k=10)
        assert len(self.make(3).choose(self.candidates(3), query, np.random.default_rng(0)).index_K) in (2, 3)
        assert len(self.make(3).choose(empty, query, np.random.default_rng(0)).index_K) == 0

    def test_same_seed_same_slate(self) -> None:
        """The seed decides."""
        one, two = (
            self.make(50).choose(self.candidates(50), Query("u", 0, k=10), np.random.default_rng(7)).index_K
            for _ in range(2)
        )
        assert one.tolist() == two.tolist()

    def test_odds_of_the_slate_chosen(self) -> None:
        """``odds`` agrees with what ``choose`` reported."""
        policy, candidates = self.make(50), self.candidates(50)
        choice = policy.choose(candidates, Query("u", 0, k=5), np.random.default_rng(1))
        odds = policy.odds(candidates, candidates.item_N[choice.index_K])
        np.testing.assert_allclose(odds, choice.odds_K, rtol=1e-6)

    def test_logged_odds_match_frequencies(self) -> None:
        """Over many draws the first slot shows each item as often as its odds say (law 3)."""
        policy, candidates = self.make(6), self.candidates(6)
        draws = 2000
        shown = np.zeros(6)
        said = np.zeros(6)
        for seed in range(draws):
            choice = policy.choose(candidates, Query("u", 0, k=1), np.random.default_rng(seed))
            shown[choice.index_K[0]] += 1
            said[choice.index_K[0]] = choice.odds_K[0]
        error = 4 * np.sqrt(said * (1 - said) / draws) + 1e-9
        assert (np.abs(shown / draws - said) <= error).all()

    def test_inputs_stay_untouched(self) -> None:
        """Candidates are read only."""
        candidates = self.candidates(20)
        before = candidates.mean_N.copy()
        self.make(20).choose(candidates, Query("u", 0, k=5), np.random.default_rng(0))
        np.testing.assert_array_equal(candidates.mean_N, before)
