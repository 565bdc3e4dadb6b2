"""An acknowledged event is never lost and never counted twice, whenever the process is killed."""

import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest

from penchant.core import HISTORY_EVENTS
from penchant.store import open_store
from penchant.testing._store import batch_of, event, files_holding

CHILD = Path(__file__).with_name("crash_child.py")
HERD = Path(__file__).with_name("crash_herd.py")


def start(shop: Path, acks: Path, seed: int, die_at: str, steps: str) -> subprocess.Popen:
    command = [sys.executable, str(CHILD), str(shop), str(acks), str(seed), die_at, steps]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def acknowledged(acks: Path) -> tuple[list[str], list[list[str]]]:
    """Ids that must be there, and loads begun that must be there wholly or not at all."""
    sure, loads = [], []
    for line in acks.read_text().splitlines():
        word, _, ids = line.partition(" ")
        if word in ("append", "load"):
            sure += ids.split(",")
        elif word == "begin":
            loads.append(ids.split(","))
    return sure, loads


def check(shop: Path, acks: Path) -> None:
    sure, loads = acknowledged(acks)
    with open_store(shop) as store:
        table = store.scan()
        counts = Counter(table["event_id"].to_pylist())
        assert set(counts.values()) <= {1}
        assert [i for i in sure if i not in counts] == []
        for ids in loads:
            assert sum(i in counts for i in ids) in (0, len(ids))
        by_subject: dict[str, list[str]] = {}
        for subject, event_id in zip(
            table["subject"].to_pylist(), table["event_id"].to_pylist(), strict=True
        ):
            by_subject.setdefault(subject, []).append(event_id)
        for subject, ids in by_subject.items():
            assert store.history(subject).event_id == ids[-HISTORY_EVENTS:]
        # What is there is known to be there, and nothing unfinished lies about.
        if sure:
            assert store.append([event(int(sure[0][1:]), "user-00000", item_id="other")]) == ["conflict"]
        known = {f.path for f in store._table.state().all_files()}
        lying = {str(p.relative_to(shop / "events")) for p in (shop / "events").glob("bucket=*/*")}
        assert lying == known
        runs = {run.name for run in store._table.ids.manifest.runs}
        assert {p.name for p in (shop / "ids").iterdir()} == runs | {"manifest.json"}
        assert store._table.ids.manifest.version == store._table.latest_version()
        store.compact()
        assert Counter(store.scan()["event_id"].to_pylist()) == counts


def kill(folder: Path, first: int, count: int) -> None:
    """Kill a process at work on a shop of its own, once a seed, and look at what is left."""
    subprocess.run([sys.executable, str(HERD), str(folder), str(first), str(count)], check=True)
    assert any(acknowledged(folder / str(seed) / "acks")[0] for seed in range(first, first + count))
    for seed in range(first, first + count):
        check(folder / str(seed) / "shop", folder / str(seed) / "acks")


@pytest.mark.parametrize("quarter", range(4))
def test_killed_at_a_random_moment(tmp_path: Path, quarter: int) -> None:
    kill(tmp_path, 25 * quarter, 25)


@pytest.mark.slow
@pytest.mark.parametrize("hundreds", range(1, 10))
def test_killed_at_more_random_moments(tmp_path: Path, hundreds: int) -> None:
    kill(tmp_path, 100 * hundreds, 100)


SYNCS = [
    "1:pending",  # a load is announced
    "1:.ids",  # its ids are written
    "5:bucket=",  # some of its files are
    "1:00000.json",  # the table was made
    "1:manifest",
    "1:live",  # the live histories are forgotten
    "2:pending",  # the commit is announced
    "1:00001.json",  # it is committed, not published
    "2:manifest",
    "1:00002.json",  # a compaction is committed, the journal still has the rows
    "3:manifest",
    "4:manifest",
]


@pytest.mark.parametrize("die_at", SYNCS)
def test_killed_at_a_sync(tmp_path: Path, die_at: str) -> None:
    """One step of each kind; the process dies between any two durable steps."""
    shop, acks = tmp_path / "shop", tmp_path / "acks"
    child = start(shop, acks, 3, die_at, "append,load,append,compact,load")
    assert child.wait() == -9, child.stderr.read()
    child.stderr.close()
    check(shop, acks)


@pytest.mark.parametrize(
    "die_at", ["1:users", "1:pending", "1:bucket=", "1:.ids", "1:live", "1:00002.json", "1:manifest"]
)
def test_killed_while_erasing(tmp_path: Path, die_at: str) -> None:
    shop, acks = tmp_path / "shop", tmp_path / "acks"
    with open_store(shop) as store:
        store.load([batch_of([event(n, f"user-{n % 12:05d}") for n in range(100)])], source="a")
        store.append([event(n, "user-00007") for n in range(100, 120)])
        store.history("user-00007")
        store.put_users(pa.table({"user_id": ["user-00007", "user-00008"]}))
    child = start(shop, acks, 3, die_at, "erase,append,append,compact,load")
    assert child.wait() == -9, child.stderr.read()
    child.stderr.close()
    begun = "begin-erase" in acks.read_text()
    with open_store(shop) as store:
        export = store.export("user-00007")
        if export["erased"]:
            assert begun
            assert (export["events"], export["attributes"]) == ([], None)
            assert store.history("user-00007").item == []
            assert not files_holding(shop, "user-00007")
        else:
            assert "erased user" not in acks.read_text()
            assert len(export["events"]) == 28
        others = store.scan()["subject"].to_pylist()
        assert others.count("user-00008") >= 8
    check(shop, acks)


@pytest.mark.parametrize("name", ["users", "catalog"])
def test_a_half_made_file_of_a_killed_process_goes(tmp_path: Path, name: str) -> None:
    """It holds everybody's attributes, in pages that a byte search cannot read."""
    shop = tmp_path / "shop"
    with open_store(shop) as store:
        store.put_users(pa.table({"user_id": ["user-00007", "user-00008"]}))
        store.put_catalog(pa.table({"id": ["shoe"]}))
    leftover = shop / name / f".{name}.parquet.0a1b2c3d.tmp"
    shutil.copy(shop / name / f"{name}.parquet", leftover)  # killed before it took its name
    with open_store(shop) as store:
        assert store.erase("user-00007").remaining == []
        assert not leftover.exists()
        assert store.users()["user_id"].to_pylist() == ["user-00008"]
