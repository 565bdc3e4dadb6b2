"""Off-policy estimators for slates, whose reward comes slot by slot.

Letters: C slates, K slots. ``weight_CK`` holds the ratios of the slot-wise odds, given the slots above: their product
is the ratio of the joint odds.

Sources: Li et al. 2018 (IIPS), McInerney et al. 2020 (RIPS), Kiyohara et al. 2022 (Cascade-DR).
"""

from __future__ import annotations

import numpy as np

from penchant.core import Floats
from penchant.evaluation._ope import Terms


def _check(reward_CK: Floats, weight_CK: Floats) -> None:
    if reward_CK.shape != weight_CK.shape:
        raise ValueError(f"rewards are {reward_CK.shape}, weights {weight_CK.shape}: they must be alike")


def sips(reward_CK: Floats, weight_CK: Floats) -> Terms:
    """Standard IPS: the whole slate is one action. Unbiased, and the widest."""
    _check(reward_CK, weight_CK)
    return Terms(np.zeros(len(reward_CK)), weight_CK.prod(axis=1) * reward_CK.sum(axis=1))


def iips(reward_CK: Floats, weight_CK: Floats) -> Terms:
    """Independent IPS: a slot's reward depends on that slot alone, and its odds not on the slots above."""
    _check(reward_CK, weight_CK)
    return Terms(np.zeros(len(reward_CK)), (weight_CK * reward_CK).sum(axis=1))


def rips(reward_CK: Floats, weight_CK: Floats) -> Terms:
    """Reward-interaction IPS: a slot's reward depends on the slots above too, as when people read downwards."""
    _check(reward_CK, weight_CK)
    return Terms(np.zeros(len(reward_CK)), (np.cumprod(weight_CK, axis=1) * reward_CK).sum(axis=1))


def cascade_dr(reward_CK: Floats, weight_CK: Floats, predicted_CK: Floats, expected_CK: Floats) -> Terms:
    """Cascade-DR: RIPS with a reward model as baseline.

    Args:
        reward_CK: Reward of each slot.
        weight_CK: Ratios of slot-wise odds.
        predicted_CK: The model's guess of the reward from this slot on, for the item that was shown.
        expected_CK: The same, averaged over what the policy under test would show here given the slots above.

    With a model of single slots, pass the slot's own guess: the terms are summed over slots.
    """
    _check(reward_CK, weight_CK)
    above_CK = np.cumprod(weight_CK, axis=1)
    before_CK = np.c_[np.ones(len(above_CK)), above_CK[:, :-1]]
    plain_CK = before_CK * expected_CK
    return Terms(plain_CK.sum(axis=1), (above_CK * (reward_CK - predicted_CK)).sum(axis=1))
