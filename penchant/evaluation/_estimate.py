"""Numbers with their uncertainty: the few ways in which this room makes an ``Estimate``.

Letters: C cases, U clusters (people), S resamples, V quantities side by side.
"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import NormalDist

import msgspec
import numpy as np
import numpy.typing as npt

from penchant.core import Estimate, Floats, Ints, rng

UNBOUNDED = ("novelty", "value@")  # how metrics begin that have no upper bound
LEVEL = 0.95
RESAMPLES = 1000
FEW = 10  # with fewer people a bootstrap pretends to know too much
CHUNK_CELLS = 8_000_000  # resampling weights held at once: 64 MB


def z_of(level: float) -> float:
    """Half-width of a two-sided normal interval in standard errors.

    Example:
        >>> round(z_of(0.95), 2)
        1.96
    """
    return NormalDist().inv_cdf(0.5 + level / 2)


def proportion(hits: float, n: int, *, level: float = LEVEL) -> Estimate:
    """A share of n independent people, with Wilson's score interval (1927).

    Safe at 0 and at n. For values between 0 and 1 that are not all 0 or 1 it is too wide, never too narrow:
    no such variable varies more than a coin with the same mean.

    Example:
        >>> str(proportion(0, 20))
        '0.0000 [0.0000, 0.1611]'
    """
    if n <= 0:
        raise ValueError("a proportion needs at least one observation")
    share, z = hits / n, z_of(level)
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low, high = min(share, float(middle - half)), max(share, float(middle + half))
    return Estimate(value=share, low=max(0.0, low), high=min(1.0, high), n=n, method="wilson", level=level)


def resample_weights(num_clusters: int, *, seed: int, resamples: int = RESAMPLES) -> Iterator[Floats]:
    """How often each person is drawn, resample by resample: blocks of (S', U) float64 that sum to U a row."""
    draw = rng(seed, "bootstrap")
    block = max(1, CHUNK_CELLS // max(num_clusters, 1))
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        weights = np.empty((size, num_clusters))
        for row in weights:
            row[:] = np.bincount(draw.integers(num_clusters, size=num_clusters), minlength=num_clusters)
        yield weights


def bootstrap_means(
    values_CV: Floats,
    cluster_C: Ints | None = None,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    bounded: npt.NDArray[np.bool_] | None = None,
) -> list[Estimate]:
    """Means over cases with percentile intervals from resampling people (Efron 1979), all V at once.

    Args:
        values_CV: (C, V), one column a quantity; the same resamples serve all columns.
        cluster_C: Which person each case belongs to; None = every case is another person. All cases of a
            person are drawn together, because they are not independent.
        seed: Same seed, same bits.
        resamples: How many.
        level: Of the intervals.
        bounded: (V,) which columns lie in [0, 1]. Where such a column does not vary, or there are fewer than
            10 people, a bootstrap would claim certainty: these get Wilson's interval.
    """
    values_CV = np.asarray(values_CV, np.float64)
    if not len(values_CV):
        raise ValueError("a mean needs at least one observation")
    sums_UV, size_U = _by_cluster(values_CV, cluster_C)
    n = len(size_U)
    means = [
        (weights @ sums_UV) / (weights @ size_U)[:, None]
        for weights in resample_weights(n, seed=seed, resamples=resamples)
    ]
    tail = (1 - level) / 2
    low_V, high_V = np.quantile(np.concatenate(means), [tail, 1 - tail], axis=0)
    value_V = sums_UV.sum(axis=0) / size_U.sum()
    constant_V = np.ptp(values_CV, axis=0) == 0
    out = []
    for v, value in enumerate(value_V.tolist()):
        if bounded is not None and bounded[v] and (n < FEW or constant_V[v]):
            out.append(proportion(min(max(value, 0.0), 1.0) * n, n, level=level))
            continue
        low, high = min(float(low_V[v]), value), max(float(high_V[v]), value)
        out.append(Estimate(value=value, low=low, high=high, n=n, method="bootstrap", level=level))
    return out


def cautious(gap: Estimate) -> Estimate:
    """The interval of a difference of shares between few people, whose bootstrap would pretend to know too much.

    A difference of shares lies between -1 and 1: half of it above the middle is a share again, for which
    Wilson's interval is never too narrow.
    """
    if gap.n >= FEW:
        return gap
    share = proportion((gap.value + 1) / 2 * gap.n, gap.n, level=gap.level)
    low, high = min(2 * share.low - 1, gap.value), max(2 * share.high - 1, gap.value)
    return msgspec.structs.replace(gap, low=low, high=high, method="wilson")


def _by_cluster(values_CV: Floats, cluster_C: Ints | None) -> tuple[Floats, Floats]:
    """Sum the cases of each person: sums (U, V) and numbers of cases (U,)."""
    if cluster_C is None:
        return values_CV, np.ones(len(values_CV))
    _, who_C = np.unique(cluster_C, return_inverse=True)
    size_U = np.bincount(who_C).astype(np.float64)
    columns = [np.bincount(who_C, column, minlength=len(size_U)) for column in values_CV.T]
    return np.stack(columns, axis=1) if columns else np.empty((len(size_U), 0)), size_U
