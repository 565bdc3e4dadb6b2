"""sequence_batch and training windows against their slow, obvious twins."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penchant.core import KIND_CODES, KINDS, SECOND, SEQUENCE_CODES, TARGET_CODES, History, Snapshot
from penchant.core.errors import InputError
from penchant.data import (
    live_sequences,
    sequence_batch,
    sequence_length,
    training_windows,
    window_batch,
)
from penchant.testing import checkerboard_snapshot, markov_snapshot, toy_snapshot, withheld_item

USERS, ITEMS = ["u", "v", "w"], ["a", "b", "c"]
event = st.tuples(
    st.sampled_from(USERS),
    st.sampled_from([*ITEMS, None]),
    st.integers(0, 9),
    st.sampled_from(KINDS),
    st.sampled_from([math.nan, 0.0, -250.0, 1999.0, 5.0]),
)
events = st.lists(event, min_size=1, max_size=60)


def snapshot_of(rows: list[tuple[str, str | None, int, str, float]]) -> Snapshot:
    users = len({row[0] for row in rows})
    return toy_snapshot(
        [row[:4] for row in rows],
        items=ITEMS,
        values=[row[4] for row in rows],
        features=np.arange(users * 2).reshape(users, 2),
    )


def slow_row(
    snapshot: Snapshot, row: int, length: int, end: int | None = None
) -> list[tuple[int, int, float, float]]:
    kept = [
        m
        for m in range(snapshot.ptr[row], snapshot.ptr[row + 1])
        if snapshot.item[m] > 0 and snapshot.kind[m] in SEQUENCE_CODES and (end is None or m < end)
    ][-length:]
    found = []
    for place, m in enumerate(kept):
        gap = math.log1p((snapshot.ts[m] - snapshot.ts[kept[place - 1]]) / SECOND) if place else 0.0
        value = float(snapshot.value[m])
        value = 0.0 if math.isnan(value) else math.copysign(math.log1p(abs(value)), value)
        found.append((int(snapshot.item[m]), int(snapshot.kind[m]), gap, value))
    return found


@given(events, st.integers(1, 8), st.data())
@settings(max_examples=150, deadline=None)
def test_batch_equals_the_loop(rows: list, length: int, data: st.DataObject) -> None:
    snapshot = snapshot_of(rows)
    index = np.array(
        data.draw(st.lists(st.integers(0, snapshot.num_users - 1), min_size=1, max_size=6)), np.int64
    )
    ends = None
    if data.draw(st.booleans()):
        ends = np.array([data.draw(st.integers(snapshot.ptr[u], snapshot.ptr[u + 1])) for u in index])
    batch = sequence_batch(snapshot, index, length, end=ends)
    expected = [slow_row(snapshot, u, length, None if ends is None else ends[b]) for b, u in enumerate(index)]
    assert batch.item_BT.shape[1] == max(1, max(map(len, expected)))
    assert batch.length_B.tolist() == [len(row) for row in expected]
    assert sequence_length(snapshot, index, ends).tolist() == [
        len(slow_row(snapshot, u, 99, None if ends is None else ends[b])) for b, u in enumerate(index)
    ]
    for b, row in enumerate(expected):
        n = len(row)
        assert batch.mask_BT[b].tolist() == [True] * n + [False] * (batch.item_BT.shape[1] - n)
        for place, (item, kind, gap, value) in enumerate(row):
            assert (batch.item_BT[b, place], batch.kind_BT[b, place]) == (item, kind)
            assert batch.gap_BT[b, place] == pytest.approx(gap, rel=1e-6)
            assert batch.value_BT[b, place] == pytest.approx(value, rel=1e-6)
        for padding in (batch.item_BT, batch.kind_BT, batch.gap_BT, batch.value_BT):
            assert not padding[b, n:].any()
    assert np.array_equal(batch.user_BF, snapshot.features[index])
    assert (batch.item_BT.dtype, batch.gap_BT.dtype, batch.value_BT.dtype) == (
        np.int64,
        np.float32,
        np.float32,
    )


@given(events, st.integers(1, 8))
@settings(max_examples=100, deadline=None)
def test_targets_are_the_next_kept_events(rows: list, length: int) -> None:
    snapshot = snapshot_of(rows)
    batch = sequence_batch(snapshot, np.arange(snapshot.num_users), length, targets=True)
    assert batch.target_BT is not None
    for b in range(snapshot.num_users):
        n = int(batch.length_B[b])
        wanted = [
            int(item) if kind in TARGET_CODES else 0
            for item, kind in zip(batch.item_BT[b, 1:n], batch.kind_BT[b, 1:n], strict=True)
        ]
        assert batch.target_BT[b].tolist() == wanted + [0] * (batch.item_BT.shape[1] - len(wanted))


@given(events, st.integers(1, 6), st.data())
@settings(max_examples=60, deadline=None)
def test_windows_ask_for_every_event_once(rows: list, length: int, data: st.DataObject) -> None:
    snapshot = snapshot_of(rows)
    overlap = data.draw(st.integers(0, length - 1))
    windows = training_windows(snapshot, length, overlap=overlap)
    asked: list[tuple[int, tuple[int, ...], int]] = []
    for w in range(len(windows)):
        batch = window_batch(snapshot, windows, np.array([w]))
        assert batch.length_B[0] == windows.length_W[w] <= length
        assert batch.target_BT is not None
        for place in range(int(batch.length_B[0])):
            target = int(batch.target_BT[0, place])
            if target:
                shown = tuple(batch.item_BT[0, : place + 1].tolist())
                asked.append((int(windows.row_W[w]), shown, target))
                if w and windows.row_W[w] == windows.row_W[w - 1]:
                    assert place >= overlap  # later windows bring context
    expected = sum(
        sum(kind in TARGET_CODES for _, kind, _, _ in slow_row(snapshot, u, 99)[1:])
        for u in range(snapshot.num_users)
    )
    assert len(asked) == expected


def test_windows_of_a_long_history_end_at_its_end() -> None:
    toy = toy_snapshot([("u", item) for item in "abcdefghij"])
    windows = training_windows(toy, 4, overlap=1)
    batch = window_batch(toy, windows, np.arange(len(windows)))
    assert batch.item_BT.tolist() == [[1, 2, 3, 0], [3, 4, 5, 6], [6, 7, 8, 9]]
    assert batch.target_BT is not None
    assert batch.target_BT.tolist() == [[2, 3, 4, 0], [0, 5, 6, 7], [0, 8, 9, 10]]


def test_windows_refuse_an_overlap_without_progress() -> None:
    with pytest.raises(InputError, match="overlap"):
        training_windows(checkerboard_snapshot(), 4, overlap=4)


def test_live_sequences_leave_out_what_the_model_does_not_know() -> None:
    toy = toy_snapshot([("u", "a"), ("u", "b")])
    history = History(
        subject="new",
        ts=np.array([1, 2, 3]) * SECOND,
        kind=np.array([KIND_CODES["view"], KIND_CODES["view"], KIND_CODES["impression"]], np.uint8),
        item=["b", "unheard of", "a"],
        value=np.full(3, np.nan, np.float32),
        event_id=["1", "2", "3"],
    )
    live = live_sequences([history, history], toy.items, np.zeros((2, 0), np.float32))
    assert sequence_batch(live, np.array([1, 0]), 5).item_BT.tolist() == [[2], [2]]
    with pytest.raises(InputError, match="features"):
        live_sequences([history], toy.items, np.zeros((2, 0), np.float32))
    assert sequence_batch(
        live_sequences([], toy.items, np.zeros((0, 3))), np.zeros(0, int), 5
    ).item_BT.shape == (0, 1)


def test_toys_have_the_structure_they_promise() -> None:
    board = checkerboard_snapshot(40, 10)
    for user in range(board.num_users):
        own = board.item[board.ptr[user] : board.ptr[user + 1]]
        assert withheld_item(user, 10) not in own
        assert len(own) == 4
        assert set((own - 1) % 2) == {user % 2}
    walk = markov_snapshot(200, 20, follow=0.9)
    inside = np.ones(walk.num_events, bool)
    inside[walk.ptr[:-1]] = False
    follows = (walk.item[1:] - walk.item[:-1]) % 20 == 1
    assert 0.86 < follows[inside[1:]].mean() < 0.95


def test_serving_imports_stay_light() -> None:
    code = (
        "import sys; from penchant.data import sequence_batch, live_sequences;"
        "print(sorted({'ibis', 'duckdb', 'pandas', 'torch', 'deltalake'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
