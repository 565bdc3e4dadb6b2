"""Law 1: events at or after ``as_of`` never change a snapshot."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penchant.core import DAY, KINDS, Event, Snapshot
from penchant.data import Settings as DataSettings
from penchant.data import SnapshotOptions, before, make_snapshot, time_split
from penchant.store import open_store

START = 1_700_000_000_000_000
AS_OF = START + 10 * DAY
USERS = pa.table({"user_id": ["u1", "u2", "u9"], "age": [30, None, 50], "city": ["Rome", "Oslo", "Rome"]})


def event_at(low: int, high: int) -> st.SearchStrategy[Event]:
    return st.builds(
        Event,
        kind=st.sampled_from(KINDS),
        ts=st.integers(low, high - 1) | st.sampled_from([low, high - 1]),
        user_id=st.sampled_from(["u1", "u2", "u3", "Ünal"]),
        item_id=st.none() | st.sampled_from(["a", "b", "c", "new"]),
        value=st.none() | st.sampled_from([5.0, 1999.0, -250.0, 0.1]),
        currency=st.none() | st.sampled_from(["EUR", "USD"]),
    )


early = st.lists(event_at(START, AS_OF), max_size=25)
late = st.lists(event_at(AS_OF, AS_OF + 10 * DAY), min_size=1, max_size=15)
options = st.sampled_from(
    [
        SnapshotOptions(),
        SnapshotOptions(exclude=("u2",)),
        SnapshotOptions(bots=DataSettings(bot_events_per_day=3)),
    ]
)


def assert_same(one: Snapshot, two: Snapshot, *, vocabulary: bool = True) -> None:
    for name in ("ptr", "item", "kind", "ts", "value", "features", "foreign"):
        left, right = getattr(one, name), getattr(two, name)
        assert left.dtype == right.dtype
        assert left.tobytes() == right.tobytes(), name
    assert one.feature_names == two.feature_names
    assert one.facts["recipe"] == two.facts["recipe"]
    assert (one.users.ids, one.items.ids) == (two.users.ids, two.items.ids)
    assert one.attributes == two.attributes
    assert one.catalog.table == two.catalog.table


def numbered(events: list[Event]) -> list[Event]:
    return [
        Event(
            **{name: getattr(event, name) for name in event.__struct_fields__} | {"event_id": f"{place:03d}"}
        )
        for place, event in enumerate(events)
    ]


@given(early, late, options, st.randoms(use_true_random=False))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_later_events_change_nothing(
    memory_store: Callable[..., Any],
    past: list[Event],
    future: list[Event],
    settings: SnapshotOptions,
    random: Any,
) -> None:
    past, future = numbered(past), numbered(future)
    quiet = memory_store(catalog_ids=["a", "b", "z"], user_table=USERS)
    quiet.append(past)
    mixed: list[Event] = [*past]
    for event in future:  # at any place of arrival, the order of the past kept
        mixed.insert(random.randint(0, len(mixed)), event)
    busy = memory_store(catalog_ids=["a", "b", "z"], user_table=USERS)
    busy.append(mixed)
    with tempfile.TemporaryDirectory() as folder:
        one = make_snapshot(quiet, AS_OF, Path(folder) / "1", settings=settings)
        two = make_snapshot(busy, AS_OF, Path(folder) / "2", settings=settings)
        assert_same(one, two)


@given(early, late)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_past_of_a_snapshot_is_the_snapshot_of_the_past(
    memory_store: Callable[..., Any], past: list[Event], future: list[Event]
) -> None:
    one_currency = [event for event in past if event.currency != "USD"]  # the main currency cannot change
    ids = ["a", "b", "c", "new"]
    store = memory_store(catalog_ids=ids)
    store.append(one_currency)
    with tempfile.TemporaryDirectory() as folder:
        then = make_snapshot(store, AS_OF, Path(folder))
        store.append([event for event in future if event.currency != "USD" and event.user_id != "u3"])
        cut = before(make_snapshot(store, AS_OF + 10 * DAY, Path(folder)), AS_OF)
    rows = cut.users.numbers(then.users.ids) - 1
    assert (np.diff(cut.ptr)[np.setdiff1d(np.arange(cut.num_users), rows)] == 0).all()
    for name in ("item", "kind", "ts", "value"):
        assert getattr(cut, name).tobytes() == getattr(then, name).tobytes()
    if len(rows) == cut.num_users:
        assert cut.feature_names == then.feature_names
        assert cut.features.tobytes() == then.features.tobytes()


@given(early.filter(lambda rows: len(rows) > 3), late)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_training_does_not_see_what_comes_after_the_split(
    memory_store: Callable[..., Any], past: list[Event], future: list[Event]
) -> None:
    sure = [Event(kind="view", ts=AS_OF + 1, user_id="u1", item_id="a", event_id="x")]
    with tempfile.TemporaryDirectory() as folder:
        trained = []
        for number, later in enumerate((sure, sure + numbered(future))):
            store = memory_store(catalog_ids=["a", "b", "c", "new"], user_table=USERS)
            store.append(numbered([*past, Event(kind="view", ts=START, user_id="u1", item_id="a")]))
            store.append(
                [
                    *later,
                    *(Event(kind="view", ts=AS_OF, user_id=u, item_id="a") for u in ("u2", "u3", "Ünal")),
                ]
            )
            snapshot = make_snapshot(store, AS_OF + 10 * DAY, Path(folder) / str(number))
            trained.append(time_split(snapshot, at=AS_OF)[0])
        one, two = trained
        for name in ("ptr", "item", "kind", "ts", "value"):
            assert getattr(one, name).tobytes() == getattr(two, name).tobytes()


def test_the_law_holds_for_a_shop_on_disk(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)

    def events(number: int, low: int, high: int) -> list[Event]:
        return [
            Event(
                kind=KINDS[draw.integers(len(KINDS))],
                event_id=f"{low}-{place}",
                ts=int(draw.integers(low, high)),
                user_id=f"u{draw.integers(20)}",
                item_id=f"i{draw.integers(30)}",
                value=float(draw.integers(1000)),
                currency="EUR",
            )
            for place in range(number)
        ]

    with open_store(tmp_path / "shop") as store:
        store.append(events(200, START, AS_OF))
        one = make_snapshot(store, AS_OF, tmp_path / "snapshots")
        store.append(events(100, AS_OF, AS_OF + DAY))
        two = make_snapshot(store, AS_OF, tmp_path / "snapshots")
        store.compact()
        three = make_snapshot(store, AS_OF, tmp_path / "snapshots")
    assert one.num_events == 200
    assert_same(one, two)
    assert_same(one, three)
