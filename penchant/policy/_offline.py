"""Policies learned from a log alone: clipped IPS policy gradient, and POTEC for many actions.

A learned policy is a softmax of features, fitted in numpy; no experiment is run while it learns, so it must be judged
(``penchant replay``) on cases that it did not learn from.

Letters: C logged cases, A actions, G clusters of actions, F features.

Sources: Bottou et al. 2013 and Swaminathan & Joachims 2015 (clipped counterfactual gradient with a baseline), Saito
et al. 2024 (POTEC: a gradient chooses the cluster, regression the action inside it).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import numpy as np

from penchant.core import Floats, Ints, rng


class OfflineConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a policy is learned from a log."""

    clip: float = 50.0  # largest importance weight
    steps: int = 300
    learning_rate: float = 0.05
    reg: float = 1e-3  # pull of the weights to 0
    batch_size: int = 1024
    seed: int = 0


@dataclass(frozen=True, eq=False)
class LoggedActions:
    """A log to learn from.

    Args:
        feature_CAF: What is known of each action in each case.
        action_C: Which one was taken.
        odds_C: With which odds, in (0, 1].
        reward_C: What it earned.
    """

    feature_CAF: Floats
    action_C: Ints
    odds_C: Floats
    reward_C: Floats


@dataclass(frozen=True, eq=False)
class LinearSoftmax:
    """A learned policy: chances are the softmax of weighted features. Plain arrays."""

    weight_F: Floats

    def odds(self, feature_CAF: Floats) -> Floats:
        """Chance of each action in each case: (C, A).

        Example:
            >>> LinearSoftmax(np.array([0.0])).odds(np.ones((1, 2, 1))).tolist()
            [[0.5, 0.5]]
        """
        return _softmax(feature_CAF @ self.weight_F)


def policy_gradient(log: LoggedActions, config: OfflineConfig | None = None) -> LinearSoftmax:
    """Climb the clipped IPS estimate of the policy's own value.

    The mean reward is taken off every reward: it changes no expectation (weights average 1) and much variance.
    Weights are clipped: above ``clip`` the gradient is biased towards what the log did, and bounded.
    """
    config = config or OfflineConfig()
    baseline = float(log.reward_C.mean())

    def gradient(weight_F: Floats, rows: Ints) -> Floats:
        feature_CAF, action_C = log.feature_CAF[rows], log.action_C[rows]
        pi_CA = _softmax(feature_CAF @ weight_F)
        own_C = pi_CA[np.arange(len(rows)), action_C]
        scale_C = np.minimum(own_C / log.odds_C[rows], config.clip) * (log.reward_C[rows] - baseline)
        return scale_C @ _score_CF(pi_CA, feature_CAF, action_C) / len(rows)  # type: ignore[no-any-return]

    return LinearSoftmax(_climb(gradient, log.feature_CAF.shape[2], len(log.action_C), config))


@dataclass(frozen=True, eq=False)
class Potec:
    """Two stages: a learned softmax over clusters of actions, then the best action inside by a reward model."""

    first: LinearSoftmax
    cluster_A: Ints

    def odds(self, cluster_CGF: Floats, predicted_CA: Floats) -> Floats:
        """Chance of each action in each case: (C, A); all of a cluster's chance on its best action."""
        return self.first.odds(cluster_CGF)[:, self.cluster_A] * _best_inside(predicted_CA, self.cluster_A)


def potec(
    log: LoggedActions,
    cluster_A: Ints,
    cluster_CGF: Floats,
    odds_CG: Floats,
    predicted_CA: Floats,
    config: OfflineConfig | None = None,
) -> Potec:
    """Learn which cluster to take by the gradient; inside it the reward model chooses.

    Args:
        log: The log; its features of actions are not used.
        cluster_A: Cluster of each action, 0 to G - 1, the same in every case.
        cluster_CGF: Features of the clusters in each case.
        odds_CG: Chance with which the logger took an action of each cluster.
        predicted_CA: A reward model's guess, fitted on other cases. Only its differences inside a cluster must be
            right: what it gets wrong between clusters, the cluster weights correct.
    """
    config = config or OfflineConfig()
    row_C = np.arange(len(log.action_C))
    taken_C = cluster_A[log.action_C]
    best_CA = _best_inside(predicted_CA, cluster_A)
    value_CG = np.stack(
        [(predicted_CA * best_CA)[:, cluster_A == g].sum(axis=1) for g in range(cluster_CGF.shape[1])], axis=1
    )
    residual_C = log.reward_C - predicted_CA[row_C, log.action_C]

    def gradient(weight_F: Floats, rows: Ints) -> Floats:
        feature_CGF = cluster_CGF[rows]
        pi_CG = _softmax(feature_CGF @ weight_F)
        at, group = np.arange(len(rows)), taken_C[rows]
        scale_C = np.minimum(pi_CG[at, group] / odds_CG[rows, group], config.clip) * residual_C[rows]
        corrected_F = scale_C @ _score_CF(pi_CG, feature_CGF, group)
        # E over the policy of f grad log pi = sum of pi (f - mean f) x: the model's part, exact and without weights.
        centred_CG = pi_CG * (value_CG[rows] - (pi_CG * value_CG[rows]).sum(axis=1, keepdims=True))
        return (corrected_F + np.einsum("cg,cgf->f", centred_CG, feature_CGF)) / len(rows)  # type: ignore[no-any-return]

    first = LinearSoftmax(_climb(gradient, cluster_CGF.shape[2], len(row_C), config))
    return Potec(first, cluster_A)


def _climb(gradient: Callable[[Floats, Ints], Floats], num: int, cases: int, config: OfflineConfig) -> Floats:
    """Adam on a stochastic gradient that points upwards."""
    draw, weight_F = rng(config.seed, "offline"), np.zeros(num)
    mean_F, square_F = np.zeros(num), np.zeros(num)
    for step in range(1, config.steps + 1):
        rows = draw.integers(cases, size=min(config.batch_size, cases))
        slope_F = gradient(weight_F, rows) - config.reg * weight_F
        mean_F = 0.9 * mean_F + 0.1 * slope_F
        square_F = 0.999 * square_F + 0.001 * slope_F**2
        size_F = mean_F / (1 - 0.9**step) / (np.sqrt(square_F / (1 - 0.999**step)) + 1e-8)
        weight_F = weight_F + config.learning_rate * size_F
    return weight_F


def _score_CF(pi_CA: Floats, feature_CAF: Floats, action_C: Ints) -> Floats:
    """Gradient of the log chance of the action taken."""
    taken_CF = feature_CAF[np.arange(len(action_C)), action_C]
    return taken_CF - np.einsum("ca,caf->cf", pi_CA, feature_CAF)  # type: ignore[no-any-return]


def _best_inside(predicted_CA: Floats, cluster_A: Ints) -> Floats:
    """1 for the best action of each cluster, 0 for the others: (C, A)."""
    out_CA = np.zeros_like(predicted_CA)
    for group in range(int(cluster_A.max()) + 1):
        inside = np.flatnonzero(cluster_A == group)
        best_C = inside[predicted_CA[:, inside].argmax(axis=1)]
        out_CA[np.arange(len(out_CA)), best_C] = 1.0
    return out_CA


def _softmax(score_CA: Floats) -> Floats:
    out_CA = np.exp(score_CA - score_CA.max(axis=1, keepdims=True))
    return out_CA / out_CA.sum(axis=1, keepdims=True)  # type: ignore[no-any-return]
