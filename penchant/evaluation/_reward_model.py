"""Reward models for doubly robust estimates: counted rates by item and slot, fitted on other people's cases.

Letters: C cases, F folds, P positions, A items.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from penchant.core import Floats, Ints, rng

FOLDS = 3


def folds_by_person(who_C: Ints, folds: int = FOLDS, *, seed: int = 0) -> npt.NDArray[np.int64]:
    """Split people, not cases, into folds of about equal size: (C,).

    A model fitted on a person's other cases would know the person, and its errors on the held-out ones would not
    be independent of it.
    """
    _, code_C = np.unique(who_C, return_inverse=True)
    fold_U = rng(seed, "folds").permutation(int(code_C.max()) + 1) % folds
    return fold_U[code_C]


def counted_rates(
    item_C: Ints, position_C: Ints, reward_C: Floats, fold_C: Ints, num_items: int, num_positions: int
) -> Floats:
    """Mean reward of every item in every position, for each fold from the cases of the others: (F, P, A).

    An item's mean is pulled to the overall mean by as much as its noise asks (empirical Bayes by moments), then
    scaled by how its position does; so an item that was hardly shown is held for average, never for 0.

    Example:
        >>> item, reward = np.array([0, 0, 1, 1]), np.array([1.0, 1.0, 0.0, 0.0])
        >>> q = counted_rates(item, np.zeros(4, int), reward, np.array([0, 1, 0, 1]), 2, 1)
        >>> q.shape, bool((q[:, 0, 0] >= q[:, 0, 1]).all())
        ((2, 1, 2), True)
    """
    folds = int(fold_C.max()) + 1
    out_FPA = np.empty((folds, num_positions, num_items))
    for fold in range(folds):
        other_C = fold_C != fold if folds > 1 else np.ones(len(fold_C), np.bool_)
        item, place, reward = item_C[other_C], position_C[other_C], reward_C[other_C]
        mean = float(reward.mean()) if len(reward) else 0.0
        rate_A = _shrunk(item, reward, num_items, mean)
        factor_P = _shrunk(place, reward, num_positions, mean) / mean if mean else np.ones(num_positions)
        out_FPA[fold] = factor_P[:, None] * rate_A
    return out_FPA


def _shrunk(group_C: Ints, reward_C: Floats, num_groups: int, mean: float) -> Floats:
    """Group means pulled to ``mean`` by the share of their variance that is noise."""
    size_G = np.bincount(group_C, minlength=num_groups).astype(np.float64)
    sum_G = np.bincount(group_C, reward_C, minlength=num_groups)
    shown_G = size_G > 0
    if shown_G.sum() < 2:
        return np.full(num_groups, mean)
    raw_G = np.divide(sum_G, size_G, out=np.full(num_groups, mean), where=shown_G)
    within = float(((reward_C - raw_G[group_C]) ** 2).sum()) / max(len(reward_C) - int(shown_G.sum()), 1)
    # Between-group variance by moments: the weighted spread of group means less what noise alone gives.
    spread = float((size_G * (raw_G - mean) ** 2).sum()) - (int(shown_G.sum()) - 1) * within
    scale = len(reward_C) - float((size_G**2).sum()) / len(reward_C)
    between = max(spread / scale, 0.0) if scale > 0 else 0.0
    between_G = size_G * between
    # Where outcomes of a group are all alike, nothing is noise; a group that was never shown has nothing to trust.
    trust_G = np.divide(between_G, between_G + within, out=np.zeros(num_groups), where=between_G > 0)
    return mean + trust_G * (raw_G - mean)  # type: ignore[no-any-return]
