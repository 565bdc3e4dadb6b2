"""Choosing an estimator's knob from the log itself: SLOPE (Su et al. 2020; Tucker & Lee 2021)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from penchant.core import Ints
from penchant.evaluation._intervals import interval_of
from penchant.evaluation._ope import Feedback, Terms, dr_os, switch_dr

_SLACK = 6**0.5 - 1
GRID = (1.0, 5.0, 10.0, 50.0, 100.0, 500.0, 1000.0, float("inf"))


def slope(candidates: Sequence[Terms], who_C: Ints | None = None, *, level: float = 0.8) -> int:
    """Which candidate to trust: go from the widest interval to the narrowest while all agree with all before.

    Args:
        candidates: The same estimator with its knob at different values; at least one nearly unbiased.
        who_C: Which person each case belongs to.
        level: Of the intervals that are compared.

    Example:
        >>> import numpy as np
        >>> wide, narrow = np.tile([-3.0, 5.0], 50), np.tile([0.9, 1.1], 50)
        >>> slope([Terms(np.zeros(100), wide), Terms(np.zeros(100), narrow)])
        1
    """
    if not candidates:
        raise ValueError("there is nothing to choose from")
    found = [interval_of(terms, who_C, level=level) for terms in candidates]
    half = [(e.high - e.low) / 2 for e in found]
    order = sorted(range(len(found)), key=lambda place: (-half[place], place))
    kept = [order[0]]
    for place in order[1:]:
        if any(abs(found[place].value - found[j].value) > half[place] + _SLACK * half[j] for j in kept):
            break
        kept.append(place)
    return kept[-1]


def tuned(
    f: Feedback, estimator: Callable[[Feedback, float], Terms], grid: Sequence[float] = GRID
) -> tuple[Terms, float]:
    """An estimator with its knob chosen by SLOPE: its terms and the value of the knob."""
    candidates = [estimator(f, knob) for knob in grid]
    chosen = slope(candidates, f.who_C)
    return candidates[chosen], grid[chosen]


def tuned_estimators(f: Feedback) -> dict[str, Terms]:
    """Switch-DR and DRos, tuned; empty without a reward model."""
    if f.predicted_C is None:
        return {}
    return {"Switch-DR": tuned(f, switch_dr)[0], "DRos": tuned(f, dr_os)[0]}
