"""What training asks of held-out people: one figure, and whether a gain of it is more than noise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from penchant.core import Estimate, Ints, Scorer, SeenRule
from penchant.core.errors import InputError
from penchant.data import Cases
from penchant.evaluation._estimate import bootstrap_means, cautious
from penchant.evaluation._metrics import check_cases, measured_blocks


@dataclass(frozen=True, eq=False)
class ValidationMetric:
    """The ``validate`` of a ``Run``: one figure of ``rank_metrics``, without lists or intervals.

    Training asks for the figure after every epoch, and for the interval of a gain before it takes up what could harm.
    """

    cases: Cases
    measure: str
    seen: SeenRule

    def __call__(self, scorer: Scorer) -> float:
        """The mean over the cases."""
        total, count = 0.0, 0
        for figure_B, _ in self._figures(scorer):
            total += float(figure_B.sum())
            count += len(figure_B)
        return total / max(count, 1)

    def gain(self, scorer: Scorer, than: Scorer, level: float) -> Estimate:
        """What the first reaches more than the second, paired by case, with a bootstrap interval over people."""
        parts = zip(self._figures(scorer), self._figures(than), strict=True)
        pairs = [(ours_B - theirs_B, index_B) for (ours_B, index_B), (theirs_B, _) in parts]
        gain_C, index_C = (np.concatenate(column) for column in zip(*pairs, strict=True))
        if not len(gain_C):
            return Estimate(value=0.0, low=-1.0, high=1.0, n=0, method="bootstrap", level=level)
        people_C = self.cases.user_C[index_C]
        return cautious(bootstrap_means(gain_C[:, None], people_C, level=level)[0])

    def _figures(self, scorer: Scorer) -> Iterator[tuple[npt.NDArray[np.float64], Ints]]:
        """The figure of each case that is asked, and which case it is, block by block."""
        ks = [int(self.measure.partition("@")[2] or 1)]
        for block in measured_blocks(scorer, self.cases, ks, self.seen == "exclude"):
            yield block.values[self.measure], block.index


def validation_metric(
    cases: Cases, *, measure: str = "NDCG@10", seen: SeenRule = "exclude"
) -> ValidationMetric:
    """Make the ``validate`` of a ``Run``.

    Args:
        cases: Held out; none of those that the leaderboard is measured on.
        measure: ``MRR``, or ``HR@k``, ``NDCG@k``, ``recall@k`` for any k.
        seen: As in ``rank_metrics``.

    Raises:
        InputError: No cases, or no such measure.
    """
    kind, _, k = measure.partition("@")
    if (kind, k) != ("MRR", "") and not (kind in {"HR", "NDCG", "recall"} and k.isdigit()):
        raise InputError("no such measure to validate by", value=measure, hint="use NDCG@10, HR@10 or MRR")
    check_cases(cases, [int(k or 1)], seen)
    return ValidationMetric(cases, measure, seen)
