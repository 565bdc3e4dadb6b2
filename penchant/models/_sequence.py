"""The sequence model as it serves: an ONNX encoder, item vectors, and what was counted. No torch.

Letters: B people, T events, R interests, D width, N items, Q asked items, K answer items, H history items.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, Self

import msgspec
import numpy as np
import numpy.typing as npt
from scipy import sparse

from penchant.core import ASKED_CODES, Bools, Floats, Ints, Run, SequenceBatch, Snapshot, Target, VectorIndex
from penchant.core.errors import ArtifactError, MissingExtra
from penchant.models._content import Content
from penchant.models._counts import arrays_of, beginnings
from penchant.models._habits import Frequency, FrequencyConfig, Habits, HabitsConfig
from penchant.models._index import ExactIndex, QuantizedIndex, best_of, distinct, scores_of
from penchant.models._item_knn import ItemKNN, ItemKNNConfig
from penchant.models._neighbours import NeighbourModel
from penchant.models._popularity import log_trend
from penchant.models._sequence_config import Blend, SequenceConfig, Size
from penchant.models._transitions import Transitions, TransitionsConfig

ENCODER, INDEX = "file:encoder.onnx", "file:items.faiss"
_ENCODER_CELLS = 8_000_000  # cells of the largest array within one run of the encoder: 32 MB
_COMPANION_WEIGHT = 4.0  # of the counts beside the cosine, for items alone
_INPUTS = ("vec_BTD", "kind_BT", "gap_BT", "value_BT", "length_B")
_COUNTED = ("transitions", "neighbours", "habits", "own")


@dataclass(frozen=True, eq=False)
class Sequence:
    """Score = best dot product of an item's vector with the R interests + what was counted.

    The counted part is ``counts_weight * log(1 + (transitions + neighbours_weight * neighbours +
    repeats_weight * habits + own_weight * own) / counts_floor) + trend_weight * trend``, where ``habits`` is the chance
    that the next visit brings an item of the own history back, ``own`` what the kinds of events in it say for the event
    asked for, and ``trend`` how much more people turn to the item of late than over all time, which the network cannot
    know. The weights are found on validation, but for the trend's for each question; a weight of 0 leaves the part out.
    Where the catalogue's content was encoded, ``content_weight * content neighbours`` joins the sum for items that
    somebody has met. An item that nobody has met is scored as the mean of the items nearest to it in content, with
    ``unmet_content_weight * content neighbours`` in its sum, and its chance is taken to be ``lending`` times that.
    """

    Config: ClassVar[type[msgspec.Struct]] = SequenceConfig

    config: SequenceConfig
    encoder: npt.NDArray[np.uint8]  # bytes of an ONNX graph
    item_ND: npt.NDArray[np.float32]  # (N + 1, D), row 0 unused
    prior_N: npt.NDArray[
        np.float32
    ]  # (N + 1,) log share of what people begin with, for somebody without a history
    trend_N: npt.NDArray[np.float32]  # (N + 1,) log of how much more people turn to it of late
    transitions: Transitions
    neighbours: ItemKNN
    habits: Habits
    own: Frequency  # the own history by kinds of events
    weights: Mapping[str, npt.NDArray[Any]]  # of the torch network but for the item vectors: to learn on from
    content: Content | None = None  # None: nothing of the items was encoded
    approximate: QuantizedIndex | None = field(default=None, kw_only=True)  # where that was found faster

    @cached_property
    def _session(self) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.enable_cpu_mem_arena = False  # as fast, and what a large batch took is given back
        try:
            session = onnxruntime.InferenceSession(self.encoder.tobytes(), options, ["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises its own, unrelated classes
            raise ArtifactError("the encoder is no usable ONNX graph", value=type(error).__name__) from None
        found = [entry.name for entry in session.get_inputs()]
        if set(found) != {*_INPUTS, *(["asked_B"] if self.config.asked else [])}:
            raise ArtifactError(
                "the encoder was made by another version of Penchant",
                value=", ".join(found),
                hint="train again",
            )
        return session

    def interests(self, batch: SequenceBatch) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """What each person wants next: mean (B, R, D) and spread (B, R)."""
        found = [self.encode(part) for part in self._parts(self.cut(batch))]
        if len(found) == 1:
            return found[0]
        return np.concatenate([mean for mean, _ in found]), np.concatenate([spread for _, spread in found])

    def encode(self, part: SequenceBatch) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Run the encoder on a few rows."""
        feed = {
            "vec_BTD": self.item_ND[part.item_BT],
            "kind_BT": part.kind_BT,
            "gap_BT": part.gap_BT,
            "value_BT": part.value_BT,
            "length_B": part.length_B.astype(np.int64),
        }
        if self.config.asked:
            feed["asked_B"] = np.zeros(len(part.item_BT), np.int64) if part.asked_B is None else part.asked_B
        mean_BRD, spread_BR = self._session.run(None, feed)
        return mean_BRD, spread_BR

    def _parts(self, cut: SequenceBatch) -> Iterator[SequenceBatch]:
        """Cut a batch so that the attention of one run stays small, whatever the lengths."""
        size = self._size
        rows, events = cut.item_BT.shape
        step = max(1, _ENCODER_CELLS // (events * max(size.heads * events, 4 * size.width)))
        if rows <= step:
            yield cut
            return
        for start in range(0, rows, step):
            yield cut.take(slice(start, start + step))

    def cut(self, batch: SequenceBatch) -> SequenceBatch:
        """The part of a batch that the encoder reads: the last ``length`` events of every row."""
        return _last_events(batch, self._size.length)

    @cached_property
    def _size(self) -> Size:
        return self.config.build()

    def scores(self, batch: SequenceBatch) -> npt.NDArray[np.float32]:
        """Score every item for every row: (B, N + 1) float32, column 0 is -inf."""
        mean_BRD, _ = self.interests(batch)
        out_BN = mean_BRD[:, 0] @ self.item_ND.T
        for r in range(1, mean_BRD.shape[1]):
            np.maximum(out_BN, mean_BRD[:, r] @ self.item_ND.T, out=out_BN)
        silent_B = batch.length_B == 0
        if silent_B.any():
            out_BN[silent_B] = self.prior_N
        for target, code in ASKED_CODES.items() if self.config.counts else ():
            rows = batch.rows_asked(code)
            if not len(rows) or not (blend := self.config.blend(target)).counts_weight:
                continue
            whole = len(rows) == len(out_BN)
            counted_BN = self.counted(batch if whole else batch.take(rows), blend)
            if len(out_BN) == 1:  # most of one person's row is zero and adds nothing
                item_J = np.flatnonzero(counted_BN[0] != 0)
                amount_J = counted_BN[0, item_J] * np.float32(1.0 / blend.counts_floor)
                out_BN[0, item_J] += np.log1p(amount_J) * np.float32(blend.counts_weight)
                continue
            counted_BN *= 1.0 / blend.counts_floor
            np.log1p(counted_BN, out=counted_BN)
            counted_BN *= blend.counts_weight
            out_BN[slice(None) if whole else rows] += counted_BN
        if self.bias_N is not None:
            out_BN += self.bias_N
        out_BN[:, 0] = -np.inf
        return out_BN

    @cached_property
    def bias_N(self) -> npt.NDArray[np.float32] | None:
        """What is added to the score of every item whoever asks, (N + 1,): the trend where it helps, ``lending``."""
        trend = (self.config.trend_weight or 0.0) if self.config.counts else 0.0
        if not trend and (self.content is None or not self._discount):
            return None
        bias_N = np.float32(trend) * self.trend_N
        bias_N[self.unmet_J] += self._discount
        return bias_N

    @cached_property
    def unmet_J(self) -> npt.NDArray[np.int64]:
        """Items that nobody has met and whose content speaks for them."""
        if self.content is None or not self.config.lending:
            return np.empty(0, np.int64)
        return self.content.borrower_J

    @cached_property
    def _discount(self) -> np.float32:
        """What ``lending`` times the chance is in scores, whose unit is the weight of the counts."""
        unit = max(1.0, (self.config.counts_weight or 0.0) if self.config.counts else 0.0)
        return np.float32(unit * np.log(self.config.lending or 1.0))

    def best(
        self, batch: SequenceBatch, allowed_N: Bools, limit: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """The ``limit`` best allowed items of one person, in item order, and their scores: (K,), (K,).

        The same as the best of ``scores``, as far as the index finds them, which knows the trend. What was counted
        only ever adds to that, so that the best are among its best and the items that were counted at all: the blend
        is made of those alone.
        """
        if not batch.length_B[0]:
            return self._best_for_nobody(allowed_N, limit)
        mean_RD = self.interests(batch)[0][0]
        item_K, score_K = self.index.search(mean_RD, limit, allowed_N)
        blend = self.config.blend(_asked(batch))
        if not self.config.counts or not blend.counts_weight:
            return item_K, score_K
        counted_J, amount_J = self._counted_items(batch, blend)
        shown_J = allowed_N[counted_J]
        counted_J, amount_J = counted_J[shown_J], amount_J[shown_J]
        item_K = distinct(item_K, counted_J)
        score_K = scores_of(
            self.item_ND[item_K], mean_RD, None if self.bias_N is None else self.bias_N[item_K]
        )
        amount_J *= 1.0 / blend.counts_floor
        score_K[np.searchsorted(item_K, counted_J)] += blend.counts_weight * np.log1p(amount_J)
        return best_of(item_K, score_K, limit)

    @cached_property
    def index(self) -> VectorIndex:
        """What finds items by their vectors."""
        return self.approximate or ExactIndex(self.item_ND, self.bias_N)

    @cached_property
    def _newcomers_N(self) -> npt.NDArray[np.float32]:
        """Scores of the items for somebody without a history."""
        return self.prior_N if self.bias_N is None else self.prior_N + self.bias_N

    @cached_property
    def _by_prior_N(self) -> npt.NDArray[np.int64]:
        return np.argsort(-self._newcomers_N[1:], kind="stable") + 1

    def _best_for_nobody(
        self, allowed_N: Bools, limit: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Without a history what is popular is best: the first allowed ones of a list made once."""
        read = 4 * limit
        while True:
            item_K = self._by_prior_N[:read]
            item_K = item_K[allowed_N[item_K]][:limit]
            if len(item_K) == limit or read >= len(self._by_prior_N):
                item_K = np.sort(item_K)
                return item_K, self._newcomers_N[item_K]
            read *= 8

    def _weighed(self, blend: Blend) -> list[tuple[NeighbourModel | Habits, float]]:
        """The counted models that weigh anything and how much, transitions first, whose weight is the unit."""
        parts: list[tuple[NeighbourModel | Habits, float | None]] = [
            (self.neighbours, blend.neighbours_weight),
            (self.habits, blend.repeats_weight),
            (self.own, blend.own_weight),
        ]
        if self.content is not None:
            parts.append((self.content.neighbours, self.config.content_weight))
        return [(self.transitions, 1.0), *((model, weight) for model, weight in parts if weight)]

    def _counted_items(
        self, batch: SequenceBatch, blend: Blend
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """``counted`` of one person without its zeros: items in order, and the same figures for each."""
        item_K, amount_K = _added(
            [(*model.sparse_evidence(batch), weight) for model, weight in self._weighed(blend)]
        )
        found = item_K, np.maximum(amount_K, np.float32(0.0))  # what was sent back may speak against an item
        borrower_J = self.unmet_J
        if self.content is None or not len(borrower_J):
            return found
        own_N = np.zeros(len(self.item_ND), np.float32)
        own_N[found[0]] = found[1]
        lent_N = self.content.lent(own_N[:, None])[:, 0]
        item_J = np.flatnonzero(lent_N)
        near = self.content.unmet.sparse_evidence(batch)
        return _added([(item_J, lent_N[item_J], 1.0), (*near, self.config.unmet_content_weight or 0.0)])

    def counted(self, batch: SequenceBatch, blend: Blend) -> npt.NDArray[np.float32]:
        """What the counts say, before the logarithm: (B, N + 1), at least 0; column 0 is 0."""
        (first, _), *others = self._weighed(blend)
        found_BN = self.rows(first, batch)
        for model, weight in others:
            found_BN += weight * self.rows(model, batch)
        np.maximum(found_BN, 0.0, out=found_BN)  # what was sent back may speak against an item
        borrower_J = self.unmet_J
        if self.content is not None and len(borrower_J):
            found_BN[:, borrower_J] = self.content.lend(found_BN.T).T
            if self.config.unmet_content_weight:
                found_BN += self.config.unmet_content_weight * self.rows(self.content.unmet, batch)
        found_BN[:, 0] = 0.0
        return found_BN

    def rows(self, model: NeighbourModel | Habits, batch: SequenceBatch) -> npt.NDArray[np.float32]:
        """What one counted model says of a batch: (B, N + 1), column 0 is 0."""
        return model.evidence(batch)

    @cached_property
    def _unit_ND(self) -> npt.NDArray[np.float32]:
        norm = np.linalg.norm(self.item_ND, axis=1, keepdims=True)
        unit_ND: npt.NDArray[np.float32] = (self.item_ND / np.maximum(norm, 1e-12)).astype(np.float32)
        return unit_ND

    def related(self, items_Q: Ints) -> npt.NDArray[np.float32]:
        """Companions: cosine of the vectors, lifted by what was counted; (Q, N + 1), column 0 is -inf."""
        items_Q = np.asarray(items_Q, np.int64)
        out_QN = self._unit_ND[items_Q] @ self._unit_ND.T
        for q, item in enumerate(items_Q):
            columns, values = _row(self.neighbours, int(item))
            out_QN[q, columns] += _COMPANION_WEIGHT * values
        out_QN[:, 0] = -np.inf
        return out_QN

    def affinity(self, history_T: Ints, items_K: Ints) -> npt.NDArray[np.float32]:
        """How much each history item speaks for each answer: counted pairs, then closeness of the vectors.

        An account of the counted part and a likeness for the neural one, which has no exact account by item.
        """
        history_T, items_K = np.asarray(history_T, np.int64), np.asarray(items_K, np.int64)
        out_TK = np.asarray(self.transitions.affinity(history_T, items_K))
        if self.config.neighbours_weight:
            out_TK = out_TK + self.config.neighbours_weight * self.neighbours.affinity(history_T, items_K)
        close_TK = np.maximum(self._unit_ND[history_T] @ self._unit_ND[items_K].T - 0.3, 0.0)
        out_TK = out_TK + 0.05 * close_TK
        if self.config.repeats_weight:
            out_TK = out_TK + self.config.repeats_weight * self.habits.affinity(history_T, items_K)
        if self.config.own_weight:
            out_TK = out_TK + self.config.own_weight * self.own.affinity(history_T, items_K)
        if self.content is not None:
            for model, weight in (
                (self.content.neighbours, self.config.content_weight),
                (self.content.unmet, self.config.unmet_content_weight),
            ):
                if weight:
                    out_TK = out_TK + weight * model.affinity(history_T, items_K)
        out_TK[history_T == 0] = 0.0
        return np.asarray(out_TK, np.float32)

    def recounted(self, snapshot: Snapshot) -> Self:
        """The same network with transitions, neighbours, habits and popularity counted anew.

        Args:
            snapshot: Everything known by now, its items numbered as this model numbers them.
        """
        transitions = Transitions.fit(snapshot, self.transitions.config, Run())
        content = None if self.content is None else self.content.recounted(transitions.popular > 0)
        model = replace(self, content=content)
        return model._counting(
            prior_N=model.lent_prior(beginnings(snapshot)),
            trend_N=model.lent(log_trend(snapshot, self.config.trend_days)),
            transitions=transitions,
            neighbours=ItemKNN.fit(snapshot, self.neighbours.config, Run()),
            habits=Habits.fit(snapshot, self.habits.config, Run()),
            own=Frequency.fit(snapshot, self.own.config, Run()),
        )

    def with_counts_of(self, other: Sequence) -> Self:
        """The same network with what another model of the same items has counted."""
        counted = {name: getattr(other, name) for name in ("prior_N", "trend_N", "content", *_COUNTED)}
        return self._counting(**counted)

    def _counting(self, **counted: Any) -> Self:
        """The same network with other counts; its index learns the trend that is among them."""
        model = replace(self, **counted)
        if model.approximate is None or model.bias_N is None:
            return model
        return replace(model, approximate=model.approximate.biased(model.bias_N))

    @property
    def met_N(self) -> Bools:
        """Items that somebody had turned to when the model counted, (N + 1,)."""
        return self.transitions.popular > 0

    def lent(self, own_NX: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Something that items have, (N + 1,) or (N + 1, X), unmet ones what they borrow in the place of their own."""
        return own_NX if self.content is None or not self.config.lending else self.content.lent(own_NX)

    def lent_prior(self, prior_N: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Log shares of what people begin with, (N + 1,), with those of unmet items borrowed."""
        borrower_J = self.unmet_J
        if not len(borrower_J):
            return prior_N
        lent_N = np.log(self.lent(np.exp(prior_N)))
        # Shares are chances: ``lending`` times as much, whatever the unit of the scores of a history.
        lent_N[borrower_J] += np.float32(np.log(self.config.lending or 1.0)) - self._discount
        return lent_N

    def extended(self, content_NC: Floats) -> Self:
        """The same model with items added at the end that it has never met: their content speaks for them.

        Args:
            content_NC: (N + J + 1, C) as ``penchant.data.joined_content`` gives it: known items, then the new ones.

        Returns:
            A model of N + J items; scores of the others are what they were.
        """
        assert self.content is not None, "a model that was fitted without content cannot be extended by it"
        known, width = len(self.item_ND), len(content_NC)
        more = width - known
        met_N = np.r_[self.met_N, np.zeros(more, np.bool_)]
        content = self.content.with_unmet(content_NC, np.arange(known, width), met_N)
        wide = replace(
            self,
            item_ND=np.r_[self.item_ND, np.zeros((more, self.item_ND.shape[1]), np.float32)],
            trend_N=np.r_[self.trend_N, np.zeros(more, np.float32)],
            prior_N=np.r_[self.prior_N, np.full(more, self.prior_N[1:].min(initial=0.0))].astype(np.float32),
            transitions=self.transitions.widened(width - 1),
            neighbours=self.neighbours.widened(width - 1),
            habits=self.habits.widened(width - 1),
            own=self.own.widened(width - 1),
            content=content,
        )
        # What was borrowed before stays to the bit; only the new items borrow now.
        wide = replace(
            wide,
            item_ND=np.r_[self.item_ND, wide.lent(wide.item_ND)[known:]],
            prior_N=np.r_[self.prior_N, wide.lent_prior(wide.prior_N)[known:]],
            trend_N=np.r_[self.trend_N, wide.lent(wide.trend_N)[known:]],
            approximate=None,
        )
        if self.approximate is None:
            return wide
        bias_A = None if wide.bias_N is None else wide.bias_N[known:]
        return replace(wide, approximate=self.approximate.extended(wide.item_ND[known:], bias_A))

    def arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """All that was learned; the encoder travels as a file of its own."""
        counted = {
            f"{name}.{key}": array for name in _COUNTED for key, array in getattr(self, name).arrays().items()
        }
        weights = {f"network.{name}": array for name, array in self.weights.items()}
        content = {} if self.content is None else self.content.arrays()
        said = {f"content.{name}": array for name, array in content.items()}
        learned = {ENCODER: self.encoder, "item_ND": self.item_ND}
        learned |= {"prior_N": self.prior_N, "trend_N": self.trend_N}
        if self.approximate is not None:
            learned |= {INDEX: self.approximate.stored(), "index_depth": np.array([self.approximate.depth])}
        return {**learned, **counted, **said, **weights}

    @classmethod
    def restore(cls, config: SequenceConfig, arrays: Mapping[str, np.ndarray[Any, Any]]) -> Self:
        """Rebuild from ``arrays()``.

        Raises:
            ArtifactError: The arrays do not fit each other or the configuration.
        """
        item_ND = arrays["item_ND"]
        transitions = Transitions.restore(
            TransitionsConfig(readings=config.transitions_readings), arrays_of(arrays, "transitions.")
        )
        neighbours = ItemKNN.restore(
            ItemKNNConfig(readings=config.neighbours_readings), arrays_of(arrays, "neighbours.")
        )
        habits = Habits.restore(HabitsConfig(), arrays_of(arrays, "habits."))
        own = Frequency.restore(
            FrequencyConfig(readings=config.own_readings),
            arrays_of(arrays, "own.") or _own_history(len(item_ND)),  # earlier models have none
        )
        counted = (transitions, neighbours, habits, own)
        said = arrays_of(arrays, "content.")
        content = Content.restore(said) if said else None
        trend_N = arrays.get("trend_N", np.zeros_like(arrays["prior_N"]))  # earlier models have none
        learned = {len(item_ND), len(arrays["prior_N"]), len(trend_N)}
        sizes = learned | {model.num_items + 1 for model in counted}
        if content is not None:
            sizes.add(content.neighbours.num_items + 1)
        if item_ND.ndim != 2 or item_ND.shape[1] != config.build().width or len(sizes) != 1:
            raise ArtifactError("the model's arrays do not fit its settings", value=str(item_ND.shape))
        weights, prior_N = arrays_of(arrays, "network."), arrays["prior_N"]
        model = cls(config, arrays[ENCODER], item_ND, prior_N, trend_N, *counted, weights, content)
        if INDEX in arrays:
            with suppress(MissingExtra):  # exact search gives the same answers, slower
                depth = int(arrays["index_depth"][0])
                codes = QuantizedIndex.load(item_ND, arrays[INDEX], depth, model.bias_N)
                return replace(model, approximate=codes)
        return model


def _own_history(width: int) -> dict[str, np.ndarray[Any, Any]]:
    """What ``Frequency`` has learned when it has learned nothing: each item speaks for itself."""
    return Frequency.from_matrix(
        FrequencyConfig(decay=1.0), sparse.eye_array(width, format="csr", dtype=np.float32), np.zeros(width)
    ).arrays()


def _asked(batch: SequenceBatch) -> Target:
    """What the first row of a batch is asked for."""
    code = 0 if batch.asked_B is None else int(batch.asked_B[0])
    return next(target for target, known in ASKED_CODES.items() if known == code)


def _added(
    parts: list[tuple[Ints, npt.NDArray[np.float32], float]],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """The weighted sum of figures of some items, each part in order of items without repeats; item 0 is left out."""
    item_K = distinct(*(item_P for item_P, _, _ in parts))
    item_K = item_K[item_K > 0]
    amount_K = np.zeros(len(item_K), np.float32)
    for item_P, amount_P, weight in parts:
        real_P = item_P > 0
        amount_K[np.searchsorted(item_K, item_P[real_P])] += np.float32(weight) * amount_P[real_P]
    return item_K, amount_K


def _row(model: NeighbourModel, item: int) -> tuple[Ints, npt.NDArray[np.float32]]:
    start, end = model.indptr[item], model.indptr[item + 1]
    return model.indices[start:end], model.data[start:end]


def _last_events(batch: SequenceBatch, length: int) -> SequenceBatch:
    """The last ``length`` events of every row; the first gap of what is left becomes 0, as in a batch made so."""
    width = batch.item_BT.shape[1]
    if width <= length:
        return batch
    if batch.mask_BT[:, -1].all():  # rows of one length, such as a single one: their ends are columns
        gap_BT = batch.gap_BT[:, -length:].copy()
        gap_BT[:, 0] = 0.0
        names = ("item_BT", "kind_BT", "value_BT", "mask_BT")
        ends = {name: np.ascontiguousarray(getattr(batch, name)[:, -length:]) for name in names}
        return SequenceBatch(gap_BT=gap_BT, user_BF=batch.user_BF, asked_B=batch.asked_B, **ends)
    start_B = np.maximum(batch.length_B - length, 0)
    column_BT = np.minimum(start_B[:, None] + np.arange(length), width - 1)
    mask_BT = start_B[:, None] + np.arange(length) < batch.length_B[:, None]

    def take(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return np.take_along_axis(array, column_BT, axis=1) * mask_BT

    gap_BT = take(batch.gap_BT).astype(np.float32)
    gap_BT[:, 0] = 0.0
    return SequenceBatch(
        item_BT=take(batch.item_BT),
        kind_BT=take(batch.kind_BT),
        gap_BT=gap_BT,
        value_BT=take(batch.value_BT).astype(np.float32),
        mask_BT=mask_BT,
        user_BF=batch.user_BF,
        asked_B=batch.asked_B,
    )
