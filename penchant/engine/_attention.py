"""How likely a reward is known when a no is learned: slots that are looked at less, rewards that come late.

What is learned are ratios of what came to what was expected. Each begins as if twenty rewards had come where twenty
were expected, which says that nothing is missed.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

import numpy as np

_BEHIND = 20  # rewards that the beginning is worth
_SLOTS = 50  # whose attention is told apart; those below share the last


class Looked(Protocol):
    """How likely the item of a slot was looked at. Slots count from 0, the first."""

    def chance(self, slot: int, rewarded: Collection[int]) -> float:
        """Chance that it was, given which slots of the answer had a reward."""
        ...

    def learned(self, slot: int, rewarded: Collection[int], expected: float, reward: bool) -> None:
        """Compare what was expected of an item, had it been looked at, with what came."""
        ...


class BySlot:
    """The position-based model: a slot is looked at so often, whatever becomes of the others.

    Relative to the first (Richardson et al., WWW 2007; see Chuklin et al., "Click Models for Web Search", 2015).

    Example:
        >>> looked = BySlot()
        >>> for slot in (0, 1):
        ...     looked.learned(slot, (), 20.0, slot == 0)
        >>> looked.chance(0, ()), round(looked.chance(1, ()), 2)
        (1.0, 0.95)
    """

    def __init__(self) -> None:
        self._reward_K, self._expected_K = np.full(_SLOTS, float(_BEHIND)), np.full(_SLOTS, float(_BEHIND))

    def chance(self, slot: int, rewarded: Collection[int]) -> float:
        """What came in this slot, of what was expected there, against the same of the first."""
        ratio_K = self._reward_K / self._expected_K
        return min(1.0, float(ratio_K[min(slot, _SLOTS - 1)] / ratio_K[0]))

    def learned(self, slot: int, rewarded: Collection[int], expected: float, reward: bool) -> None:
        """Count for this slot."""
        at = min(slot, _SLOTS - 1)
        self._reward_K[at] += reward
        self._expected_K[at] += expected


class Cascade:
    """The cascade model: people read from the top, and go on after a reward with a chance that is learned.

    A chance of 0 is the cascade of Craswell et al. (WSDM 2008), where nobody goes on; any other the dependent click
    model with one chance for all slots (Guo et al., WSDM 2009). So what stands above a reward was looked at, what
    stands below the last one was as likely as people go on, and without a reward all was looked at.

    Example:
        >>> looked = Cascade()
        >>> for _ in range(1000):
        ...     looked.learned(3, {1}, 0.2, False)
        >>> looked.chance(0, {1}), looked.chance(3, {1}) < 0.1, looked.chance(3, ())
        (1.0, True, 1.0)
    """

    def __init__(self) -> None:
        self._reward = self._expected = float(_BEHIND)

    def chance(self, slot: int, rewarded: Collection[int]) -> float:
        """1 above a reward or without any; below the last one the chance to go on."""
        if not rewarded or slot <= max(rewarded):
            return 1.0
        return min(1.0, self._reward / self._expected)

    def learned(self, slot: int, rewarded: Collection[int], expected: float, reward: bool) -> None:
        """Count where there was a reward above: only that tells whether people go on."""
        if any(other < slot for other in rewarded):
            self._reward += reward
            self._expected += expected


class Known:
    """How likely a reward is known by the time of a no: its item was looked at, and it comes no later.

    Args:
        looked: How attention goes over the slots.
    """

    def __init__(self, looked: Looked) -> None:
        self.looked = looked
        self._in_time, self._late = _BEHIND, 0

    def seen(self, slot: int, rewarded: Collection[int] = ()) -> float:
        """Chance that a wanted item in this slot has been rewarded by then."""
        return self.looked.chance(slot, rewarded) * self._in_time / (self._in_time + self._late)

    def came(self, *, late: bool) -> None:
        """A reward came, before or after the moment when it was taken for a no."""
        self._in_time += not late
        self._late += late
