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
    fresh: float = 0.5  # items without any history: all that is known of them is learned here
    person: float = 0.5
    taste: float = 0.15


@dataclass
class _Person:
    level: Floats  # mean and variance
    taste: dict[int, Floats] = field(default_factory=dict)  # label -> mean and variance
    kept: float = 1.0  # what the shop's memory stood at when these were last up to date


class Hybrid:
    """The Gaussians of one shop.

    Args:
        prior_F: Expected weight of each shared feature.
        spread_F: Standard deviation of each.
        label_NL: Labels of every item number, (N + 1, L), 0 = none.
        fresh_N: Which item numbers had no history, (N + 1,).
        spread: Standard deviations of the effects of items, persons and tastes.
        shared: Whether ``std_N`` also tells how little the shared weights know of each item (LinUCB, Li et al., WWW
            2010; on the last layer of a network the neural-linear bandit, Riquelme et al., ICLR 2018).

    Example:
        >>> labels = np.array([[0], [1], [1], [2]])
        >>> h = Hybrid(np.zeros(1), np.ones(1), labels, np.zeros(4, bool))
        >>> one = np.ones((1, 1))
        >>> for _ in range(20):
        ...     _ = h.learn("u", 1, one[0], True)
        ...     _ = h.learn("u", 3, one[0], False)
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
        *,
        shared: bool = False,
    ) -> None:
        self.spread, self.shared = spread or Spread(), shared
        self.weight_F = np.array(prior_F, np.float64)
        self.cov_FF = np.diag(np.square(np.asarray(spread_F, np.float64)))
        self.label_NL = label_NL
        num_labels_N = np.maximum((label_NL > 0).sum(1), 1)
        self.share_N = 1 / np.sqrt(num_labels_N)
        # How much all tastes together may move an item for somebody of whom none is known.
        self._any_taste_N = ((label_NL > 0) * self.spread.taste**2).sum(1) * self.share_N**2
        self.item_N = np.zeros(len(label_NL))
        self.var_N = np.where(fresh_N, self.spread.fresh**2, self.spread.item**2)
        self.shown_N = np.zeros(len(label_NL), np.int64)
        self.persons: dict[str, _Person] = {}
        self.updates = 0
        self._prior_F, self._spread_F = self.weight_F.copy(), np.asarray(spread_F, np.float64)
        self._prior_var_N = self.var_N.copy()
        self._kept = 1.0

    def expect(
        self, person: str, item_N: Ints, feature_NF: Floats, reach: float = 1.0
    ) -> tuple[Floats, Floats]:
        """Chance of a reward, and how unsure it is because the item is little known.

        Args:
            person: Whose chances.
            item_N: Numbers of the items.
            feature_NF: Their shared features.
            reach: Standard deviations at which ``std_N`` is taken: the bonus of an upper bound, so that
                ``mean_N + reach * std_N`` is that bound on the probit scale. A slope at the mean, multiplied, would
                favour items known to be good over those of which nothing is known.

        Returns:
            mean_N in (0, 1), and std_N: how far the chance would rise for each of the ``reach`` standard deviations
            that the item's own effect may lie higher; with ``shared`` also what the shared weights say of it beside
            the mean of all, for what they say of all alike moves none before another.
        """
        mean_N, var_N, covered_NF = self._sums(person, item_N, feature_NF)
        # One scale for all: how little is known of an item moves the bonus of a rule, never what is expected.
        scale = float(np.sqrt(1 + np.add.reduce(var_N) / len(var_N))) if len(var_N) else 1.0
        z_N = mean_N / scale
        chance_N = ndtr(z_N)
        own_N = self.var_N.take(item_N)
        if self.shared and len(item_N):
            middle_F = feature_NF.mean(0)
            away_N = np.einsum("nf,nf->n", covered_NF - middle_F @ self.cov_FF, feature_NF - middle_F)
            own_N += np.maximum(away_N, 0.0)
        return chance_N, (ndtr(z_N + reach * np.sqrt(own_N) / scale) - chance_N) / reach

    def _sums(self, person: str, item_N: Ints, feature_NF: Floats) -> tuple[Floats, Floats, Floats]:
        """Mean and variance of the sum under the probit, and the shared covariance times the features."""
        covered_NF = feature_NF @ self.cov_FF
        mean_N = feature_NF @ self.weight_F + self.item_N.take(item_N)
        var_N = np.einsum("nf,nf->n", covered_NF, feature_NF) + self.var_N.take(item_N)
        known = self._known(person)
        level = known.level if known is not None else (0.0, self.spread.person**2)
        mean_N += level[0]
        var_N += level[1]
        if not self.spread.taste or not self.label_NL.shape[1]:
            return mean_N, var_N, covered_NF
        if known is None or not known.taste:
            var_N += self._any_taste_N.take(item_N)
            return mean_N, var_N, covered_NF
        label_NL = self.label_NL.take(item_N, axis=0)
        given_NL = label_NL > 0
        ids = np.fromiter(known.taste, np.int64)
        both = np.array(list(known.taste.values()))
        order = np.argsort(ids)
        place_NL = np.minimum(np.searchsorted(ids[order], label_NL), len(ids) - 1)
        hit_NL = given_NL & (ids[order][place_NL] == label_NL)
        taste_NL = np.where(hit_NL, both[order, 0][place_NL], 0.0)
        taste_var_NL = np.where(hit_NL, both[order, 1][place_NL], given_NL * self.spread.taste**2)
        share_N = self.share_N.take(item_N)
        mean_N += taste_NL.sum(1) * share_N
        var_N += taste_var_NL.sum(1) * share_N**2
        return mean_N, var_N, covered_NF

    def learn(self, person: str, item: int, feature_F: Floats, reward: bool, seen: float = 1.0) -> float:
        """Take one outcome in: every Gaussian that had a part in the prediction moves by its own uncertainty.

        Args:
            person: Whose outcome.
            item: Number of the item.
            feature_F: Its shared features.
            reward: Whether one came.
            seen: Chance that a reward, had the person wanted the item, would be known by now: the item was looked
                at where it stood, and the reward would have come so soon. A no then says ``1 - seen * P(reward)``
                (Chapelle, "Modeling delayed feedback in display advertising", KDD 2014; for positions the
                position-based model). A yes says the same as ever.

        Returns:
            The chance of a reward that was expected.
        """
        mean_N, var_N, covered_NF = self._sums(person, np.array([item]), feature_F[None])
        scale = float(np.sqrt(1 + var_N[0]))
        t = float(mean_N[0]) / scale
        if reward:
            ratio = float(np.exp(-0.5 * t * t - log_ndtr(t))) / _ROOT
        elif seen == 1:
            ratio = -float(np.exp(-0.5 * t * t - log_ndtr(-t))) / _ROOT
        else:
            ratio = -seen * float(np.exp(-0.5 * t * t)) / _ROOT / (1 - seen * float(ndtr(t)))
        step, shrink = ratio / scale, ratio * (ratio + t) / scale**2
        covered_F = covered_NF[0]
        self.weight_F += covered_F * step
        self.cov_FF -= shrink * np.outer(covered_F, covered_F)
        self.item_N[item] += self.var_N[item] * step
        self.var_N[item] *= 1 - self.var_N[item] * shrink
        who = self.persons.setdefault(
            person, _Person(np.array([0.0, self.spread.person**2]), kept=self._kept)
        )
        _move(who.level, 1.0, step, shrink)
        if self.spread.taste:
            for label in self.label_NL[item].tolist():
                if label:
                    taste = who.taste.setdefault(label, np.array([0.0, self.spread.taste**2]))
                    _move(taste, float(self.share_N[item]), step, shrink)
        self.shown_N[item] += 1
        self.updates += 1
        return float(ndtr(t))

    def forget(self, keep: float) -> None:
        """Let what was learned fade, for tastes and items change: every Gaussian returns part of the way to its prior.

        The step of an Ornstein-Uhlenbeck process that has the prior as its resting state: a mean keeps the share
        ``keep`` of its distance from the prior's, a variance the share ``keep**2`` of what it has lost.

        Args:
            keep: 0 to 1; half after a half-life.
        """
        self.weight_F = self._prior_F + keep * (self.weight_F - self._prior_F)
        self.cov_FF = keep**2 * self.cov_FF + (1 - keep**2) * np.diag(self._spread_F**2)
        self.item_N *= keep
        self.var_N = keep**2 * self.var_N + (1 - keep**2) * self._prior_var_N
        self._kept *= keep

    def reset(self, item: int) -> None:
        """Forget what outcomes said of an item by itself."""
        self.item_N[item], self.var_N[item] = 0.0, self._prior_var_N[item]

    def _known(self, person: str) -> _Person | None:
        """What is known of a person, brought up to date; None of a stranger."""
        known = self.persons.get(person)
        if known is not None and known.kept != self._kept:
            keep, known.kept = self._kept / known.kept, self._kept
            _fade(known.level, keep, self.spread.person**2)
            for taste in known.taste.values():
                _fade(taste, keep, self.spread.taste**2)
        return known

    def tastes(self, person: str) -> Mapping[int, tuple[float, float]]:
        """What is known of a person's liking of labels: label -> (mean, standard deviation) on the probit scale."""
        known = self._known(person)
        return (
            {} if known is None else {k: (float(v[0]), float(np.sqrt(v[1]))) for k, v in known.taste.items()}
        )


def _move(gaussian: Floats, x: float, step: float, shrink: float) -> None:
    """Update a Gaussian (mean, variance) of a feature that stood at x."""
    var = gaussian[1]
    gaussian[0] += var * x * step
    gaussian[1] = var * (1 - var * x * x * shrink)


def _fade(gaussian: Floats, keep: float, var: float) -> None:
    """Let a Gaussian of prior mean 0 return part of the way to its prior variance."""
    gaussian[0] *= keep
    gaussian[1] = keep**2 * gaussian[1] + (1 - keep**2) * var
