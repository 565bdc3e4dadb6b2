"""Several opinions of what is expected, each taught by its own resampling of the outcomes.

Where a Gaussian posterior over F weights costs F * F numbers and holds only for a model that is right, M heads cost
M * F and are whatever the outcomes make of them. How far they lie apart is what is not known.

Letters: M heads, N candidates, F features.
"""

from __future__ import annotations

import numpy as np
from scipy.special import log_ndtr, ndtr

from penchant.core import Bools, Floats, Ints, rng
from penchant.policy._hybrid import Spread

_ROOT = float(np.sqrt(2 * np.pi))


class Bootstrap:
    """Bootstrapped heads over shared features, with an effect of each item: probit regressions of diagonal covariance.

    Each head counts an outcome as often as a Poisson draw of mean 1 says, the online bootstrap (Oza and Russell, 2001;
    Eckles and Kaptein, "Thompson sampling with the online bootstrap", 2014), and begins from a draw of its own from the
    prior, to which it is held (Osband, Aslanides and Cassirer, "Randomized prior functions", NeurIPS 2018). The draws
    come in pairs of opposite sign, so that on average nothing is expected before anything is known.

    Args:
        prior_F: Expected weight of each shared feature.
        spread_F: Standard deviation of each.
        fresh_N: Which item numbers had no history, (N + 1,).
        spread: Standard deviations of the effects of items.
        heads: M, even.
        seed: Of the draws.

    Example:
        >>> b = Bootstrap(np.zeros(1), np.full(1, 1e-3), np.zeros(3, bool))
        >>> for _ in range(40):
        ...     _ = b.learn("u", 1, np.ones(1), True), b.learn("u", 2, np.ones(1), False)
        >>> mean_N, _ = b.expect("u", np.array([1, 2]), np.ones((2, 1)))
        >>> bool(mean_N[0] > 0.6 > 0.4 > mean_N[1])
        True
    """

    def __init__(
        self,
        prior_F: Floats,
        spread_F: Floats,
        fresh_N: Bools,
        spread: Spread | None = None,
        *,
        heads: int = 16,
        seed: int = 0,
    ) -> None:
        spread = spread or Spread()
        self._draw = rng(seed, "bootstrap")
        size_N = np.where(fresh_N, spread.fresh, spread.item)
        self._first_MF = prior_F + self._pairs(heads, len(prior_F)) * spread_F
        self._first_MN = self._pairs(heads, len(fresh_N)) * size_N
        self._prior_var_F, self._prior_var_N = np.square(np.asarray(spread_F, float)), np.square(size_N)
        self.weight_MF, self.item_MN = self._first_MF.copy(), self._first_MN.copy()
        self.var_MF, self.var_MN = (
            np.repeat(var[None], heads, 0) for var in (self._prior_var_F, self._prior_var_N)
        )
        self.shown_N: Ints = np.zeros(len(fresh_N), np.int64)
        self.updates = 0

    def _pairs(self, heads: int, width: int) -> Floats:
        half = self._draw.standard_normal((heads // 2, width))
        half /= np.sqrt(np.mean(half**2, axis=0)) if width else 1.0
        return np.concatenate([half, -half])

    def _sums(self, item_N: Ints, feature_NF: Floats) -> Floats:
        """What stands under the probit of each head: (M, N)."""
        return np.asarray(self.weight_MF @ feature_NF.T + self.item_MN[:, item_N])

    def opinions(self, person: str, item_N: Ints, feature_NF: Floats) -> Floats:
        """The chance of a reward by each head, (M, N)."""
        return np.asarray(ndtr(self._sums(item_N, feature_NF)))

    def expect(
        self, person: str, item_N: Ints, feature_NF: Floats, reach: float = 1.0
    ) -> tuple[Floats, Floats]:
        """Mean chance of the heads, and how far it would rise for each of ``reach`` standard deviations among them.

        What all heads say of all items alike moves none before another, and is no part of the deviation.
        """
        sum_MN = self._sums(item_N, feature_NF)
        mean_N = ndtr(sum_MN).mean(0)
        if not len(item_N):
            return mean_N, mean_N
        away_MN = sum_MN - sum_MN.mean(1, keepdims=True)
        middle_N = sum_MN.mean(0)
        rise_N = ndtr(middle_N + reach * away_MN.std(0)) - ndtr(middle_N)
        return mean_N, np.asarray(rise_N / reach)

    def learn(self, person: str, item: int, feature_F: Floats, reward: bool, seen: float = 1.0) -> float:
        """Take an outcome in, each head as often as it draws; returns the chance that was expected."""
        t_M = self.weight_MF @ feature_F + self.item_MN[:, item]
        chance_M = ndtr(t_M)
        density_M = np.exp(-0.5 * t_M**2) / _ROOT
        if reward:
            ratio_M = np.exp(-0.5 * t_M**2 - log_ndtr(t_M)) / _ROOT
        else:
            ratio_M = -seen * density_M / np.maximum(1 - seen * chance_M, 1e-12)
        count_M = self._draw.poisson(1.0, len(t_M))
        # One Newton step of each head from where it stands, with what the step itself makes known taken into account:
        # without that, features that lie far out would be stepped over.
        bend_M = count_M * np.maximum(ratio_M * (ratio_M + t_M), 0.0)
        toward_MF, toward_M = self.var_MF * feature_F, self.var_MN[:, item]
        damp_M = 1 / (1 + bend_M * (toward_MF @ feature_F + toward_M))
        step_M, less_M = count_M * ratio_M * damp_M, bend_M * damp_M
        self.weight_MF += toward_MF * step_M[:, None]
        self.var_MF -= toward_MF**2 * less_M[:, None]
        self.item_MN[:, item] += toward_M * step_M
        self.var_MN[:, item] = toward_M - toward_M**2 * less_M
        self.shown_N[item] += 1
        self.updates += 1
        return float(chance_M.mean())

    def forget(self, keep: float) -> None:
        """Each head returns part of the way to where it began, and knows so much less."""
        self.weight_MF = self._first_MF + keep * (self.weight_MF - self._first_MF)
        self.item_MN = self._first_MN + keep * (self.item_MN - self._first_MN)
        self.var_MF = keep**2 * self.var_MF + (1 - keep**2) * self._prior_var_F
        self.var_MN = keep**2 * self.var_MN + (1 - keep**2) * self._prior_var_N

    def reset(self, item: int) -> None:
        """Forget what outcomes said of an item by itself."""
        self.item_MN[:, item], self.var_MN[:, item] = self._first_MN[:, item], self._prior_var_N[item]
