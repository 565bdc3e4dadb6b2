"""Faults 14 and 15: events twice, late or in any order, and clocks that jump, leave the state of the orderly case."""

import random
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penchant.core import SECOND, Event
from penchant.store import ShopStore, open_store
from penchant.testing._store import T0, batch_of, event

HOUR = 3600 * SECOND


def state(store: ShopStore) -> dict[str, object]:
    rows = store.scan(columns=["event_id", "subject", "ts", "item_id"]).to_pylist()
    people = sorted({row["subject"] for row in rows})
    histories = {who: (store.history(who).event_id, sorted(store.history(who).seen)) for who in people}
    return {"rows": rows, "histories": histories}


def deliver(store: ShopStore, events: list[Event], seed: int) -> None:
    """Send every event, some of them again, in any order, over both roads, with the journal moved in between."""
    rnd = random.Random(seed)
    sent = events + rnd.sample(events, len(events) // 2)
    rnd.shuffle(sent)
    while sent:
        size = rnd.randrange(1, 9)
        part, sent = sent[:size], sent[size:]
        road = rnd.random()
        if road < 0.7:
            assert set(store.append(part)) <= {"stored", "duplicate"}
        else:
            store.load([batch_of(part)], source="again")
        if rnd.random() < 0.2:
            store.compact()


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10_000), count=st.integers(1, 40))
def test_any_delivery_leaves_the_same_state(tmp_path_factory, seed: int, count: int) -> None:  # type: ignore[no-untyped-def]
    rnd = random.Random(seed)
    moments = rnd.sample(range(10_000), count)
    events = [event(n, f"u{rnd.randrange(3)}", ts=T0 + moments[n]) for n in range(count)]
    with open_store(tmp_path_factory.mktemp("tidy") / "shop") as tidy:
        tidy.append(sorted(events, key=lambda e: e.ts or 0))
        expected = state(tidy)
    with open_store(tmp_path_factory.mktemp("wild") / "shop") as wild:
        deliver(wild, events, seed)
        for e in events:
            assert wild.append([e]) == ["duplicate"], "every event came"
        assert state(wild) == expected


def test_the_clock_jumps(tmp_path: Path) -> None:
    """An hour back, an hour on, past 2038: arrival is ordered by the number in the journal, histories by the event."""
    moments = [T0, T0 - HOUR, T0 + HOUR, T0 - HOUR, 2_200_000_000_000_000]
    with open_store(tmp_path / "shop", clock=lambda: moments[0]) as store:
        for number, moment in enumerate(moments):
            assert store.append([event(number, ts=moment)]) == ["stored"]
        rows = store.scan(columns=["event_id", "seq", "ts"]).to_pylist()
        arrival = sorted(rows, key=lambda row: row["seq"])
        assert [row["event_id"] for row in arrival] == ["e0", "e1", "e2", "e3", "e4"]
        assert store.history("u1").event_id == ["e1", "e3", "e0", "e2", "e4"]
        store.compact()
        assert store.history("u1").event_id == ["e1", "e3", "e0", "e2", "e4"]
