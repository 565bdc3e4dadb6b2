"""Intervals of off-policy estimates and of running experiments.

Letters: C cases, U people, S resamples.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from penchant.core import Estimate, Floats, Ints
from penchant.evaluation._estimate import LEVEL, RESAMPLES, resample_weights
from penchant.evaluation._ope import Terms

Interval = Literal["influence", "bootstrap", "bernstein", "anytime"]


def interval_of(
    terms: Terms,
    who_C: Ints | None = None,
    *,
    method: Interval = "influence",
    level: float = LEVEL,
    seed: int = 0,
    span: float | None = None,
) -> Estimate:
    """An estimator's value with an interval over people.

    Args:
        terms: From an estimator.
        who_C: Which person each case belongs to; None = all different.
        method: ``influence`` (Student's t on the influence function, summed by person), ``bootstrap`` (percentiles
            over resampled people), ``bernstein`` (Maurer & Pontil 2009: holds for every n, given ``span``), ``anytime``
            (Waudby-Smith et al. 2021: may be looked at as often as one likes).
        level: Of the interval.
        seed: Of the bootstrap.
        span: Largest minus smallest possible contribution of one person's average case; ``bernstein`` needs it.

    Example:
        >>> coin = Terms(np.zeros(400), np.tile([0.0, 1.0], 200))
        >>> str(interval_of(coin)), str(interval_of(coin, method="anytime"))
        ('0.5000 [0.4508, 0.5492]', '0.5000 [0.4240, 0.5760]')
    """
    psi_U, n = _by_person(terms.influence_C, who_C)
    if n < 2:
        raise ValueError("an interval needs at least two people")
    if method == "bootstrap":
        low, high = _bootstrap(terms, who_C, seed, level)
        return _estimate(terms.value, low, high, n, "cluster bootstrap", level)
    half = half_width(psi_U, method=method, level=level, span=span)
    names = {"influence": "influence function", "bernstein": "empirical Bernstein", "anytime": "anytime"}
    return _estimate(terms.value, terms.value - half, terms.value + half, n, names[method], level)


def half_width(
    value_U: Floats,
    *,
    method: Interval,
    level: float = LEVEL,
    span: float | None = None,
    planned: int | None = None,
) -> float:
    """Half the width of the interval of a mean over independent people.

    ``planned`` is the number of people at which an ``anytime`` interval is to be narrowest; None = those there are.
    """
    n, alpha = len(value_U), 1 - level
    spread = float(value_U.std(ddof=1))
    if method == "influence":
        from scipy.stats import t

        return float(t.ppf(1 - alpha / 2, n - 1)) * spread / float(np.sqrt(n))
    if method == "bernstein":
        if span is None:
            raise ValueError("the empirical Bernstein interval needs the span of a person's contribution")
        log = np.log(4 / alpha)
        return float(spread * np.sqrt(2 * log / n) + 7 * span * log / (3 * (n - 1)))
    if method == "anytime":
        return spread * anytime_factor(n, level=level, planned=planned)
    raise ValueError(f"a bootstrap has no half width (method {method})")


def anytime_factor(n: int, *, level: float = LEVEL, planned: int | None = None) -> float:
    """Half-width of the asymptotic confidence sequence of a mean, in standard deviations of one person.

    Normal mixture boundary of Waudby-Smith et al. (2021): with chance ``level`` the truth stays inside at every n
    at once. ``planned``: where it is narrowest.
    """
    alpha = 1 - level
    best = planned or n
    rho2 = (-2 * np.log(alpha) + np.log(-2 * np.log(alpha)) + 1) / best
    inner = n * rho2 + 1
    return float(np.sqrt(2 * inner / (n * n * rho2) * np.log(np.sqrt(inner) / alpha)))


def _by_person(psi_C: Floats, who_C: Ints | None) -> tuple[Floats, int]:
    """Contributions of people, scaled so that their mean is the mean over cases: (U,), U."""
    if who_C is None:
        return psi_C, len(psi_C)
    _, code_C = np.unique(who_C, return_inverse=True)
    size_U = np.bincount(code_C)
    n = len(size_U)
    centre = psi_C.mean()
    # A ratio of sums (reward over cases): people with more cases count for more, and its influence is the residual.
    return centre + np.bincount(code_C, psi_C - centre) * (n / len(psi_C)), n


def _bootstrap(terms: Terms, who_C: Ints | None, seed: int, level: float) -> tuple[float, float]:
    ones_C = np.ones(len(terms.plain_C))
    columns = [terms.plain_C, terms.weighted_C, ones_C if terms.weight_C is None else terms.weight_C, ones_C]
    table_CV = np.stack(columns, axis=1)
    if who_C is not None:
        _, code_C = np.unique(who_C, return_inverse=True)
        table_CV = np.stack([np.bincount(code_C, column) for column in columns], axis=1)
    sums = [w @ table_CV for w in resample_weights(len(table_CV), seed=seed, resamples=RESAMPLES)]
    plain_S, weighted_S, weight_S, cases_S = np.concatenate(sums).T
    ratio_S = np.divide(weighted_S, weight_S, out=np.zeros_like(weight_S), where=weight_S > 0)
    tail = (1 - level) / 2
    low, high = np.quantile(plain_S / cases_S + ratio_S, [tail, 1 - tail])
    return float(low), float(high)


def _estimate(value: float, low: float, high: float, n: int, method: str, level: float) -> Estimate:
    return Estimate(value=value, low=min(low, value), high=max(high, value), n=n, method=method, level=level)
