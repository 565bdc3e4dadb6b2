"""The promotion gate: a new model does not serve where the newest events say that it is worse than the old."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from penchant.core import (
    Artifact,
    Floats,
    Ints,
    Model,
    Progress,
    Scorer,
    SeenRule,
    SequenceBatch,
    Snapshot,
    iso,
)
from penchant.data import Cases
from penchant.engine import _training_requests as tr
from penchant.engine._promotion import read_promoted
from penchant.engine._protocol import MEASURE
from penchant.engine._recount import counted_again
from penchant.evaluation import Evaluation, paired_difference, rank_metrics
from penchant.models import Sequence
from penchant.training import Loaded, load_artifact

if TYPE_CHECKING:
    from penchant.engine._shop import Shop

LEARNED = "learned"  # the fact of an artifact: until when its network learned, whatever was counted since


def serving_model(shop: Shop) -> Loaded | None:
    """The model that serves; None when there is none that could be defended: a damaged one is not."""
    return read_promoted(shop.artifacts, load_artifact)


def learned_until(artifact: Artifact) -> int:
    """Microseconds: until when the network of an artifact learned."""
    found: int = artifact.facts.get(LEARNED, artifact.as_of)
    return found


def compare_with_serving(
    serving: Loaded,
    candidate: Evaluation,
    train: Snapshot,
    cases: Cases,
    seen: SeenRule,
    progress: Progress,
    counted: Model | None = None,
) -> tr.Gate:
    """Compare a candidate with the model that serves, on cases that neither has learned from.

    The serving model is given the counts of the same moment, as a recount would give it.

    Args:
        serving: The model that serves.
        candidate: Measured on ``cases``.
        train: What the candidate learned from.
        cases: What came afterwards.
        seen: The rule of the measurement.
        progress: Called while the serving model is measured.
        counted: A model made of the serving one whose counts are those of ``train``: they need not be counted twice.
    """
    learned = learned_until(serving.artifact)
    if isinstance(serving.model, Sequence) and learned > train.as_of:
        return tr.Gate(
            against=serving.artifact.id,
            says=f"not compared with the model that served: it learned until {iso(learned)}, later than the split",
        )
    same_items = serving.items.array.equals(train.items.array)
    current: Model
    if isinstance(serving.model, Sequence) and isinstance(counted, Sequence) and same_items:
        current, items = serving.model.with_counts_of(counted), serving.items
    else:
        current, items = counted_again(serving.model, serving.artifact.kind, serving.items, train, progress)
    renumbered = _Renumbered(current, items.renumbering(train.items))
    measured = rank_metrics(
        renumbered, cases, name="the serving model", seen=seen, groups=(), progress=progress
    )
    gap = paired_difference(candidate, measured)[MEASURE]
    refused = gap.high < 0
    if refused:
        verdict = "worse, so it does not serve; to let it serve all the same, promote it"
    else:
        verdict = "better" if gap.low > 0 else "no worse that could be told"
    return tr.Gate(
        against=serving.artifact.id,
        difference=gap,
        refused=refused,
        says=f"against the model that served, on {gap.n:,} people since {iso(train.as_of)}: {MEASURE} "
        f"{gap.signed}, {verdict}",
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
        shown_BS = None if batch.shown_BS is None else self.number_N[batch.shown_BS]
        own = replace(batch, item_BT=self.number_N[batch.item_BT], shown_BS=shown_BS)
        score_BM = self.scorer.scores(own)
        return np.asarray(score_BM[:, self.number_N])

    def related(self, items_Q: Ints) -> Floats:
        return np.asarray(self.scorer.related(self.number_N[items_Q])[:, self.number_N])

    def affinity(self, history_T: Ints, items_K: Ints) -> Floats:
        return self.scorer.affinity(self.number_N[history_T], self.number_N[items_K])
