"""From scores to expected metrics: exact under a random order of ties.

Letters: B cases in a block, N items, P (case, target) pairs. ``better`` counts the items scored above a
target, ``tied`` the items scored the same, itself included, so that its rank is equally likely to be any of
``better + 1 .. better + tied``. A scorer that scores all items alike thus gets what chance gets.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy.special import digamma, gammaln

from penchant.core import Floats, Ints

MOST_RANKS = 4096  # discounts kept in a table; no k is larger

Reals = npt.NDArray[np.float64]


def place_targets(scores_BI: Floats, owner_P: Ints, target_P: Ints) -> tuple[Reals, Reals]:
    """Count the items above and beside each target: ``better``, ``tied``, each (P,).

    Args:
        scores_BI: (B, N + 1) with -inf for what may not be shown.
        owner_P: Row of each target.
        target_P: Item number of each target. One scored -inf cannot be shown: its ``better`` is infinite.
    """
    better, tied = np.full(len(owner_P), np.inf), np.ones(len(owner_P))
    own_P = scores_BI[owner_P, target_P]
    shown = np.flatnonzero(own_P > -np.inf)
    if np.array_equal(owner_P, np.arange(len(scores_BI))):  # one target a case: two passes over the block
        better[shown] = np.count_nonzero(scores_BI > own_P[:, None], axis=1)[shown]
        tied[shown] = np.count_nonzero(scores_BI == own_P[:, None], axis=1)[shown]
        return better, tied
    first = np.searchsorted(owner_P[shown], np.arange(len(scores_BI) + 1))
    for row, (start, end) in enumerate(pairwise(first)):
        if start == end:
            continue
        pairs = shown[start:end]
        ordered = np.sort(scores_BI[row])
        above = np.searchsorted(ordered, own_P[pairs], side="right")
        better[pairs] = len(ordered) - above
        tied[pairs] = above - np.searchsorted(ordered, own_P[pairs], side="left")
    return better, tied


def chance_within(better: Reals, tied: Reals, k: int) -> Reals:
    """Chance that a target is among the first k.

    Example:
        >>> chance_within(np.array([0.0, 8.0, 10.0]), np.array([1.0, 4.0, 5.0]), 10).tolist()
        [1.0, 0.5, 0.0]
    """
    return np.clip(k - better, 0, tied) / tied


_DISCOUNT = np.r_[0.0, np.cumsum(1.0 / np.log2(np.arange(2, MOST_RANKS + 2)))]


def gain_within(better: Reals, tied: Reals, k: int) -> Reals:
    """Expected discounted gain 1 / log2(1 + rank) of a target among the first k."""
    first = np.minimum(better, k).astype(np.int64)
    last = np.minimum(better + tied, k).astype(np.int64)
    gain: Reals = (_DISCOUNT[last] - _DISCOUNT[first]) / tied
    return gain


def ideal_gain(relevant: Ints, k: int) -> Reals:
    """Discounted gain of the best possible order of so many relevant items."""
    best: Reals = _DISCOUNT[np.minimum(relevant, k)]
    return best


def any_within(better: Reals, tied: Reals, relevant: Reals, k: int) -> Reals:
    """Chance that the best tie group, holding ``relevant`` of a case's targets, puts one among the first k."""
    places = np.clip(k - better, 0, tied)
    misses = tied - relevant
    with np.errstate(invalid="ignore"):
        # No target among `places` draws without replacement from the group.
        none = np.exp(_log_choose(misses, places) - _log_choose(tied, places))
    return np.where(places > misses, 1.0, 1.0 - np.where(places > 0, none, 1.0))


def reciprocal_rank(better: Reals, tied: Reals, relevant: Reals) -> Reals:
    """Expected 1 / rank of the first target, from its tie group: (P,)."""
    out = np.zeros(len(better))
    finite = np.isfinite(better)
    single = finite & (relevant == 1)
    start = better[single]
    # Mean of 1 / rank over better + 1 .. better + tied.
    out[single] = (digamma(start + tied[single] + 1) - digamma(start + 1)) / tied[single]
    for p in np.flatnonzero(finite & (relevant > 1)):
        step = np.arange(1, tied[p] - relevant[p] + 2)
        chance = np.exp(_log_choose(tied[p] - step, relevant[p] - 1) - _log_choose(tied[p], relevant[p]))
        out[p] = float((chance / (better[p] + step)).sum())
    return out


def _log_choose(n: Reals, k: Reals) -> Reals:
    found: Reals = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
    return found


def best_groups(owner_P: Ints, better: Reals, tied: Reals, num_cases: int) -> tuple[Reals, Reals, Reals]:
    """The best tie group of each case: ``better``, ``tied``, and how many targets it holds, each (B,)."""
    best = np.full(num_cases, np.inf)
    np.minimum.at(best, owner_P, better)
    leads = better == best[owner_P]
    size = np.ones(num_cases)
    size[owner_P[leads]] = tied[leads]
    held = np.bincount(owner_P[leads], minlength=num_cases).astype(np.float64)
    return best, size, np.where(np.isfinite(best), held, 1.0)


def top_items(scores_BI: Floats, k: int) -> npt.NDArray[np.int64]:
    """The items that would be shown, best first: (B, k); 0 where a row has fewer.

    Where scores tie the lower item number comes first, so that the list is the same on every machine.

    Example:
        >>> top_items(np.array([[-np.inf, 1.0, 3.0, 1.0]]), 2).tolist()
        [[2, 1]]
    """
    k = min(k, scores_BI.shape[1] - 1)
    lower_BI = -scores_BI  # numpy finds a small k-th fast, a large one slowly
    limit_B = np.partition(lower_BI, k - 1, axis=1)[:, k - 1]
    keep_BI = lower_BI <= limit_B[:, None]
    for row in np.flatnonzero(np.count_nonzero(keep_BI, axis=1) > k):  # ties at the end of the list
        tied = np.flatnonzero(lower_BI[row] == limit_B[row])
        keep_BI[row, tied[k - (np.count_nonzero(keep_BI[row]) - len(tied)) :]] = False
    top_BK = np.nonzero(keep_BI)[1].reshape(len(scores_BI), k)
    own_BK = np.take_along_axis(lower_BI, top_BK, axis=1)
    order_BK = np.argsort(own_BK, axis=1, kind="stable")
    top_BK = np.take_along_axis(top_BK, order_BK, axis=1)
    return np.where(np.take_along_axis(own_BK, order_BK, axis=1) < np.inf, top_BK, 0)
