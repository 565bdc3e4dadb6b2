"""One writer and readers, in one process and in several."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from penchant.store import open_store
from penchant.testing._store import batch_of, event, order_key

READER = """
import sys
from pathlib import Path
from penchant.store import open_store
store = open_store(Path(sys.argv[1]), readonly=True)
for line in sys.stdin:
    subject = line.strip()
    history = store.history(subject)
    print(len(history.item), history.item[-1] if history.item else None, store.scan().num_rows, flush=True)
"""


@pytest.fixture
def reader(shop: Path):
    """A reader in another process: ask it for a subject, it answers (events, last item, events in all)."""
    open_store(shop).close()
    child = subprocess.Popen(
        [sys.executable, "-c", READER, str(shop)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )

    def ask(subject: str) -> tuple[int, str, int]:
        child.stdin.write(subject + "\n")
        child.stdin.flush()
        events, item, total = child.stdout.readline().split()
        return int(events), item, int(total)

    yield ask
    child.stdin.close()
    child.wait()
    child.stdout.close()


def test_reader_in_another_process_is_fresh(shop: Path, reader) -> None:
    assert reader("u1") == (0, "None", 0)
    with open_store(shop) as store:
        store.append([event(1)])
        assert reader("u1") == (1, "i1", 1)  # not built: read from the journal
        store.load([batch_of([event(2), event(3, "u2")])], source="a")
        assert reader("u1") == (2, "i2", 3)
        assert store.warm() == 64
        assert reader("u1") == (2, "i2", 3)
        for n in range(10, 20):
            store.append([event(n)])
            assert reader("u1") == (n - 7, f"i{n}", n - 6)
        store.compact()
        assert reader("u1") == (12, "i19", 13)
        store.load([batch_of([event(30)])], source="b")
        assert reader("u1") == (13, "i30", 14)
        assert store.erase("u1").remaining == []
        assert reader("u1") == (0, "None", 1)
        assert reader("u2") == (1, "i3", 1)
    assert reader("u2") == (1, "i3", 1)


def test_reader_and_writer_in_one_process(shop: Path) -> None:
    open_store(shop).close()
    with open_store(shop, readonly=True) as reader:
        assert reader.history("u1").item == []
        with open_store(shop) as writer:
            writer.load([batch_of([event(1)])], source="a")
            assert writer.history("u1").item == ["i1"]
            assert reader.history("u1").item == ["i1"]  # opened for reading what is open for writing
            writer.append([event(2)])
            assert reader.history("u1").item == ["i1", "i2"]
            with open_store(shop, readonly=True) as other:
                assert other.history("u1").item == ["i1", "i2"]
                assert other.status().events == 2
        assert reader.history("u1").item == ["i1", "i2"]
        with open_store(shop) as writer:
            writer.append([event(3)])
            assert reader.history("u1").item == ["i1", "i2", "i3"]


def test_readers_never_see_half_a_change(shop: Path) -> None:
    """Scans beside loads, appends, compactions and erasures: no event twice, none missing that was there."""
    writer = open_store(shop)
    reader = open_store(shop, readonly=True)
    base = {f"e{n}" for n in range(100)}
    writer.load([batch_of([event(n, f"u{n % 9}") for n in range(100)])], source="a")
    stop, problems = threading.Event(), []

    def look() -> None:
        try:
            while not stop.is_set():
                table = reader.scan()
                ids = table["event_id"].to_pylist()
                if (
                    len(set(ids)) != len(ids)
                    or not base <= set(ids)
                    or order_key(table) != sorted(order_key(table))
                ):
                    problems.append(ids)
        except Exception as error:
            problems.append(error)

    thread = threading.Thread(target=look)
    thread.start()
    number = 1000
    for round_ in range(6):
        writer.append([event(number + n, f"u{n}") for n in range(20)])
        writer.compact()
        writer.load([batch_of([event(number + 100 + n, "gone") for n in range(20)])], source="b")
        if round_ == 3:
            writer.erase("gone")
        number += 200
    stop.set()
    thread.join()
    reader.close()
    writer.close()
    assert problems == []


def test_appending_while_a_load_runs(shop: Path) -> None:
    """The appended event is acknowledged first, so it wins over the same event in the load."""
    with open_store(shop) as store:
        store.load([batch_of([event(0)])], source="z")

        def batches():
            yield batch_of([event(n, f"u{n % 3}") for n in range(1, 30)])
            assert (
                store.append([event(5, "u2"), event(6, "u0", item_id="other"), event(100)]) == ["stored"] * 3
            )
            yield batch_of([event(n, f"u{n % 3}") for n in range(30, 40)], 29)

        report = store.load(batches(), source="a")
        assert (report.accepted, report.already_stored, report.refused["reason"].to_pylist()) == (
            37,
            1,
            ["conflict"],
        )
        for _ in range(2):
            ids = store.scan()["event_id"].to_pylist()
            assert sorted(ids) == sorted([f"e{n}" for n in range(40)] + ["e100"])
            items = dict(zip(ids, store.scan()["item_id"].to_pylist(), strict=True))
            assert items["e6"] == "other"
            assert store.append([event(7, "u1"), event(5, "u2"), event(100)]) == ["duplicate"] * 3
            assert sorted(store.history("u0").event_id) == sorted(
                {i for i in ids if i[1:] != "100"} & {f"e{n}" for n in range(3, 40, 3)}
            )
            store.compact()
    with open_store(shop) as store:
        assert len(store.scan()) == 41


def test_the_serving_process_stays_lean(shop: Path, run_child) -> None:
    """Opening, history, append and decisions load none of the heavy libraries."""
    with open_store(shop) as store:
        store.load([batch_of([event(1)])], source="a")
        store.warm()
    code = """
import sys
from penchant.core import Event, Slate
from penchant.store import open_store
with open_store(sys.argv[1]) as store:
    assert store.history("u1").item == ["i1"]
    store.append([Event(kind="view", event_id="x", ts=2, user_id="u1", item_id="new")])
    assert len(store.history("u1").item) == 2
    slate = Slate(recommendation_id="r", ts=1, subject="u", items=[], policy_id="p", model_id="m", seed=0)
    store.log_decision(slate)
heavy = {"duckdb", "deltalake", "pyarrow.dataset", "pyarrow.parquet", "ibis", "torch", "pandas", "scipy"}
print(sorted(heavy & set(sys.modules)))
"""
    assert run_child(code, shop).strip() == "[]"
