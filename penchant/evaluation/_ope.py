"""What a policy would have earned, from what another policy logged: off-policy estimators as a few vectors.

Every estimator is three columns, one number a case: ``value = mean(plain) + mean(weighted) / mean(weight)``, where
a weight of None stands for 1. The value, its influence function and its bootstrap all follow from the columns, so
only the odds of the logged actions are ever needed, never a table of cases by actions.

Letters: C logged cases, L loggers, A actions, E embeddings, G clusters of actions.

Sources: Horvitz & Thompson 1952 (IPS), Swaminathan & Joachims 2015 (SNIPS), Dudik et al. 2011 (DR), Wang et al. 2017
(Switch-DR), Su et al. 2020 (DR with optimistic shrinkage), Saito & Joachims 2022 (MIPS), Saito et al. 2023 (OffCEM),
Agarwal et al. 2017 (balanced weights of several loggers).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from penchant.core import Floats, Ints


@dataclass(frozen=True, eq=False)
class Feedback:
    """Logged cases as an estimator sees them.

    Args:
        reward_C: What each logged action earned.
        logged_C: Odds with which the logger took the logged action, in (0, 1].
        target_C: Odds with which the policy under test would have taken it, in [0, 1].
        predicted_C: A reward model's guess for the logged action; None where there is no model.
        expected_C: The model's guess averaged over what the policy under test would do.
        who_C: Which person each case belongs to: intervals resample people, not cases. None: all different.

    Raises:
        ValueError: Lengths differ, or odds are outside their range.

    Example:
        >>> f = Feedback(np.array([1.0, 0.0]), np.array([0.5, 0.5]), np.array([1.0, 0.0]))
        >>> ips(f).value, snips(f).value
        (1.0, 1.0)
    """

    reward_C: Floats
    logged_C: Floats
    target_C: Floats
    predicted_C: Floats | None = None
    expected_C: Floats | None = None
    who_C: Ints | None = None

    def __post_init__(self) -> None:
        n = len(self.reward_C)
        for name in ("logged_C", "target_C", "predicted_C", "expected_C", "who_C"):
            column = getattr(self, name)
            if column is not None and len(column) != n:
                raise ValueError(f"{name} has {len(column)} cases, reward_C has {n}")
        if n == 0:
            raise ValueError("a log needs at least one case")
        if not ((self.logged_C > 0) & (self.logged_C <= 1 + 1e-9)).all():
            raise ValueError("logged odds must lie in (0, 1]")
        if not ((self.target_C >= 0) & (self.target_C <= 1 + 1e-9)).all():
            raise ValueError("the odds of the policy under test must lie in [0, 1]")

    @cached_property
    def weight_C(self) -> Floats:
        """How many times likelier the policy under test takes the logged action: its mean is 1 in expectation."""
        return self.target_C / self.logged_C

    @property
    def guess(self) -> tuple[Floats, Floats]:
        """The reward model's two columns.

        Raises:
            ValueError: There is no reward model.
        """
        if self.predicted_C is None or self.expected_C is None:
            raise ValueError("this estimator needs a reward model: give predicted_C and expected_C")
        return self.predicted_C, self.expected_C


@dataclass(frozen=True, eq=False)
class Terms:
    """An estimator's columns: ``mean(plain) + mean(weighted) / mean(weight)``."""

    plain_C: Floats
    weighted_C: Floats
    weight_C: Floats | None = None

    @cached_property
    def value(self) -> float:
        """The estimate; 0 from the weighted part where the policy under test takes no logged action."""
        return float(self.plain_C.mean() + self._ratio)

    @cached_property
    def influence_C(self) -> Floats:
        """What each case adds: mean is the value, variance over C is its squared standard error."""
        if self.weight_C is None:
            return self.plain_C + self.weighted_C
        centred_C = self.weighted_C - self._ratio * self.weight_C
        return self.plain_C + self._ratio + centred_C / (self.weight_C.mean() or 1.0)

    @property
    def _ratio(self) -> float:
        if self.weight_C is None:
            return float(self.weighted_C.mean())
        total = float(self.weight_C.sum())
        return float(self.weighted_C.sum()) / total if total > 0 else 0.0


def ips(f: Feedback) -> Terms:
    """Inverse propensity scoring: unbiased where the log gave every action a chance; wide."""
    return Terms(np.zeros_like(f.weight_C), f.weight_C * f.reward_C)


def snips(f: Feedback) -> Terms:
    """Self-normalised IPS: a little bias for much less spread."""
    return Terms(np.zeros_like(f.weight_C), f.weight_C * f.reward_C, f.weight_C)


def dm(f: Feedback) -> Terms:
    """Direct method: the reward model alone. Its interval says nothing of the model's own error: no evidence."""
    _, expected_C = f.guess
    return Terms(expected_C, np.zeros_like(expected_C))


def dr(f: Feedback) -> Terms:
    """Doubly robust: the model, corrected where it was wrong on the log. Right if odds or model are right."""
    predicted_C, expected_C = f.guess
    return Terms(expected_C, f.weight_C * (f.reward_C - predicted_C))


def sndr(f: Feedback) -> Terms:
    """Doubly robust with self-normalised weights."""
    return replace(dr(f), weight_C=f.weight_C)


def switch_dr(f: Feedback, limit: float) -> Terms:
    """Doubly robust that trusts the model alone where the weight exceeds ``limit``."""
    predicted_C, expected_C = f.guess
    weight_C = np.where(f.weight_C <= limit, f.weight_C, 0.0)
    return Terms(expected_C, weight_C * (f.reward_C - predicted_C))


def dr_os(f: Feedback, shrink: float) -> Terms:
    """Doubly robust with optimistic shrinkage: weights w become shrink w / (w^2 + shrink); infinity is DR."""
    predicted_C, expected_C = f.guess
    w_C = f.weight_C
    weight_C = w_C if np.isinf(shrink) else shrink * w_C / (w_C * w_C + shrink)
    return Terms(expected_C, weight_C * (f.reward_C - predicted_C))


def mips(f: Feedback, embedding_C: Ints, logged_odds_CE: Floats, target_odds_CE: Floats) -> Terms:
    """Marginalised IPS: weights of what an action is (its embedding), not of which action it is.

    Args:
        f: The log; its own odds are not used.
        embedding_C: Embedding of the logged action, a number below E.
        logged_odds_CE: Chance that the logger showed an action of each embedding.
        target_odds_CE: The same of the policy under test.

    Unbiased where reward depends on the action through its embedding alone.
    """
    row_C = np.arange(len(embedding_C))
    weight_C = target_odds_CE[row_C, embedding_C] / logged_odds_CE[row_C, embedding_C]
    return Terms(np.zeros(len(weight_C)), weight_C * f.reward_C)


def off_cem(f: Feedback, cluster_C: Ints, logged_odds_CG: Floats, target_odds_CG: Floats) -> Terms:
    """OffCEM: cluster weights correct the model between clusters; inside a cluster the model decides.

    Args as in ``mips``, with clusters of actions for embeddings; needs a reward model.
    """
    predicted_C, expected_C = f.guess
    row_C = np.arange(len(cluster_C))
    weight_C = target_odds_CG[row_C, cluster_C] / logged_odds_CG[row_C, cluster_C]
    return Terms(expected_C, weight_C * (f.reward_C - predicted_C))


def balanced_odds(odds_CL: Floats, logger_C: Ints) -> Floats:
    """Odds of each logged action under the mixture of all loggers, (C,): the balanced weights' denominator.

    Args:
        odds_CL: Odds that each of the L loggers would have taken the logged action; 0 where it never would.
        logger_C: Which logger did.

    Example:
        >>> balanced_odds(np.array([[0.9, 0.1], [0.9, 0.1]]), np.array([0, 1])).tolist()
        [0.5, 0.5]
    """
    share_L = np.bincount(logger_C, minlength=odds_CL.shape[1]) / len(logger_C)
    return odds_CL @ share_L


def group_odds(odds_CA: Floats, group_A: Ints) -> Floats:
    """Odds of groups (embeddings, clusters) from odds of actions: (C, G)."""
    out_CG = np.zeros((len(odds_CA), int(group_A.max()) + 1))
    np.add.at(out_CG.T, group_A, odds_CA.T)
    return out_CG


def plain_estimators(f: Feedback) -> Mapping[str, Terms]:
    """The estimators without a knob to turn; those that need a reward model only where there is one."""
    found = {"IPS": ips(f), "SNIPS": snips(f)}
    if f.predicted_C is not None:
        found |= {"DM": dm(f), "DR": dr(f), "SNDR": sndr(f)}
    return found
