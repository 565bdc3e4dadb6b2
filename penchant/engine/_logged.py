"""What the decision log says of lists that are sorted, not drawn."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from penchant.core import Floats, Ints, PackedCandidates, Slate, SlateItem
from penchant.engine._answer_ids import answer_id
from penchant.engine._explore import hash_of

if TYPE_CHECKING:
    from penchant.engine._serving import Ranker, Serving

NOT_LOGGED = "the disk refuses the decision log: this answer is not in it, and nothing is learned from it"


def log_list(
    serving: Serving,
    ranker: Ranker,
    policy_id: str,
    settings: Sequence[str],
    item_N: Ints,
    score_N: Floats,
    order_K: Ints,
    *,
    subject: str,
    surface: str,
) -> tuple[str | None, bool]:
    """Enter a sorted list into the decision log, with odds of 1.

    Args:
        serving: What answers.
        ranker: Its state for this answer.
        policy_id: How the list was made.
        settings: What else the list depends on; part of the hash of the policy.
        item_N: Item numbers of the candidates, with ``score_N`` to sort them by.
        order_K: Places in ``item_N`` that are shown, first slot first.
        subject: Who asked.
        surface: Where the list is shown.

    Returns:
        The id that events name to say they came from it, and whether the log took it. No id in a shop that is open to
        read alone, which has no log.
    """
    store = serving.shop.store
    if store.readonly:
        return None, True
    item_ids = ranker.ids_N.take(item_N).tolist()
    slate = Slate(
        recommendation_id=answer_id(teaches=False),
        ts=serving.shop.clock(),
        subject=subject,
        items=[
            SlateItem(
                item_id=item_ids[at],
                score=float(score_N[at]),
                odds=1.0,
                explored=False,
                title=ranker.shelf.titles[int(item_N[at])],
            )
            for at in order_K.tolist()
        ],
        policy_id=policy_id,
        model_id=ranker.model_id,
        seed=0,
        surface=surface,
        degraded=ranker.degraded,
        policy_hash=hash_of([policy_id, *settings]),
        explore_reason="off: the list is sorted",
        num_candidates=len(item_ids),
        candidates_hash=hash_of(item_ids),
    )
    return slate.recommendation_id, store.log_decision(slate, partial(_packed, item_ids, score_N))


def _packed(item_ids: list[str], score_N: Floats) -> PackedCandidates:
    score = score_N.astype("<f4").tobytes()
    return PackedCandidates(
        item_ids=item_ids, mean=score, std=np.zeros(len(item_ids), "<f4").tobytes(), score=score
    )
