"""What a learner sees of a person and of items, and the learner that the shop asks for.

Letters: N items, F shared features, D width of vectors, R interests, C clusters of people.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import numpy.typing as npt

from penchant.core import Floats, History, Ints
from penchant.engine._facts import Facts
from penchant.policy import Bootstrap, Clusters, Hybrid, Learner, Spread

if TYPE_CHECKING:
    from penchant.engine._guide import Guide
    from penchant.models import Sequence

LearnerKind = Literal["hybrid", "linear", "neural_linear", "bootstrap", "diag_linucb"]
Seen = npt.NDArray[np.float32]  # what was seen of a person at one moment; it goes into the decision log
_SPREAD = 0.1  # standard deviation of the weights of the network's features
_MOST = 8  # clusters of a person


class Sight(Protocol):
    """Features of items for a person, as one learner needs them."""

    space: str
    """Names what the numbers seen of a person mean: those of another space say nothing. Empty: nothing is seen."""

    def person(self, history: History) -> Seen | None:
        """What is seen of a person now; None: nothing."""
        ...

    def features(self, item_N: Ints, standing_N: Floats, seen: Seen | None) -> Floats:
        """The features of some items, whose scores stood so."""
        ...


class OfItems:
    """The shared features of items and how the model's score stood: nothing of the person beyond that."""

    space = ""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts

    def person(self, history: History) -> Seen | None:
        """Nothing."""
        return None

    def features(self, item_N: Ints, standing_N: Floats, seen: Seen | None) -> Floats:
        """Shared features, the last one filled in."""
        feature_NF = self.facts.feature_NF.take(item_N, axis=0)  # a copy
        feature_NF[:, -1] = standing_N
        return feature_NF


class OfNetwork(OfItems):
    """Beside that the last layer of the network: the person's vector times the item's, one number a dimension.

    The network's own score is the sum of these products; a learner over them finds which dimensions tell of rewards.
    Of several interests that counts which fits the item best. The person's vector is taken by its direction and items'
    by their usual length, so that the products of an item have about length one.
    """

    def __init__(
        self, facts: Facts, model: Sequence, interests: Callable[[History], npt.NDArray[np.float32]]
    ) -> None:
        super().__init__(facts)
        self._interests = interests
        length = float(np.sqrt(np.mean(np.square(model.item_ND[1:]).sum(1)))) or 1.0
        self._item_ND = model.item_ND
        self.width = model.item_ND.shape[1]
        self._scale = np.sqrt(self.width) / length
        self.space = hashlib.blake2b(model.encoder.tobytes(), digest_size=8).hexdigest()

    def person(self, history: History) -> Seen | None:
        """The person's interests, (R * D,), each of length one; None without a history."""
        if not len(history.ts):
            return None
        mean_RD = self._interests(history)
        return np.asarray(mean_RD / np.maximum(np.linalg.norm(mean_RD, axis=1, keepdims=True), 1e-9)).ravel()

    def features(self, item_N: Ints, standing_N: Floats, seen: Seen | None) -> Floats:
        """Shared features, then the products; those of nobody are 0."""
        shared_NF = super().features(item_N, standing_N, None)
        if seen is None:
            return np.concatenate([shared_NF, np.zeros((len(item_N), self.width))], 1)
        vec_ND, mean_RD = self._item_ND[item_N], seen.reshape(-1, self.width)
        fits_N = (vec_ND @ mean_RD.T).argmax(1) if len(mean_RD) > 1 else np.zeros(len(item_N), np.int64)
        return np.concatenate([shared_NF, vec_ND * mean_RD[fits_N] * self._scale], 1)


class OfClusters(OfItems):
    """Beside that the clusters of people that somebody belongs to: those who turn to the same interests."""

    def __init__(self, facts: Facts, guide: Guide) -> None:
        super().__init__(facts)
        assert guide.map is not None
        self._guide = guide
        self.width = len(guide.map.names)
        self.space = hashlib.blake2b("\0".join(guide.map.names).encode(), digest_size=8).hexdigest()

    def person(self, history: History) -> Seen | None:
        """The share of each interest in what the person turned to, the largest eight; None where there is none."""
        number_T = self._guide.items.numbers([item for item in history.item if item is not None])
        share_C = self._guide.shares(number_T[number_T > 0]).sum(0)
        if self.width > _MOST:
            share_C[np.argsort(-share_C, kind="stable")[_MOST:]] = 0.0
        total = float(share_C.sum())
        return (share_C / total).astype(np.float32) if total > 0 else None

    def features(self, item_N: Ints, standing_N: Floats, seen: Seen | None) -> Floats:
        """Shared features, then the person's clusters in every row."""
        shared_NF = super().features(item_N, standing_N, None)
        cluster_C = np.zeros(self.width) if seen is None else seen
        return np.concatenate([shared_NF, np.broadcast_to(cluster_C, (len(item_N), self.width))], 1)


def sight_of(
    kind: LearnerKind,
    facts: Facts,
    guide: Guide,
    model: object,
    interests: Callable[[History], npt.NDArray[np.float32]],
) -> tuple[LearnerKind, Sight]:
    """What the learner asked for can see; the usual learner where the shop has no network or map that it needs.

    Args:
        kind: The learner.
        facts: What is known of items.
        guide: Who knows people's interests.
        model: The promoted one.
        interests: A person's vectors by it, (R, D).
    """
    from penchant.models import Sequence

    if kind in ("neural_linear", "bootstrap") and isinstance(model, Sequence):
        return kind, OfNetwork(facts, model, interests)
    if kind == "diag_linucb" and guide.map is not None and guide.map.names:
        return kind, OfClusters(facts, guide)
    return ("hybrid" if kind in ("neural_linear", "diag_linucb") else kind), OfItems(facts)


def learner_of(kind: LearnerKind, facts: Facts, sight: Sight) -> Learner:
    """A learner that knows nothing yet but the facts of items."""
    prior_F, spread_F = facts.prior_F, facts.spread_F
    if isinstance(sight, OfNetwork):
        prior_F = np.r_[prior_F, np.zeros(sight.width)]
        spread_F = np.r_[spread_F, np.full(sight.width, _SPREAD)]
    if kind == "bootstrap":
        return Bootstrap(prior_F, spread_F, facts.fresh_N)
    alone = Spread(item=0.0, fresh=0.0, taste=0.0) if kind == "linear" else None
    shared = kind in ("linear", "neural_linear")
    made = Hybrid(prior_F, spread_F, facts.label_NL, facts.fresh_N, alone, shared=shared)
    return Clusters(made, facts.fresh_N, sight.width) if isinstance(sight, OfClusters) else made
