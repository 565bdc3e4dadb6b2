"""What steers a draw besides the means: interests new to a person, what they are worth, and reranking.

Letters: N candidates, M planned interests.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from penchant.core import Bools, Floats
from penchant.policy._rerank import Rerank
from penchant.policy._rules import Chances, Rule, shared


@dataclass(frozen=True, eq=False)
class Planned:
    """Another rule, with a share of every slot kept for interests that are planned for the person.

    The share is dealt out over the plan by its weights; inside each interest the best free candidate comes. An
    interest none of whose candidates is free gives its part to the others; with none the slot is the rule's alone.

    Args:
        rule: Has the rest of the chances.
        share: Share of each slot that is kept, 0 to 1.
        member_MN: Which candidates belong to each planned interest.
        weight_M: Weight of each in the plan, above 0.
        bound_N: By what candidates are ranked inside an interest.

    Example:
        >>> from penchant.policy import Best
        >>> member = np.array([[False, True, True], [False, False, True]])
        >>> planned = Planned(Best(), 0.2, member, np.array([3.0, 1.0]), np.array([0.3, 0.2, 0.1]))
        >>> planned.begin(np.array([0.3, 0.2, 0.1]), np.zeros(3), 0)(np.ones(3, bool)).round(3).tolist()
        [0.8, 0.15, 0.05]
    """

    rule: Rule
    share: float
    member_MN: Bools
    weight_M: Floats
    bound_N: Floats

    @property
    def id(self) -> str:
        """That of the rule, with the share."""
        return f"{self.rule.id}+novel{self.share:g}"

    def begin(self, mean_N: Floats, std_N: Floats, updates: int) -> Chances:
        """Mix the rule's chances with those of the best candidate of each planned interest."""
        inner = self.rule.begin(mean_N, std_N, updates)
        return shared(inner, self.share, self.member_MN, self.weight_M, self.bound_N)


@dataclass(frozen=True, eq=False)
class Steer:
    """How one request departs from the plain draw.

    Args:
        factor_N: What a reward of each candidate is worth, 1 = as any other: a reward in an interest that is new to
            the person counts for more (Chen et al., "Values of User Exploration in Recommender Systems", RecSys 2021).
        member_MN: Which candidates belong to each planned interest; None: nothing is planned.
        weight_M: Weight of each planned interest.
        share: Share of slots kept for them.
        rerank: Stages between values and chances.
        level: Multiplies every share and floor of exploring: what the person asked for, 0 to 1.
    """

    factor_N: npt.NDArray[np.float64] | None = None
    member_MN: Bools | None = None
    weight_M: Floats | None = None
    share: float = 0.0
    rerank: tuple[Rerank, ...] = ()
    level: float = 1.0

    def over(self, rule: Rule, bound_N: Floats) -> Rule:
        """The rule with the planned interests' share."""
        if self.member_MN is None or self.weight_M is None or not self.share * self.level:
            return rule
        return Planned(rule, self.share * self.level, self.member_MN, self.weight_M, bound_N)
