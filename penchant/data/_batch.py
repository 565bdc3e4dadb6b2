"""The one road from events to tensors, for training and for a live request alike.

Letters: B rows in a batch, T history length, F features, U users, M events, W training windows. Positions
are absolute positions in the event arrays of a ``Sequences``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Protocol, cast
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from penchant.core import (
    ASKED_CODES,
    HISTORY_SHOWN,
    KIND_CODES,
    KINDS,
    SECOND,
    SEQUENCE_CODES,
    TARGET_CODES,
    Bools,
    Floats,
    History,
    Ints,
    SequenceBatch,
    Target,
    TargetKind,
    Vocabulary,
)
from penchant.core.errors import InputError
from penchant.data._ragged import offsets

Int64s = npt.NDArray[np.int64]


class Sequences(Protocol):
    """Event histories side by side: what a ``Snapshot`` and a live request have in common.

    The events of row u are ``ptr[u]:ptr[u + 1]``, oldest first.
    """

    @property
    def ptr(self) -> Int64s:
        """Where each row begins, and where the last ends: (U + 1,)."""
        ...

    @property
    def item(self) -> npt.NDArray[np.int32]:
        """Item numbers, 0 = none: (M,)."""
        ...

    @property
    def kind(self) -> npt.NDArray[np.uint8]:
        """Codes of ``EventKind``: (M,)."""
        ...

    @property
    def ts(self) -> Int64s:
        """Microseconds since 1970, UTC: (M,)."""
        ...

    @property
    def value(self) -> npt.NDArray[np.float32]:
        """Money in minor units or stars, NaN = none: (M,)."""
        ...

    @property
    def features(self) -> npt.NDArray[np.float32]:
        """Normalised features of each row: (U, F)."""
        ...


@dataclass(frozen=True, eq=False)
class LiveSequences:
    """The histories of one request, a row a person; fulfils ``Sequences``."""

    ptr: Int64s
    item: npt.NDArray[np.int32]
    kind: npt.NDArray[np.uint8]
    ts: Int64s
    value: npt.NDArray[np.float32]
    features: npt.NDArray[np.float32]


def live_sequences(histories: Sequence[History], items: Vocabulary, features: Floats) -> LiveSequences:
    """Put live histories into the form that ``sequence_batch`` reads; row i is history i.

    Args:
        histories: One a person, as ``Store.history`` returns them.
        items: The vocabulary of the model that will read the batch; unknown items become 0 and are left out.
        features: (len(histories), F), normalised as the model's training snapshot was.
    """
    if len(features) != len(histories):
        raise InputError("one row of features is needed for each history", value=len(features))
    histories = [_with_shown(history) for history in histories]
    ptr = np.zeros(len(histories) + 1, np.int64)
    np.cumsum([len(history.ts) for history in histories], out=ptr[1:])
    if len(histories) == 1:
        (history,) = histories
        ids, kind, ts, value = history.item, history.kind, history.ts, history.value
    else:
        ids = [item for history in histories for item in history.item]
        none = [np.zeros(0)]
        kind = np.concatenate([h.kind for h in histories] or none)
        ts = np.concatenate([h.ts for h in histories] or none)
        value = np.concatenate([h.value for h in histories] or none)
    return LiveSequences(
        ptr=ptr,
        item=items.numbers(ids).astype(np.int32),
        kind=kind.astype(np.uint8, copy=False),
        ts=ts.astype(np.int64, copy=False),
        value=value.astype(np.float32, copy=False),
        features=np.ascontiguousarray(features, np.float32),
    )


def _with_shown(history: History) -> History:
    """The history with what was shown in its place among the events, as it lies in a snapshot."""
    if not history.shown_item:
        return history
    ts = np.concatenate([history.ts, history.shown_ts])
    order = np.argsort(ts, kind="stable")
    more = len(history.shown_item)
    item = [*history.item, *history.shown_item]
    return replace(
        history,
        ts=ts[order],
        kind=np.concatenate([history.kind, np.full(more, _IMPRESSION, np.uint8)])[order],
        item=[item[place] for place in order],
        value=np.concatenate([history.value, np.full(more, np.nan, np.float32)])[order],
    )


def _flags(codes: Sequence[int]) -> Bools:
    flags = np.zeros(256, np.bool_)
    flags[list(codes)] = True
    return flags


_IN_SEQUENCE = _flags(SEQUENCE_CODES)
_IS_TARGET = _flags(TARGET_CODES)
_IMPRESSION = KIND_CODES["impression"]
_FEWEST = 50  # events of a kind from which something can be learned about it


def is_target(kind: npt.NDArray[np.uint8], item: Ints, target: Target = "any") -> Bools:
    """Tell which events a next-item model predicts: of a target kind, or of the one named, with a known item."""
    wanted = _IS_TARGET[kind] if target == "any" else kind == ASKED_CODES[target]
    return np.asarray(wanted & (item > 0))


def target_kinds(sequences: Sequences) -> tuple[TargetKind, ...]:
    """The kinds of events that models can be asked about: each happened often enough, and none is the only one.

    Example:
        >>> from penchant.testing import toy_snapshot
        >>> target_kinds(toy_snapshot([("u", "tea", 0, "view"), ("u", "tea", 1, "view")]))
        ()
    """
    count_K = np.bincount(sequences.kind[is_target(sequences.kind, sequences.item)], minlength=256)
    often = tuple(KINDS[code - 1] for code in TARGET_CODES if count_K[code] >= _FEWEST)
    return cast(tuple[TargetKind, ...], often if np.count_nonzero(count_K) > 1 else ())


def model_value(value: Floats) -> npt.NDArray[np.float32]:
    """Squeeze event values for models: sign(v) log(1 + abs(v)); 0 where there is none.

    Money and stars share the column; the kind of the event beside it tells which it is.

    Example:
        >>> model_value(np.array([0.0, np.nan, -100.0], np.float32)).round(3).tolist()
        [0.0, 0.0, -4.614999771118164]
    """
    value = np.asarray(value, np.float32)
    known = np.where(np.isfinite(value), value, np.float32(0))
    return np.copysign(np.log1p(np.abs(known)), known)


@dataclass(frozen=True, eq=False)
class _Kept:
    """The events that enter a sequence. ``index`` None means: all of them."""

    index: Int64s | npt.NDArray[np.int32] | None  # (K,) positions of kept events
    ptr: Int64s  # (U + 1,) rows as slices of `index`

    def place(self, positions: Ints) -> Int64s:
        """How many kept events lie before each position."""
        if self.index is None:
            return np.asarray(positions, np.int64)
        return np.searchsorted(self.index, positions).astype(np.int64)

    def position(self, places: Ints) -> Ints:
        """Where the kept events with these numbers lie."""
        return places if self.index is None else self.index[places]


_kept_of: WeakKeyDictionary[Sequences, _Kept] = WeakKeyDictionary()


def _kept(sequences: Sequences) -> _Kept:
    """Find the kept events once per object: a batch must not look at all M events."""
    live = isinstance(sequences, LiveSequences)  # a request's arrays are read once
    found = None if live else _kept_of.get(sequences)
    if found is None:
        keep = _IN_SEQUENCE[sequences.kind] & (sequences.item > 0)
        if keep.all():
            found = _Kept(None, np.asarray(sequences.ptr, np.int64))
        else:
            index = np.flatnonzero(keep)
            small = index.astype(np.int32) if len(keep) < 2**31 else index
            found = _Kept(small, np.searchsorted(small, sequences.ptr).astype(np.int64))
        if not live:
            _kept_of[sequences] = found
    return found


@dataclass(frozen=True, eq=False)
class _Shown:
    """What was shown to people: impressions with a known item."""

    index: Int64s  # (I,) their positions
    ptr: Int64s  # (U + 1,) rows as slices of `index`
    place: Int64s  # (I,) how many kept events, of all rows, come before the first that is newer


_shown_of: WeakKeyDictionary[Sequences, _Shown | None] = WeakKeyDictionary()


def _shown(sequences: Sequences) -> _Shown | None:
    """Find the impressions once per object; None where there are none.

    What is newer is told by time alone: in which order events of one moment arrived is not known of live histories.
    """
    live = isinstance(sequences, LiveSequences)
    if not live and sequences in _shown_of:
        return _shown_of[sequences]
    index = np.flatnonzero((sequences.kind == _IMPRESSION) & (sequences.item > 0))
    found = None
    if len(index):
        ts = np.asarray(sequences.ts)
        other_M1 = np.ones(len(ts) + 1, np.bool_)  # another moment or person than the position before
        other_M1[1:-1] = ts[1:] != ts[:-1]
        other_M1[sequences.ptr] = True
        newer = np.flatnonzero(other_M1)
        end = newer[np.searchsorted(newer, index, side="right")]
        found = _Shown(index, np.searchsorted(index, sequences.ptr), _kept(sequences).place(end))
    if not live:
        _shown_of[sequences] = found
    return found


def _with_gathered(
    batch: SequenceBatch,
    sequences: Sequences,
    shown: _Shown,
    rows: Int64s,
    end: Ints,
    start: Int64s,
    stop: Int64s,
) -> SequenceBatch:
    """The batch with the last impressions before position ``end`` of each row, of kept events ``start:stop``."""
    last = np.maximum(np.searchsorted(shown.index, end), shown.ptr[rows])
    count_B = np.minimum(last - shown.ptr[rows], HISTORY_SHOWN)
    width = int(count_B.max(initial=0))
    if not width:
        return batch
    column_S = np.arange(width)
    mask_BS = column_S < count_B[:, None]
    number_BS = np.where(mask_BS, (last - count_B)[:, None] + column_S, 0)
    # Older than the first event of the row: a long and a short memory must give the same.
    mask_BS &= (shown.place[number_BS] > start[:, None]) | (start == stop)[:, None]
    item_BS = sequences.item[shown.index[number_BS]].astype(np.int64) * mask_BS
    age_BS = np.maximum(stop[:, None] - shown.place[number_BS], 0) * mask_BS
    return replace(batch, shown_BS=item_BS, shown_age_BS=age_BS)


def sequence_length(sequences: Sequences, rows: Ints | None = None, end: Ints | None = None) -> Int64s:
    """Count the events of each row (before position ``end``) that enter a sequence: (len(rows),) or (U,)."""
    kept = _kept(sequences)
    row_B = np.arange(len(kept.ptr) - 1) if rows is None else np.asarray(rows, np.int64)
    stop = kept.ptr[row_B + 1] if end is None else np.minimum(kept.place(end), kept.ptr[row_B + 1])
    return np.maximum(stop - kept.ptr[row_B], 0)


def sequence_batch(
    sequences: Sequences,
    rows: Ints,
    max_length: int,
    *,
    end: Ints | None = None,
    targets: bool = False,
    asked: int = 0,
) -> SequenceBatch:
    """Gather the last events of some rows as one padded batch: THE one function for training and live.

    Kept are events of ``SEQUENCE_KINDS`` with a known item. T is the longest history of the batch, at
    least 1 and at most ``max_length``. The gap of the first event shown is 0 even where an older one was
    cut off, so that a long and a short memory of the same person give the same batch. What was only shown stands
    apart, in ``shown_BS``: the newest items, and none older than the first event.

    Args:
        sequences: A snapshot or live histories.
        rows: (B,) row numbers, in any order, repeats allowed.
        max_length: The most events to keep, the last ones.
        end: (B,) absolute positions where each history stops (exclusive); None = the row's end.
        targets: Fill ``target_BT``: the item of the next kept event where that is of a target kind, 0 where
            it is not or there is none. The target of the last event shown is the one at ``end``, if any.
        asked: Code of the kind of event that the batch asks about; 0 = whatever comes next.

    Example:
        >>> from penchant.testing import toy_snapshot
        >>> snapshot = toy_snapshot([("u", "a"), ("u", "b"), ("u", "a"), ("v", "b")])
        >>> sequence_batch(snapshot, np.array([0, 1]), 2, targets=True).item_BT.tolist()
        [[2, 1], [2, 0]]
    """
    kept = _kept(sequences)
    row_B: Int64s = np.asarray(rows, np.int64)
    first, last = kept.ptr[row_B], kept.ptr[row_B + 1]
    stop: Int64s
    start: Int64s
    stop = last if end is None else np.minimum(np.maximum(kept.place(end), first), last)
    start = np.maximum(first, stop - max_length)
    batch = _gather(sequences, kept, row_B, start, stop, first if targets else None)
    shown = _shown(sequences)
    if shown is not None:
        at = sequences.ptr[row_B + 1] if end is None else np.minimum(end, sequences.ptr[row_B + 1])
        batch = _with_gathered(batch, sequences, shown, row_B, at, start, stop)
    return replace(batch, asked_B=np.full(len(row_B), asked, np.int64)) if asked else batch


def _gather(
    sequences: Sequences, kept: _Kept, rows: Int64s, start: Int64s, stop: Int64s, target_from: Int64s | None
) -> SequenceBatch:
    """Gather kept events ``start:stop`` of each row; targets from kept event ``target_from`` on."""
    length_B = stop - start
    width = max(1, int(length_B.max(initial=0)))
    column_T = np.arange(width)
    mask_BT = column_T < length_B[:, None]
    place_BT = start[:, None] + column_T
    if not mask_BT.any():
        return _nothing(sequences, rows, width, target_from is not None)
    position_BT = kept.position(np.where(mask_BT, place_BT, stop.max() - 1))
    ts_BT = sequences.ts[position_BT]
    gap_BT = np.zeros(mask_BT.shape, np.float32)
    seconds = np.maximum(ts_BT[:, 1:] - ts_BT[:, :-1], 0) * (1.0 / SECOND)
    gap_BT[:, 1:] = np.log1p(seconds.astype(np.float32)) * mask_BT[:, 1:]
    return SequenceBatch(
        item_BT=sequences.item[position_BT].astype(np.int64) * mask_BT,
        kind_BT=sequences.kind[position_BT].astype(np.int64) * mask_BT,
        gap_BT=gap_BT,
        value_BT=np.where(mask_BT, model_value(sequences.value[position_BT]), np.float32(0)),
        mask_BT=mask_BT,
        user_BF=sequences.features[rows],
        target_BT=None
        if target_from is None
        else _targets(sequences, kept, rows, place_BT, mask_BT, target_from),
    )


def _targets(
    sequences: Sequences, kept: _Kept, rows: Int64s, place_BT: Int64s, mask_BT: Bools, target_from: Int64s
) -> Int64s:
    next_BT = place_BT + 1
    real_BT = mask_BT & (next_BT < kept.ptr[rows + 1][:, None]) & (next_BT >= target_from[:, None])
    if not real_BT.any():
        return np.zeros(mask_BT.shape, np.int64)
    position_BT = kept.position(np.where(real_BT, next_BT, 0))
    real_BT &= _IS_TARGET[sequences.kind[position_BT]]
    return sequences.item[position_BT].astype(np.int64) * real_BT


def _nothing(sequences: Sequences, rows: Int64s, width: int, targets: bool) -> SequenceBatch:
    shape = (len(rows), width)
    return SequenceBatch(
        item_BT=np.zeros(shape, np.int64),
        kind_BT=np.zeros(shape, np.int64),
        gap_BT=np.zeros(shape, np.float32),
        value_BT=np.zeros(shape, np.float32),
        mask_BT=np.zeros(shape, np.bool_),
        user_BF=sequences.features[rows],
        target_BT=np.zeros(shape, np.int64) if targets else None,
    )


@dataclass(frozen=True, eq=False)
class Windows:
    """Pieces of histories to train on: kept events from ``start_W`` to ``end_W``, targets after ``seen_W``.

    All are absolute positions in the event arrays. Each event of a target kind, but the first of its row,
    is the target of exactly one window.
    """

    row_W: Int64s
    start_W: Int64s
    end_W: Int64s  # exclusive; the event at `end_W` is the target of the last one before it
    seen_W: Int64s  # the first event that counts as a target here; those before it are context
    length_W: Int64s  # events shown, for bucketing by length

    def __len__(self) -> int:
        return len(self.row_W)

    @property
    def num_targets(self) -> int:
        """At most this many events are asked for; fewer where not every event enters a sequence."""
        return int((self.end_W - self.seen_W + 1).sum())

    def take(self, index: Ints) -> Windows:
        """Some of them."""
        return Windows(*(getattr(self, f.name)[index] for f in fields(self)))

    def join(self, other: Windows) -> Windows:
        """These and then the others."""
        return Windows(
            *(np.concatenate([getattr(part, f.name) for part in (self, other)]) for f in fields(self))
        )

    def since(self, sequences: Sequences, moment: int) -> Windows:
        """Those with targets at or after a moment; earlier events are only context.

        Example:
            >>> from penchant.testing import toy_snapshot
            >>> toy = toy_snapshot([("u", item) for item in "abcd"] + [("v", "a")])
            >>> windows = training_windows(toy, 4).since(toy, int(toy.ts[2]))
            >>> window_batch(toy, windows, np.arange(len(windows))).target_BT.tolist()
            [[0, 3, 4]]
        """
        older_M1 = offsets((np.asarray(sequences.ts) < moment).view(np.int8))
        start_W, stop_W = sequences.ptr[self.row_W], sequences.ptr[self.row_W + 1]
        first_W = start_W + older_M1[stop_W] - older_M1[start_W]
        seen_W = np.maximum(self.seen_W, first_W)
        return replace(self, seen_W=seen_W).take(np.flatnonzero(seen_W <= self.end_W))


def training_windows(
    sequences: Sequences, max_length: int, *, overlap: int | None = None, rows: Ints | None = None
) -> Windows:
    """Cut histories into windows of at most ``max_length`` events in which each event is a target once.

    A history that is too long is cut from its end backwards; later windows repeat ``overlap`` events of the
    one before as context, without asking for them again.

    Args:
        sequences: The training snapshot.
        max_length: The most events shown in a window.
        overlap: Events of context repeated; None = half of ``max_length``.
        rows: (R,) rows to use; None = all. Rows with fewer than two events give no window.

    Example:
        >>> from penchant.testing import toy_snapshot
        >>> snapshot = toy_snapshot([("u", item) for item in "abcdefg"])
        >>> windows = training_windows(snapshot, 4, overlap=2)
        >>> window_batch(snapshot, windows, np.arange(2)).target_BT.tolist()
        [[2, 3, 4, 5], [0, 0, 6, 7]]
    """
    overlap = max_length // 2 if overlap is None else overlap
    if max_length < 1 or not 0 <= overlap < max_length:
        raise InputError("overlap must be at least 0 and less than max_length", value=(overlap, max_length))
    kept = _kept(sequences)
    rows = np.arange(len(kept.ptr) - 1) if rows is None else np.asarray(rows, np.int64)
    pairs = np.maximum(kept.ptr[rows + 1] - kept.ptr[rows] - 1, 0)  # (event, next event) of each row
    stride = max_length - overlap
    extra = -(-np.maximum(pairs - max_length, 0) // stride)
    count = np.where(pairs > 0, 1 + extra, 0)
    row_W = np.repeat(rows, count).astype(np.int64)
    back_W = np.repeat(np.cumsum(count), count) - 1 - np.arange(len(row_W))  # later windows of the row
    base_W = kept.ptr[row_W]
    end_W = np.repeat(pairs, count) - back_W * stride
    start_W = np.maximum(end_W - max_length, 0)
    earliest_W = back_W == np.repeat(extra, count)
    seen_W = np.where(earliest_W, 1, end_W - stride + 1)
    at = kept.position
    return Windows(
        row_W=row_W,
        start_W=np.asarray(at(base_W + start_W), np.int64),
        end_W=np.asarray(at(base_W + end_W), np.int64),
        seen_W=np.asarray(at(base_W + seen_W), np.int64),
        length_W=end_W - start_W,
    )


def window_batch(
    sequences: Sequences, windows: Windows, index: Ints, later: tuple[int, ...] = ()
) -> SequenceBatch:
    """Gather some training windows, with targets, padded to the longest of them: see ``sequence_batch``.

    Args:
        sequences: What ``windows`` was cut from.
        windows: All windows.
        index: (B,) which of them.
        later: Codes of kinds of events. With some, every position that asks for the next event also asks for the
            next one of one of these kinds, each in its turn: ``later_BT``, 0 where there is none.

    Example:
        >>> from penchant.testing import toy_snapshot
        >>> days = [("u", "a", 0, "view"), ("u", "b", 1, "view"), ("u", "c", 2, "view"), ("u", "a", 3)]
        >>> toy = toy_snapshot(days)
        >>> batch = window_batch(toy, training_windows(toy, 4), np.array([0]), (11,))
        >>> batch.target_BT.tolist(), batch.later_BT.tolist()
        ([[2, 3, 1]], [[1, 1, 1]])
    """
    kept = _kept(sequences)
    row_B = windows.row_W[index]
    start, stop, seen = (
        kept.place(positions[index]) for positions in (windows.start_W, windows.end_W, windows.seen_W)
    )
    batch = _gather(sequences, kept, row_B, start, stop, seen)
    if not later:
        return batch
    following_K = _following(sequences, kept, later)
    place_BT = start[:, None] + np.arange(batch.item_BT.shape[1])
    asks_BT = batch.mask_BT & (place_BT + 1 >= seen[:, None])
    place_BT = np.where(asks_BT, place_BT, 0)
    return replace(
        batch,
        later_BT=following_K[place_BT] * asks_BT,
        later_kind_BT=np.asarray(later, np.int64)[place_BT % len(later)] * asks_BT,
    )


_following_of: WeakKeyDictionary[Sequences, dict[tuple[int, ...], Int64s]] = WeakKeyDictionary()


def _following(sequences: Sequences, kept: _Kept, later: tuple[int, ...]) -> Int64s:
    """The item of the next event of the kind whose turn it is, for each kept event: (K,), 0 = none.

    Found once per object. The kinds take turns, so that many kinds cost no more than one.
    """
    known = _following_of.setdefault(sequences, {})
    if later not in known:
        position = kept.position(np.arange(int(kept.ptr[-1])))
        kind, item = sequences.kind[position], np.asarray(sequences.item[position], np.int64)
        last = np.repeat(kept.ptr[1:], np.diff(kept.ptr))
        found = np.zeros(len(kind), np.int64)
        for turn, code in enumerate(later):
            mine = np.arange(turn, len(kind), len(later))
            place = np.append(np.flatnonzero(kind == code), len(kind))
            ahead = place[np.searchsorted(place, mine, side="right").clip(max=len(place) - 1)]
            inside = ahead < last[mine]
            found[mine[inside]] = item[ahead[inside]]
        known[later] = found
    return known[later]
