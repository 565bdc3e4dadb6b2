"""Which windows make a step, and which items stand for the catalogue in it: all derived from the seed.

Letters: W training windows, N items, K negatives, M targets of a step.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from penchant.core import Ints
from penchant.data import Windows
from penchant.models import Negatives

_POOL = 64  # batches sorted by length together, so that little is padded and order stays random
_ORDER, _NEGATIVES, _TORCH = 1, 2, 3  # what a random stream is for


def step_seed(seed: int, epoch: int, number: int, rank: int) -> int:
    """The seed of torch's generator in one step of one process.

    Seeding every step anew makes a step depend on its place alone: nothing of a generator needs to be kept
    for a resumed run to go on with the same bits.
    """
    return int(np.random.SeedSequence([seed, _TORCH, epoch, number, rank]).generate_state(1, np.uint64)[0])


def epoch_batches(windows: Windows, batch: int, seed: int, epoch: int) -> list[Ints]:
    """Cut an epoch's windows into batches of about ``batch`` events, alike in length, in random order."""
    rng = np.random.default_rng([seed, _ORDER, epoch])
    order = rng.permutation(len(windows))
    mean = max(1.0, float(windows.length_W.mean()))
    pool = max(1, int(_POOL * batch / mean))
    cuts = range(pool, len(order), pool)
    sorted_ = [part[np.argsort(windows.length_W[part], kind="stable")] for part in np.split(order, cuts)]
    order = np.concatenate(sorted_)
    total = np.cumsum(windows.length_W[order])
    batches = np.split(order, np.flatnonzero(np.diff((total - 1) // batch)) + 1)
    return [batches[n] for n in rng.permutation(len(batches))]


class NegativeSampler:
    """Draws the negatives of a step: half at random, half from what the people of the batch turned to.

    The first half reaches every item; the second comes in proportion to popularity, which is where most of the sum
    over the catalogue lies. An item stands there once, with its chance of being there by either way (Yi et al.
    2019, "Sampling-bias-corrected neural modeling", with the exact chance in place of its estimate).
    """

    def __init__(self, count: int, share_N: npt.NDArray[np.float64], seed: int) -> None:
        """``count`` draws in all; ``share_N`` (N + 1,) is each item's share of all targets."""
        self.count, self.share_N, self.seed = count, share_N, seed

    def draw(self, target_M: Ints, epoch: int, number: int) -> Negatives:
        """Negatives for step ``number`` of ``epoch``, whose targets (of all processes) are ``target_M``."""
        rng = np.random.default_rng([self.seed, _NEGATIVES, epoch, number])
        num_items = len(self.share_N) - 1
        popular = rng.permutation(target_M)[: self.count // 2]
        uniform = rng.integers(1, num_items + 1, size=self.count - len(popular))
        item_K = np.unique(np.concatenate([uniform, popular]).astype(np.int64))
        log_missed_K = len(uniform) * np.log1p(-1.0 / max(2, num_items)) + len(popular) * np.log1p(
            -np.minimum(self.share_N[item_K], 0.5)
        )
        return Negatives(item_K, np.log(-np.expm1(log_missed_K)).astype(np.float32))
