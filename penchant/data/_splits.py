"""Splits that keep time honest: what was known before, and what then came."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penchant.core import ASKED_CODES, Bools, Ints, SequenceBatch, Snapshot, Target, iso, rng
from penchant.core.errors import InputError
from penchant.data._batch import is_target, sequence_batch, sequence_length
from penchant.data._features import with_features
from penchant.data._ragged import Int64s, offsets, ragged_range, user_blocks

MAX_GROUPS = 20  # a user attribute with more values than this does not make groups


@dataclass(frozen=True, eq=False)
class Cases:
    """People to rank items for (C of them), and the items each then turned to.

    The relevant items of case c are ``target_item[target_ptr[c]:target_ptr[c + 1]]``: distinct, in the order
    in which the person turned to them. Case c may know the events of row ``user_C[c]`` of ``history`` up to
    ``end_C[c]``.
    """

    history: Snapshot
    user_C: Int64s  # rows of `history`
    end_C: Int64s  # absolute positions in the events of `history`, exclusive
    target_ptr: Int64s  # (C + 1,)
    target_item: npt.NDArray[np.int32]
    name: str = ""  # how the cases were made
    target: Target = "any"  # the kind of event that is asked about

    def __len__(self) -> int:
        return len(self.user_C)

    @cached_property
    def length_C(self) -> Int64s:
        """How many events each case's sequence holds; 0 = a cold case."""
        return sequence_length(self.history, self.user_C, self.end_C)

    @property
    def cold_C(self) -> Bools:
        """Cases without any history, whom only popularity can serve."""
        return np.equal(self.length_C, 0)

    @property
    def first_item_C(self) -> npt.NDArray[np.int32]:
        """The first relevant item of each case, for next-item metrics."""
        return self.target_item[self.target_ptr[:-1]]

    def relevant(self, case: int) -> npt.NDArray[np.int32]:
        """Relevant items of one case."""
        return self.target_item[self.target_ptr[case] : self.target_ptr[case + 1]]

    def batch(self, index: Ints, max_length: int) -> SequenceBatch:
        """What a scorer may see of some cases; ``index`` (B,) numbers cases."""
        asked = ASKED_CODES[self.target]
        return sequence_batch(
            self.history, self.user_C[index], max_length, end=self.end_C[index], asked=asked
        )

    def seen(self, index: Ints) -> tuple[Int64s, npt.NDArray[np.int32]]:
        """Items that some cases had turned to before, as (ptr (B + 1,), item numbers); may repeat."""
        start, stop = self.history.ptr[self.user_C[index]], self.end_C[index]
        position = ragged_range(start, stop)
        item = self.history.item[position]
        keep = is_target(self.history.kind[position], item)
        owner = np.repeat(np.arange(len(index)), stop - start)[keep]
        return offsets(np.bincount(owner, minlength=len(index))), item[keep]

    @cached_property
    def groups(self) -> dict[str, pa.Array]:
        """User attributes that make groups (text or bool, at most 20 values): name -> value of each case."""
        table = self.history.attributes
        if table is None:
            return {}
        found = {}
        for name in table.column_names:
            column = table.column(name).combine_chunks()
            kind = column.type
            if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_boolean(kind)):
                continue
            if len(column.drop_null().unique()) <= MAX_GROUPS:
                found[name] = column.take(pa.array(self.user_C))
        return found

    def take(self, index: Ints) -> Cases:
        """Some of the cases, in the given order."""
        index = np.asarray(index, np.int64)
        position = ragged_range(self.target_ptr[index], self.target_ptr[index + 1])
        return replace(
            self,
            user_C=self.user_C[index],
            end_C=self.end_C[index],
            target_ptr=offsets(np.diff(self.target_ptr)[index]),
            target_item=self.target_item[position],
        )


def keep_events(snapshot: Snapshot, keep_M: Bools, name: str, *, as_of: int | None = None) -> Snapshot:
    """A snapshot of some of the events, with the same vocabularies; features are made anew from those.

    Args:
        snapshot: The snapshot to cut.
        keep_M: Which events stay: (M,).
        name: Says which; becomes part of the fingerprint.
        as_of: Of the result; None = unchanged.
    """
    before_M = np.zeros(len(keep_M) + 1, np.int64)
    np.cumsum(keep_M, out=before_M[1:])
    foreign = snapshot.foreign
    if foreign is not None:
        foreign = before_M[foreign[keep_M[foreign]]]
    cut = replace(
        snapshot,
        as_of=snapshot.as_of if as_of is None else as_of,
        ptr=before_M[snapshot.ptr],
        item=np.asarray(snapshot.item)[keep_M],
        kind=np.asarray(snapshot.kind)[keep_M],
        ts=np.asarray(snapshot.ts)[keep_M],
        value=np.asarray(snapshot.value)[keep_M],
        foreign=foreign,
        fingerprint=hashlib.sha256(f"{snapshot.fingerprint}|{name}".encode()).hexdigest()[:32],
    )
    return with_features(cut)


def before(snapshot: Snapshot, as_of: int) -> Snapshot:
    """What a snapshot would have been at an earlier time: same vocabularies, only events before ``as_of``.

    People without an earlier event keep their row, empty. Features, and the statistics that normalise them,
    come from the earlier events alone.
    """
    if as_of > snapshot.as_of:
        raise InputError(
            "a snapshot knows nothing after its own time",
            value=iso(as_of),
            hint=f"use at most {iso(snapshot.as_of)}",
        )
    return keep_events(snapshot, np.asarray(snapshot.ts) < as_of, f"before {as_of}", as_of=as_of)


def split_time(snapshot: Snapshot, share: float, target: Target = "any") -> int:
    """The time that leaves about ``share`` of the target events at or after it; no tie is cut apart."""
    if not 0 < share < 1:
        raise InputError("share must lie between 0 and 1", value=share)
    ts = np.asarray(snapshot.ts)[is_target(snapshot.kind, snapshot.item, target)]
    if not len(ts) or ts.min() == ts.max():
        raise InputError(
            "a time split needs events at two different times at least",
            value=len(ts),
            hint="ingest events with their times",
        )
    place = min(len(ts) - 1, round((1 - share) * len(ts)))
    middle = np.partition(ts, place)[place]
    later = ts[ts > middle]
    candidates = [int(middle)] if middle > ts.min() else []
    candidates += [int(later.min())] if len(later) else []
    return min(candidates, key=lambda t: abs(float(np.mean(ts >= t)) - share))


def time_split(
    snapshot: Snapshot,
    *,
    at: int | None = None,
    share: float = 0.1,
    horizon: int | None = None,
    max_users: int | None = None,
    seed: int = 0,
    target: Target = "any",
) -> tuple[Snapshot, Cases]:
    """Split by one global time, as a shop lives it: train before it, ask what comes after it.

    Args:
        snapshot: What is known now.
        at: The time in microseconds; None = chosen by ``share``.
        share: About so much of the target events comes after the time chosen.
        horizon: Count as relevant what happens within so many microseconds; None = all that is known.
        max_users: Ask about so many people at most, drawn at random; None = all.
        seed: Of that draw.
        target: Ask about events of this kind; any = about all by which people turn to items.

    Returns:
        The training snapshot, and a case for everyone with at least one target event in the time after it.
    """
    train = before(snapshot, split_time(snapshot, share, target) if at is None else at)
    return train, later_cases(snapshot, train, horizon=horizon, max_users=max_users, seed=seed, target=target)


def later_cases(
    snapshot: Snapshot,
    train: Snapshot,
    *,
    horizon: int | None = None,
    max_users: int | None = None,
    seed: int = 0,
    target: Target = "any",
) -> Cases:
    """What came after the moment of ``train``, a case for everyone with a target event then; see ``time_split``.

    Raises:
        InputError: Nobody has one.
    """
    at = train.as_of
    stop = snapshot.as_of if horizon is None else min(at + horizon, snapshot.as_of)
    ts = np.asarray(snapshot.ts)
    wanted = np.flatnonzero((ts >= at) & (ts < stop) & is_target(snapshot.kind, snapshot.item, target))
    row = np.searchsorted(snapshot.ptr, wanted, side="right") - 1
    if not len(wanted):
        raise InputError("nobody turned to an item after the split", value=iso(at), hint="split earlier")
    users = np.unique(row)
    if max_users is not None and len(users) > max_users:
        users = np.sort(rng(seed, "time_split").choice(users, max_users, replace=False))
        chosen = np.isin(row, users)
        wanted, row = wanted[chosen], row[chosen]
    target_ptr, target_item = _distinct(row, snapshot.item[wanted], users, snapshot.num_items)
    return Cases(
        history=train,
        user_C=users,
        end_C=train.ptr[users + 1],
        target_ptr=target_ptr,
        target_item=target_item,
        name=f"time split at {iso(at)}" + ("" if target == "any" else f", next {target}"),
        target=target,
    )


def _distinct(row: Ints, item: Ints, users: Ints, num_items: int) -> tuple[Int64s, npt.NDArray[np.int32]]:
    """Distinct items per user in order of first appearance; rows must be sorted."""
    key = np.asarray(row, np.int64) * (num_items + 1) + item
    first = np.sort(np.unique(key, return_index=True)[1])
    return offsets(np.bincount(np.searchsorted(users, row[first]), minlength=len(users))), np.asarray(
        item[first], np.int32
    )


def leave_one_out(
    snapshot: Snapshot, *, leave_out: int = 1, target: int = 1, max_users: int | None = None, seed: int = 0
) -> tuple[Snapshot, Cases]:
    """Withhold the last target events of each person; only to compare with papers, it looks into the future.

    With s the target events of a person: train on ``s[:-leave_out]`` and ask for ``s[-target]`` knowing all
    before it. The usual protocol is ``leave_out=2``, choosing models with ``target=2`` and testing with
    ``target=1``. Whoever has no more than ``leave_out`` target events stays whole in training and is no case.

    Args:
        snapshot: Everything known.
        leave_out: How many target events training must not see (and no event after the first of them).
        target: Which of them to ask for, counted from the end.
        max_users: Ask about so many people at most, drawn at random; None = all.
        seed: Of that draw.
    """
    if not 1 <= target <= leave_out:
        raise InputError("target must lie between 1 and leave_out", value=target)
    wanted = np.flatnonzero(is_target(snapshot.kind, snapshot.item))
    ptr = np.searchsorted(wanted, snapshot.ptr)  # target events of each row
    users = np.flatnonzero(np.diff(ptr) > leave_out)
    if not len(users):
        raise InputError(f"nobody has more than {leave_out} events to leave out", value=snapshot.num_users)
    train = keep_events(
        snapshot, _until(snapshot, users, wanted[ptr[users + 1] - leave_out]), f"leave out {leave_out}"
    )
    history = train
    if target < leave_out:
        keep = _until(snapshot, users, wanted[ptr[users + 1] - target])
        history = keep_events(snapshot, keep, f"leave out {target}")
        history = with_features(history, like=train)
    asked = wanted[ptr[users + 1] - target]
    cases = Cases(
        history=history,
        user_C=users,
        end_C=history.ptr[users + 1],
        target_ptr=np.arange(len(users) + 1),
        target_item=np.asarray(snapshot.item[asked], np.int32),
        name=f"leave one out ({target} of {leave_out})",
    )
    if max_users is not None and len(users) > max_users:
        cases = cases.take(np.sort(rng(seed, "leave_one_out").choice(len(users), max_users, replace=False)))
    return train, cases


def _until(snapshot: Snapshot, users: Ints, end: Ints) -> Bools:
    """Events to keep when each of ``users`` ends at position ``end`` and all others stay whole."""
    stop = snapshot.ptr[1:].copy()
    stop[users] = end
    return np.arange(snapshot.num_events) < np.repeat(stop, np.diff(snapshot.ptr))


def repeat_share(snapshot: Snapshot, *, target: Target = "any", block: int = 4_000_000) -> float:
    """Share of target events whose item the person had turned to before: high for groceries, 0 for books.

    Says whether items already seen should be recommended again. Asked about purchases, what was only looked at
    before counts as seen too: most of what people buy they looked at first.

    Example:
        >>> from penchant.testing import toy_snapshot
        >>> repeat_share(toy_snapshot([("u", "milk"), ("u", "milk"), ("u", "tea"), ("v", "tea")]))
        0.25
    """
    total = repeats = 0
    for first, last in user_blocks(snapshot.ptr, block):
        events = slice(int(snapshot.ptr[first]), int(snapshot.ptr[last]))
        turned = is_target(snapshot.kind[events], snapshot.item[events])
        row = np.repeat(np.arange(last - first), np.diff(snapshot.ptr[first : last + 1]))[turned]
        key = row * (snapshot.num_items + 1) + snapshot.item[events][turned]
        asked = is_target(snapshot.kind[events], snapshot.item[events], target)[turned]
        first_time = np.unique(key, return_index=True)[1]
        total += int(np.count_nonzero(asked))
        repeats += int(np.count_nonzero(asked) - np.count_nonzero(asked[first_time]))
    return repeats / total if total else 0.0
