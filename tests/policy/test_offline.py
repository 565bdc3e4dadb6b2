"""Policies learned from a log: better than the logger, and their gradients are gradients."""

import numpy as np
import pytest

from penchant.core import rng
from penchant.policy import LoggedActions, OfflineConfig, policy_gradient, potec

CASES, ACTIONS = 6000, 12


def world(seed):
    """Actions in three clusters; reward by a linear law of features; the logger prefers what is bad."""
    draw = rng(seed, "offline world")
    feature = draw.normal(size=(CASES, ACTIONS, 3))
    chance = 1 / (1 + np.exp(-(feature @ np.array([1.5, -1.0, 0.0]) - 1)))
    score = -0.5 * chance
    odds = 0.7 * np.exp(score) / np.exp(score).sum(axis=1, keepdims=True) + 0.3 / ACTIONS
    action = (draw.random(CASES)[:, None] > odds.cumsum(axis=1)).sum(axis=1)
    row = np.arange(CASES)
    reward = (draw.random(CASES) < chance[row, action]).astype(float)
    return LoggedActions(feature, action, odds[row, action], reward), chance, odds


@pytest.mark.parametrize("seed", range(3))
def test_a_gradient_learns_more_than_the_log_did(seed):
    log, chance, odds = world(seed)
    half = CASES // 2
    first = LoggedActions(log.feature_CAF[:half], log.action_C[:half], log.odds_C[:half], log.reward_C[:half])
    learned = policy_gradient(first)
    value = (learned.odds(log.feature_CAF[half:]) * chance[half:]).sum(axis=1).mean()
    logged = (odds[half:] * chance[half:]).sum(axis=1).mean()
    best = chance[half:].max(axis=1).mean()
    assert value > logged + 0.7 * (best - logged)
    assert learned.weight_F[0] > 0 > learned.weight_F[1]


def test_same_seed_same_policy_and_no_signal_no_preference():
    log, _, _ = world(0)
    one, two = policy_gradient(log), policy_gradient(log)
    assert np.array_equal(one.weight_F, two.weight_F)
    flat = LoggedActions(log.feature_CAF, log.action_C, log.odds_C, np.ones(CASES))
    assert np.abs(policy_gradient(flat).weight_F).max() < 1e-6


def test_potec_corrects_a_model_that_is_wrong_between_clusters():
    log, chance, odds = world(4)
    cluster = np.arange(ACTIONS) % 3
    lift = np.array([0.0, 0.25, -0.05])  # truth: the middle cluster earns more; the model says the opposite
    chance = 0.2 + 0.5 * chance
    truth = chance + lift[cluster]
    draw = rng(5)
    row = np.arange(CASES)
    reward = (draw.random(CASES) < truth[row, log.action_C]).astype(float)
    log = LoggedActions(log.feature_CAF, log.action_C, log.odds_C, reward)
    predicted = chance - 2 * lift[cluster]  # right inside clusters, wrong between them
    ones = np.broadcast_to(np.eye(3), (CASES, 3, 3))
    odds_CG = np.stack([odds[:, cluster == g].sum(axis=1) for g in range(3)], axis=1)
    learned = potec(log, cluster, ones, odds_CG, predicted, OfflineConfig(steps=400))
    assert learned.first.weight_F.argmax() == 1
    chosen = learned.odds(ones, predicted)
    np.testing.assert_allclose(chosen.sum(axis=1), 1)
    naive = np.zeros_like(chosen)
    naive[row, predicted.argmax(axis=1)] = 1
    value, model_alone = ((p * truth).sum(axis=1).mean() for p in (chosen, naive))
    assert value > model_alone + 0.1
    assert value > (odds * truth).sum(axis=1).mean() + 0.2
