"""Scoring by a sparse item-to-item matrix: what item-kNN and counted transitions have in common.

Legend: B users in a batch, T history length, S items shown, W events read, N items, Q asked items, K answer items,
E stored pairs. Item numbers run from 1 to N; rows and columns of a matrix are item numbers, 0 included.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, Self

import msgspec
import numpy as np
import numpy.typing as npt
from scipy import sparse

from penchant.core import ASKED_CODES, Floats, Ints, Run, Scorer, SequenceBatch, Snapshot, Target
from penchant.models._counts import (
    CHUNK_CELLS,
    CHUNK_PAIRS,
    Positives,
    age_weights,
    best_by_validation,
    history_weights,
    item_blocks,
    kind_share,
    named_shares,
    read_weights,
    shares_named,
)
from penchant.models._readings import DECAYS, Reading, Readings, kinds_in, search_reading


@dataclass(frozen=True, eq=False)
class NeighbourModel:
    """A scorer whose score is linear in the history: ``prior + sum over t of decay^age_t * M[item_t]``.

    ``M`` is a sparse (N + 1, N + 1) matrix in CSR form (``indptr``, ``indices``, ``data``), open to models
    that want to carry it as an item-to-item bias. ``popular`` (N + 1,) in [0, 1], times ``config.prior``,
    decides where the history is silent, so that somebody new gets the popular items. Asked for one kind of
    event, the history is read as ``config.readings`` says for it.
    """

    Config: ClassVar[type[msgspec.Struct]]
    usual_decay: ClassVar[float]  # where nobody asked for one and there is no validation

    config: Any  # has `decay` and `prior`, and `readings` where it can tell kinds apart
    indptr: npt.NDArray[np.int64]  # (N + 2,)
    indices: npt.NDArray[np.int32]  # (E,)
    data: npt.NDArray[np.float32]  # (E,)
    popular: npt.NDArray[np.float32]  # (N + 1,)
    # What ``kind_share`` says, by what is asked for, where a reading has a lift.
    share_AN: Mapping[Target, npt.NDArray[np.float32]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for array in (self.indptr, self.indices, self.data, self.popular):
            if array.flags.owndata:
                array.flags.writeable = False

    @classmethod
    def from_matrix(cls, config: Any, matrix: sparse.csr_array, popular: Floats) -> Self:
        """Wrap a fitted matrix; a decay left open becomes the usual one."""
        return cls(
            config=cls._closed(config, cls.usual_decay),
            indptr=matrix.indptr.astype(np.int64),
            indices=matrix.indices.astype(np.int32),
            data=matrix.data.astype(np.float32),
            popular=np.asarray(popular, np.float32),
        )

    @staticmethod
    def _closed(config: Any, decay: float) -> Any:
        return config if config.decay is not None else msgspec.structs.replace(config, decay=decay)

    def with_decay(self, decay: float) -> Self:
        """The same matrix with histories that fade otherwise."""
        return replace(self, config=msgspec.structs.replace(self.config, decay=decay))

    def settled(self, decay: float | None, run: Run) -> Self:
        """The same with its decay decided: as asked, else by validation, else the usual one."""
        if decay is not None:
            return self.with_decay(decay)
        return best_by_validation(self.with_decay, DECAYS, self.usual_decay, run)

    def by_kinds(self, run: Run, snapshot: Snapshot, found: Positives) -> Self:
        """The same with a reading for each question that ``run`` can validate, unless the config has them.

        Args:
            run: What validates, and for which questions.
            snapshot: What was learned from: where it holds one kind of event only, there is one way to read.
            found: Its positive events.
        """
        if self.config.readings is not None:
            return self._with_readings(self.config.readings, found)
        kinds = kinds_in(snapshot)
        plain, readings = Reading(self.config.decay), {}
        for target, validate in run.validations.items() if len(kinds) > 1 else ():

            def measure(
                reading: Reading, target: Target = target, validate: Callable[[Scorer], float] = validate
            ) -> float:
                return validate(self._with_readings({target: reading}, found))

            readings[target] = search_reading(measure, plain, kinds)
        return self._with_readings({t: r for t, r in readings.items() if r != plain}, found)

    def _with_readings(self, readings: Readings, found: Positives) -> Self:
        shares = {t: kind_share(found, self.num_items, t) for t, reading in readings.items() if reading.lift}
        return replace(self, config=msgspec.structs.replace(self.config, readings=readings), share_AN=shares)

    @property
    def num_items(self) -> int:
        """N."""
        return len(self.popular) - 1

    @property
    def matrix(self) -> sparse.csr_array:
        """``M``, (N + 1, N + 1)."""
        width = len(self.popular)
        return sparse.csr_array((self.data, self.indices, self.indptr), shape=(width, width))

    def widened(self, num_items: int) -> Self:
        """The same with items added at the end of which nothing was counted."""
        more = num_items - self.num_items
        return replace(
            self,
            indptr=np.r_[self.indptr, np.full(more, self.indptr[-1])],
            popular=np.r_[self.popular, np.zeros(more, np.float32)],
            share_AN={t: np.r_[share_N, np.ones(more, np.float32)] for t, share_N in self.share_AN.items()},
        )

    def scores(self, batch: SequenceBatch) -> npt.NDArray[np.float32]:
        """Score every item for every row: (B, N + 1) float32, column 0 is -inf."""
        return self._read(batch, self.config.prior * self.popular)

    def _read(self, batch: SequenceBatch, prior: Floats | None = None) -> npt.NDArray[np.float32]:
        """Score by the history alone, plus a prior: (B, N + 1) float32, column 0 is -inf."""
        item_BW, weight_BW, lifted = self._weighed(batch)
        out_BN = self.weighted_rows(item_BW, weight_BW, prior)
        for rows, lift_N in lifted:
            out_BN[rows] *= lift_N
        return out_BN

    def _weighed(
        self, batch: SequenceBatch
    ) -> tuple[Ints, npt.NDArray[np.float64], list[tuple[npt.NDArray[np.intp], Floats]]]:
        """What is read, and how: items (B, W) and weights (B, W), and what multiplies the scores of some rows.

        W is T, or T + S where a reading weighs what was shown. What multiplies: numbers of rows, (N + 1,) factors.
        """
        weight_BT = history_weights(batch, self.config.decay)
        shown_BS: npt.NDArray[np.float64] | None = None
        lifted: list[tuple[npt.NDArray[np.intp], Floats]] = []
        for target, reading in self._readings.items():
            rows = batch.rows_asked(ASKED_CODES[target])
            if len(rows):
                weight_BT[rows] = read_weights(batch.take(rows), reading)
                if reading.lift:
                    lifted.append((rows, self._lift_AN[target]))
                weight = reading.kinds.get("impression", 0.0)
                if weight and batch.shown_BS is not None and batch.shown_age_BS is not None:
                    shown_BS = np.zeros(batch.shown_BS.shape) if shown_BS is None else shown_BS
                    shown_BS[rows] = weight * np.power(reading.decay, batch.shown_age_BS[rows])
        if shown_BS is None or batch.shown_BS is None:
            return batch.item_BT, weight_BT, lifted
        shown_BS *= batch.shown_BS > 0
        item_BW = np.concatenate([batch.item_BT, batch.shown_BS], axis=1)
        return item_BW, np.concatenate([weight_BT, shown_BS], axis=1), lifted

    @property
    def _readings(self) -> Readings:
        return getattr(self.config, "readings", None) or {}

    @cached_property
    def _lift_AN(self) -> dict[Target, npt.NDArray[np.float32]]:
        """What multiplies the scores of the items, (N + 1,), by what is asked for; answers need it every time."""
        lifts = {target: reading.lift for target, reading in self._readings.items() if reading.lift}
        return {target: self.share_AN[target] ** lift for target, lift in lifts.items()}

    def evidence(self, batch: SequenceBatch) -> npt.NDArray[np.float32]:
        """What the history alone says: (B, N + 1), column 0 is 0."""
        found_BN = self._read(batch)
        found_BN[:, 0] = 0.0
        return found_BN

    def related(self, items_Q: Ints) -> npt.NDArray[np.float32]:
        """Score every item as a companion of each given item: (Q, N + 1) float32, column 0 is -inf."""
        items_Q1 = np.asarray(items_Q, np.int64).reshape(-1, 1)
        known_Q1 = (items_Q1 > 0).astype(np.float64)
        return self.weighted_rows(items_Q1, known_Q1, self.config.prior * self.popular)

    def affinity(self, history_T: Ints, items_K: Ints) -> npt.NDArray[np.float32]:
        """Say how much each history item (oldest first) speaks for each answer item: (T, K) float32.

        Summed over the history this is the score without the prior: an exact account, not a guess.
        """
        history_T = np.asarray(history_T, np.int64)
        items_K = np.asarray(items_K, np.int64)
        weight_T = age_weights(history_T[None] > 0, self.config.decay)[0]
        asked_U = np.sort(items_K)
        place_K = asked_U.searchsorted(
            items_K
        )  # of an item asked twice the first place, where its amounts go
        out_TU = np.zeros((len(history_T), len(asked_U)), np.float32)
        if len(asked_U):
            cell_E, amount_E = self._entries(history_T, weight_T)
            length_T = np.where(weight_T != 0, self.indptr[history_T + 1] - self.indptr[history_T], 0)
            time_E = np.repeat(np.arange(len(history_T)), length_T)
            place_E = np.minimum(asked_U.searchsorted(cell_E), len(asked_U) - 1)
            hit_E = asked_U[place_E] == cell_E
            out_TU[time_E[hit_E], place_E[hit_E]] = amount_E[hit_E]
        return out_TU[:, place_K]

    def weighted_rows(
        self, item_BT: Ints, weight_BT: Floats, prior: Floats | None = None
    ) -> npt.NDArray[np.float32]:
        """Sum rows of ``M``: prior + sum over t of ``weight[b, t] * M[item[b, t]]``, (B, N + 1) float32.

        Each cell is summed in float64 in the order of the history, whatever else is in the batch: one row
        alone gives the same bits as the same row among others. Memory: a fixed block beside the answer.
        """
        width = self.num_items + 1
        item_BT = np.asarray(item_BT, np.int64)
        out = np.empty((len(item_BT), width), np.float32)
        if len(item_BT) == 1:
            out[:] = self._block(item_BT, weight_BT)
        else:
            pairs_B = np.where(weight_BT != 0, self.indptr[item_BT + 1] - self.indptr[item_BT], 0).sum(axis=1)
            cost_B = np.maximum(pairs_B / CHUNK_PAIRS, width / CHUNK_CELLS)
            for start, end in item_blocks(cost_B, 1.0):
                out[start:end] = self._block(item_BT[start:end], weight_BT[start:end])
        if prior is not None:
            out += prior
        out[:, 0] = -np.inf
        return out

    def sparse_evidence(self, batch: SequenceBatch) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """``evidence`` of a batch of one row without its zeros: items in order (K,), and the same bits (K,)."""
        item_BW, weight_BW, lifted = self._weighed(batch)
        cell_E, amount_E = self._entries(item_BW[0], weight_BW[0])
        item_K, place_E = np.unique(cell_E, return_inverse=True)
        amount_K = np.bincount(place_E, amount_E, minlength=len(item_K)).astype(np.float32)
        for _, lift_N in lifted:
            amount_K *= lift_N[item_K]
        return item_K.astype(np.int64), amount_K

    def _entries(
        self, item_P: Ints, weight_P: Floats
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float64]]:
        """All stored pairs of some items, one row after another: columns (E,) and weighted values (E,)."""
        start_P = self.indptr[item_P]
        length_P = np.where(weight_P != 0, self.indptr[item_P + 1] - start_P, 0)
        ends_P = length_P.cumsum()
        # Positions of all entries of all rows wanted, one run after another, without a Python loop.
        total = int(ends_P[-1]) if len(ends_P) else 0
        entry_E = np.arange(total) + np.repeat(start_P - ends_P + length_P, length_P)
        return self.indices[entry_E], self.data[entry_E] * np.repeat(weight_P, length_P)

    def _block(self, item_BT: Ints, weight_BT: Floats) -> npt.NDArray[np.float64]:
        width = self.num_items + 1
        row_P, position_P = np.nonzero(weight_BT)
        item_P = item_BT[row_P, position_P]
        cell_E, amount_E = self._entries(item_P, weight_BT[row_P, position_P])
        if len(item_BT) > 1:
            cell_E = cell_E + np.repeat(row_P * width, self.indptr[item_P + 1] - self.indptr[item_P])
        flat = np.bincount(cell_E, amount_E, minlength=len(item_BT) * width)
        return flat.reshape(len(item_BT), width).astype(np.float64, copy=False)

    def arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """All that was learned: ``indptr``, ``indices``, ``data``, ``popular``, ``decay``, and ``share.KIND``."""
        return {
            **named_shares(self.share_AN),
            "decay": np.array([self.config.decay], np.float64),
            "indptr": self.indptr,
            "indices": self.indices,
            "data": self.data,
            "popular": self.popular,
        }

    @classmethod
    def restore(cls, config: Any, arrays: Mapping[str, np.ndarray[Any, Any]]) -> Self:
        """Rebuild from ``arrays()``; a decay that ``config`` leaves open is the one that was learned."""
        return cls(
            config=cls._closed(config, float(arrays["decay"][0])),
            indptr=arrays["indptr"],
            indices=arrays["indices"],
            data=arrays["data"],
            popular=arrays["popular"],
            share_AN=shares_named(arrays),
        )
