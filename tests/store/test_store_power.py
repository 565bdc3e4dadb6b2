"""Power cuts and failing syncs: what was acknowledged is there afterwards, once."""

import random
from collections import Counter
from pathlib import Path

import pytest

from penchant.core.errors import StorageError
from penchant.store import open_store
from penchant.testing._store import batch_of, event
from tests.store.power import Machine, powered


def work(shop: Path, rnd: random.Random, sure: list[str], loads: list[list[str]]) -> None:
    """Take steps until the power goes, noting what was acknowledged."""
    number = 0
    with open_store(shop) as store:
        for _ in range(200):
            events = [event(number + n, f"user-{rnd.randrange(9)}") for n in range(rnd.randrange(1, 20))]
            number += 100
            ids = [str(e.event_id) for e in events]
            what = rnd.choices(["append", "load", "compact"], [8, 1, 1])[0]
            if what == "append":
                assert store.append(events) == ["stored"] * len(events)
                sure += ids
            elif what == "load":
                loads.append(ids)
                store.load([batch_of(events)], source="x")
                sure += ids
            else:
                store.compact()


def cut(folder: Path, seed: int, patch: pytest.MonkeyPatch, *, honest: bool = True) -> tuple[int, int, int]:
    """Cut the power once; returns how many acknowledged events there were, are lost, and are there twice."""
    rnd = random.Random(seed)
    shop = folder / "shop"
    open_store(shop).close()
    machine = Machine(shop, rnd.randrange(1, 400), rnd, honest=honest)
    sure: list[str] = []
    loads: list[list[str]] = []
    with powered(machine, patch):
        work(shop, rnd, sure, loads)
    assert machine.off, "the steps ended before the power went"
    with open_store(machine.survived) as store:
        counts = Counter(store.scan(columns=["event_id"])["event_id"].to_pylist())
        for ids in loads:
            assert sum(i in counts for i in ids) in (0, len(ids))
        assert store.status().detail["damaged_events"] == 0
    return len(sure), len(set(sure) - set(counts)), sum(n > 1 for n in counts.values())


def lost_and_twice(folder: Path, seeds: range, patch: pytest.MonkeyPatch) -> list[int]:
    """Seeds (to try again with) whose cut lost an acknowledged event or left one twice."""
    found = {seed: cut(folder / str(seed), seed, patch) for seed in seeds}
    assert sum(sure for sure, _, _ in found.values()) > 0
    return [seed for seed, (_, lost, twice) in found.items() if lost or twice]


@pytest.mark.parametrize("tens", range(10))
def test_power_cuts(tmp_path: Path, tens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert lost_and_twice(tmp_path, range(10 * tens, 10 * tens + 10), monkeypatch) == []


@pytest.mark.slow
@pytest.mark.parametrize("hundreds", range(1, 10))
def test_more_power_cuts(tmp_path: Path, hundreds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert lost_and_twice(tmp_path, range(100 * hundreds, 100 * hundreds + 100), monkeypatch) == []


def test_a_disk_that_lies_loses_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cuts are real: where syncs do nothing, what was acknowledged is gone."""
    lost = 0
    for seed in range(10):
        try:
            lost += cut(tmp_path / str(seed), seed, monkeypatch, honest=False)[1]
        except StorageError:  # nothing of the journal is left
            lost += 1
    assert lost > 0


def test_a_failed_sync_ends_acknowledging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault 4: a second sync would say that all is well. Nothing is taken in until a restart has read the disk."""
    shop = tmp_path / "shop"
    open_store(shop).close()
    machine = Machine(shop, 1 << 60, random.Random(0))
    with powered(machine, monkeypatch), open_store(shop) as store:
        assert store.append([event(1)]) == ["stored"]
        machine.failing_sync = True
        with pytest.raises(StorageError, match="durable"):
            store.append([event(2)])
        machine.failing_sync = False
        with pytest.raises(StorageError, match="nothing is taken in any more"):
            store.append([event(3)])
        assert store.failure is not None
        assert store.history("u1").event_id == ["e1"]
    with open_store(shop) as again:
        assert again.failure is None
        assert again.append([event(1), event(4)]) == ["duplicate", "stored"]
        assert not {"e3"} & set(again.history("u1").event_id)


def test_a_failed_copy_of_the_log_ends_acknowledging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inside a commit it would go unnoticed: the log would begin anew over events that are nowhere else."""
    monkeypatch.setattr("penchant.store._database._CHECKPOINT", 10_000)
    shop = tmp_path / "shop"
    open_store(shop).close()
    machine = Machine(shop, 1 << 60, random.Random(0))
    with powered(machine, monkeypatch), open_store(shop) as store:
        database = store._log.database
        monkeypatch.setattr(database, "_copy_soon", lambda: None)  # by our hand alone
        for number in range(20):
            store.append([event(number, text="x" * 500)])
        machine.failing_sync = True
        database._copy()
        machine.failing_sync = False
        assert store.failure is not None
        with pytest.raises(StorageError, match="nothing is taken in any more"):
            store.append([event(100)])
    with open_store(shop) as again:
        assert len(again.history("u1").event_id) == 20
