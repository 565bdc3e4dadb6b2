"""Rules: how expected rewards, and how unsure they are, become the chances of a slot.

A rule is asked once for a request (``begin``) and then slot by slot for the chance of every candidate that is
not placed yet. A slate is drawn from just these chances (see ``_draw``), so its odds are exact for every rule,
and what is approximate, the Thompson rule's integral, is approximate in what it does and not in what it says.

Letters: N candidates, G cells of the integration grid.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.special import log_ndtr

from penchant.core import Bools, Floats

Chances = Callable[[Bools], Floats]
"""Takes which candidates are free (N,), gives the chance of each (N,): 0 where it is not free, sum 1."""


_FEW = 8  # candidates that chances can be named for one by one; where more share the best, all are counted


@dataclass(frozen=True, eq=False)
class Peaks:
    """Chances that lie on a few candidates: they can be asked for like all others, or by name.

    Args:
        dense: The chance of every candidate.
        named: The same by candidate, without the zeros; None where too many have one.
    """

    dense: Chances
    named: Callable[[Bools], dict[int, float] | None]

    def __call__(self, free_N: Bools) -> Floats:
        """The chance of each candidate: (N,)."""
        return self.dense(free_N)


class Rule(Protocol):
    """Turns means and standard deviations into chances. A frozen dataclass: its fields are its settings."""

    @property
    def id(self) -> str:
        """Its name and version, such as ``softmax/1``."""
        ...

    def begin(self, mean_N: Floats, std_N: Floats, updates: int) -> Chances:
        """Prepare one request.

        Args:
            mean_N: Expected reward of each candidate, finite.
            std_N: Standard deviation of that expectation, at least 0.
            updates: Outcomes learned so far; rules that explore less as they learn read it.
        """
        ...


@dataclass(frozen=True)
class Best:
    """The highest upper bound ``mean + bonus * std``, for certain; greedy when the bonus is 0.

    With a bonus, candidates whose bounds are equal share the chance: where nothing is known yet, the order of the
    catalogue would else decide what is tried. Without one the earlier comes, so that greedy stays certain.

    Example:
        >>> chances = Best().begin(np.array([0.1, 0.3, 0.2]), np.zeros(3), 0)
        >>> chances(np.array([True, False, True])).tolist()
        [0.0, 0.0, 1.0]
    """

    bonus: float = 0.0

    @property
    def id(self) -> str:
        """``greedy/1``, or ``ucb/1`` with a bonus."""
        return "ucb/1" if self.bonus else "greedy/1"

    def begin(self, mean_N: Floats, std_N: Floats, updates: int) -> Chances:
        """All the chance to the highest bound."""
        bound_N = mean_N + self.bonus * std_N

        def chances(free_N: Bools) -> Floats:
            left_N = np.where(free_N, bound_N, -np.inf)
            p_N = np.zeros(len(bound_N))
            best = left_N.argmax()
            level_N = left_N == left_N[best]
            if self.bonus and (level := np.count_nonzero(level_N)) > 1:
                p_N[level_N] = 1.0 / level
            else:
                p_N[best] = 1.0
            return p_N

        order: list[int] = []
        bounds: list[float] = []

        def named(free_N: Bools) -> dict[int, float] | None:
            if not order:
                order[:] = np.argsort(-bound_N, kind="stable").tolist()
                bounds[:] = bound_N.tolist()
            best = next(at for at in order if free_N[at])
            if not self.bonus:
                return {best: 1.0}
            level: list[int] = []
            for at in order:
                if bounds[at] < bounds[best] or len(level) > _FEW:
                    break
                if bounds[at] == bounds[best] and free_N[at]:
                    level.append(at)
            return dict.fromkeys(level, 1.0 / len(level)) if 0 < len(level) <= _FEW else None

        return Peaks(chances, named)


@dataclass(frozen=True, eq=False)
class Reserved:
    """Another rule, with a share of every slot kept for the best of some candidates, such as fresh items.

    A slot in which none of them is free is the rule's alone.

    Args:
        rule: Has the rest of the chances.
        share: Share of each slot that is kept, 0 to 1.
        bound_N: By what the reserved candidates are ranked; -inf for all others.

    Example:
        >>> reserved = Reserved(Best(), 0.1, np.array([-np.inf, -np.inf, 0.0]))
        >>> chances = reserved.begin(np.array([0.3, 0.2, 0.1]), np.zeros(3), 0)
        >>> chances(np.array([True, True, True])).tolist()
        [0.9, 0.0, 0.1]
    """

    rule: Rule
    share: float
    bound_N: Floats

    @property
    def id(self) -> str:
        """That of the rule, with the share."""
        return f"{self.rule.id}+reserved{self.share:g}"

    def begin(self, mean_N: Floats, std_N: Floats, updates: int) -> Chances:
        """Mix the rule's chances with the reserved candidate's."""
        inner = self.rule.begin(mean_N, std_N, updates)
        return shared(inner, self.share, np.isfinite(self.bound_N)[None], np.ones(1), self.bound_N)


def shared(inner: Chances, share: float, member_MN: Bools, weight_M: Floats, bound_N: Floats) -> Chances:
    """Chances of which a share is dealt out over groups of candidates: to the best free one of each, by its weight.

    A group of which none is free gives its part to the others; with none left the slot is ``inner``'s alone.
    """
    order_MK = [_best_first(member_N, bound_N) for member_N in member_MN]
    weights = weight_M.tolist()

    def parts(free_N: Bools) -> list[tuple[int, float]]:
        best_M = [next((at for at in order_K if free_N[at]), None) for order_K in order_MK]
        found = [(at, weight) for at, weight in zip(best_M, weights, strict=True) if at is not None]
        total = sum(weight for _, weight in found)
        return [(at, share * weight / total) for at, weight in found] if total > 0 else []

    def chances(free_N: Bools) -> Floats:
        p_N = inner(free_N)
        if given := parts(free_N):
            p_N = (1 - share) * p_N
            for at, part in given:
                p_N[at] += part
        return p_N

    if not isinstance(inner, Peaks):
        return chances
    of_inner = inner.named

    def named(free_N: Bools) -> dict[int, float] | None:
        p = of_inner(free_N)
        if p is not None and (given := parts(free_N)):
            p = {at: (1 - share) * chance for at, chance in p.items()}
            for at, part in given:
                p[at] = p.get(at, 0.0) + part
        return p

    return Peaks(chances, named)


def _best_first(member_N: Bools, bound_N: Floats) -> list[int]:
    """The members of a group by their bounds, found once: slot by slot only the first free one is looked for."""
    member_K = np.flatnonzero(member_N & np.isfinite(bound_N))
    order: list[int] = member_K[np.argsort(-bound_N[member_K], kind="stable")].tolist()
    return order


@dataclass(frozen=True, eq=False)
class Limited:
    """Another rule, and an even floor, kept to some candidates: the others come only as the best that is left.

    Args:
        rule: Chooses among those that may be explored and the best by mean.
        floor: Share of each slot spread evenly over the same candidates, 0 to 1.
        may_N: Which candidates may be explored.

    Example:
        >>> limited = Limited(Best(), 0.2, np.array([False, False, True]))
        >>> chances = limited.begin(np.array([0.3, 0.2, 0.1]), np.zeros(3), 0)
        >>> chances(np.array([True, True, True])).tolist()
        [0.9, 0.0, 0.1]
    """

    rule: Rule
    floor: float
    may_N: Bools

    @property
    def id(self) -> str:
        """That of the rule, with the floor."""
        return f"{self.rule.id}+limited{self.floor:g}"

    def begin(self, mean_N: Floats, std_N: Floats, updates: int) -> Chances:
        """Ask the rule about those that may be explored and the best of each slot."""
        inner = self.rule.begin(mean_N, std_N, updates)

        def chances(free_N: Bools) -> Floats:
            open_N = free_N & self.may_N
            open_N[np.argmax(np.where(free_N, mean_N, -np.inf))] = True
            return np.asarray((1 - self.floor) * inner(open_N) + self.floor * open_N / open_N.sum())

        return chances


@dataclass(frozen=True)
class Softmax:
    """Chances proportional to ``exp(mean / temperature)``: slot by slot a Plackett-Luce ranking.

    The same as sorting by ``mean / temperature`` plus Gumbel noise (Yellott 1977; Kool et al. 2019).

    Example:
        >>> chances = Softmax(1.0).begin(np.log([1.0, 3.0]), np.zeros(2), 0)
        >>> chances(np.array([True, True])).round(6).tolist()
        [0.25, 0.75]
    """

    temperature: float = 0.05

    @property
    def id(self) -> str:
        """``softmax/1``."""
        return "softmax/1"

    def begin(self, mean_N: Floats, std_N: Floats, updates: int) -> Chances:
        """Exponential weights, taken against the best free candidate so that none overflows."""
        logit_N = mean_N / self.temperature

        def chances(free_N: Bools) -> Floats:
            weight_N: Floats = np.where(free_N, np.exp(np.minimum(logit_N - logit_N[free_N].max(), 0.0)), 0.0)
            weight_N /= weight_N.sum()
            return weight_N

        return chances


@dataclass(frozen=True)
class SquareCB:
    """Inverse gap weighting (Abe and Long 1999; Foster and Rakhlin, ICML 2020).

    Every candidate but the best has ``1 / (K + gamma * gap)``, the best has the rest; ``gamma = scale * t^power``
    grows with the outcomes learned, as in Vowpal Wabbit.

    Example:
        >>> chances = SquareCB(scale=8.0, power=0.0).begin(np.array([0.5, 0.25]), np.zeros(2), 1)
        >>> chances(np.array([True, True])).tolist()
        [0.75, 0.25]
    """

    scale: float = 100.0
    power: float = 0.5

    @property
    def id(self) -> str:
        """``squarecb/1``."""
        return "squarecb/1"

    def begin(self, mean_N: Floats, std_N: Floats, updates: int) -> Chances:
        """The gaps are taken against the best free candidate of each slot."""
        gamma = self.scale * max(updates, 1) ** self.power
        return lambda free_N: _inverse_gaps(mean_N, free_N, gamma, 1.0)


@dataclass(frozen=True)
class FastCB:
    """Inverse gap weighting that trusts small rewards (Foster and Krishnamurthy, NeurIPS 2021).

    A candidate but the best has ``L / (K L + gamma * gap)`` with L the best free mean above ``lowest``: where
    all rewards are small, as in shops, it explores less than ``SquareCB`` of the same gamma.

    Example:
        >>> chances = FastCB(scale=4.0, power=0.0).begin(np.array([0.5, 0.25]), np.zeros(2), 1)
        >>> chances(np.array([True, True])).tolist()
        [0.75, 0.25]
    """

    scale: float = 10.0
    power: float = 0.5
    lowest: float = 0.0

    @property
    def id(self) -> str:
        """``fastcb/1``."""
        return "fastcb/1"

    def begin(self, mean_N: Floats, std_N: Floats, updates: int) -> Chances:
        """The gaps are taken against the best free candidate of each slot."""
        gamma = self.scale * max(updates, 1) ** self.power

        def chances(free_N: Bools) -> Floats:
            level = max(float(mean_N[free_N].max()) - self.lowest, 1e-9)
            return _inverse_gaps(mean_N, free_N, gamma, level)

        return chances


def _inverse_gaps(mean_N: Floats, free_N: Bools, gamma: float, level: float) -> Floats:
    best = int(np.argmax(np.where(free_N, mean_N, -np.inf)))
    gap_N = np.maximum(mean_N[best] - mean_N, 0.0)
    p_N = np.where(free_N, level / (free_N.sum() * level + gamma * gap_N), 0.0)
    p_N[best] = 0.0
    p_N[best] = 1.0 - p_N.sum()
    return p_N


_CELLS = 64
_EDGE = 9.0  # beyond this many standard deviations nothing happens
_STEP = 1 / 256
_TABLE = log_ndtr(np.arange(-_EDGE, _EDGE + _STEP, _STEP))  # 0.0 to twelve digits at the upper end


def _log_cdf(z: Floats) -> Floats:
    """Logarithm of the normal distribution function, from a table: a tenth of the time of the real one."""
    place = (np.clip(z, -_EDGE, _EDGE - _STEP) + _EDGE) / _STEP
    low = place.astype(np.int64)
    value: Floats = _TABLE[low]
    value += (place - low) * (_TABLE[low + 1] - value)
    return value


@dataclass(frozen=True)
class Thompson:
    """The chance that a candidate would win if every reward were drawn from its Gaussian, in each slot anew.

    ``P(a wins)`` is the integral of ``dPhi_a(x) prod_b Phi_b(x)`` over b other than a. It is taken over cells that
    reach from where the maximum hardly ever is to where it always is: exact in each candidate's own mass, middle value
    in the product of the others. With independent Gaussians an error of less than 1 % in chances that matter.

    Args:
        scale: Multiplies the standard deviations; below 1 it explores less.

    Example:
        >>> chances = Thompson().begin(np.array([0.0, 1.0]), np.array([1.0, 1.0]), 0)
        >>> round(float(chances(np.array([True, True]))[1]), 3)  # Phi(1 / sqrt(2))
        0.76
    """

    scale: float = 1.0

    @property
    def id(self) -> str:
        """``thompson/1``."""
        return "thompson/1"

    def begin(self, mean_N: Floats, std_N: Floats, updates: int) -> Chances:
        """Tabulate the distribution of each candidate once; a slot then costs one product of matrix and vector."""
        if not len(mean_N):
            return lambda free_N: np.zeros(0)
        std_N = np.maximum(self.scale * std_N, 1e-9)
        low_N, top = mean_N - 4 * std_N, float((mean_N + 5 * std_N).max())
        made: list[tuple[float, Floats, Floats]] = []

        def table(free_N: Bools) -> tuple[float, Floats, Floats]:
            # Below the highest lower bound the maximum hardly ever is. The 16th highest leaves room for the
            # slots that follow, whose maximum is lower.
            bounds = low_N[free_N]
            bottom = float(np.partition(bounds, max(len(bounds) - 16, 0))[max(len(bounds) - 16, 0)])
            edge_G = np.linspace(bottom, max(top, bottom + 1e-9), _CELLS + 1)
            mass_GN = np.diff(np.exp(_log_cdf((edge_G[:, None] - mean_N) / std_N)), axis=0)
            middle_GN = _log_cdf(((edge_G[:-1] + edge_G[1:])[:, None] / 2 - mean_N) / std_N)
            return bottom, middle_GN, mass_GN * np.exp(-middle_GN)

        def chances(free_N: Bools) -> Floats:
            if not made or made[0][0] > low_N[free_N].max():
                made[:] = [table(free_N)]
            _, log_GN, ratio_GN = made[0]
            log_G = log_GN @ free_N.astype(np.float64)
            win_N = np.where(free_N, np.exp(log_G - log_G.max()) @ ratio_GN, 0.0)
            total = float(win_N.sum())
            if total <= 0 or not np.isfinite(total):
                return Best().begin(mean_N, std_N, 0)(free_N)
            return win_N / total

        return chances


@dataclass(frozen=True, eq=False)
class Voted:
    """Thompson sampling by opinions: one of them is taken at random in each slot, and its best candidate comes.

    So the chance of a candidate is the share of the opinions that hold it best of what is free: exact, whatever the
    opinions are like. Candidates that one opinion holds equal share its vote.

    Args:
        away_MN: How far each opinion of each candidate lies from the mean of all opinions.
        scale: Multiplies that; below 1 it explores less.

    Example:
        >>> away_MN = np.array([[-0.05, 0.0], [0.1, 0.0], [-0.05, 0.0]])
        >>> chances = Voted(away_MN).begin(np.array([0.2, 0.25]), np.zeros(2), 0)
        >>> chances(np.array([True, True])).round(3).tolist()
        [0.333, 0.667]
    """

    away_MN: Floats
    scale: float = 1.0

    @property
    def id(self) -> str:
        """``voted/1``."""
        return "voted/1"

    def begin(self, mean_N: Floats, std_N: Floats, updates: int) -> Chances:
        """Each opinion ranks the candidates anew in each slot."""
        value_MN = mean_N + self.scale * self.away_MN

        def chances(free_N: Bools) -> Floats:
            left_MN = np.where(free_N, value_MN, -np.inf)
            best_MN = left_MN == left_MN.max(1, keepdims=True)
            return np.asarray((best_MN / best_MN.sum(1, keepdims=True)).mean(0))

        return chances
