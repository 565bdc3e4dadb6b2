"""From what a person most likely wants to what is expected to bring most: chance times value.

How likely an item is to be next is read off its rank: held-out people tell how often what came next stood first,
second, hundredth in the model's list, whatever the scale of its scores.

Letters: N items, P ranked targets.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta

from penchant.core import Floats, Ints

_OFFSETS = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 100.0)
_POWERS = tuple(0.1 * step for step in range(1, 31))


class RankChance(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Chance that the item at a rank is next: proportional to ``(rank + offset) ** -power`` (a Zipf-Mandelbrot law).

    Example:
        >>> RankChance(offset=1.0, power=1.0).of(np.array([1, 2]), 2).round(2).tolist()
        [0.6, 0.4]
    """

    offset: Annotated[float, Meta(ge=0)] = 1.0
    power: Annotated[float, Meta(ge=0)] = 1.0

    @classmethod
    def fit(cls, rank_P: Floats, num_items: int) -> RankChance:
        """The law under which the ranks of what came next are most likely: (P,), from 1; what has no rank is left out.

        Example:
            >>> RankChance.fit(np.array([1.0] * 90 + [2.0] * 10), 50).power > 2
            True
        """
        rank_P = np.asarray(rank_P, np.float64)
        rank_P = rank_P[np.isfinite(rank_P) & (rank_P <= num_items)]
        if not len(rank_P):
            return cls()

        def misfit(law: RankChance) -> float:
            return law.power * float(np.log(rank_P + law.offset).mean()) + float(np.log(law._mass(num_items)))

        return min((cls(offset, power) for offset in _OFFSETS for power in _POWERS), key=misfit)

    def of(self, rank: Ints, num_items: int) -> npt.NDArray[np.float64]:
        """Chance at each rank among ``num_items`` items."""
        chance: npt.NDArray[np.float64] = (np.asarray(rank, np.float64) + self.offset) ** -self.power
        return chance / self._mass(num_items)

    def _mass(self, num_items: int) -> float:
        """What the unscaled chances of all ranks add up to; no chance is divided by nothing."""
        return max(float(((np.arange(1, num_items + 1) + self.offset) ** -self.power).sum()), 1e-12)


def expected_value(score_N: Floats, value_N: Floats, law: RankChance) -> npt.NDArray[np.float32]:
    """What each item is expected to bring to one person, (N + 1,), in the unit of ``value_N``; -inf stays -inf.

    Equal scores take their ranks in item order.

    Example:
        >>> expected_value(np.float32([-np.inf, 2, 1]), np.array([0.0, 1, 5]), RankChance()).round(2).tolist()
        [-inf, 0.6000000238418579, 2.0]
    """
    usable = np.flatnonzero(np.isfinite(score_N))
    order = usable[np.argsort(-score_N[usable], kind="stable")]
    out_N = np.full(len(score_N), -np.inf, np.float32)
    out_N[order] = law.of(np.arange(1, len(order) + 1), len(order)) * value_N[order]
    return out_N
