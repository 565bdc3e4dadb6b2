"""Whether items are still what they were: a test of every item that may be looked at after every outcome."""

from __future__ import annotations

import numpy as np

_FACTOR = 2.0  # how far the odds of a reward have to move to be looked for, up or down
_SETTLED = 30  # outcomes of an item before which its expectation is still on its way


class Changes:
    """Calls a change where an item's outcomes have come to fit other odds than the expected ones.

    Of every item the Shiryaev-Roberts sums ``R <- (R + 1) * likelihood ratio`` are kept for odds of a reward twice and
    half of those expected. While outcomes come as expected, each sum less the outcomes so far is a martingale, so that
    an item whose sums are called at ``2 * every`` in all runs for at least ``every`` outcomes on average before a false
    alarm (Pollak, 1985; Shin, Ramdas and Rinaldo, "E-detectors", 2023), however often one looks.

    The guarantee is one of the expectation's: what is expected falsely for long is called a change too, and rightly
    forgotten. So an item's first outcomes, from which its expectation is learned, are left out.

    Args:
        num_items: N.
        every: Outcomes of an item between two false alarms, on average.

    Example:
        >>> changes = Changes(1, every=1000)
        >>> calm = [changes.called(1, 0.1, n % 10 == 0) for n in range(500)]
        >>> moved = [changes.called(1, 0.1, n % 2 == 0) for n in range(500)]
        >>> any(calm), moved.index(True) < 60
        (False, True)
    """

    def __init__(self, num_items: int, every: float) -> None:
        self.every = every
        self.sum_2N = np.zeros((2, num_items + 1))
        self.outcomes_N = np.zeros(num_items + 1, np.int64)

    def called(self, item: int, expected: float, reward: bool) -> bool:
        """Take an outcome in that was expected with some chance; True where it calls a change, and begins anew."""
        self.outcomes_N[item] += 1
        if self.outcomes_N[item] <= _SETTLED:
            return False
        chance = min(max(expected, 1e-6), 1 - 1e-6)
        odds = chance / (1 - chance) * np.array([_FACTOR, 1 / _FACTOR])
        other_2 = odds / (1 + odds)
        ratio_2 = other_2 / chance if reward else (1 - other_2) / (1 - chance)
        sum_2 = (self.sum_2N[:, item] + 1) * ratio_2
        self.sum_2N[:, item] = sum_2
        if sum_2.sum() < 2 * self.every:
            return False
        self.sum_2N[:, item], self.outcomes_N[item] = 0.0, 0
        return True
