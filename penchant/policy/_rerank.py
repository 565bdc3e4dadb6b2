"""Reranking: what an item is worth in a slot, given the slots above it.

The stage between the scores and the draw. Before each slot it turns the means of all candidates into values that
know what is placed already; the rule then makes chances of these values as it would of the means. The odds of a slot
are therefore those of what is really drawn, whatever the reranking, and no second list has to be made.

Every method blends its gain with the means brought to the range 0 to 1 (best candidate 1, worst 0), by one dial:

    value_N = low + range * ((1 - strength) * relevance_N + strength * gain_N)

so that at 0 the order is that of the means and at 1 the means no longer matter. Several stages multiply their
``1 - strength``.

Letters: N candidates, D width of item vectors, C classes (interests, labels), L slots that are filled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from penchant.core import Floats

Gains = Callable[[int | None], Floats]
"""Takes the candidate placed last (None: the list is empty), gives what each would add to the list: (N,)."""

_TINY = 1e-6


class Rerank(Protocol):
    """One method with its strength. A frozen dataclass."""

    @property
    def strength(self) -> float:
        """The dial, 0 to 1."""
        ...

    @property
    def id(self) -> str:
        """Its name and strength, such as ``mmr0.3``."""
        ...

    def begin(self) -> Gains:
        """Prepare one slate; the gains are asked slot by slot, each time with what was placed last."""
        ...


@dataclass(frozen=True, eq=False)
class MMR:
    """Maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998): minus the closest item above.

    Args:
        strength: 0 to 1, one minus the paper's lambda.
        vec_ND: Unit vectors of the candidates; their dot product is how alike two are.

    Example:
        >>> gains = MMR(0.5, np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])).begin()
        >>> gains(None).tolist(), gains(0).tolist()
        ([0.0, 0.0, 0.0], [-1.0, -1.0, -0.0])
    """

    strength: float
    vec_ND: Floats

    @property
    def id(self) -> str:
        """``mmr`` and the strength."""
        return f"mmr{self.strength:g}"

    def begin(self) -> Gains:
        """Keep the largest likeness of each candidate to any item above."""
        alike_N = np.full(len(self.vec_ND), -np.inf)

        def gains(last: int | None) -> Floats:
            if last is None:
                return np.zeros(len(alike_N))
            np.maximum(alike_N, self.vec_ND @ self.vec_ND[last], out=alike_N)
            return -alike_N

        return gains


@dataclass(frozen=True, eq=False)
class DPP:
    """Determinantal point process, greedily (Chen, Zhang and Zhou, NeurIPS 2018): the volume an item adds.

    The gain is ``log d_i^2``, the part of the logarithm of the determinant that candidate i adds to what is placed,
    found by one more column of a Cholesky factor in each slot: O(L N) a slot, O(L^2 N) a slate. Unlike MMR it sees what
    several items above explain together.

    Args:
        strength: 0 to 1, one minus the paper's theta.
        vec_ND: Unit vectors of the candidates.

    Example:
        >>> gains = DPP(0.5, np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])).begin()
        >>> gains(None).tolist(), np.exp(gains(0)).round(4).tolist()
        ([0.0, 0.0, 0.0], [0.0, 0.64, 1.0])
    """

    strength: float
    vec_ND: Floats

    @property
    def id(self) -> str:
        """``dpp`` and the strength."""
        return f"dpp{self.strength:g}"

    def begin(self) -> Gains:
        """Keep the Cholesky columns so far and what is left of each candidate's own length."""
        left_N = np.einsum("nd,nd->n", self.vec_ND, self.vec_ND).astype(np.float64)
        columns: list[Floats] = []

        def gains(last: int | None) -> Floats:
            if last is not None:
                row_N = self.vec_ND @ self.vec_ND[last]
                for column_N in columns:
                    row_N = row_N - column_N[last] * column_N
                column_N = row_N / np.sqrt(max(float(left_N[last]), _TINY))
                columns.append(column_N)
                np.subtract(left_N, column_N**2, out=left_N)
            return np.asarray(np.log(np.maximum(left_N, _TINY)))

        return gains


@dataclass(frozen=True, eq=False)
class Calibrated:
    """Calibration (Steck, RecSys 2018): the list's classes in the proportions of the person's own.

    The gain is ``-KL(p || q)`` of the list with the candidate, ``q`` smoothed with 1 % of ``p`` as in the paper.

    Args:
        strength: 0 to 1, the paper's lambda.
        share_NC: Share of each class in each candidate, rows of sum 1 (or 0 for an item of none).
        person_C: Share of each class in what the person turned to, sum 1.

    Example:
        >>> gains = Calibrated(0.5, np.eye(2), np.array([0.5, 0.5])).begin()
        >>> gains(None).round(2).tolist(), gains(0).round(2).tolist()
        ([-1.96, -1.96], [-1.96, 0.0])
    """

    strength: float
    share_NC: Floats
    person_C: Floats

    @property
    def id(self) -> str:
        """``calibrated`` and the strength."""
        return f"calibrated{self.strength:g}"

    def begin(self) -> Gains:
        """Keep the sum of the classes placed so far. Classes the person does not have take no part."""
        used = np.flatnonzero(self.person_C > 0)
        share_NC, person_C = self.share_NC[:, used], self.person_C[used]
        total_C, placed = np.zeros(len(used)), [0]

        def gains(last: int | None) -> Floats:
            if last is not None:
                total_C[:] += share_NC[last]
                placed[0] += 1
            mixed_NC = (share_NC + total_C) * (0.99 / (placed[0] + 1)) + 0.01 * person_C
            return np.asarray(np.log(mixed_NC / person_C) @ person_C)

        return gains


class Values:
    """The values of all candidates, slot by slot, under some methods of reranking.

    Args:
        mean_N: What each is expected to bring, finite.
        stages: The methods; none: the means stay.
    """

    def __init__(self, mean_N: Floats, stages: Sequence[Rerank]) -> None:
        self._mean_N = mean_N
        self._gains = [(stage.strength, stage.begin()) for stage in stages if stage.strength > 0]
        low = float(mean_N.min()) if len(mean_N) else 0.0
        self._low, self._range = low, (float(mean_N.max()) - low if len(mean_N) else 0.0)

    @property
    def move(self) -> bool:
        """Whether anything placed changes the values of the others."""
        return bool(self._gains)

    def next(self, last: int | None) -> npt.NDArray[np.float64]:
        """Values for the next slot, (N,): in the units of the means, so that a rule's own scales keep their sense.

        Args:
            last: What was placed in the slot above; None for the first slot.
        """
        if not self._gains:
            return np.asarray(self._mean_N, np.float64)
        scale = self._range or 1.0
        value_N = (self._mean_N - self._low) / scale
        kept = 1.0
        for strength, _ in self._gains:
            kept *= 1 - strength
        value_N = kept * value_N
        for strength, gains in self._gains:
            value_N = value_N + strength * gains(last)
        return np.asarray(self._low + scale * value_N)
