"""Guests who turn out to be somebody: joined in both directions of time, wherever events are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penchant.core import EVENT_SCHEMA, Event, EventKind, Identified, bucket_of
from penchant.store import ShopStore, open_store
from penchant.store._journal import SCHEMA_VERSION, Journal, open_file

T0 = 1_720_000_000_000_000
SECOND = 1_000_000


def event(number: int, *, user: str | None = None, guest: str | None = None, at: int | None = None) -> Event:
    ts = T0 + (number if at is None else at) * SECOND
    return Event(
        kind="view", event_id=f"e{number}", ts=ts, user_id=user, anonymous_id=guest, item_id=f"i{number}"
    )


def found(guest: str, user: str, at: int) -> Identified:
    return Identified(anonymous_id=guest, user_id=user, ts=T0 + at * SECOND)


@pytest.fixture
def store(tmp_path: Path):
    with open_store(tmp_path / "shop") as store:
        yield store


def scanned(store: ShopStore, **options: int) -> dict[str, list[str]]:
    """Items by person, read whole and bucket by bucket, which must agree."""
    table = store.scan(columns=["subject", "item_id", "bucket"], **options)
    parts = [
        store.scan(bucket=b, columns=["subject", "item_id", "bucket"], **options)
        for b in range(store.num_buckets)
    ]
    assert pa.concat_tables(parts).sort_by("subject").equals(table.sort_by("subject"))
    people: dict[str, list[str]] = {}
    for row in table.to_pylist():
        people.setdefault(row["subject"], []).append(row["item_id"])
        assert row["bucket"] == bucket_of(row["subject"])
    for subject, items in people.items():
        own = store.scan(subject=subject, columns=["item_id"], **options)["item_id"].to_pylist()
        assert own == items
        if not options:
            assert store.history(subject).item == items
    return people


@pytest.mark.parametrize("compacted", [False, True])
def test_events_before_and_after_the_sign_in_are_joined(store: ShopStore, compacted: bool) -> None:
    store.append([event(1, guest="phone"), event(2, guest="other")])
    assert store.history("anna").item == []
    store.append([event(3, user="anna")], identified=[found("phone", "anna", 3)])
    store.append(
        [event(5, guest="phone", at=5), event(4, guest="phone", at=1)]
    )  # after it, and late from before
    if compacted:
        store.compact()
    assert scanned(store) == {"anna": ["i1", "i4", "i3", "i5"], "anon:other": ["i2"]}
    assert store.guests("anna") == ["anon:phone"]
    assert store.history("anon:phone").item == ["i1", "i4", "i5"], "the device alone knows what it did"


def test_what_a_guest_was_shown_is_joined_too(store: ShopStore) -> None:
    def shown(number: int, **who: Any) -> Event:
        return msgspec.structs.replace(event(number, **who), kind=EventKind.IMPRESSION)

    store.append(
        [shown(1, guest="phone"), event(2, guest="phone"), shown(4, user="anna"), shown(5, guest="phone")]
    )
    store.append([event(3, user="anna")], identified=[found("phone", "anna", 3)])
    assert store.history("anna").shown_item == ["i1", "i4", "i5"]
    store.append([shown(7, guest="phone")], identified=[found("phone", "ben", 6)])
    assert store.history("anna").shown_item == ["i1", "i4", "i5"]
    assert store.history("ben").shown_item == ["i7"]
    store.append([shown(8, user="ben", at=7)])
    assert store.history("ben").shown_item == ["i7", "i8"], "of one moment: in order of arrival"


def test_an_event_with_both_ids_identifies(store: ShopStore) -> None:
    store.append([event(1, guest="phone"), event(2, guest="phone", user="anna")])
    assert scanned(store) == {"anna": ["i1", "i2"]}


def test_a_load_identifies(store: ShopStore) -> None:
    store.append([event(1, guest="phone")])
    rows = [{"event_id": "x", "ts": T0 + SECOND * 9, "subject": "anna", "kind": "view", "item_id": "i9",
             "user_id": "anna", "anonymous_id": "phone", "row": 1}]  # fmt: skip
    batch = pa.RecordBatch.from_pylist(rows, EVENT_SCHEMA.append(pa.field("row", pa.int64())))
    store.load([batch], source="log.csv")
    assert scanned(store) == {"anna": ["i1", "i9"]}


def test_what_is_known_later_changes_no_earlier_snapshot(store: ShopStore) -> None:
    store.append([event(1, guest="phone")], identified=[found("phone", "anna", 10)])
    assert scanned(store, as_of=T0 + 10 * SECOND) == {"anon:phone": ["i1"]}
    assert scanned(store, as_of=T0 + 10 * SECOND + 1) == {"anna": ["i1"]}


def test_a_shared_device_is_whose_it_was_then(store: ShopStore) -> None:
    store.append(
        [event(n, guest="tablet") for n in (1, 4, 8)],
        identified=[found("tablet", "mum", 3), found("tablet", "son", 6)],
    )
    assert scanned(store) == {"mum": ["i1", "i4"], "son": ["i8"]}


def test_identifying_twice_changes_nothing_and_earlier_counts(store: ShopStore) -> None:
    store.append([event(2, guest="p")], identified=[found("p", "anna", 5), found("p", "anna", 9)])
    store.append([], identified=[found("p", "anna", 1)])
    assert scanned(store, as_of=T0 + 3 * SECOND) == {"anna": ["i2"]}
    assert store.status().detail["links"] == 1


def test_an_erasure_takes_the_guests_along(store: ShopStore, tmp_path: Path) -> None:
    store.append(
        [event(1, guest="device-of-anna"), event(2, guest="device-of-anna", user="anna-the-first")],
        identified=[found("second-of-anna", "anna-the-first", 3)],
    )
    store.compact()
    store.append([event(3, guest="second-of-anna"), event(4, guest="stranger")])
    store.keep_aside([("odd", {"anonymous_id": "second-of-anna", "item_id": "x"})])
    receipt = store.erase("anna-the-first")
    assert receipt.remaining == []
    assert scanned(store) == {"anon:stranger": ["i4"]}
    assert store.letters() == (0, [])
    words = store.append([event(5, guest="second-of-anna"), event(6, user="anna-the-first")])
    assert words == ["erased", "erased"], "what comes in late is refused on every device"
    store.append([], identified=[found("second-of-anna", "anna-the-first", 9)])
    assert store.status().detail["links"] == 0
    store.close()
    for file in (tmp_path / "shop").rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            assert b"of-anna" not in content, file
            assert b"anna-the-first" not in content, file


def test_an_export_holds_what_the_guest_did(store: ShopStore) -> None:
    store.append([event(1, guest="phone")], identified=[found("phone", "anna", 3)])
    store.keep_aside([("odd", {"user_id": "anna", "item_id": "x"})])
    kept = store.export("anna")
    assert [row["item_id"] for row in kept["events"]] == ["i1"]
    assert [(row["reason"], row["event"]["item_id"]) for row in kept["letters"]] == [("odd", "x")]


def test_a_reopened_store_and_a_reader_know_the_same(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        store.append([event(1, guest="phone")], identified=[found("phone", "anna", 3)])
        with open_store(tmp_path, readonly=True) as reader:
            assert scanned(reader) == {"anna": ["i1"]}
    with open_store(tmp_path) as store:
        assert scanned(store) == {"anna": ["i1"]}


def test_a_shop_of_the_version_before_finds_its_links(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        store.append([event(1, guest="phone"), event(2, guest="phone", user="anna")])
        store.compact()
    journal = Journal(open_file(tmp_path / "journal.db", readonly=False))
    with journal.transaction() as db:
        for table in ("links", "letters", "positions"):
            db.execute(f"DROP TABLE {table}")
        db.execute("DELETE FROM meta WHERE key = 'linked'")
        db.execute("UPDATE meta SET value = ? WHERE key = 'schema'", (b"2",))
    journal.close()
    with open_store(tmp_path) as store:
        assert scanned(store) == {"anna": ["i1", "i2"]}
        assert int(store._log.meta("schema")) == SCHEMA_VERSION


def test_the_newest_letters_are_kept(store: ShopStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penchant.store._letters.MOST_LETTERS", 3)
    for number in range(5):
        store.keep_aside([("odd", {"user_id": "u1", "item_id": f"i{number}"})])
    kept, letters = store.letters(limit=2)
    assert (kept, [event["item_id"] for _, _, _, event in letters]) == (3, ["i4", "i3"])
    assert store.letters(before=letters[-1][0])[1][0][3]["item_id"] == "i2"


def test_positions_are_stored_with_their_events_and_never_go_back(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        store.append([event(1, user="u")], positions={"kafka:t:0": 7})
        store.append([], positions={"kafka:t:0": 3, "kafka:t:1": 1})
    with open_store(tmp_path) as store:
        assert store.positions() == {"kafka:t:0": 7, "kafka:t:1": 1}


def test_an_event_sent_again_is_the_same_though_we_put_another_time_on_it(store: ShopStore) -> None:
    first, again = event(1, user="u"), event(1, user="u", at=7)
    assert store.append([first], said=[None]) == ["stored"]
    assert store.append([again], said=[None]) == ["duplicate"]
    assert store.append([again]) == ["conflict"], "the sender's own time tells them apart"
    store.compact()
    assert store.append([again], said=[None]) == ["duplicate"]
    assert store.known(["e1", "e2"]) == [True, False]


steps = st.lists(
    st.tuples(
        st.sampled_from(["guest", "user", "both", "link"]),
        st.sampled_from(["g1", "g2", "g3"]),
        st.sampled_from(["u1", "u2"]),
        st.integers(0, 30),
    ),
    max_size=14,
)


@settings(max_examples=10, deadline=None)
@given(steps=steps, compact_at=st.integers(0, 14), as_of=st.integers(0, 31))
def test_every_reading_agrees_with_the_obvious_one(tmp_path_factory, steps, compact_at, as_of) -> None:
    told: list[tuple[int, str, str]] = []
    events: list[tuple[int, str | None, str | None, str]] = []
    with open_store(tmp_path_factory.mktemp("identity")) as store:
        for number, (what, guest, user, at) in enumerate(steps):
            if number == compact_at:
                store.compact()
            if what == "link":
                store.append([], identified=[found(guest, user, at)])
            else:
                who = {"user": user if what != "guest" else None, "guest": guest if what != "user" else None}
                store.append([event(number, at=at, **who)])
                events.append((at, who["user"], who["guest"], f"i{number}"))
            if what in {"link", "both"}:
                told.append((at, guest, user))

        def obvious(limit: int) -> dict[str, set[str]]:
            people: dict[str, set[str]] = {}
            for at, user, guest, item in events:
                if at >= limit:
                    continue
                first: dict[str, int] = {}
                for when, g, u in told:
                    if g == guest and when < limit:
                        first[u] = min(when, first.get(u, when))
                links = sorted((when, store._persons(u), u) for u, when in first.items())
                owner = user or f"anon:{guest}"
                if user is None and links:
                    owner = ([u for when, _, u in links if when <= at] or [links[0][2]])[-1]
                people.setdefault(owner, set()).add(item)
            return people

        assert {p: set(items) for p, items in scanned(store).items()} == obvious(1000)
        at_moment = scanned(store, as_of=T0 + as_of * SECOND)
        assert {p: set(items) for p, items in at_moment.items()} == obvious(as_of)
