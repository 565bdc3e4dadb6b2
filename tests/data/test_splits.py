"""Splits: nothing of the future in training, nobody and nothing lost."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penchant.core import DAY, KINDS, TARGET_CODES, Snapshot
from penchant.core.errors import InputError
from penchant.data import before, leave_one_out, repeat_share, sequence_batch, time_split
from penchant.data._splits import split_time
from penchant.testing import markov_snapshot, toy_snapshot

event = st.tuples(
    st.sampled_from(["u", "v", "w", "x"]),
    st.sampled_from(["a", "b", "c", None]),
    st.integers(0, 12),
    st.sampled_from([*KINDS, "purchase", "purchase", "view"]),
)
events = st.lists(event, min_size=1, max_size=60)


def targets_of(snapshot: Snapshot, row: int, low: int = 0, high: int = 2**62) -> list[int]:
    return [
        int(snapshot.item[m])
        for m in range(snapshot.ptr[row], snapshot.ptr[row + 1])
        if snapshot.kind[m] in TARGET_CODES and snapshot.item[m] and low <= snapshot.ts[m] < high
    ]


@given(events, st.integers(0, 13))
@settings(max_examples=100, deadline=None)
def test_before_keeps_exactly_the_earlier_events(rows: list, day: int) -> None:
    snapshot = toy_snapshot(rows)
    at = min(int(snapshot.ts.min()) + day * DAY, snapshot.as_of)
    cut = before(snapshot, at)
    assert (cut.as_of, cut.users, cut.items) == (at, snapshot.users, snapshot.items)
    assert cut.fingerprint != snapshot.fingerprint
    for row in range(snapshot.num_users):
        old = slice(snapshot.ptr[row], snapshot.ptr[row + 1])
        new = slice(cut.ptr[row], cut.ptr[row + 1])
        early = snapshot.ts[old] < at
        for name in ("item", "kind", "ts"):
            assert getattr(cut, name)[new].tolist() == getattr(snapshot, name)[old][early].tolist()


@given(events, st.floats(0.05, 0.95), st.none() | st.integers(1, 6))
@settings(max_examples=100, deadline=None)
def test_time_split_asks_everyone_what_they_then_did(rows: list, share: float, days: int | None) -> None:
    snapshot = toy_snapshot(rows)
    horizon = None if days is None else days * DAY
    try:
        train, cases = time_split(snapshot, share=share, horizon=horizon)
    except InputError:
        times = {t for row in range(snapshot.num_users) for t in targets_of(snapshot, row)}
        assert len(times) >= 0
        return
    at, stop = train.as_of, snapshot.as_of if horizon is None else train.as_of + horizon
    assert not len(train.ts) or train.ts.max() < at
    asked = dict(zip(cases.user_C.tolist(), range(len(cases)), strict=True))
    for row in range(snapshot.num_users):
        wanted = list(dict.fromkeys(targets_of(snapshot, row, at, stop)))
        assert (row in asked) == bool(wanted)
        if wanted:
            case = asked[row]
            assert cases.relevant(case).tolist() == wanted
            assert cases.first_item_C[case] == wanted[0]
            shown = sequence_batch(train, np.array([row]), 99)
            assert cases.length_C[case] == shown.length_B[0]
            assert cases.cold_C[case] == (shown.length_B[0] == 0)
            assert cases.batch(np.array([case]), 99).item_BT.tolist() == shown.item_BT.tolist()
            ptr, seen = cases.seen(np.array([case]))
            turned = targets_of(train, row)
            assert (ptr.tolist(), seen.tolist()) == ([0, len(turned)], turned)


def test_split_time_leaves_the_share_and_cuts_no_tie() -> None:
    toy = toy_snapshot([("u", "a", day) for day in [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]])
    assert split_time(toy, 0.1) == toy.ts[9]
    assert split_time(toy, 0.5) == toy.ts[5]
    tied = toy_snapshot([("u", "a", 0)] * 3 + [("u", "b", 1)] * 2)
    assert split_time(tied, 0.01) == split_time(tied, 0.99) == tied.ts[3]
    with pytest.raises(InputError, match="two different times"):
        split_time(toy_snapshot([("u", "a", 0), ("v", "a", 0)]), 0.1)
    with pytest.raises(InputError, match="share"):
        split_time(toy, 1.0)
    with pytest.raises(InputError, match="split earlier"):
        time_split(toy, at=toy.as_of)
    with pytest.raises(InputError, match="its own time"):
        before(toy, toy.as_of + 1)


def test_a_draw_of_users_is_seeded_and_whole() -> None:
    walk = markov_snapshot(200, 20)
    _, everyone = time_split(walk, share=0.3)
    _, some = time_split(walk, share=0.3, max_users=25, seed=1)
    _, again = time_split(walk, share=0.3, max_users=25, seed=1)
    _, other = time_split(walk, share=0.3, max_users=25, seed=2)
    assert len(some) == 25
    assert some.user_C.tolist() == again.user_C.tolist() != other.user_C.tolist()
    place = np.searchsorted(everyone.user_C, some.user_C)
    assert everyone.take(place).target_item.tolist() == some.target_item.tolist()
    assert everyone.take(place).target_ptr.tolist() == some.target_ptr.tolist()


@given(events, st.integers(1, 3), st.data())
@settings(max_examples=100, deadline=None)
def test_leave_one_out_is_the_protocol_of_the_papers(rows: list, leave_out: int, data: st.DataObject) -> None:
    target = data.draw(st.integers(1, leave_out))
    snapshot = toy_snapshot(rows)
    sequences = [targets_of(snapshot, row) for row in range(snapshot.num_users)]
    if all(len(s) <= leave_out for s in sequences):
        with pytest.raises(InputError, match="more than"):
            leave_one_out(snapshot, leave_out=leave_out, target=target)
        return
    train, cases = leave_one_out(snapshot, leave_out=leave_out, target=target)
    asked = dict(zip(cases.user_C.tolist(), range(len(cases)), strict=True))
    for row, s in enumerate(sequences):
        assert (row in asked) == (len(s) > leave_out)
        if row in asked:
            assert targets_of(train, row) == s[:-leave_out]
            assert cases.relevant(asked[row]).tolist() == [s[-target]]
            assert targets_of(cases.history, row) == s[:-target]
        else:
            assert targets_of(train, row) == s


def test_leave_one_out_refuses_a_target_that_is_not_left_out() -> None:
    with pytest.raises(InputError, match="between 1 and leave_out"):
        leave_one_out(markov_snapshot(10, 5), leave_out=1, target=2)
    assert len(leave_one_out(markov_snapshot(30, 5), max_users=7)[1]) == 7


def test_groups_are_the_attributes_with_few_values() -> None:
    toy = toy_snapshot([(f"u{n:02d}", "ab"[day % 2], day) for n in range(30) for day in range(3)])
    attributes = pa.table(
        {
            "city": ["Rome", "Oslo", None] * 10,
            "email": [f"{n}@example.org" for n in range(30)],
            "age": list(range(30)),
            "member": [True, False] * 15,
        }
    )
    _, cases = time_split(replace(toy, attributes=attributes), share=0.3)
    assert set(cases.groups) == {"city", "member"}
    assert cases.take(np.array([1, 2])).groups["city"].to_pylist() == ["Oslo", None]
    assert time_split(toy)[1].groups == {}


@given(events, st.integers(1, 30))
@settings(max_examples=60, deadline=None)
def test_repeat_share_equals_the_loop(rows: list, block: int) -> None:
    snapshot = toy_snapshot(rows)
    repeats = total = 0
    for row in range(snapshot.num_users):
        items = targets_of(snapshot, row)
        total += len(items)
        repeats += len(items) - len(set(items))
    assert repeat_share(snapshot, block=block) == pytest.approx(repeats / total if total else 0)
