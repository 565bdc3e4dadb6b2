"""The conformance suite of stores: subclass it, say how to open yours, and every promise is tested."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penchant.core import (
    CATALOG_SCHEMA,
    DAY,
    EVENT_SCHEMA,
    HISTORY_EVENTS,
    HISTORY_SHOWN,
    KINDS,
    SEQUENCE_KINDS,
    TABLE_SCHEMA,
    TARGET_KINDS,
    Event,
    EventKind,
    Slate,
    SlateItem,
    Store,
    bucket_of,
    subject_of,
)
from penchant.core.errors import InputError

T0 = 1_700_000_000_000_000


def event(number: int, user: str | None = "u1", *, ts: int | None = None, **fields: Any) -> Event:
    """A view by a user, numbered; any field may be given."""
    given: dict[str, Any] = {
        "event_id": f"e{number}",
        "ts": T0 + number if ts is None else ts,
        "user_id": user,
    }
    return Event(**{"kind": EventKind.VIEW, "item_id": f"i{number}", **given, **fields})


def batch_of(events: Iterable[Event], first_row: int = 0) -> pa.RecordBatch:
    """Events as ``Store.load`` takes them."""
    rows: list[dict[str, Any]] = []
    for number, e in enumerate(events, first_row):
        row = {name: getattr(e, name, None) for name in EVENT_SCHEMA.names}
        row |= {"kind": e.kind.value, "subject": subject_of(e.user_id, e.anonymous_id), "row": number}
        rows.append(row)
    schema = EVENT_SCHEMA.append(pa.field("row", pa.int64()))
    return pa.RecordBatch.from_pylist(rows, schema=schema)


def slate(number: int, subject: str = "u1") -> Slate:
    """A small answer."""
    items = [SlateItem(item_id="i1", score=1.0, odds=0.5, explored=False)]
    return Slate(
        recommendation_id=f"r{number}",
        ts=T0 + number,
        subject=subject,
        items=items,
        policy_id="p",
        model_id="m",
        seed=0,
    )


def order_key(table: pa.Table) -> list[tuple[bytes, int, int]]:
    """The keys by which a scan must be ascending."""
    rows = zip(table["subject"].to_pylist(), table["ts"].to_pylist(), table["seq"].to_pylist(), strict=True)
    return [(s.encode(), t, q) for s, t, q in rows]


def _busy_person(count: int) -> list[Event]:
    """Events of u1 in order: of all kinds, most of them impressions, some without an item."""
    kinds = [*EventKind, *[EventKind.IMPRESSION] * 12]
    return [
        event(n, ts=T0 + n, item_id=f"i{n % 97}" if n % 11 else None, kind=kinds[n * 5 % len(kinds)])
        for n in range(count * 3)
    ]


class StoreTests:
    """What a ``Store`` promises.

    Example:
        class TestMyStore(StoreTests):
            def open(self, path):
                return my_store(path)
    """

    def open(self, path: Path) -> Store:
        """Open the store that lies at ``path``, made if it is new. Opened again after ``close`` in tests."""
        raise NotImplementedError

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[Store]:
        """A new store."""
        with closing(self.open(tmp_path / "shop")) as store:
            yield store

    # ---- loading and appending -----------------------------------------------------------------------

    def test_empty_store(self, store: Store) -> None:
        assert store.scan().schema.names == TABLE_SCHEMA.names
        assert store.scan().num_rows == 0
        assert store.history("nobody").item == []
        assert store.catalog().num_rows == 0
        assert store.users().num_rows == 0
        assert list(store.decisions()) == []
        assert store.status().events == 0
        assert store.last_ts() is None
        assert store.compact() == 0

    def test_every_column_survives(self, store: Store) -> None:
        full = event(
            1, anonymous_id="c9", session_id="s", value=1.5, quantity=2.0, currency="EUR", query="röd",
            text="bra", recommendation_id="r", position=3, consent=["personalise", "analytics"],
            props={"b": 1, "a": [2]},
        )  # fmt: skip
        store.append([full, event(2, None, anonymous_id="c8")])
        for _ in range(2):  # in the journal, then in the table
            rows = store.scan().to_pylist()
            assert rows[1] | {"seq": 0, "bucket": 0} == {
                "event_id": "e1", "ts": T0 + 1, "subject": "u1", "user_id": "u1", "anonymous_id": "c9",
                "session_id": "s", "kind": "view", "item_id": "i1", "value": 1.5, "quantity": 2.0,
                "currency": "EUR", "query": "röd", "text": "bra", "recommendation_id": "r", "position": 3,
                "consent": "personalise,analytics", "props": '{"a":[2],"b":1}', "seq": 0, "bucket": 0,
            }  # fmt: skip
            assert rows[0]["subject"] == "anon:c8"
            assert [row["bucket"] for row in rows] == [bucket_of("anon:c8"), bucket_of("u1")]
            store.compact()

    def test_load_reports_and_refuses(self, store: Store) -> None:
        report = store.load(
            [batch_of([event(1), event(2), event(1)]), batch_of([event(2, item_id="x"), event(3)], 3)],
            source="a.csv",
        )
        assert (report.accepted, report.already_stored, report.erased) == (3, 0, 0)
        refused = report.refused.to_pylist()
        assert [(r["row"], r["reason"], r["source"]) for r in refused] == [
            (2, "duplicate", "a.csv"),
            (3, "conflict", "a.csv"),
        ]
        assert refused[1]["item_id"] == "x"
        assert all(r["detail"] for r in refused)
        assert store.scan(columns=["event_id", "item_id"]).to_pylist() == [
            {"event_id": f"e{n}", "item_id": f"i{n}"} for n in (1, 2, 3)
        ]

    def test_same_source_twice_changes_nothing(self, store: Store) -> None:
        batches = [batch_of([event(n, f"u{n % 7}") for n in range(50)] + [event(4, "u4")])]
        first = store.load(batches, source="a")
        before = store.scan()
        again = store.load(batches, source="a")
        assert (again.accepted, again.already_stored, again.version) == (0, 50, first.version)
        assert again.refused.equals(first.refused)
        assert store.scan().equals(before)

    def test_load_knows_the_journal(self, store: Store) -> None:
        store.append([event(1), event(2)])
        report = store.load([batch_of([event(1), event(2, item_id="x"), event(3)])], source="a")
        assert (report.accepted, report.already_stored, report.refused.num_rows) == (1, 1, 1)
        assert store.scan(columns=["event_id"])["event_id"].to_pylist() == ["e1", "e2", "e3"]

    def test_append_answers_one_word_each(self, store: Store) -> None:
        store.load([batch_of([event(0)])], source="a")
        words = store.append([event(0), event(0, item_id="x"), event(1), event(1), event(1, item_id="x")])
        assert words == ["duplicate", "conflict", "stored", "duplicate", "conflict"]
        assert store.append([event(1), event(2)]) == ["duplicate", "stored"]
        store.compact()
        assert store.append([event(1), event(2, item_id="x"), event(3)]) == [
            "duplicate",
            "conflict",
            "stored",
        ]

    def test_a_failing_source_leaves_nothing(self, store: Store) -> None:
        store.load([batch_of([event(0)])], source="a")

        def broken() -> Iterator[pa.RecordBatch]:
            yield batch_of([event(1), event(2)])
            raise InputError("broken source")

        with pytest.raises(InputError, match="broken source"):
            store.load(broken(), source="b")
        assert store.scan().num_rows == 1
        assert store.load([batch_of([event(1)])], source="b").accepted == 1

    def test_an_event_without_person_or_time_is_refused(self, store: Store) -> None:
        for bad in (
            event(1, None),
            event(1, event_id=None),
            Event(kind=EventKind.VIEW, event_id="e", user_id="u"),
        ):
            with pytest.raises(InputError):
                store.append([event(9), bad])
        assert store.scan().num_rows == 0

    def test_late_events_are_counted(self, store: Store) -> None:
        assert store.load([batch_of([event(1), event(2, ts=T0 - 3 * DAY)])], source="a").late == 0
        report = store.load([batch_of([event(3, ts=T0 - 2 * DAY), event(4, ts=T0 - DAY // 2)])], source="b")
        assert report.late == 1

    def test_many_threads_append(self, store: Store) -> None:
        words: list[list[str]] = [[] for _ in range(4)]

        def work(thread: int) -> None:
            for number in range(25):  # every event is sent by two threads
                words[thread] += store.append([event(100 * (thread // 2) + number, f"u{number % 5}")])

        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        counts = {word: sum(w.count(word) for w in words) for word in ("stored", "duplicate")}
        assert counts == {"stored": 50, "duplicate": 50}
        table = store.scan()
        assert sorted(table["event_id"].to_pylist()) == sorted(
            {f"e{100 * t + n}" for t in range(2) for n in range(25)}
        )
        assert len(set(table["seq"].to_pylist())) == 50
        assert len(store.history("u1").item) == 10

    # ---- reading -------------------------------------------------------------------------------------

    def test_order_is_subject_bytes_time_arrival(self, store: Store) -> None:
        users = ["b", "B", "é", "ab", "a", "𝒳", "z", "中", "\u007f"]
        loaded = [event(n, users[n % len(users)], ts=T0 + (n * 7) % 5) for n in range(90)]
        store.load([batch_of(loaded[:60])], source="a")
        store.append(loaded[60:80])
        store.load([batch_of(loaded[80:])], source="b")
        for _ in range(2):
            table = store.scan()
            assert order_key(table) == sorted(order_key(table))
            assert table.num_rows == 90
            arrival = sorted(zip(table["seq"].to_pylist(), table["event_id"].to_pylist(), strict=True))
            assert [e for _, e in arrival] == [e.event_id for e in loaded]
            for bucket in {bucket_of(u) for u in users}:
                part = store.scan(bucket=bucket)
                assert set(part["bucket"].to_pylist()) == {bucket}
                assert order_key(part) == sorted(order_key(part))
            store.compact()

    def test_time_window_and_columns(self, store: Store) -> None:
        store.load([batch_of([event(n) for n in range(10)])], source="a")
        store.append([event(n) for n in range(10, 20)])
        table = store.scan(since=T0 + 5, as_of=T0 + 15, columns=["item_id", "ts"])
        assert table.column_names == ["item_id", "ts"]
        assert table["ts"].to_pylist() == list(range(T0 + 5, T0 + 15))
        assert store.scan(as_of=T0).num_rows == 0
        assert sum(store.scan(bucket=b).num_rows for b in range(store.num_buckets)) == 20
        with pytest.raises(InputError, match="no such column"):
            store.scan(columns=["nothing"])

    def test_history_is_fresh(self, store: Store) -> None:
        store.load([batch_of([event(1), event(3), event(5, "u2")])], source="a")
        assert store.history("u1").item == ["i1", "i3"]
        store.append([event(4, value=2.5), event(2)])  # the second is late
        history = store.history("u1")
        assert history.subject == "u1"
        assert history.item == ["i1", "i2", "i3", "i4"]
        assert history.event_id == ["e1", "e2", "e3", "e4"]
        assert history.ts.tolist() == [T0 + n for n in (1, 2, 3, 4)]
        assert history.kind.tolist() == [EventKind.VIEW.code] * 4
        assert history.value[3] == 2.5
        assert history.value[0] != history.value[0]
        assert history.seen == {"i1", "i2", "i3", "i4"}
        store.load([batch_of([event(6)])], source="b")
        assert store.history("u1").item[-1] == "i6"
        store.compact()
        assert store.history("u1").event_id == ["e1", "e2", "e3", "e4", "e6"]

    @pytest.mark.parametrize("road", ["load", "append", "both"])
    def test_history_window(self, store: Store, road: str) -> None:
        events = [event(n, item_id=f"i{n % 700}") for n in range(1000)]
        loaded = {"load": 1000, "append": 0, "both": 450}[road]
        if loaded:
            store.load([batch_of(events[:loaded])], source="a")
            assert len(store.history("u1").item) == min(loaded, HISTORY_EVENTS)
        for start in range(loaded, 1000, 110):
            store.append(events[start : start + 110])
        store.append([event(5000, ts=T0 - 5, item_id="late")])  # older than the window
        history = store.history("u1")
        assert history.event_id == [f"e{n}" for n in range(1000 - HISTORY_EVENTS, 1000)]
        assert history.older_items == {e.item_id for e in events[:-HISTORY_EVENTS]} | {"late"}
        assert [len(store.history("u1", limit).item) for limit in (1, 450, 900, 5000)] == [1, 450, 900, 1001]
        assert store.history("u1", 1).seen == store.history("u1", 5000).seen

    @pytest.mark.parametrize("road", ["load", "append", "both"])
    def test_history_holds_what_models_read(self, tmp_path: Path, road: str) -> None:
        """Law: a live batch equals the offline batch. What was only shown or searched for takes nobody's place."""
        events = _busy_person(1500)
        read = [e for e in events if e.kind in SEQUENCE_KINDS and e.item_id is not None]
        half = {"load": len(events), "append": 0, "both": len(events) // 2}[road]
        with closing(self.open(tmp_path / "shop")) as store:
            if half:
                store.load([batch_of(events[:half])], source="a")
            for start in range(half, len(events), 150):
                store.append(events[start : start + 150])
                assert store.history("u1").event_id, "built early, so that what follows is added to it"
            late = [
                event(9000, ts=T0 - 2, item_id="late-purchase", kind=EventKind.PURCHASE),
                event(9001, ts=T0 - 1, item_id="late-refund", kind=EventKind.REFUND),
                event(9002, ts=read[-1].ts, item_id="late-impression", kind=EventKind.IMPRESSION),
            ]
            store.append(late)
            store.append([event(9003, "u2", item_id="shown", kind=EventKind.IMPRESSION)])
            shown = [e for e in events if e.kind == EventKind.IMPRESSION and e.item_id is not None]
            newest = sorted([*shown, late[2]], key=lambda e: (e.ts, e.event_id == "e9002"))[-HISTORY_SHOWN:]
            self._assert_read(store, [*late[:2], *read], newest)
            store.compact()
            self._assert_read(store, [*late[:2], *read], newest)
        with closing(self.open(tmp_path / "shop")) as store:
            store.load([batch_of([event(9004, "u3")])], source="b")  # others of the same bucket, or none
            store.load([batch_of([event(9005, item_id="i9005")])], source="c")  # so that it is built again
            self._assert_read(store, [*late[:2], *read, event(9005, item_id="i9005")], newest)

    def _assert_read(self, store: Store, read: list[Event], shown: list[Event]) -> None:
        turned = {e.item_id for e in read if e.kind in TARGET_KINDS}
        for limit in (1, 50, HISTORY_EVENTS, 450, 5000):
            history = store.history("u1", limit)
            assert history.event_id == [e.event_id for e in read][-limit:]
            assert [KINDS[code - 1] for code in history.kind] == [e.kind.value for e in read][-limit:]
            assert history.seen == turned
            assert history.shown_item == [e.item_id for e in shown]
            assert history.shown_ts.tolist() == [e.ts for e in shown]
        only = store.history("u2")
        assert (only.event_id, only.seen, only.shown_item) == ([], frozenset(), ["shown"])
        assert store.status().subjects in (
            None,
            len(set(store.scan(columns=["subject"])["subject"].to_pylist())),
        )

    def test_reopening_keeps_everything(self, tmp_path: Path) -> None:
        with closing(self.open(tmp_path / "shop")) as store:
            store.load([batch_of([event(1), event(2)])], source="a")
            store.append([event(3)])
            store.log_decision(slate(1))
            store.put_catalog(pa.table({"id": ["i1"]}))
            store.put_users(pa.table({"user_id": ["u1"], "age": [3]}))
        for _ in range(2):
            with closing(self.open(tmp_path / "shop")) as store:
                assert store.scan(columns=["event_id"])["event_id"].to_pylist() == ["e1", "e2", "e3"]
                assert store.history("u1").event_id == ["e1", "e2", "e3"]
                assert list(store.decisions()) == [slate(1)]
                assert store.catalog()["id"].to_pylist() == ["i1"]
                assert store.users()["age"].to_pylist() == [3]
                assert store.append([event(1), event(3)]) == ["duplicate", "duplicate"]
                store.compact()

    def test_status_counts(self, store: Store) -> None:
        store.load([batch_of([event(1), event(2, "u2")])], source="a")
        store.append([event(3, "u3")])
        store.put_catalog(pa.table({"id": ["i1", "i2"]}))
        store.log_decision(slate(1))
        store.flush()
        status = store.status()
        assert (status.events, status.journal_events, status.items, status.decisions) == (3, 1, 2, 1)
        assert (status.first_ts, status.last_ts) == (T0 + 1, T0 + 3)
        assert (store.last_ts(), store.table_version()) == (status.last_ts, status.table_version)
        assert status.subjects in (None, 3)
        assert status.bytes > 0

    def test_compaction_keeps_every_event_once(self, store: Store) -> None:
        store.load([batch_of([event(n, f"u{n % 3}") for n in range(20)])], source="a")
        store.append([event(n, f"u{n % 3}") for n in range(20, 50)])
        before, histories = store.scan(), [store.history(f"u{n}").event_id for n in range(3)]
        assert store.compact() == 30
        assert store.compact() == 0
        assert store.scan().equals(before)
        assert [store.history(f"u{n}").event_id for n in range(3)] == histories
        assert store.status().journal_events == 0

    # ---- catalogue, users, decisions -----------------------------------------------------------------

    def test_catalog_rows_are_replaced_by_id(self, store: Store) -> None:
        store.put_catalog(pa.table({"id": ["b", "a"], "title": ["B", "A"], "labels": [["x"], None]}))
        store.put_catalog(pa.table({"id": ["c", "b", "b"], "price": [1, 2, 3]}))
        table = store.catalog()
        assert table.schema.names == CATALOG_SCHEMA.names
        assert table.schema.types == CATALOG_SCHEMA.types
        assert table.select(["id", "title", "price", "labels"]).to_pylist() == [
            {"id": "a", "title": "A", "price": None, "labels": None},
            {"id": "b", "title": None, "price": 3.0, "labels": None},
            {"id": "c", "title": None, "price": 1.0, "labels": None},
        ]
        for bad in (
            {"title": ["x"]},
            {"id": ["a"], "colour": ["red"]},
            {"id": ["a"], "price": ["dear"]},
            {"id": [None]},
        ):
            with pytest.raises(InputError):
                store.put_catalog(pa.table(bad))
        assert store.catalog().num_rows == 3

    def test_user_columns_are_merged(self, store: Store) -> None:
        store.put_users(pa.table({"user_id": ["u2", "u1"], "age": [20, 10], "tags": [["x"], []]}))
        store.put_users(pa.table({"user_id": ["u3", "u2"], "age": [2.5, None], "city": ["Oslo", "Rom"]}))
        assert store.users().to_pylist() == [
            {"user_id": "u1", "age": 10.0, "tags": [], "city": None},
            {"user_id": "u2", "age": None, "tags": ["x"], "city": "Rom"},
            {"user_id": "u3", "age": 2.5, "tags": None, "city": "Oslo"},
        ]
        with pytest.raises(InputError, match="age"):
            store.put_users(pa.table({"user_id": ["u1"], "age": ["old"]}))
        with pytest.raises(InputError, match="user_id"):
            store.put_users(pa.table({"name": ["u1"]}))
        assert store.users()["age"].type == pa.float64()

    def test_decisions_come_in_order_of_time(self, store: Store) -> None:
        for number in (3, 1, 2):
            store.log_decision(slate(number, f"u{number % 2}"))
        store.flush()
        assert list(store.decisions()) == [slate(n, f"u{n % 2}") for n in (1, 2, 3)]
        assert list(store.decisions("u1")) == [slate(1), slate(3)]
        assert list(store.decisions("u9")) == []

    # ---- people --------------------------------------------------------------------------------------

    def test_export(self, store: Store) -> None:
        store.load([batch_of([event(1), event(2, "u2")])], source="a")
        store.append([event(3)])
        store.put_users(pa.table({"user_id": ["u1"], "age": [3]}))
        store.log_decision(slate(1))
        out = store.export("u1")
        assert [e["event_id"] for e in out["events"]] == ["e1", "e3"]
        assert out["decisions"][0]["recommendation_id"] == "r1"
        assert out["attributes"] == {"user_id": "u1", "age": 3}
        assert out["erased"] is False
        assert store.export("u9")["events"] == []

    @pytest.mark.parametrize("user", ["customer-77301", "anon:device-55120"])
    def test_erasure_leaves_nothing(self, tmp_path: Path, user: str) -> None:
        """Law: after erasure no file, index, log or cache holds the person."""
        guest = user.startswith("anon:")
        bare = user.removeprefix("anon:")
        who: dict[str, Any] = {"user": None, "anonymous_id": bare} if guest else {"user": user}
        path = tmp_path / "shop"
        with closing(self.open(path)) as store:
            mine = [event(n, text="secret-word", **who) for n in range(300)]
            others = [event(1000 + n, f"{bare}{n}", item_id="i1") for n in range(50)]
            if guest:
                others.append(event(2000, "known", anonymous_id=bare))
            store.load([batch_of(mine[:100] + others)], source="a")
            store.append(mine[100:200])
            store.compact()
            store.append(mine[200:])
            keys = [bare + "0", user]
            store.put_users(pa.table({"user_id": keys, "age": list(range(len(keys)))}))
            store.log_decision(slate(1, user))
            store.log_decision(slate(2, bare + "0"))
            store.flush()
            assert len(store.history(user).item) == min(300, HISTORY_EVENTS)
            receipt = store.erase(user)
            assert receipt.remaining == []
            assert receipt.bytes_searched > 0
            assert receipt.removed["events"] + receipt.removed["journal"] == 300
            self._assert_gone(store, path, user, bare)
            assert store.append([event(1, **who), event(5000, **who)]) == ["erased", "erased"]
            report = store.load([batch_of([event(5001, **who), event(5002, "u2")])], source="b")
            assert (report.accepted, report.erased) == (1, 1)
            assert store.put_users(pa.table({"user_id": [user, "u2"], "age": [9, 9]})) == 1
            store.log_decision(slate(3, user))
            store.flush()
            store.compact()
            self._assert_gone(store, path, user, bare)
            assert store.scan().num_rows == len(others) + 1
            assert len(store.history(f"{bare}0").item) == 1
            assert store.export(user)["erased"] is True
        with closing(self.open(path)) as store:
            assert store.append([event(7000, **who)]) == ["erased"]
            self._assert_gone(store, path, user, bare)

    def test_a_guest_and_a_user_of_the_same_id(self, store: Store) -> None:
        """Law: an export or an erasure of one person never touches what is another's."""
        guest = event(1, None, anonymous_id="12")
        store.load([batch_of([guest, event(2, "12")])], source="a")
        store.append([event(3, None, anonymous_id="12"), event(4, "12")])
        store.put_users(pa.table({"user_id": ["12"], "age": [41]}))
        assert store.export("anon:12")["attributes"] is None
        receipt = store.erase("anon:12")
        assert (receipt.remaining, receipt.removed["users"]) == ([], 0)
        export = store.export("12")
        assert [e["event_id"] for e in export["events"]] == ["e2", "e4"]
        assert export["attributes"] == {"user_id": "12", "age": 41}
        assert store.put_users(pa.table({"user_id": ["12"], "age": [42]})) == 0
        assert store.append([event(5, None, anonymous_id="12"), event(6, "12")]) == ["erased", "stored"]

    def test_a_user_and_a_guest_of_the_same_id(self, store: Store) -> None:
        store.load([batch_of([event(1, None, anonymous_id="12"), event(2, "12")])], source="a")
        store.append([event(3, None, anonymous_id="12"), event(4, "12")])
        assert store.erase("12").remaining == []
        assert [e["event_id"] for e in store.export("anon:12")["events"]] == ["e1", "e3"]
        assert [e["anonymous_id"] for e in store.export("anon:12")["events"]] == ["12", "12"]

    def _assert_gone(self, store: Store, path: Path, user: str, bare: str) -> None:
        assert store.history(user).item == []
        assert list(store.decisions(user)) == []
        export = store.export(user)
        assert (export["events"], export["decisions"], export["attributes"]) == ([], [], None)
        for holder in files_holding(path, bare):
            raise AssertionError(f"{holder} still holds {bare}")

    def test_erasing_somebody_unknown(self, store: Store) -> None:
        assert store.erase("nobody-at-all").remaining == []
        assert store.append([event(1, "nobody-at-all")]) == ["erased"]
        with pytest.raises(InputError):
            store.erase("")


def files_holding(folder: Path, needle: str) -> Sequence[Path]:
    """Files in which an id stands on its own: in the bytes, or in a decoded Parquet column."""
    found = []
    raw = needle.encode()
    word = set(b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_.")
    for path in folder.rglob("*"):
        if path.is_symlink() or not path.is_file():
            continue
        content, at = path.read_bytes(), -1
        while (at := content.find(raw, at + 1)) >= 0:
            if content[at + len(raw)] not in word:
                found.append(path)
                break
        if path.suffix == ".parquet" and not path.name.endswith(".checkpoint.parquet"):
            for column in pq.ParquetFile(path).read().columns:
                if pa.types.is_string(column.type) and needle in column.to_pylist():
                    found.append(path)
    return found
