"""The statistics of experiments that are looked at while they run.

Letters: U people of one arm, L looks, A arms.

Sources: Deng et al. 2013 (CUPED), Johari et al. 2017 (mSPRT), Waudby-Smith et al. 2021 (asymptotic confidence
sequences), Lan & DeMets 1983 (alpha spending), Lindon & Malek 2022 (sequential sample-ratio test).
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from penchant.core import Estimate, Floats
from penchant.evaluation._estimate import LEVEL

_NORMAL = NormalDist()
_GRID = 8.0  # standard errors that the recursion over looks integrates over


def arm_of(unit: str, salt: str, shares: Sequence[float]) -> int:
    """Which arm a person (or an item) is in: a hash decides, the same one forever, independent between salts.

    Args:
        unit: Id of the person or item.
        salt: Of the experiment; another salt deals anew.
        shares: Of the arms, summing to 1.

    Example:
        >>> arm_of("u1", "banner", [0.5, 0.5]), arm_of("u1", "banner", [0.5, 0.5])
        (1, 1)
    """
    digest = hashlib.md5(f"{salt}\0{unit}".encode(), usedforsecurity=False).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    passed = [place >= edge for edge in itertools.accumulate(shares)]
    return min(sum(passed), len(shares) - 1)


@dataclass(frozen=True, eq=False)
class Adjusted:
    """Outcomes of two arms after CUPED: same difference in expectation, less spread."""

    treated_U: Floats
    control_U: Floats
    variance_cut: (
        float  # share of the outcome's variance that the covariate took away: its squared correlation
    )


def cuped(
    treated_U: Floats, control_U: Floats, before_treated_U: Floats, before_control_U: Floats
) -> Adjusted:
    """Take away of each outcome what the time before the experiment already told.

    The slope is shared by the arms; the covariate must not depend on the treatment, so it is measured before.

    Example:
        >>> x = np.arange(100.0)
        >>> a = cuped(x + 1, x, x, x)
        >>> round(a.variance_cut, 3), round(float(a.treated_U.mean() - a.control_U.mean()), 3)
        (1.0, 1.0)
    """
    before = np.concatenate([before_treated_U, before_control_U])
    parts = [(treated_U, before_treated_U), (control_U, before_control_U)]
    cross = sum(float(((y - y.mean()) * (x - x.mean())).sum()) for y, x in parts)
    square = sum(float(((x - x.mean()) ** 2).sum()) for _, x in parts)
    total = sum(float(((y - y.mean()) ** 2).sum()) for y, _ in parts)
    if square <= 0 or total <= 0:
        return Adjusted(treated_U, control_U, 0.0)
    theta = cross / square
    cut = cross * cross / (square * total)
    treated, control = (y - theta * (x - before.mean()) for y, x in parts)
    return Adjusted(treated, control, cut)


def sample_ratio(count_A: Sequence[int], shares: Sequence[float]) -> float:
    """Always-valid p value that the arms have the sizes they should have; below .001 something loses people.

    The inverse Bayes factor of a flat Dirichlet prior centred on the shares: it may be looked at after everybody.

    Example:
        >>> sample_ratio([5000, 5050], [0.5, 0.5]) > 0.5, sample_ratio([5000, 5600], [0.5, 0.5]) < 0.001
        (True, True)
    """
    from scipy.special import gammaln

    count, share = np.asarray(count_A, np.float64), np.asarray(shares, np.float64)
    prior = 100.0 * share  # concentrated: sizes that are a little off are what goes wrong in practice
    marginal = gammaln(prior.sum()) - gammaln(prior.sum() + count.sum())
    marginal += (gammaln(prior + count) - gammaln(prior)).sum()
    return float(min(1.0, np.exp(min(0.0, float((count * np.log(share)).sum() - marginal)))))


@dataclass(frozen=True)
class Difference:
    """Treated minus control: the interval that holds at this look and all others, and what it rests on."""

    estimate: Estimate
    relative: Estimate | None  # in shares of the control's mean; None where that is not above 0
    variance: float  # of the difference
    significant: bool


def difference(
    treated_U: Floats,
    control_U: Floats,
    *,
    planned: int,
    boundary: float | None = None,
    base: float | None = None,
    level: float = LEVEL,
) -> Difference:
    """Treated minus control of a running experiment.

    Args:
        treated_U: Outcome of each person, at least two.
        control_U: The same.
        planned: People in both arms together at which the interval is to be narrowest; set before the start.
        boundary: Standard errors allowed at this look (from ``spending_boundaries``); None = a confidence sequence
            that holds at every moment, with no end.
        base: The control's mean that relative figures are shares of; None = its mean here.
        level: Of the interval.
    """
    d = float(treated_U.mean() - control_U.mean())
    n, m = len(treated_U), len(control_U)
    variance = float(treated_U.var(ddof=1)) / n + float(control_U.var(ddof=1)) / m
    if boundary is None:
        half, method = mixture_half_width(variance, n + m, planned, level), "confidence sequence"
    else:
        half, method = boundary * float(np.sqrt(variance)), "planned looks"
    estimate = Estimate(value=d, low=d - half, high=d + half, n=n + m, method=method, level=level)
    mean = float(control_U.mean()) if base is None else base
    relative = None
    if mean > 0:
        ends = (d / mean, (d - half) / mean, (d + half) / mean)
        relative = Estimate(value=ends[0], low=ends[1], high=ends[2], n=n + m, method=method, level=level)
    return Difference(estimate, relative, variance, not d - half <= 0 <= d + half)


def mixture_half_width(variance: float, n: int, planned: int, level: float = LEVEL) -> float:
    """Half-width of the mixture sequential test's interval, valid at every n at once.

    The mixture's variance is the difference's variance at ``planned`` people times what makes it narrowest there.
    """
    alpha = 1 - level
    if variance <= 0:
        return 0.0
    tau2 = variance * n / planned * (-2 * np.log(alpha) + np.log(-2 * np.log(alpha)) + 1)
    ratio = (variance + tau2) / variance
    return float(np.sqrt(2 * variance * (variance + tau2) / tau2 * np.log(np.sqrt(ratio) / alpha)))


def spent(fraction: float, alpha: float = 1 - LEVEL) -> float:
    """False alarms allowed up to a share of the planned people: O'Brien-Fleming's shape, little early, all at 1."""
    if fraction <= 0:
        return 0.0
    side = 2 - 2 * _NORMAL.cdf(_NORMAL.inv_cdf(1 - alpha / 4) / min(fraction, 1.0) ** 0.5)
    return 2 * side  # the two sides spend apart, as tables of these boundaries do


def spending_boundaries(fractions: Sequence[float], *, level: float = LEVEL) -> npt.NDArray[np.float64]:
    """Standard errors allowed at each look, two-sided, so that all looks together raise a false alarm in 1 - level.

    Looks need not be scheduled: a further one only adds its own line, at the moment's share of the planned people.

    Args:
        fractions: Of the planned people at each look so far, rising, in (0, 1].
        level: 1 minus the chance of a false alarm over all looks.

    Example:
        >>> spending_boundaries([1.0]).round(2).tolist()
        [1.96]
        >>> spending_boundaries([0.5, 1.0]).round(2).tolist()
        [2.96, 1.97]
    """
    t_L = np.asarray(fractions, np.float64)
    if len(t_L) == 0 or not (np.diff(t_L) > 0).all() or t_L[0] <= 0 or t_L[-1] > 1 + 1e-9:
        raise ValueError("the shares of the planned people must rise within (0, 1]")
    alpha = 1 - level
    out_L = np.empty(len(t_L))
    # Score process S(t) = Z sqrt(t): independent normal steps. Its density among the paths still inside is carried on.
    grid = np.linspace(-_GRID, _GRID, 1201)
    density: Floats | None = None
    places: Floats = grid
    for look, t in enumerate(t_L.tolist()):
        before = 0.0 if look == 0 else float(t_L[look - 1])
        step = np.sqrt(t - before)
        target = spent(t, alpha) - (spent(before, alpha) if look else 0.0)
        here = grid * np.sqrt(t)
        if density is None:
            made = np.exp(-0.5 * (here / step) ** 2) / (step * np.sqrt(2 * np.pi))
        else:
            kernel = np.exp(-0.5 * ((here[:, None] - places) / step) ** 2) / (step * np.sqrt(2 * np.pi))
            made = kernel @ density * (places[1] - places[0])
        out_L[look] = bound = _tail_boundary(grid, here, made, target)
        keep = np.abs(grid) <= bound
        density, places = np.where(keep, made, 0.0), here
    return out_L


def _tail_boundary(grid: Floats, here: Floats, density: Floats, target: float) -> float:
    """Where the two tails of a symmetric density hold ``target`` together, in standard errors."""
    middle = len(grid) // 2
    upper = density[middle:] * (here[1] - here[0])
    tail = np.cumsum((upper[::-1] + np.r_[0.0, upper[::-1][:-1]]) / 2)[::-1]
    if target / 2 <= tail[-1]:
        return float(grid[-1])
    return float(np.interp(-target / 2, -tail, grid[middle:]))
