"""What became of the items of one answer, stage by stage: for ``explain``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from penchant.core import Bools, Floats, Slate, Stage

if TYPE_CHECKING:
    from penchant.engine._explore import Drawn
    from penchant.engine._offer import Offer
    from penchant.engine._rules import Verdict
    from penchant.engine._serving import Ranker


def told(
    ranker: Ranker,
    events: int,
    offered_N: Bools,
    verdict: Verdict | None,
    offer: Offer,
    drawn: Drawn,
    seen_rule: str,
    slate: Slate,
) -> list[Stage]:
    """Each stage: what it did, how many items it left, and what it said of the items shown.

    Args:
        events: Of the person that the model read.
        offered_N: What allow, deny and the stock left, before filters and rules.
        seen_rule: What was done with items that the person had.
    """
    stages = [
        Stage(
            name="score",
            says=f"{ranker.kind} {ranker.model_id[:12]} read {events} events of the person",
            left=len(ranker.items),
            values={item.item_id: item.score for item in slate.items},
        ),
        Stage(name="offered", says="in stock, allowed and not denied", left=int(offered_N.sum())),
    ]
    left_N = offered_N if verdict is None else offered_N & verdict.kept_N
    for text, count in verdict.spoken if verdict is not None else ():
        stages.append(
            Stage(name="rule", says=f"{text}: concerns {count} of the catalogue", left=int(left_N.sum()))
        )
    numbers = offer.candidates.item_N
    stages.append(
        Stage(
            name="candidates",
            says=f"the best by score; seen: {seen_rule}",
            left=len(numbers) + len(offer.pins),
        )
    )
    factor = np.ones(len(numbers)) if offer.worth is None else offer.worth.factor_N
    chosen = drawn.choice.index_K
    stages.append(
        Stage(
            name="expected",
            says="what the policy expects of each" + (", after boosts" if offer.worth is not None else ""),
            left=len(numbers),
            values=_by_id(ranker, numbers[chosen], drawn.mean_N[chosen]),
        )
    )
    if offer.worth is not None:
        stages.append(
            Stage(
                name="boosted",
                says="what each was multiplied by",
                left=len(numbers),
                values=_by_id(ranker, numbers[chosen], factor[chosen]),
            )
        )
    if offer.plans:
        says = f"{len(offer.plans)} interests new to the person are planned"
        suggested = sum(plan.suggested is not None for plan in offer.plans)
        if suggested:
            plans = ranker.guide.plans
            says += f", {suggested} of them named by {plans.model}, whose plans count {plans.weight:g}"
        stages.append(Stage(name="interests", says=says, left=len(numbers)))
    rerank = ", ".join(stage.id for stage in offer.steer.rerank)
    says = f"by {rerank}, slot by slot" if rerank else "off: mmr, dpp and calibration are 0"
    stages.append(Stage(name="rerank", says=says, left=len(numbers)))
    stages.append(
        Stage(
            name="draw",
            says=f"{drawn.policy_id}; exploring {drawn.reason}; {len(offer.pins)} of the slots were given away",
            left=len(slate.items),
            values={item.item_id: item.odds for item in slate.items},
        )
    )
    return stages


def _by_id(
    ranker: Ranker, numbers: np.ndarray[tuple[int], np.dtype[np.int64]], values: Floats
) -> dict[str, float]:
    return {ranker.items.id(int(n)): float(v) for n, v in zip(numbers, values, strict=True)}
