"""Habits: what a person turned to before, and what people come back to.

Letters: B people, T events, N items, P (person, item of their history) pairs, F facts of a pair, C cases to learn from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Self

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta
from scipy import sparse

from penchant.core import DAY, HISTORY_EVENTS, Bools, Floats, Ints, Run, SequenceBatch, Snapshot, rng
from penchant.data import VISIT, sequence_batch, split_time
from penchant.models._counts import (
    Positives,
    age_weights,
    came_back,
    drawn_share,
    popularity_prior,
    positive_events,
    positives,
)
from penchant.models._neighbours import NeighbourModel
from penchant.models._readings import Readings

FACTS = ("constant", "often", "lately", "fading", "returns", "trend", "known")
Weights = tuple[float, float, float, float, float, float, float]  # of FACTS
Reals = npt.NDArray[np.float64]

_USUAL: Weights = (0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0)  # where too little comes back to learn from
_FADE = 0.97  # of a history event for each newer one
_HALF_LIFE = 14.0  # days in which an event comes to count half
_RECENT = 28 * DAY  # what an item sells in so long, against what it usually does, is its trend
_FAINT = 1e-3  # so that the logarithm of what has faded stays finite
_CUTS = (0.1, 0.2, 0.3)  # shares of the events after the moments whose next visits are learned from
_PEOPLE = 2000  # asked at each of these moments
_ROWS = 256  # people looked at in one piece
_FEWEST = 30  # cases with a return; fewer teach nothing
_RIDGE = 1e-3
_HITS = 10  # returns of a case that count in full: a large basket must not outweigh ten small ones


class FrequencyConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the own history is counted.

    ``decay``: weight of a history event for each newer one, 1 = plain frequency; None lets validation decide,
    0.97 without. ``prior``: weight of popularity beside the own history.
    ``readings``: how a history is read when asked for one kind of event, see ``Reading``; None lets validation
    decide where there are several kinds.
    """

    decay: Annotated[float, Meta(gt=0, le=1)] | None = None
    readings: Readings | None = None
    prior: Annotated[float, Meta(ge=0)] = 0.001


@dataclass(frozen=True, eq=False)
class Frequency(NeighbourModel):
    """Score each item by how often and how lately the person turned to it; popularity breaks the silence.

    The personal-frequency baseline of next-basket studies (Hu et al. 2020; Li et al. 2023, "A next basket
    recommendation reality check"): hard to beat where people buy the same again, of no use where answers may not
    repeat what was seen.

    Example:
        >>> from penchant.data import sequence_batch
        >>> from penchant.testing import toy_snapshot
        >>> toy = toy_snapshot([("u", "milk"), ("u", "rum"), ("u", "milk")])
        >>> model = Frequency.fit(toy, FrequencyConfig(decay=1.0, prior=0.0), Run())
        >>> model.scores(sequence_batch(toy, np.array([0]), 10)).tolist()
        [[-inf, 2.0, 1.0]]
    """

    Config: ClassVar[type[msgspec.Struct]] = FrequencyConfig
    usual_decay: ClassVar[float] = 0.97
    config: FrequencyConfig

    @classmethod
    def fit(cls, snapshot: Snapshot, config: FrequencyConfig, run: Run) -> Self:
        """Learned are how fast a habit fades, and popularity."""
        found = positives(snapshot)
        itself = sparse.eye_array(snapshot.num_items + 1, format="csr", dtype=np.float32)
        model = cls.from_matrix(config, itself, popularity_prior(found, snapshot.num_items))
        return model.settled(config.decay, run).by_kinds(run, snapshot, found)


class HabitsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How habits are weighed.

    ``weights``: of the facts constant, often, lately, fading, returns, trend and known; None learns them from the
    log. ``prior``: weight of popularity beside the own history.
    """

    weights: Weights | None = None
    prior: Annotated[float, Meta(ge=0)] = 0.001


@dataclass(frozen=True, eq=False)
class Habits:
    """Score the items of a person's history by the chance that the next visit brings them back.

    The score is ``exp(weights . facts)``, so that each fact multiplies. Of the pair of person and item the facts are
    the logarithms of: at how many visits the person turned to it (``often``), the same fading by half in a fortnight
    (``lately``), and fading with every newer event (``fading``). Of the item: its share of returns in units of the
    shop's (``returns``: milk is bought again, a pan is not), its last four weeks against what is usual (``trend``), and
    its popularity (``known``). The weights are learned from the log: moments are picked in it, and among the items a
    person had by then those of the next visit are to come first (softmax over the history, L-BFGS). Time counts from
    the newest event, so that an answer depends on the history alone.

    What others buy is no habit: an item the person never had is scored by its popularity.

    Example:
        >>> from penchant.testing import toy_snapshot
        >>> toy = toy_snapshot([("u", "milk"), ("u", "rum"), ("u", "milk")])
        >>> model = Habits.fit(toy, HabitsConfig(prior=0.0), Run())
        >>> model.scores(sequence_batch(toy, np.array([0]), 10)).astype(float).round(2).tolist()
        [[-inf, 2.22, 0.81]]
    """

    Config: ClassVar[type[msgspec.Struct]] = HabitsConfig

    config: HabitsConfig  # with the weights that were used
    lift_N: npt.NDArray[np.float32]  # (N + 1,) what the facts of the item alone multiply
    popular: npt.NDArray[np.float32]  # (N + 1,) in [0, 1]

    @classmethod
    def fit(cls, snapshot: Snapshot, config: HabitsConfig, run: Run) -> Self:
        """Learn the weights, where they are left open, and count what is known of the items."""
        found = positives(snapshot)
        weights = config.weights or _learned(snapshot, found, run)
        config = msgspec.structs.replace(config, weights=weights)
        item_NF = item_facts(found, snapshot.num_items, snapshot.as_of)
        lift_N = np.exp(weights[0] + _weighed(item_NF, weights[4:]))
        return cls(config, lift_N.astype(np.float32), popularity_prior(found, snapshot.num_items))

    @property
    def weights(self) -> Weights:
        """Of ``FACTS``."""
        assert self.config.weights is not None
        return self.config.weights

    @property
    def num_items(self) -> int:
        """N."""
        return len(self.lift_N) - 1

    def widened(self, num_items: int) -> Self:
        """The same with items added at the end, as usual as can be."""
        more = num_items - self.num_items
        usual = np.full(more, np.exp(self.weights[0]), np.float32)
        return replace(
            self,
            lift_N=np.r_[self.lift_N, usual],
            popular=np.r_[self.popular, np.zeros(more, np.float32)],
        )

    def evidence(self, batch: SequenceBatch) -> npt.NDArray[np.float32]:
        """What the own history alone says: (B, N + 1), 0 for items that are not in it."""
        row_P, item_P, own_P = self._own(batch)
        own_BN = np.zeros((len(batch.item_BT), self.num_items + 1), np.float32)
        own_BN[row_P, item_P] = own_P
        return own_BN

    def sparse_evidence(self, batch: SequenceBatch) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """``evidence`` of a batch of one row without its zeros: items in order (K,), and the same bits (K,)."""
        _, item_K, own_K = self._own(batch)
        return item_K.astype(np.int64), own_K.astype(np.float32)

    def _own(self, batch: SequenceBatch) -> tuple[Ints, Ints, Reals]:
        """Rows, items and scores of the distinct items of every history, sorted by row and item."""
        row_P, item_P, fact_PF = pair_facts(batch)
        return row_P, item_P, np.exp(_weighed(fact_PF, self.weights[1:4])) * self.lift_N[item_P]

    def scores(self, batch: SequenceBatch) -> npt.NDArray[np.float32]:
        """Score every item for every row: (B, N + 1) float32, column 0 is -inf."""
        score_BN = self.evidence(batch)
        score_BN += np.float32(self.config.prior) * self.popular
        score_BN[:, 0] = -np.inf
        return score_BN

    def related(self, items_Q: Ints) -> npt.NDArray[np.float32]:
        """A habit speaks for no other item: each item for itself, all others by popularity; (Q, N + 1)."""
        items_Q = np.asarray(items_Q, np.int64)
        score_QN = np.tile(np.float32(self.config.prior) * self.popular, (len(items_Q), 1))
        score_QN[np.arange(len(items_Q)), items_Q] += self.lift_N[items_Q]
        score_QN[:, 0] = -np.inf
        return score_QN

    def affinity(self, history_T: Ints, items_K: Ints) -> npt.NDArray[np.float32]:
        """How much each history item speaks for each answer, (T, K): events of the item itself, the newer the more."""
        history_T, items_K = np.asarray(history_T, np.int64), np.asarray(items_K, np.int64)
        weight_T = age_weights(history_T[None] > 0, _FADE)[0]
        same_TK = history_T[:, None] == items_K
        return np.asarray(same_TK * weight_T[:, None] * self.lift_N[items_K], np.float32)

    def arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """All that was learned: ``weights``, ``lift_N``, ``popular``."""
        return {"weights": np.array(self.weights), "lift_N": self.lift_N, "popular": self.popular}

    @classmethod
    def restore(cls, config: HabitsConfig, arrays: Mapping[str, np.ndarray[Any, Any]]) -> Self:
        """Rebuild from ``arrays()``."""
        weights = msgspec.convert(arrays["weights"].tolist(), Weights)
        return cls(msgspec.structs.replace(config, weights=weights), arrays["lift_N"], arrays["popular"])


def pair_facts(batch: SequenceBatch) -> tuple[Ints, Ints, Reals]:
    """The distinct items of every history and what is known of each: row (P,), item (P,), facts (P, 3).

    The facts are often, lately and fading; pairs are sorted by row and item.
    """
    counted_BT = positive_events(batch)
    second_BT = np.expm1(batch.gap_BT.astype(np.float64))
    clock_BT = second_BT.cumsum(axis=1)
    day_BT = (clock_BT[:, -1:] - clock_BT) * (1e6 / DAY)  # before the newest event
    visit_BT = (second_BT >= VISIT / 1e6).cumsum(axis=1)
    fading_BT = age_weights(counted_BT, _FADE)
    row, place = np.nonzero(counted_BT)
    if not len(row):
        return row, row, np.zeros((0, 3))
    item = batch.item_BT[row, place]
    order = np.lexsort((item, row))  # stable: each item's events stay in order of time
    row, place, item = row[order], place[order], item[order]
    first = np.r_[True, (np.diff(row) > 0) | (np.diff(item) > 0)]
    visit = visit_BT[row, place]
    another = first | np.r_[True, np.diff(visit) != 0]
    start = np.flatnonzero(first)
    lately = np.exp2(day_BT[row, place] * (-1.0 / _HALF_LIFE))
    fact_PF = np.stack(
        [
            np.log(np.add.reduceat(another.astype(np.float64), start)),
            np.log(np.add.reduceat(lately, start) + _FAINT),
            np.log(np.add.reduceat(fading_BT[row, place], start) + _FAINT),
        ],
        axis=1,
    )
    return row[start], item[start], fact_PF


def item_facts(found: Positives, num_items: int, as_of: int) -> Reals:
    """What is known of every item before ``as_of``: returns, trend, known; (N + 1, 3)."""
    earlier = found.ts < as_of
    found = Positives(found.user[earlier], found.item[earlier], found.kind[earlier], found.ts[earlier])
    event_N = np.bincount(found.item, minlength=num_items + 1).astype(np.float64)
    recent_N = np.bincount(found.item[found.ts >= as_of - _RECENT], minlength=num_items + 1)
    span = as_of - int(found.ts.min(initial=as_of - 1))
    usual_N = event_N * min(1.0, _RECENT / span)
    trend_N = np.log((recent_N + 1) / (usual_N + 1))
    return np.stack([np.log(returns(found, num_items)), trend_N, np.log1p(event_N)], axis=1)


def returns(found: Positives, num_items: int) -> Reals:
    """How much people come back to each item, (N + 1,); 1 = as much as is usual in the shop, or nobody ever does."""
    event_N = np.bincount(found.item, minlength=num_items + 1)
    _, ever_N = came_back(found, num_items + 1)
    again_N = event_N - ever_N
    usual = again_N.sum() / max(1, event_N.sum())
    if not usual:
        return np.ones(num_items + 1)
    return drawn_share(again_N, event_N, usual)


def _weighed(fact_PF: Floats, weights: tuple[float, ...]) -> Reals:
    """Facts times weights, (P,); summed fact by fact, so that a pair gets the same bits in any company."""
    total_P = np.zeros(len(fact_PF))
    for column, weight in enumerate(weights):
        total_P += weight * fact_PF[:, column]
    return total_P


def _learned(snapshot: Snapshot, found: Positives, run: Run) -> Weights:
    """The weights under which the items of the next visit come first among those the person had before."""
    if not len(found.ts) or found.ts.min() == found.ts.max():
        return _USUAL
    parts: list[tuple[Ints, Reals, Bools]] = []
    for share in _CUTS:
        moment = split_time(snapshot, share)
        case_P, fact_PF, back_P = _examples(snapshot, found, moment, run)
        parts.append((case_P + sum(len(part[0]) for part in parts), fact_PF, back_P))
    case_P, fact_PF, back_P = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    if len(np.unique(case_P[back_P])) < _FEWEST:
        return _USUAL
    weight_F = _ranked_first(case_P, fact_PF, back_P)
    # The constant makes scores chances: over all pairs they sum to the returns that came.
    constant = np.log(back_P.sum() / np.exp(fact_PF @ weight_F).sum())
    # Rounded, so that the last bits of a sum do not make another model of it.
    weights: Weights = msgspec.convert([round(float(w), 4) for w in (constant, *weight_F)], Weights)
    return weights


def _examples(snapshot: Snapshot, found: Positives, moment: int, run: Run) -> tuple[Ints, Reals, Bools]:
    """Pairs known at a moment: case (P,), facts (P, 6), and whether the next visit brought the item back."""
    width = snapshot.num_items + 1
    fresh = np.r_[True, (np.diff(found.user) > 0) | (np.diff(found.ts) >= VISIT)]
    visit = fresh.cumsum()
    later = np.flatnonzero(found.ts >= moment)
    user_C, first = np.unique(found.user[later], return_index=True)
    older_M1 = np.r_[0, np.cumsum(np.asarray(snapshot.ts) < moment)]
    known_U = older_M1[snapshot.ptr[1:]] - older_M1[snapshot.ptr[:-1]]
    asked = known_U[user_C] > 0
    user_C, visit_C = user_C[asked], visit[later[first]][asked]
    if len(user_C) > _PEOPLE:
        drawn = np.sort(rng(run.seed, f"habits {moment}").choice(len(user_C), _PEOPLE, replace=False))
        user_C, visit_C = user_C[drawn], visit_C[drawn]
    event = later[np.isin(visit[later], visit_C)]
    wanted = np.unique(np.searchsorted(visit_C, visit[event]) * width + found.item[event])
    item_NF = item_facts(found, snapshot.num_items, moment)
    cases: list[Ints] = [np.zeros(0, np.int64)]
    facts, backs = [np.zeros((0, 6))], [np.zeros(0, np.bool_)]
    for begin in range(0, len(user_C), _ROWS):
        user_B = user_C[begin : begin + _ROWS]
        end_B = snapshot.ptr[user_B] + known_U[user_B]
        row_P, item_P, fact_PF = pair_facts(sequence_batch(snapshot, user_B, HISTORY_EVENTS, end=end_B))
        cases.append(row_P + begin)
        facts.append(np.concatenate([fact_PF, item_NF[item_P]], axis=1))
        backs.append(np.isin((row_P + begin) * width + item_P, wanted))
    return np.concatenate(cases), np.concatenate(facts), np.concatenate(backs)


def _ranked_first(case_P: Ints, fact_PF: Reals, back_P: Bools) -> Reals:
    """Weights (F,) that maximise the softmax likelihood, within every case, of the items that came back."""
    from scipy import optimize

    kept = np.isin(case_P, case_P[back_P])
    case_P, fact_PF, back_P = case_P[kept], fact_PF[kept], back_P[kept]
    spread_F = fact_PF.std(axis=0) + 1e-9
    fact_PF = (fact_PF - fact_PF.mean(axis=0)) / spread_F
    start_C = np.flatnonzero(np.r_[True, np.diff(case_P) > 0])
    size_C = np.diff(np.r_[start_C, len(case_P)])
    hit_C = np.add.reduceat(back_P.astype(np.float64), start_C)
    count_C = np.minimum(hit_C, _HITS)
    want_P = back_P * np.repeat(count_C / hit_C, size_C)

    def loss(weight_F: Reals) -> tuple[float, Reals]:
        score_P = fact_PF @ weight_F
        score_P -= np.repeat(np.maximum.reduceat(score_P, start_C), size_C)
        chance_P = np.exp(score_P)
        total_C = np.add.reduceat(chance_P, start_C)
        chance_P *= np.repeat(count_C / total_C, size_C)
        value = (count_C * np.log(total_C)).sum() - (want_P * score_P).sum()
        slope_F = fact_PF.T @ (chance_P - want_P)
        scale = 1.0 / count_C.sum()
        return value * scale + _RIDGE * weight_F @ weight_F, slope_F * scale + 2 * _RIDGE * weight_F

    found = optimize.minimize(loss, np.zeros(fact_PF.shape[1]), jac=True, method="L-BFGS-B")
    weight_F: Reals = found.x / spread_F
    return weight_F
