"""What is expected of items is learned from outcomes: the contract of learners, and the policy that one makes.

Letters: N candidates, F features, K slots.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol, runtime_checkable

import numpy as np

from penchant.core import Candidates, Choice, Floats, Ints, Query, Slate, Vocabulary
from penchant.core.errors import InputError
from penchant.policy._draw import draw_slate, slate_odds
from penchant.policy._rules import Best, Rule, Thompson, Voted

_KEPT = 10_000  # people whose last candidates are kept, until their outcomes come


class Learner(Protocol):
    """Turns features of items into expected rewards, and learns from one outcome at a time."""

    @property
    def shown_N(self) -> Ints:
        """Outcomes of every item number, (N + 1,)."""
        ...

    @property
    def updates(self) -> int:
        """Outcomes in all."""
        ...

    def expect(
        self, person: str, item_N: Ints, feature_NF: Floats, reach: float = 1.0
    ) -> tuple[Floats, Floats]:
        """Chance of a reward of each item, (N,), and how far it would rise for one standard deviation, at least 0.

        Args:
            person: Whose chances.
            item_N: Numbers of the items.
            feature_NF: Their features.
            reach: Standard deviations that the rule will add: the second figure is a ``reach``-th of their rise.
        """
        ...

    def learn(self, person: str, item: int, feature_F: Floats, reward: bool, seen: float = 1.0) -> float:
        """Take an outcome in; returns the chance that was expected.

        Args:
            person: Whose outcome.
            item: Number of the item.
            feature_F: Its features when it was shown.
            reward: Whether one came.
            seen: Chance that a reward, had the person wanted the item, would be known: a no of what was hardly looked
                at says little.
        """
        ...

    def forget(self, keep: float) -> None:
        """Let what was learned fade: the share ``keep`` of it stays, and what is not known grows back."""
        ...

    def reset(self, item: int) -> None:
        """Forget what outcomes said of one item by itself: it is not any more what it was."""
        ...


@runtime_checkable
class Voter(Protocol):
    """A learner of several opinions, each a possible truth."""

    def opinions(self, person: str, item_N: Ints, feature_NF: Floats) -> Floats:
        """The chance of a reward by each of them, (M, N)."""
        ...


def sampled(
    rule: Rule,
    learner: Learner,
    person: str,
    item_N: Ints,
    feature_NF: Floats,
    factor_N: Floats | float = 1.0,
) -> Rule:
    """Thompson sampling over the opinions of a learner that has some, in the place of Gaussians; else the rule.

    Args:
        rule: What was asked for.
        learner: Who may have opinions.
        person: Whose candidates.
        item_N: Their numbers.
        feature_NF: Their features.
        factor_N: What a reward of each is worth.
    """
    if not isinstance(rule, Thompson) or not isinstance(learner, Voter):
        return rule
    opinion_MN = learner.opinions(person, item_N, feature_NF)
    return Voted((opinion_MN - opinion_MN.mean(0)) * factor_N, rule.scale)


def reach_of(rule: Rule) -> float:
    """Standard deviations that a rule adds to what is expected."""
    return rule.bonus if isinstance(rule, Best) and rule.bonus else 1.0


class Learned:
    """A policy made of a learner, a rule and a floor. Candidates bring their features, and whom they are for.

    Args:
        name: Of the learner.
        learner: What is expected.
        rule: How that becomes chances.
        floor: Share of each slot spread evenly, 0 to 1.
        items: Numbers of the item ids that outcomes name.

    Example:
        >>> from penchant.policy import Best, Hybrid
        >>> made = Hybrid(np.zeros(1), np.ones(1), np.zeros((3, 1), int), np.zeros(3, bool))
        >>> policy = Learned("hybrid", made, Best(), 0.1, Vocabulary(["tea", "milk"]))
        >>> none = np.zeros(2, np.float32)
        >>> c = Candidates(np.array([1, 2]), none, none, "m", "u", np.ones((2, 1)))
        >>> policy.choose(c, Query("u", 0, 1), np.random.default_rng(0)).odds_K.round(2).tolist()
        [0.95]
    """

    def __init__(self, name: str, learner: Learner, rule: Rule, floor: float, items: Vocabulary) -> None:
        self.learner, self.rule, self.floor, self.items = learner, rule, floor, items
        self.id = f"{name}/1+{rule.id}" + (f"+floor{floor:g}" if floor else "")
        self._last: OrderedDict[str, Candidates] = OrderedDict()

    def _expected(self, candidates: Candidates) -> tuple[Rule, Candidates]:
        """The rule, and the candidates with what is expected of them; what may not be shown stays so.

        Raises:
            InputError: They have no features.
        """
        if not len(candidates.item_N):
            return self.rule, candidates
        if candidates.feature_NF is None:
            raise InputError("a policy that learns needs the features of its candidates", value=self.id)
        told = candidates.subject, candidates.item_N, candidates.feature_NF
        mean_N, std_N = self.learner.expect(*told, reach_of(self.rule))
        mean_N = np.where(np.isfinite(candidates.mean_N), mean_N, -np.inf)
        rule = sampled(self.rule, self.learner, *told)
        return rule, replace(candidates, mean_N=mean_N, std_N=std_N)

    def choose(self, candidates: Candidates, query: Query, rng: np.random.Generator) -> Choice:
        """Draw ``query.k`` items slot by slot."""
        self._last[query.subject] = candidates
        if len(self._last) > _KEPT:
            self._last.popitem(last=False)
        rule, expected = self._expected(candidates)
        return draw_slate(rule, expected, query.k, self.floor, rng, self.learner.updates)

    def odds(self, candidates: Candidates, chosen_K: Ints) -> Floats:
        """The chance of each chosen item in its slot given the slots above."""
        rule, expected = self._expected(candidates)
        return slate_odds(rule, expected, chosen_K, self.floor, self.learner.updates)

    def update(self, slate: Slate, outcome: Mapping[str, float]) -> None:
        """Learn from what became of the last slate of a person: more than 0 is a reward."""
        candidates = self._last.get(slate.subject)
        if candidates is None or candidates.feature_NF is None:
            return
        place = {number: at for at, number in enumerate(candidates.item_N.tolist())}
        for item_id, reward in outcome.items():
            number = self.items.number(item_id)
            if number in place:
                self.learner.learn(slate.subject, number, candidates.feature_NF[place[number]], reward > 0)
