"""Slates drawn slot by slot from a rule's chances, with the odds they had.

The propensity core: every answer that may explore passes here, so no item is shown without a known chance. In each slot
the rule's chances are mixed with a floor, ``p = (1 - floor) * rule + floor / free``: every candidate can
come, no importance weight exceeds ``candidates / floor``, and estimators of other policies stay unbiased.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from penchant.core import Bools, Candidates, Choice, Floats, Ints, Query, Slate
from penchant.policy._rerank import Rerank, Values
from penchant.policy._rules import Best, Chances, Peaks, Rule


def _top(score_N: Floats, k: int) -> npt.NDArray[np.int64]:
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


def draw_slate(
    rule: Rule,
    candidates: Candidates,
    k: int,
    floor: float,
    rng: np.random.Generator,
    updates: int = 0,
    rerank: Sequence[Rerank] = (),
) -> Choice:
    """Draw up to k distinct candidates, best slot first; those of a mean that is not finite never come.

    Args:
        rule: Gives the chances from ``candidates.mean_N`` and ``std_N``.
        floor: Share of each slot that is spread evenly over what is free, 0 to 1.
        rng: Used once a slot, where something is to be drawn.
        updates: Outcomes learned so far, for rules that read it.
        rerank: How items above change what the others are worth; an item is explored where another is worth more.

    Example:
        >>> from penchant.policy import Softmax
        >>> c = Candidates(np.array([4, 7]), np.float32([0.0, 0.0]), np.zeros(2, np.float32), "m")
        >>> choice = draw_slate(Softmax(), c, 2, 0.1, np.random.default_rng(0))
        >>> choice.odds_K.tolist()
        [0.5, 1.0]
    """
    if rule == Best() and not floor and not rerank:  # for certain: there is nothing to draw
        index_K = _top(candidates.mean_N, k)
        first_N = np.zeros(len(candidates.mean_N))
        first_N[index_K[:1]] = 1.0
        return Choice(
            index_K,
            np.ones(len(index_K)),
            np.zeros(len(index_K), np.bool_),
            first_N if len(index_K) else None,
        )
    slots = _Slots(rule, candidates, updates, rerank)
    free_N = slots.free_N
    k = min(k, int(free_N.sum()))
    index_K, odds_K, explored_K = np.zeros(k, np.int64), np.ones(k), np.zeros(k, np.bool_)
    begun_N: Floats | None = None
    for slot in range(k):
        if begun_N is None:
            begun_N = slots.chances(floor)
        chosen, chance = slots.drawn(floor, rng.random())
        best = int(slots.left_N.argmax())
        index_K[slot], odds_K[slot], explored_K[slot] = chosen, min(chance, 1.0), chosen != best
        slots.place(chosen)
    return Choice(index_K, odds_K, explored_K, begun_N)


def slate_odds(
    rule: Rule,
    candidates: Candidates,
    chosen_K: Ints,
    floor: float,
    updates: int = 0,
    rerank: Sequence[Rerank] = (),
) -> npt.NDArray[np.float64]:
    """The chance of each chosen item, by number, in its slot given the slots above: (K,); 0 for one never shown."""
    slots = _Slots(rule, candidates, updates, rerank)
    place = {int(number): at for at, number in enumerate(candidates.item_N)}
    odds_K = np.zeros(len(chosen_K))
    for slot, number in enumerate(chosen_K.tolist()):
        at = place.get(number)
        if at is None or not slots.free_N[at]:
            break
        odds_K[slot] = min(slots.chances(floor)[at], 1.0)
        if odds_K[slot] == 0:
            break
        slots.place(at)
    return odds_K


class _Slots:
    """The candidates as one slate is filled: who is free, what each is worth now, and with what chance it comes."""

    def __init__(self, rule: Rule, candidates: Candidates, updates: int, rerank: Sequence[Rerank]) -> None:
        mean_N = candidates.mean_N.astype(np.float64)
        self.free_N: Bools = np.isfinite(mean_N)
        self._std_N = np.where(self.free_N, candidates.std_N, 0.0)
        # What may not come is given a mean that disturbs no sum.
        lowest = mean_N[self.free_N].min() if self.free_N.any() else 0.0
        self._values = Values(np.where(self.free_N, mean_N, lowest), rerank)
        self._rule, self._updates = rule, updates
        self._gone: list[int] | None = None
        value_N = self._values.next(None)
        self.left_N = np.where(self.free_N, value_N, -np.inf)  # what those are worth that are free
        self._chances: Chances = rule.begin(value_N, self._std_N, updates)

    def chances(self, floor: float) -> Floats:
        """The chance of every candidate in the next slot."""
        p_N = self._chances(self.free_N)
        if floor:
            p_N = p_N * (1 - floor)
            p_N += self.free_N * (floor / np.count_nonzero(self.free_N))
        return p_N

    def drawn(self, floor: float, share: float) -> tuple[int, float]:
        """The candidate at which the chances, summed in order, pass a share of their sum; and its chance."""
        few = (
            self._chances.named(self.free_N)
            if isinstance(self._chances, Peaks) and not self._values.move
            else None
        )
        if few is not None:
            return _among_few(few, floor, share, self._taken(), len(self.free_N))
        p_N = self.chances(floor)
        sum_N = p_N.cumsum()
        chosen = int(sum_N.searchsorted(share * sum_N[-1], side="right"))
        # Rounding can point behind the last candidate, or at one without chance.
        chosen = chosen if chosen < len(p_N) and p_N[chosen] > 0 else int(p_N.argmax())
        return chosen, float(p_N[chosen])

    def _taken(self) -> list[int]:
        """Candidates that are not free, in order."""
        if self._gone is None:
            self._gone = np.flatnonzero(~self.free_N).tolist()
        return self._gone

    def place(self, at: int) -> None:
        """Fill the slot; where the stages move the others, the rule begins anew with their values."""
        self.free_N[at] = False
        self.left_N[at] = -np.inf
        if self._gone is not None:
            insort(self._gone, at)
        if self._values.move and self.free_N.any():
            value_N = self._values.next(at)
            self.left_N = np.where(self.free_N, value_N, -np.inf)
            self._chances = self._rule.begin(value_N, self._std_N, self._updates)


def _among_few(
    few: Mapping[int, float], floor: float, share: float, taken: Sequence[int], size: int
) -> tuple[int, float]:
    """What ``_Slots.drawn`` finds, without a sum over all: between the few the floor alone is summed, evenly."""
    free = size - len(taken)
    each = floor / free
    passed = own = (
        0.0  # what the few have beyond the floor: those that were passed, and the one that is looked at
    )
    at = -1
    for at in sorted(few):
        start, own = passed + each * (at - bisect_left(taken, at)), few[at] * (1 - floor)
        if share < start:
            break
        if share < start + own + each:
            return at, own + each
        passed += own
    if not floor:  # rounding pointed behind the last
        return at, own + each
    chosen = min(int((share - passed) / each), free - 1)  # of the free ones, by their order
    for gone in taken:
        if gone > chosen:
            break
        chosen += 1
    return chosen, few.get(chosen, 0.0) * (1 - floor) + each


class Explorer:
    """A policy that takes means and standard deviations as the candidates bring them, and draws by a rule.

    Args:
        rule: How they become chances.
        floor: Share of each slot spread evenly, so that every candidate has a chance. 0: none.

    Example:
        >>> from penchant.core import Query
        >>> from penchant.policy import Best
        >>> c = Candidates(np.array([4, 7, 9]), np.float32([0.1, 0.9, 0.5]), np.zeros(3, np.float32), "m")
        >>> Explorer(Best(), floor=0.3).odds(c, np.array([7, 9])).round(6).tolist()
        [0.8, 0.85]
    """

    def __init__(self, rule: Rule, floor: float = 0.0) -> None:
        self.rule, self.floor = rule, floor
        self.id = rule.id if not floor else f"{rule.id}+{floor:g}"
        self.updates = 0

    def choose(self, candidates: Candidates, query: Query, rng: np.random.Generator) -> Choice:
        """Draw ``query.k`` items slot by slot."""
        return draw_slate(self.rule, candidates, query.k, self.floor, rng, self.updates)

    def odds(self, candidates: Candidates, chosen_K: Ints) -> Floats:
        """The chance of each chosen item in its slot given the slots above."""
        return slate_odds(self.rule, candidates, chosen_K, self.floor, self.updates)

    def update(self, slate: Slate, outcome: Mapping[str, float]) -> None:
        """Count the outcomes: rules that explore less with time read it. What is expected, others learn."""
        self.updates += len(outcome)
