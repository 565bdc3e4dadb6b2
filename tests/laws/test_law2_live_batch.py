"""Law 2: a live batch equals the offline batch."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penchant.core import DAY, KINDS, Event, SequenceBatch, Store
from penchant.data import live_sequences, make_snapshot, sequence_batch
from penchant.store import open_store

START = 1_700_000_000_000_000
AS_OF = START + 10 * DAY

event = st.builds(
    Event,
    kind=st.sampled_from([*KINDS, *["impression"] * 10]),
    ts=st.integers(START, AS_OF - 1) | st.sampled_from([START, START + DAY]),
    user_id=st.sampled_from(["u1", "u2", "u3"]),
    item_id=st.none() | st.sampled_from(["a", "b", "c"]),
    value=st.none() | st.sampled_from([5.0, 1999.0, -250.0, 0.1]),
    currency=st.none() | st.sampled_from(["EUR", "USD"]),
)


def assert_same_batch(one: SequenceBatch, two: SequenceBatch) -> None:
    names = ["item_BT", "kind_BT", "gap_BT", "value_BT", "mask_BT", "user_BF", "shown_BS", "shown_age_BS"]
    for name in names:
        left, right = getattr(one, name), getattr(two, name)
        if left is None:
            assert right is None, name
            continue
        assert left.dtype == right.dtype
        assert left.shape == right.shape, name
        assert left.tobytes() == right.tobytes(), name


def assert_law(store: Store, folder: Path, length: int) -> None:
    snapshot = make_snapshot(store, AS_OF, folder)
    if not snapshot.num_users:
        return
    rows = np.arange(snapshot.num_users)[::-1]
    histories = [store.history(snapshot.users.id(row + 1)) for row in rows]
    live = live_sequences(histories, snapshot.items, snapshot.features[rows])
    assert_same_batch(
        sequence_batch(snapshot, rows, length), sequence_batch(live, np.arange(len(rows)), length)
    )


@given(st.lists(event, max_size=40), st.integers(1, 12))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_live_equals_offline(memory_store: Callable[..., Any], events: list[Event], length: int) -> None:
    store = memory_store(catalog_ids=["b"])
    for place, one in enumerate(events):
        named = {name: getattr(one, name) for name in one.__struct_fields__} | {"event_id": str(place)}
        store.append([Event(**named)])
    with tempfile.TemporaryDirectory() as folder:
        assert_law(store, Path(folder), length)


@given(st.lists(event, min_size=1, max_size=40), st.integers(1, 12))
@settings(max_examples=5, deadline=None)
def test_live_equals_offline_in_a_shop_on_disk(events: list[Event], length: int) -> None:
    with tempfile.TemporaryDirectory() as folder, open_store(Path(folder) / "shop") as store:
        for place, one in enumerate(events):
            named = {name: getattr(one, name) for name in one.__struct_fields__} | {"event_id": str(place)}
            assert store.append([Event(**named)]) == ["stored"]
            if place == len(events) // 2:
                store.compact()
        assert_law(store, Path(folder) / "snapshots", length)


def test_impressions_push_nothing_out_of_the_batch(tmp_path: Path) -> None:
    with open_store(tmp_path / "shop") as store:
        kinds = ["impression" if n % 6 else "purchase" for n in range(1500)]  # five are shown, one is bought
        store.append(
            [
                Event(kind=kind, event_id=str(n), ts=START + n * 1_000_000, user_id="u", item_id=f"i{n % 42}")
                for n, kind in enumerate(kinds)
            ]
        )
        assert_law(store, tmp_path / "snapshots", 200)
        assert_law(store, tmp_path / "snapshots", 50)


def test_a_history_longer_than_the_window_gives_the_same_batch(tmp_path: Path) -> None:
    with open_store(tmp_path / "shop") as store:
        store.append(
            [
                Event(
                    kind="view", event_id=str(n), ts=START + n * 1_000_000, user_id="u", item_id=f"i{n % 40}"
                )
                for n in range(500)
            ]
        )
        assert_law(store, tmp_path / "snapshots", 200)
        assert_law(store, tmp_path / "snapshots", 50)
