"""Ranking metrics over the full catalogue, each with its interval, in all and by group.

Letters: B cases in a block, C cases, N items, K list length, P (case, target) pairs, V metrics of a case.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from penchant.core import HISTORY_EVENTS, Bools, Estimate, Ints, Noun, Progress, Scorer, SeenRule, no_progress
from penchant.core.errors import InputError, ModelError, NotFound
from penchant.data import Cases, item_values
from penchant.evaluation import _ranks
from penchant.evaluation._beyond import Shelf, coverage
from penchant.evaluation._calibration import Calibration, Reliability, Witness
from penchant.evaluation._estimate import UNBOUNDED, bootstrap_means, proportion

KS = (5, 10, 20, 50)
BLOCK_CELLS = 8_000_000  # scores held at once: 32 MB of float32
LARGEST_BATCH = 2048
BANDS = (0, 1, 3, 6, 11, 21, 51)  # first history length of each band
PEOPLE = (0, 1, 5, 20, 100)  # first number of people of each band of popularity
FIRST = 10  # the list in which targets of each popularity are looked for

Column = Sequence[Any]  # one value a case; anything that can be turned into a list


class RankProtocol(Noun, frozen=True):
    """What exactly was measured: two evaluations may be compared only when all of this is equal."""

    split: str
    seen: Literal["exclude", "allow"]
    ks: list[int]
    cases: int  # ranked, of those asked
    left_out: int  # cases whose every target had been seen before, where seen items are excluded
    people: int
    items: int
    targets: int
    cold_targets: int  # targets nobody had turned to in the history
    fingerprint: str  # of cases, targets and rule

    @property
    def text(self) -> str:
        """The protocol in words."""
        rule = {
            "exclude": "Items the person had turned to before are neither shown nor asked for",
            "allow": "Items the person had turned to before may be shown and asked for again",
        }[self.seen]
        left = f" ({self.left_out:,} cases ask only for such items and are left out)" if self.left_out else ""
        return (
            f"Split: {self.split or 'as given'}. Every one of {self.items:,} items is ranked for each of "
            f"{self.cases:,} cases of {self.people:,} people, with {self.targets:,} targets. {rule}{left}. "
            f"Equal scores count as a random order of them. {self.cold_targets:,} targets nobody had turned "
            f"to before are kept, at the rank the model gives them; what it cannot rank is a miss. Intervals "
            f"are 95 %: Wilson's for hit rates of one case a person, else a bootstrap over people; coverage has "
            f"a jackknife interval and holds for so many people."
        )


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What one scorer reached on one set of cases.

    ``metrics``: ``HR@k`` (a target among the first k), ``recall@k`` (share of the targets there), ``NDCG@k``
    (discounted gain against the best order), ``MRR`` (1 / rank of the first target), ``coverage@k`` (share
    of the catalogue shown to anybody), ``novelty@k`` (bits: how rare the shown items are),
    ``popularity_share@k`` (share of slots held by the most popular hundredth of items). With ``repeats`` also
    ``repeat_recall@k`` and ``new_recall@k`` (share of the targets that the person had before, and had not, among the
    first k; over the cases that ask for such), ``repeat_share@k`` (share of slots held by items the person had) and
    ``repeat_share`` (of the targets). Where the catalogue has prices also ``value@k`` (what the targets among the first
    k bring a case, in minor units, see ``penchant.data.item_values``) and ``value_NDCG@k`` (the gain of a target is
    what it brings). ``by_group`` and
    ``by_length`` hold the same for parts of the cases; ``by_popularity`` holds the ``recall@10`` of targets
    that so many people had turned to before. ``reliability``: whether its probabilities come true.
    ``per_case`` (C,) is what paired comparisons need.
    """

    name: str
    protocol: RankProtocol
    metrics: dict[str, Estimate]
    by_group: dict[str, dict[str, Estimate]]  # "attribute=value"
    by_length: dict[str, dict[str, Estimate]]  # "3-5"
    per_case: dict[str, npt.NDArray[np.float64]] = field(repr=False)
    user_C: npt.NDArray[np.int64] = field(repr=False)
    by_popularity: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    reliability: Reliability | None = None
    seconds: float = 0.0

    def renamed(self, name: str) -> Evaluation:
        """The same under another name."""
        return replace(self, name=name)


def rank_metrics(
    scorer: Scorer,
    cases: Cases,
    *,
    name: str | None = None,
    ks: Sequence[int] = KS,
    seen: SeenRule = "exclude",
    groups: Sequence[str] | Mapping[str, Column] | None = None,
    batch_size: int | None = None,
    max_length: int = HISTORY_EVENTS,
    repeats: bool = False,
    calibration: Calibration | None = None,
    seed: int = 0,
    progress: Progress = no_progress,
) -> Evaluation:
    """Rank the whole catalogue for every case and measure where the targets came.

    Memory: about 100 MB beside the scorer's own, whatever the number of cases.

    Args:
        scorer: Anything that scores a batch.
        cases: Who is asked about, what may be known of them, and what they then turned to.
        name: Of the row; None = the scorer's class.
        ks: List lengths.
        seen: ``exclude`` leaves out all items of the case's history, from answers and targets; ``allow`` not.
        groups: Names of user attributes, or columns with one value a case; None = every attribute that
            makes groups.
        batch_size: Cases scored at once; None = what fits 32 MB of scores.
        max_length: Events of a history that the scorer may see, the last ones.
        repeats: Tell items that the person had before from new ones.
        calibration: What makes probabilities of the scores; None = they are not looked at.
        seed: Of the bootstrap.
        progress: Called after each block.

    Raises:
        InputError: No cases, a k out of range, or an unknown rule.
        ModelError: The scorer gave scores of the wrong shape, or NaN.
    """
    check_cases(cases, ks, seen)
    name = type(scorer).__name__ if name is None else name
    begun = time.perf_counter()
    columns = _group_columns(cases, groups)
    shelf = Shelf.of(cases.history)
    parts, tops, kept, pairs = [], [], [], []
    witness = None if calibration is None else Witness.of(calibration, cases)
    value_N = item_values(cases.history.catalog.table, cases.history.items)
    for block in measured_blocks(
        scorer, cases, ks, seen == "exclude", batch_size, max_length, witness, repeats, value_N
    ):
        index, values = block.index, block.values
        top = _ranks.top_items(block.scores, max(ks))
        kept.append(index)
        pairs.append(block.pairs)
        if repeats:
            values |= _shown_again(top, *cases.seen(index), ks)
        parts.append(values | shelf.describe(top, ks))
        tops.append(top)
        progress(f"evaluate {name}", int(index[-1]) + 1 if len(index) else 0, len(cases), {})
    kept_C = np.concatenate(kept)
    if not len(kept_C):
        raise InputError("every target had been seen before", value=len(cases), hint="use seen=allow")
    per_case = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    result = _Result(per_case, np.concatenate(tops), cases.user_C[kept_C], shelf.num_items, ks, seed)
    return Evaluation(
        name=name,
        protocol=_protocol(cases, kept_C, shelf, ks, seen),
        metrics=result.estimates(np.arange(len(kept_C))),
        by_group=result.parts(_split_groups(columns, kept_C)),
        by_length=result.parts(_split_lengths(cases.length_C[kept_C])),
        by_popularity=_by_popularity(pairs, shelf, cases.user_C, seed),
        reliability=None if witness is None else witness.reliability(cases.user_C, seed=seed),
        per_case=per_case,
        user_C=result.user_C,
        seconds=time.perf_counter() - begun,
    )


def check_cases(cases: Cases, ks: Sequence[int], seen: SeenRule) -> None:
    if not len(cases):
        raise InputError("there are no cases to evaluate on", hint="widen the split")
    if seen not in {"exclude", "allow"}:
        raise InputError("seen must be decided before measuring", value=seen, hint="use exclude or allow")
    if not ks or min(ks) < 1 or max(ks) > _ranks.MOST_RANKS:
        raise InputError(f"list lengths must lie between 1 and {_ranks.MOST_RANKS}", value=list(ks))


def _scores(
    scorer: Scorer, cases: Cases, index: Ints, max_length: int, num_items: int
) -> npt.NDArray[np.floating[Any]]:
    scores = np.array(scorer.scores(cases.batch(index, max_length)))  # ours to mask
    if scores.shape != (len(index), num_items + 1):
        raise ModelError(f"scores must be {(len(index), num_items + 1)}", value=scores.shape)
    if np.isnan(scores).any():
        raise ModelError("the model gave scores that are not numbers", value=type(scorer).__name__)
    scores[:, 0] = -np.inf
    return scores


@dataclass(frozen=True, eq=False)
class _Block:
    """Cases measured together: those that were asked at all."""

    index: Ints
    values: dict[str, npt.NDArray[np.float64]]
    scores: npt.NDArray[np.floating[Any]]  # masked
    pairs: tuple[Ints, Ints, npt.NDArray[np.float64]]  # case, target, chance to be among the first ten


def _asked_of(
    scorer: Scorer,
    cases: Cases,
    index: Ints,
    exclude: bool,
    told: bool,
    max_length: int,
    witness: Witness | None = None,
) -> tuple[npt.NDArray[np.floating[Any]], Ints, Ints, Bools]:
    """Masked scores of some cases, and each target that may be asked for: its row there, its item, whether it is new.

    What is new is told where it is asked or seen items are excluded; else everything counts as new. A witness sees
    the scores before they are masked.
    """
    width = cases.history.num_items + 1
    scores = _scores(scorer, cases, index, max_length, width - 1)
    if witness is not None:
        witness.look(index, scores)
    first, last = cases.target_ptr[index[0]], cases.target_ptr[index[-1] + 1]
    owner = np.repeat(np.arange(len(index)), np.diff(cases.target_ptr)[index])
    target = cases.target_item[first:last].astype(np.int64)
    new = np.ones(len(target), np.bool_)
    if exclude or told:
        ptr, seen = cases.seen(index)
        seen_owner = np.repeat(np.arange(len(index)), np.diff(ptr))
        new = ~np.isin(owner * width + target, seen_owner * width + seen)
    if exclude:
        owner, target, new = owner[new], target[new], new[new]
        scores[seen_owner, seen] = -np.inf
    return scores, owner, target, new


def _blocks(cases: Cases, batch_size: int | None = None) -> Iterator[Ints]:
    """Places of the cases, as many at once as given, or as their scores leave room for."""
    size = batch_size or max(1, min(LARGEST_BATCH, BLOCK_CELLS // (cases.history.num_items + 1)))
    for begin in range(0, len(cases), size):
        yield np.arange(begin, min(begin + size, len(cases)))


def measured_blocks(
    scorer: Scorer,
    cases: Cases,
    ks: Sequence[int],
    exclude: bool,
    batch_size: int | None = None,
    max_length: int = HISTORY_EVENTS,
    witness: Witness | None = None,
    repeats: bool = False,
    value_N: npt.NDArray[np.float64] | None = None,
) -> Iterator[_Block]:
    """Measure block by block."""
    for index in _blocks(cases, batch_size):
        scores, owner, target, new = _asked_of(scorer, cases, index, exclude, repeats, max_length, witness)
        asked = np.bincount(owner, minlength=len(index)) > 0
        if not asked.all():
            scores, owner = scores[asked], (np.cumsum(asked) - 1)[owner]
        better, tied = _ranks.place_targets(scores, owner, target)
        index = index[asked]
        values = _case_metrics(owner, better, tied, len(scores), ks)
        if repeats:
            values |= _told_apart(owner, better, tied, new, len(scores), ks)
        if value_N is not None:
            values |= _value_metrics(owner, better, tied, np.maximum(value_N[target], 0.0), len(scores), ks)
        yield _Block(index, values, scores, (index[owner], target, _ranks.chance_within(better, tied, FIRST)))


def _case_metrics(
    owner: Ints, better: _ranks.Reals, tied: _ranks.Reals, num_cases: int, ks: Sequence[int]
) -> dict[str, npt.NDArray[np.float64]]:
    relevant_B = np.bincount(owner, minlength=num_cases)
    best_B, size_B, held_B = _ranks.best_groups(owner, better, tied, num_cases)
    found = {}
    for k in ks:
        found[f"HR@{k}"] = _ranks.any_within(best_B, size_B, held_B, k)
        gain = np.bincount(owner, _ranks.gain_within(better, tied, k), minlength=num_cases)
        found[f"NDCG@{k}"] = gain / _ranks.ideal_gain(relevant_B, k)
        hits = np.bincount(owner, _ranks.chance_within(better, tied, k), minlength=num_cases)
        found[f"recall@{k}"] = hits / relevant_B
    found["MRR"] = _ranks.reciprocal_rank(best_B, size_B, held_B)
    return found


def _told_apart(
    owner: Ints, better: _ranks.Reals, tied: _ranks.Reals, new: Bools, num_cases: int, ks: Sequence[int]
) -> dict[str, npt.NDArray[np.float64]]:
    """Recall of what the person had before and of what is new; NaN for a case that asks for none of it."""
    found = {}
    for name, part in (("repeat", ~new), ("new", new)):
        asked_B = np.bincount(owner[part], minlength=num_cases)
        for k in ks:
            hits = np.bincount(owner[part], _ranks.chance_within(better[part], tied[part], k), num_cases)
            found[f"{name}_recall@{k}"] = np.where(asked_B > 0, hits / np.maximum(asked_B, 1), np.nan)
        found[f"{name}_share"] = asked_B / np.bincount(owner, minlength=num_cases)
    del found["new_share"]
    return found


def _shown_again(
    top_BK: Ints, ptr: Ints, seen: Ints, ks: Sequence[int]
) -> dict[str, npt.NDArray[np.float64]]:
    """Share of the slots of each list held by items that the person had before."""
    width = 1 + max(int(top_BK.max(initial=0)), int(seen.max(initial=0)))
    row_S = np.repeat(np.arange(len(top_BK)), np.diff(ptr))
    again_BK = np.isin(np.arange(len(top_BK))[:, None] * width + top_BK, row_S * width + seen)
    return {f"repeat_share@{k}": again_BK[:, :k].mean(axis=1) for k in ks}


def _value_metrics(
    owner: Ints,
    better: _ranks.Reals,
    tied: _ranks.Reals,
    value: _ranks.Reals,
    num_cases: int,
    ks: Sequence[int],
) -> dict[str, npt.NDArray[np.float64]]:
    found: dict[str, npt.NDArray[np.float64]] = {}
    dearest = np.lexsort((-value, owner))  # the best order of each case's targets
    ideal_better = (np.arange(len(owner)) - np.searchsorted(owner, owner)).astype(np.float64)
    for k in ks:
        hits = _ranks.chance_within(better, tied, k) * value
        found[f"value@{k}"] = np.bincount(owner, hits, minlength=num_cases).astype(np.float64)
        gain = np.bincount(owner, _ranks.gain_within(better, tied, k) * value, minlength=num_cases)
        best = _ranks.gain_within(ideal_better, np.ones(len(owner)), k) * value[dearest]
        most = np.bincount(owner, best, minlength=num_cases)
        found[f"value_NDCG@{k}"] = np.divide(gain, most, out=np.zeros(num_cases), where=most > 0)
    return found


def target_ranks(
    scorer: Scorer, cases: Cases, *, seen: SeenRule = "exclude", max_length: int = HISTORY_EVENTS
) -> npt.NDArray[np.float64]:
    """Mean rank of every target that may be asked for, from 1, infinite where the scorer cannot rank it: (P,)."""
    found = []
    for index in _blocks(cases):
        scores, owner, target, _ = _asked_of(scorer, cases, index, seen == "exclude", False, max_length)
        better, tied = _ranks.place_targets(scores, owner, target)
        found.append(better + (tied + 1) / 2)
    return np.concatenate(found)


@dataclass(frozen=True, eq=False)
class _Result:
    """Per-case figures, ready to be summed up over any part of the cases."""

    per_case: dict[str, npt.NDArray[np.float64]]
    top_CK: npt.NDArray[np.int64]
    user_C: npt.NDArray[np.int64]
    num_items: int
    ks: Sequence[int]
    seed: int

    def estimates(self, part: Ints) -> dict[str, Estimate]:
        """All metrics over some of the cases."""
        partial = [name for name, values in self.per_case.items() if np.isnan(values).any()]
        names = [name for name in self.per_case if name not in partial]
        values_CV = np.stack([self.per_case[name][part] for name in names], axis=1)
        users = self.user_C[part]
        bounded = np.array([not name.startswith(UNBOUNDED) for name in names])
        found = dict(
            zip(names, bootstrap_means(values_CV, users, seed=self.seed, bounded=bounded), strict=True)
        )
        for name in partial:  # over the cases that ask for such targets
            asked = part[~np.isnan(self.per_case[name][part])]
            if len(asked):
                values_C1 = self.per_case[name][asked][:, None]
                found[name] = bootstrap_means(
                    values_C1, self.user_C[asked], seed=self.seed, bounded=np.array([True])
                )[0]
        if len(np.unique(users)) == len(users):  # independent, so a proportion
            for name in (f"HR@{k}" for k in self.ks):
                found[name] = proportion(float(self.per_case[name][part].sum()), len(part))
        for k in self.ks:
            found[f"coverage@{k}"] = coverage(self.top_CK[part, :k], users, self.num_items)
        return found

    def parts(self, split: Iterator[tuple[str, Ints]]) -> dict[str, dict[str, Estimate]]:
        """All metrics of each part."""
        return {label: self.estimates(part) for label, part in split}


def _protocol(cases: Cases, kept_C: Ints, shelf: Shelf, ks: Sequence[int], seen: SeenRule) -> RankProtocol:
    digest = sha256(f"{seen}|{list(ks)}|{shelf.num_items}".encode())
    for array in (cases.user_C, cases.end_C, cases.target_ptr, cases.target_item):
        digest.update(np.ascontiguousarray(array).tobytes())
    return RankProtocol(
        split=cases.name,
        seen="exclude" if seen == "exclude" else "allow",
        ks=list(ks),
        cases=len(kept_C),
        left_out=len(cases) - len(kept_C),
        people=len(np.unique(cases.user_C[kept_C])),
        items=shelf.num_items,
        targets=len(cases.target_item),
        cold_targets=int((shelf.people_I[cases.target_item] == 0).sum()),
        fingerprint=digest.hexdigest()[:16],
    )


def _group_columns(
    cases: Cases, groups: Sequence[str] | Mapping[str, Column] | None
) -> dict[str, npt.NDArray[np.object_]]:
    if isinstance(groups, Mapping):
        columns: dict[str, Any] = dict(groups)
    else:
        known = cases.groups
        for name in groups or ():
            if name not in known:
                hint = f"use one of {', '.join(known) or 'none: the shop has sent no attributes'}"
                raise NotFound("no such group among the user attributes", value=name, hint=hint)
        columns = {name: known[name] for name in (known if groups is None else groups)}
    found = {}
    for name, column in columns.items():
        values = column.to_pylist() if hasattr(column, "to_pylist") else list(column)
        if len(values) != len(cases):
            raise InputError(f"group {name!r} needs one value a case ({len(cases)})", value=len(values))
        found[name] = np.array(["unknown" if v is None else str(v) for v in values], object)
    return found


def _split_groups(columns: Mapping[str, npt.NDArray[np.object_]], kept_C: Ints) -> Iterator[tuple[str, Ints]]:
    for name, column in columns.items():
        values = column[kept_C]
        for value in sorted(set(values)):
            yield f"{name}={value}", np.flatnonzero(values == value)


def _by_popularity(
    pairs: Sequence[tuple[Ints, Ints, npt.NDArray[np.float64]]], shelf: Shelf, user_C: Ints, seed: int
) -> dict[str, dict[str, Estimate]]:
    """How many of the targets that so many people had turned to before are among the first ten."""
    case_P, target_P, hit_P = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    found = {}
    for label, part in _banded(shelf.people_I[target_P], PEOPLE):
        (recall,) = bootstrap_means(
            hit_P[part][:, None], user_C[case_P[part]], seed=seed, bounded=np.array([True])
        )
        found[label] = {f"recall@{FIRST}": recall}
    return found


def _split_lengths(length_C: Ints) -> Iterator[tuple[str, Ints]]:
    return _banded(length_C, BANDS)


def _banded(count_C: Ints, bands: Sequence[int]) -> Iterator[tuple[str, Ints]]:
    """The filled bands by the first count of each: their name and who is in them."""
    band_C = np.searchsorted(bands, count_C, side="right") - 1
    for band, first in enumerate(bands):
        last = bands[band + 1] - 1 if band + 1 < len(bands) else None
        part = np.flatnonzero(band_C == band)
        if len(part):
            yield f"{first}+" if last is None else str(first) if first == last else f"{first}-{last}", part
