"""Policies that take no chances: the best by the model, or the most popular."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from penchant.core import Candidates, Choice, Floats, Ints, Query, Slate, Vocabulary


def top(score_N: Floats, k: int) -> npt.NDArray[np.int64]:
    """Positions of the k highest scores, best first, ties in candidate order; -inf and NaN never."""
    usable = np.flatnonzero(np.isfinite(score_N))
    k = min(k, len(usable))
    if k == 0:
        return np.empty(0, np.int64)
    score = score_N[usable]
    if k < len(usable):
        # Keep everything that ties with the k-th score, so that the order among ties does not depend on
        # how the partition happened to swap them.
        bar = np.partition(score, len(score) - k)[len(score) - k]
        keep = np.flatnonzero(score >= bar)
        usable, score = usable[keep], score[keep]
    return usable[np.argsort(-score, kind="stable")[:k]]


def _certain(index_K: npt.NDArray[np.int64]) -> Choice:
    k = len(index_K)
    return Choice(index_K, np.ones(k, np.float64), np.zeros(k, np.bool_))


def _certain_odds(expected_K: Ints, chosen_K: Ints) -> Floats:
    """1 while the slate follows the only slate there is; 0 from the first slot that differs."""
    same = np.zeros(len(chosen_K), np.bool_)
    n = min(len(expected_K), len(chosen_K))
    same[:n] = expected_K[:n] == chosen_K[:n]
    return np.cumprod(same).astype(np.float64)


class Greedy:
    """Show what the model scores highest; every odds is 1.

    Example:
        >>> c = Candidates(np.array([4, 7, 9]), np.float32([0.1, 0.9, 0.5]), np.zeros(3, np.float32), "m")
        >>> Greedy().choose(c, Query("u", 0, k=2), np.random.default_rng(0)).index_K.tolist()
        [1, 2]
    """

    id = "greedy/1"

    def choose(self, candidates: Candidates, query: Query, rng: np.random.Generator) -> Choice:
        """Pick the ``query.k`` highest means; ties go to the earlier candidate."""
        return _certain(top(candidates.mean_N, query.k))

    def odds(self, candidates: Candidates, chosen_K: Ints) -> Floats:
        """1 for the slate that ``choose`` gives, 0 from the first slot that differs from it."""
        return _certain_odds(candidates.item_N[top(candidates.mean_N, len(chosen_K))], chosen_K)

    def update(self, slate: Slate, outcome: Mapping[str, float]) -> None:
        """Learns nothing: the model does."""


class Popularity:
    """Show what most people turned to, whatever the model says. Needs no model at all.

    Args:
        items: Whose numbers ``count_N`` is indexed by.
        count_N: How often each item was turned to, (N + 1,) with number 0 unused.

    Example:
        >>> p = Popularity(Vocabulary(["tea", "milk"]), np.array([0.0, 3.0, 5.0]))
        >>> c = Candidates(np.array([1, 2]), np.zeros(2, np.float32), np.zeros(2, np.float32), "catalogue")
        >>> p.choose(c, Query("u", 0, k=1), np.random.default_rng(0)).index_K.tolist()
        [1]
    """

    id = "popularity/1"

    def __init__(self, items: Vocabulary, count_N: Floats) -> None:
        self.items = items
        self.count_N = np.array(count_N, np.float64)

    def choose(self, candidates: Candidates, query: Query, rng: np.random.Generator) -> Choice:
        """Pick the ``query.k`` most popular candidates; ties go to the earlier one."""
        return _certain(top(self._counts(candidates), query.k))

    def odds(self, candidates: Candidates, chosen_K: Ints) -> Floats:
        """1 for the slate that ``choose`` gives, 0 from the first slot that differs from it."""
        expected = candidates.item_N[top(self._counts(candidates), len(chosen_K))]
        return _certain_odds(expected, chosen_K)

    def _counts(self, candidates: Candidates) -> Floats:
        """How often each candidate was turned to; a mean that is no number still means: never show it."""
        return np.where(np.isfinite(candidates.mean_N), self.count_N[candidates.item_N], -np.inf)

    def update(self, slate: Slate, outcome: Mapping[str, float]) -> None:
        """Count every rewarded item once more."""
        for item_id, reward in outcome.items():
            number = self.items.number(item_id)
            if number and reward > 0:
                self.count_N[number] += 1
