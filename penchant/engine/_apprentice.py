"""A learner that goes through the decision log as if it had served: ``replay --policy LEARNER/RULE``.

Before each answer it knows the outcomes up to then and no later ones, and sees the person as the person was. What it
would have shown is compared with what was shown. Its estimate is one of a policy that watched: a learner that had
chosen by itself would have seen other outcomes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from penchant.core import Candidates, Floats, History, Slate
from penchant.engine._batch import bucket_histories
from penchant.engine._explore import Exploration, outcomes_of, standing_of
from penchant.engine._facts import gather_facts
from penchant.engine._people import no_history
from penchant.engine._serving import Ranker, person_vectors
from penchant.engine._sight import LearnerKind, sight_of

if TYPE_CHECKING:
    from penchant.engine._shop import Shop
    from penchant.policy import Learner

_MOST_EVENTS = 100_000  # of a person


class Apprentice:
    """Watches a shop's answers in order of time.

    Args:
        shop: Whose log.
        ranker: The promoted model, whose network the learner may see by.
        kind: The learner.
        slates: Answers with their candidates, in order of time.
    """

    def __init__(self, shop: Shop, ranker: Ranker, kind: LearnerKind, slates: list[Slate]) -> None:
        self._ranker, self._limit = ranker, shop.config.serve.max_history
        settings = msgspec.structs.replace(shop.config.explore, learner=kind)
        catalog = shop.store.catalog()
        vectors = ranker.model is not None
        facts = gather_facts(shop, ranker.items, catalog, vectors=vectors, as_of=slates[0].ts)
        see = person_vectors(ranker.model, ranker.items, shop)
        sight = sight_of(kind, facts, ranker.guide, ranker.model, see)
        self._exploration = Exploration(settings, ranker.items, facts, sight=sight)
        self._rows = outcomes_of(shop, [slate.recommendation_id for slate in slates])
        self._at = 0
        people = {slate.subject for slate in slates}
        self._history: dict[str, History] = {}
        for bucket in range(shop.store.num_buckets):
            for history in bucket_histories(shop, bucket, people, _MOST_EVENTS):
                self._history[history.subject] = history

    @property
    def kind(self) -> LearnerKind:
        """The learner that watches: the usual one where nothing is trained for the one asked for."""
        return self._exploration.kind

    @property
    def learner(self) -> Learner:
        """What it has learned by now."""
        return self._exploration.learner

    def sees(self, slate: Slate) -> Candidates:
        """Learn what came before an answer, and tell its candidates as the learner sees them."""
        exploration, told = self._exploration, slate.candidates
        assert told is not None
        start = self._at
        while self._at < len(self._rows) and self._rows[self._at][3] < slate.ts:
            self._at += 1
        exploration.outcomes(self._rows[start : self._at], slate.ts)
        seen = exploration.sight.person(self._before(slate))
        scores = told.score or told.mean
        standing_N = standing_of(np.array(scores), slate.model_id)
        among: dict[str, float] = dict(zip(told.item_ids, standing_N.tolist(), strict=True))
        exploration.answered(slate, {item: among[item] for item in slate.item_ids}, seen)
        item_N = self._ranker.items.numbers(told.item_ids)
        mean_N: Floats = np.where(item_N > 0, np.asarray(scores, float), -np.inf)
        feature_NF = exploration.sight.features(item_N, standing_N, seen)
        return Candidates(item_N, mean_N, np.zeros_like(mean_N), slate.model_id, slate.subject, feature_NF)

    def _before(self, slate: Slate) -> History:
        """The person's newest events at the time of an answer."""
        whole = self._history.get(slate.subject)
        if whole is None:
            return no_history(slate.subject)
        end = int(np.searchsorted(whole.ts, slate.ts))
        part = slice(max(0, end - self._limit), end)
        return replace(
            whole, ts=whole.ts[part], kind=whole.kind[part], item=whole.item[part], value=whole.value[part]
        )
