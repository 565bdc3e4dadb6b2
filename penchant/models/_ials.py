"""iALS: implicit-feedback matrix factors, people folded in from their history."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Self

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta

from penchant.core import Floats, Ints, Run, SequenceBatch, Snapshot
from penchant.core.errors import MissingExtra, ModelError
from penchant.models._counts import (
    age_weights,
    best_by_validation,
    history_weights,
    item_blocks,
    popularity_prior,
    positives,
    user_item_matrix,
)
from penchant.models._readings import DECAYS

USUAL_DECAY = 0.8
_WORST_CONDITION = 1e13  # of the equations, in doubles
CHUNK_CELLS = 8_000_000  # of scores or of gathered vectors at once: 32 MB of float32


class IALSConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Size and strength of the factors.

    ``confidence``: weight of an item turned to, against 1 for every other item. ``reg``: ridge penalty on
    the vectors. ``decay``: weight of a history event for each newer one when a person is folded in; None
    lets validation decide, 0.8 without. ``max_history``: most recent distinct items that count of one
    person. ``prior``: weight of popularity beside the evidence.
    """

    embedding_size: Annotated[int, Meta(ge=1, le=1024)] = 64
    # Within these bounds the equations can be solved in doubles, whoever asks.
    reg: Annotated[float, Meta(ge=1e-4, le=1e6)] = 1.0
    confidence: Annotated[float, Meta(ge=1, le=1e6)] = 10.0
    iterations: Annotated[int, Meta(ge=1, le=500)] = 15
    decay: Annotated[float, Meta(gt=0, le=1)] | None = None
    max_history: Annotated[int, Meta(ge=2)] = 300
    prior: Annotated[float, Meta(ge=0)] = 0.001


@dataclass(frozen=True, eq=False)
class IALS:
    """Score items by factors learned with alternating least squares.

    Hu, Koren and Volinsky 2008, "Collaborative filtering for implicit feedback datasets"; item vectors by
    the ``implicit`` library. People have no stored vectors: one is solved for from the history when asked,
    so guests and known people are treated alike and a new event counts at once. Legend: D vector width.
    """

    Config: ClassVar[type[msgspec.Struct]] = IALSConfig

    config: IALSConfig
    vectors: npt.NDArray[np.float32]  # (N + 1, D)
    popular: npt.NDArray[np.float32]  # (N + 1,)
    gram: npt.NDArray[np.float64]  # (D, D): Y'Y + reg I, what any person's equations start from

    def __post_init__(self) -> None:
        for array in (self.vectors, self.popular, self.gram):
            if array.flags.owndata:
                array.flags.writeable = False

    @classmethod
    def fit(cls, snapshot: Snapshot, config: IALSConfig, run: Run) -> Self:
        """Learn item vectors; raises ``MissingExtra`` without the ``implicit`` library.

        One thread and a fixed seed, hence the same bits each time.
        """
        found = positives(snapshot)
        who = user_item_matrix(found, snapshot.num_users, snapshot.num_items, config.max_history)
        vectors = _factors(who, config, run)
        vectors[np.bincount(found.item, minlength=len(vectors)) == 0] = 0  # nothing is known of these
        popular = popularity_prior(found, snapshot.num_items)
        decay = USUAL_DECAY if config.decay is None else config.decay
        model = cls._from_vectors(msgspec.structs.replace(config, decay=decay), vectors, popular)
        if np.linalg.cond(model.gram) > _WORST_CONDITION:  # people could not be solved for
            raise _broken_down(config)
        if config.decay is not None:
            return model
        return best_by_validation(model._with_decay, DECAYS, USUAL_DECAY, run)

    def _with_decay(self, decay: float) -> Self:
        return replace(self, config=msgspec.structs.replace(self.config, decay=decay))

    @classmethod
    def _from_vectors(cls, config: IALSConfig, vectors: Floats, popular: Floats) -> Self:
        wide = vectors.astype(np.float64)
        gram = wide.T @ wide + config.reg * np.eye(vectors.shape[1])
        return cls(config=config, vectors=vectors, popular=popular, gram=gram)

    def scores(self, batch: SequenceBatch) -> npt.NDArray[np.float32]:
        """Fold each row in and score every item: (B, N + 1) float32, column 0 is -inf."""
        weight_BT = history_weights(batch, self.config.decay or USUAL_DECAY)
        out = np.empty((len(weight_BT), len(self.vectors)), np.float32)
        size = len(self.gram)
        row_cost = max(len(self.vectors), size * size, weight_BT.shape[1] * size) / CHUNK_CELLS
        for start, end in item_blocks(np.full(len(out), row_cost), 1.0):
            person_BD = self._fold_in(batch.item_BT[start:end], weight_BT[start:end])
            np.matmul(person_BD.astype(np.float32), self.vectors.T, out=out[start:end])
        out += self.config.prior * self.popular
        out[:, 0] = -np.inf
        return out

    def _fold_in(self, item_BT: Ints, weight_BT: Floats) -> npt.NDArray[np.float64]:
        """Solve for the vectors of some people: (B, D); zeros for an empty history."""
        left_BDD, right_BDT = self._equations(item_BT, weight_BT)
        return np.linalg.solve(left_BDD, right_BDT.sum(axis=2, keepdims=True))[:, :, 0]

    def _equations(
        self, item_BT: Ints, weight_BT: Floats
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Build a person's least-squares equations: left sides (B, D, D), right sides by event (B, D, T).

        An event of weight w has confidence 1 + (confidence - 1) w: old events fade to the weight of items
        never turned to, and their wish to score 1 fades likewise.
        """
        vector_BTD = self.vectors[item_BT].astype(np.float64) * (weight_BT > 0)[:, :, None]
        extra_BT = (self.config.confidence - 1.0) * weight_BT
        left_BDD = self.gram + np.einsum("btd,bt,bte->bde", vector_BTD, extra_BT, vector_BTD, optimize=True)
        right_BDT = (vector_BTD * (self.config.confidence * weight_BT)[:, :, None]).transpose(0, 2, 1)
        return left_BDD, right_BDT

    def related(self, items_Q: Ints) -> npt.NDArray[np.float32]:
        """Cosine of item vectors: (Q, N + 1) float32, column 0 is -inf."""
        unit = self.vectors / np.maximum(np.linalg.norm(self.vectors, axis=1, keepdims=True), 1e-12)
        items_Q = np.asarray(items_Q, np.int64)
        out = (unit[items_Q] * (items_Q > 0)[:, None]) @ unit.T + self.config.prior * self.popular
        out[:, 0] = -np.inf
        return out.astype(np.float32)  # type: ignore[no-any-return]

    def affinity(self, history_T: Ints, items_K: Ints) -> npt.NDArray[np.float32]:
        """Say how much each history item (oldest first) speaks for each answer item: (T, K) float32.

        Summed over the history this is the score without the prior (section 5 of the paper): the weights
        of the other events enter through the person's equations. May be negative.
        """
        history_1T = np.asarray(history_T, np.int64)[None]
        left_1DD, right_1DT = self._equations(
            history_1T, age_weights(history_1T > 0, self.config.decay or USUAL_DECAY)
        )
        parts_DT = np.linalg.solve(left_1DD[0], right_1DT[0])
        return (parts_DT.T @ self.vectors[items_K].T).astype(np.float32)

    def arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """All that was learned: ``vectors``, ``popular``."""
        return {"vectors": self.vectors, "popular": self.popular}

    @classmethod
    def restore(cls, config: IALSConfig, arrays: Mapping[str, np.ndarray[Any, Any]]) -> Self:
        """Rebuild from ``arrays()``; does not need ``implicit``."""
        return cls._from_vectors(config, arrays["vectors"], arrays["popular"])


def _factors(who: Any, config: IALSConfig, run: Run) -> npt.NDArray[np.float32]:
    """Run the library's alternating least squares; returns item vectors (N + 1, D)."""
    try:
        from implicit.cpu.als import AlternatingLeastSquares
        from implicit.recommender_base import ModelFitError
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
    except ImportError as error:
        raise MissingExtra("als", "the iALS model") from error
    from scipy import sparse

    def report(iteration: int, *_: object) -> None:
        run.progress("ials", iteration + 1, config.iterations, {})

    with threadpool_limits(1, "blas"):  # the library warns of a second pool of threads under its own
        learner = AlternatingLeastSquares(
            factors=config.embedding_size,
            regularization=config.reg,
            alpha=config.confidence,
            iterations=config.iterations,
            num_threads=1,
            random_state=run.seed,
        )
        try:
            learner.fit(sparse.csr_matrix(who), show_progress=False, callback=report)
        except ModelFitError as error:
            raise _broken_down(config) from error
    vectors = np.array(learner.item_factors, np.float32)
    if not np.isfinite(vectors).all():
        raise _broken_down(config)
    return vectors


def _broken_down(config: IALSConfig) -> ModelError:
    return ModelError(
        "the iALS equations cannot be solved in floating-point numbers",
        value=f"reg {config.reg:g}, confidence {config.confidence:g}",
        hint="bring reg and confidence nearer to their defaults, 1 and 10, under [train.settings.ials]",
    )
