"""What each person is expected to do with each item, learned from outcomes as they come.

A probit regression whose weights are Gaussians, updated in closed form one outcome at a time (assumed-density
filtering: Graepel et al., "Web-scale Bayesian click-through rate prediction", ICML 2010):

    P(reward) = Phi( w . x_i  +  item_i  +  person_u  +  sum over labels of taste_ul / sqrt(labels of i) )

``w`` is shared by all (full covariance), so that what is learned of one item tells of those like it: an empirical
Bayes prior that is fitted while the shop serves. ``item_i`` is what outcomes say beyond that; ``person_u`` keeps a
person who turns to everything from crediting the items; ``taste_ul`` is a person's own liking of a label.

Letters: N candidates, F shared features, L labels of an item (0 = none).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from scipy.special import log_ndtr, ndtr

from penchant.core import Bools, Floats, Ints

_ROOT = float(np.sqrt(2 * np.pi))


@dataclass(frozen=True)
class Spread:
    """How far weights may lie from zero before anything is known: standard deviations on the probit scale."""

    item: float = 0.3
    fresh: float = 0.8  # items without any history: all that is known of them is learned here
    person: float = 0.5
    taste: float = 0.15


@dataclass
class _Person:
    level: Floats  # mean and variance
    taste: dict[int, Floats] = field(default_factory=dict)  # label -> mean and variance


class Hybrid:
    """The Gaussians of one shop.

    Args:
        prior_F: Expected weight of each shared feature.
        spread_F: Standard deviation of each.
        label_NL: Labels of every item number, (N + 1, L), 0 = none.
        fresh_N: Which item numbers had no history, (N + 1,).
        spread: Standard deviations of the effects of items, persons and tastes.

    Example:
        >>> labels = np.array([[0], [1], [1], [2]])
        >>> h = Hybrid(np.zeros(1), np.ones(1), labels, np.zeros(4, bool))
        >>> one = np.ones((1, 1))
        >>> for _ in range(20):
        ...     h.learn("u", 1, one[0], True)
        ...     h.learn("u", 3, one[0], False)
        >>> mean_N, _ = h.expect("u", np.array([1, 2, 3]), np.ones((3, 1)))
        >>> bool(mean_N[0] > mean_N[1] > mean_N[2])
        True
    """

    def __init__(
        self,
        prior_F: Floats,
        spread_F: Floats,
        label_NL: Ints,
        fresh_N: Bools,
        spread: Spread | None = None,
    ) -> None:
        self.spread = spread or Spread()
        self.weight_F = np.array(prior_F, np.float64)
        self.cov_FF = np.diag(np.square(np.asarray(spread_F, np.float64)))
        self.label_NL = label_NL
        num_labels_N = np.maximum((label_NL > 0).sum(1), 1)
        self.share_N = 1 / np.sqrt(num_labels_N)
        self.item_N = np.zeros(len(label_NL))
        self.var_N = np.where(fresh_N, self.spread.fresh**2, self.spread.item**2)
        self.shown_N = np.zeros(len(label_NL), np.int64)
        self.persons: dict[str, _Person] = {}
        self.updates = 0

    def expect(self, person: str, item_N: Ints, feature_NF: Floats) -> tuple[Floats, Floats]:
        """Chance of a reward, and how unsure it is because the item is little known.

        Returns:
            mean_N in (0, 1), and std_N: the standard deviation that the item's own effect gives it.
        """
        mean_N, var_N, _ = self._sums(person, item_N, feature_NF)
        # One scale for all: how little is known of an item moves the bonus of a rule, never what is expected.
        scale = float(np.sqrt(1 + var_N.mean())) if len(var_N) else 1.0
        z_N = mean_N / scale
        slope_N = np.exp(-0.5 * z_N**2) / _ROOT / scale
        return ndtr(z_N), slope_N * np.sqrt(self.var_N[item_N])

    def _sums(self, person: str, item_N: Ints, feature_NF: Floats) -> tuple[Floats, Floats, Floats]:
        """Mean and variance of the sum under the probit, and the shared covariance times the features."""
        covered_NF = feature_NF @ self.cov_FF
        mean_N = feature_NF @ self.weight_F + self.item_N[item_N]
        var_N = np.einsum("nf,nf->n", covered_NF, feature_NF) + self.var_N[item_N]
        known = self.persons.get(person)
        level = known.level if known is not None else (0.0, self.spread.person**2)
        mean_N += level[0]
        var_N += level[1]
        if not self.spread.taste or not self.label_NL.shape[1]:
            return mean_N, var_N, covered_NF
        label_NL = self.label_NL[item_N]
        given_NL = label_NL > 0
        taste_NL, taste_var_NL = np.zeros(label_NL.shape), np.where(given_NL, self.spread.taste**2, 0.0)
        if known is not None and known.taste:
            ids = np.fromiter(known.taste, np.int64)
            both = np.array(list(known.taste.values()))
            order = np.argsort(ids)
            place_NL = np.minimum(np.searchsorted(ids[order], label_NL), len(ids) - 1)
            hit_NL = given_NL & (ids[order][place_NL] == label_NL)
            taste_NL = np.where(hit_NL, both[order, 0][place_NL], 0.0)
            taste_var_NL = np.where(hit_NL, both[order, 1][place_NL], taste_var_NL)
        share_N = self.share_N[item_N]
        mean_N += taste_NL.sum(1) * share_N
        var_N += taste_var_NL.sum(1) * share_N**2
        return mean_N, var_N, covered_NF

    def learn(self, person: str, item: int, feature_F: Floats, reward: bool) -> None:
        """Take one outcome in: every Gaussian that had a part in the prediction moves by its own uncertainty."""
        mean_N, var_N, covered_NF = self._sums(person, np.array([item]), feature_F[None])
        sign = 1.0 if reward else -1.0
        scale = float(np.sqrt(1 + var_N[0]))
        t = sign * float(mean_N[0]) / scale
        ratio = float(np.exp(-0.5 * t * t - log_ndtr(t))) / _ROOT
        step, shrink = sign * ratio / scale, ratio * (ratio + t) / scale**2
        covered_F = covered_NF[0]
        self.weight_F += covered_F * step
        self.cov_FF -= shrink * np.outer(covered_F, covered_F)
        self.item_N[item] += self.var_N[item] * step
        self.var_N[item] *= 1 - self.var_N[item] * shrink
        who = self.persons.setdefault(person, _Person(np.array([0.0, self.spread.person**2])))
        _move(who.level, 1.0, step, shrink)
        if self.spread.taste:
            for label in self.label_NL[item].tolist():
                if label:
                    taste = who.taste.setdefault(label, np.array([0.0, self.spread.taste**2]))
                    _move(taste, float(self.share_N[item]), step, shrink)
        self.shown_N[item] += 1
        self.updates += 1

    def tastes(self, person: str) -> Mapping[int, tuple[float, float]]:
        """What is known of a person's liking of labels: label -> (mean, standard deviation) on the probit scale."""
        known = self.persons.get(person)
        return (
            {} if known is None else {k: (float(v[0]), float(np.sqrt(v[1]))) for k, v in known.taste.items()}
        )


def _move(gaussian: Floats, x: float, step: float, shrink: float) -> None:
    """Update a Gaussian (mean, variance) of a feature that stood at x."""
    var = gaussian[1]
    gaussian[0] += var * x * step
    gaussian[1] = var * (1 - var * x * x * shrink)
