"""The promotion gate: a new model does not serve where the newest events say that it is worse than the old."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from penchant.core import Floats, Ints, Progress, Scorer, SeenRule, SequenceBatch, Snapshot, iso
from penchant.core.errors import ArtifactError
from penchant.data import Cases
from penchant.engine import _requests as rq
from penchant.engine._promotion import read_pointer
from penchant.engine._protocol import MEASURE
from penchant.engine._recount import counted_again
from penchant.evaluation import Evaluation, paired_difference, rank_metrics
from penchant.models import Sequence
from penchant.training import load_artifact

if TYPE_CHECKING:
    from penchant.engine._shop import Shop

LEARNED = "learned"  # the fact of an artifact: until when its network learned, whatever was counted since


def compare_with_serving(
    shop: Shop, candidate: Evaluation, train: Snapshot, cases: Cases, seen: SeenRule, progress: Progress
) -> rq.Gate | None:
    """Compare a candidate with the model that serves, on cases that neither has learned from.

    The serving model is given the counts of the same moment, as a recount would give it.

    Args:
        shop: Whose model serves.
        candidate: Measured on ``cases``.
        train: What the candidate learned from.
        cases: What came afterwards.
        seen: The rule of the measurement.
        progress: Called while the serving model is measured.

    Returns:
        The verdict; None when no model serves that could be worse.
    """
    pointer = read_pointer(shop.artifacts)
    if pointer is None or pointer.promoted is None:
        return None
    try:
        loaded = load_artifact(shop.artifacts, pointer.promoted)
    except ArtifactError:
        return None  # a damaged model is worth no defence
    learned = loaded.artifact.facts.get(LEARNED, loaded.artifact.as_of)
    if isinstance(loaded.model, Sequence) and learned > train.as_of:
        return rq.Gate(
            against=pointer.promoted,
            says=f"not compared with the model that served: it learned until {iso(learned)}, later than the split",
        )
    current, items = counted_again(loaded.model, loaded.artifact.kind, loaded.items, train, progress)
    renumbered = _Renumbered(current, np.concatenate([[0], items.numbers(train.items.ids)]))
    serving = rank_metrics(
        renumbered, cases, name="the serving model", seen=seen, groups=(), progress=progress
    )
    gap = paired_difference(candidate, serving)[MEASURE]
    refused = gap.high < 0
    if refused:
        verdict = "worse, so it does not serve; to let it serve all the same, promote it"
    else:
        verdict = "better" if gap.low > 0 else "no worse that could be told"
    return rq.Gate(
        against=pointer.promoted,
        difference=gap,
        refused=refused,
        says=f"against the model that served, on {gap.n:,} people since {iso(train.as_of)}: {MEASURE} "
        f"{gap.value:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}], {verdict}",
    )


@dataclass(frozen=True, eq=False)
class _Renumbered:
    """A scorer in the item numbers of another vocabulary; items that it does not know come last."""

    scorer: Scorer
    number_N: npt.NDArray[np.int64]  # (N + 1,) its own number of each item, 0 = unknown

    @property
    def config(self) -> Any:
        return self.scorer.config

    def scores(self, batch: SequenceBatch) -> Floats:
        score_BM = self.scorer.scores(replace(batch, item_BT=self.number_N[batch.item_BT]))
        return np.asarray(score_BM[:, self.number_N])

    def related(self, items_Q: Ints) -> Floats:
        return np.asarray(self.scorer.related(self.number_N[items_Q])[:, self.number_N])

    def affinity(self, history_T: Ints, items_K: Ints) -> Floats:
        return self.scorer.affinity(self.number_N[history_T], self.number_N[items_K])
