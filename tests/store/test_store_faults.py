"""A disk that refuses, files that are damaged, a second writer: clear errors, nothing half done."""

import errno
import os
import resource
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pyarrow as pa
import pytest

from penchant.core.errors import ShopBusy, ShopError, StorageError
from penchant.store import ShopStore, atomic_write, open_store
from penchant.testing._store import batch_of, event, slate


@contextmanager
def small_disk(tmp_path: Path, megabytes: int) -> Iterator[Path]:
    """A disk of a few megabytes, or a skip where mounting is not allowed."""
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(disk)],
        capture_output=True,
        check=False,
    )
    if done.returncode:
        pytest.skip("mounting a small disk needs root; the file size limit test covers the same road")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)


@contextmanager
def file_size_limit(limit: int) -> Iterator[None]:
    """No file may grow beyond this, as if the disk were full."""
    import signal

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def fat_batch(first: int, rows: int) -> pa.RecordBatch:
    """Events that do not compress."""
    return batch_of([event(first + n, f"u{n % 50}", text=os.urandom(1000).hex()) for n in range(rows)], first)


def test_full_disk_while_loading(tmp_path: Path) -> None:
    with small_disk(tmp_path, 4) as disk:
        store = open_store(disk / "shop")
        store.load([batch_of([event(0)])], source="a")
        with pytest.raises(StorageError, match=r"disk is full.*nothing of it was stored"):
            store.load((fat_batch(1 + 500 * n, 500) for n in range(20)), source="b")
        assert store.scan()["event_id"].to_pylist() == ["e0"]
        assert store.append([event(0), event(1)]) == ["duplicate", "stored"]
        assert store.load([batch_of([event(1), event(2)])], source="c").accepted == 1
        store.close()
        with open_store(disk / "shop") as again:
            assert again.scan()["event_id"].to_pylist() == ["e0", "e1", "e2"]


def test_full_disk_while_appending(tmp_path: Path) -> None:
    with small_disk(tmp_path, 3) as disk:
        store = open_store(disk / "shop")
        acknowledged = []

        def fill() -> None:
            for n in range(10_000):
                store.append([event(n, f"u{n % 5}", text=os.urandom(2000).hex())])
                acknowledged.append(f"e{n}")

        with pytest.raises(StorageError, match="full"):
            fill()
        with suppress(StorageError):
            store.close()
        shutil.copytree(disk / "shop", tmp_path / "moved", symlinks=True)
        with open_store(tmp_path / "moved") as again:  # more room: everything acknowledged is there
            found = again.scan()["event_id"].to_pylist()
            assert sorted(found) == sorted(acknowledged)
            assert len(again.history("u1").item) == len([n for n in range(len(acknowledged)) if n % 5 == 1])
            assert again.append([event(len(acknowledged))]) == ["stored"]


def test_file_size_limit_while_loading(store: ShopStore) -> None:
    store.load([batch_of([event(0)])], source="a")
    with file_size_limit(300_000), pytest.raises(StorageError, match="nothing of it was stored"):
        store.load((fat_batch(1 + 1000 * n, 1000) for n in range(12)), source="b")
    assert store.scan()["event_id"].to_pylist() == ["e0"]
    assert store.load([batch_of([event(1)])], source="b").accepted == 1


def test_file_size_limit_while_putting(store: ShopStore) -> None:
    store.put_users(pa.table({"user_id": ["u1"], "bio": ["x"]}))
    with file_size_limit(10_000), pytest.raises(StorageError, match="as it was before"):
        store.put_users(pa.table({"user_id": ["u2"], "bio": [os.urandom(50_000).hex()]}))
    assert store.users().num_rows == 1
    assert [p.name for p in (store.path / "users").iterdir()] == ["users.parquet"]


def test_a_decision_waits_while_the_disk_refuses(store: ShopStore) -> None:
    store.log_decision(slate(0))
    store.flush()
    with file_size_limit(1000):
        store.log_decision(slate(1))
        with pytest.raises(StorageError, match="decision log"):
            store.flush()
    store.flush()
    assert list(store.decisions()) == [slate(0), slate(1)]


def test_live_histories_are_only_a_cache(store: ShopStore) -> None:
    store.load([batch_of([event(n) for n in range(5)])], source="a")
    with file_size_limit(1):
        assert len(store.history("u1").item) == 5  # read from the table instead
    assert len(store.history("u1").item) == 5
    for file in (store.path / "live").glob("*.mdb"):
        file.write_bytes(b"damaged" * 1000)
    store.close()
    with open_store(store.path) as again:
        assert again.append([event(9)]) == ["stored"]
        assert again.history("u1").event_id == [f"e{n}" for n in (0, 1, 2, 3, 4, 9)]


@pytest.mark.parametrize("content", [b"", b"not a database at all" * 500])
def test_damaged_journal_is_named(shop: Path, content: bytes) -> None:
    with open_store(shop) as store:
        store.append([event(1)])
    (shop / "journal.db").write_bytes(content)
    for readonly in (False, True):
        with pytest.raises(StorageError, match=r"journal\.db"):
            open_store(shop, readonly=readonly)
    assert (shop / "journal.db").read_bytes() == content


def test_damaged_event_file_is_named(shop: Path) -> None:
    with open_store(shop) as store:
        store.load([batch_of([event(n, f"u{n}") for n in range(20)])], source="a")
        victim = next((shop / "events").glob("bucket=*/*.parquet"))
        victim.write_bytes(victim.read_bytes()[:-20])
        with pytest.raises(StorageError, match=victim.name):
            store.scan()
        victim.unlink()
        with pytest.raises(StorageError, match="missing"):
            store.scan()


def test_damaged_log_and_frames_are_named(shop: Path) -> None:
    with open_store(shop) as store:
        store.load([batch_of([event(1)])], source="a")
        store.put_catalog(pa.table({"id": ["a"]}))
    (shop / "catalog" / "catalog.parquet").write_bytes(b"PAR1")
    (shop / "events" / "_delta_log" / f"{1:020d}.json").write_bytes(b"{nonsense")
    with open_store(shop) as store:
        with pytest.raises(StorageError, match=r"catalog\.parquet"):
            store.catalog()
        with pytest.raises(StorageError, match="_delta_log"):
            store.scan()


def test_lost_id_index_is_rebuilt(shop: Path) -> None:
    with open_store(shop) as store:
        store.load([batch_of([event(n) for n in range(10)])], source="a")
        store.history("u1")
    for file in (shop / "ids").iterdir():
        file.unlink()
    with open_store(shop) as store:
        assert store.append([event(3), event(4, item_id="x"), event(10)]) == [
            "duplicate",
            "conflict",
            "stored",
        ]
        report = store.load([batch_of([event(5), event(11)])], source="b")
        assert (report.accepted, report.already_stored) == (1, 1)
        assert len(store.history("u1").item) == 12


def test_a_newer_shop_is_refused(shop: Path) -> None:
    open_store(shop).close()
    with sqlite3.connect(shop / "journal.db") as db:
        db.execute("UPDATE meta SET value = 99 WHERE key = 'schema'")
    db.close()
    with pytest.raises(ShopError, match="newer version"):
        open_store(shop)


def test_second_writer_is_told_who_writes(shop: Path, run_child) -> None:
    with open_store(shop):
        started = time.monotonic()
        with pytest.raises(ShopBusy, match=f"pid {os.getpid()}"):
            open_store(shop, wait=0.2)
        assert time.monotonic() - started < 3
        code = "import sys; from penchant.store import open_store; open_store(sys.argv[1], wait=0)"
        assert "ShopBusy" in subprocess.run(
            [__import__("sys").executable, "-c", code, str(shop)], capture_output=True, text=True, check=False
        ).stderr  # fmt: skip
    open_store(shop, wait=0).close()


def test_a_waiting_writer_gets_its_turn(shop: Path) -> None:
    import threading

    first = open_store(shop)
    threading.Timer(0.3, first.close).start()
    open_store(shop, wait=5).close()


def test_closed_and_readonly_stores_say_so(shop: Path) -> None:
    with pytest.raises(ShopError, match="no shop"):
        open_store(shop, readonly=True)
    store = open_store(shop)
    store.append([event(1)])
    with open_store(shop, readonly=True) as reader:
        for change in (
            lambda: reader.append([event(2)]),
            lambda: reader.load([], source="a"),
            lambda: reader.erase("u1"),
            lambda: reader.put_users(pa.table({"user_id": ["u"]})),
            lambda: reader.log_decision(slate(1)),
            reader.compact,
            reader.warm,
        ):
            with pytest.raises(ShopError, match="reading only"):
                change()
    store.close()
    store.close()
    with pytest.raises(ShopError, match="closed"):
        store.append([event(2)])


def test_atomic_write_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "a"
    atomic_write(file, b"old")
    with file_size_limit(10), pytest.raises(StorageError, match="as it was before"):
        atomic_write(file, b"x" * 10_000)
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]
    with pytest.raises(StorageError, match="missing"):
        atomic_write(tmp_path / "no" / "a", b"")


def test_a_shop_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="shop folder"):
        open_store(tmp_path / "file" / "shop")


def test_a_failed_commit_leaves_nothing(store: ShopStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.load([batch_of([event(0)])], source="a")
    store.append([event(1)])

    def refuse(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store._table, "_write_log", refuse)
    with pytest.raises(StorageError, match="full"):
        store.load([batch_of([event(1), event(2)])], source="b")
    with pytest.raises(StorageError, match="full"):
        store.compact()
    monkeypatch.undo()
    assert store.scan()["event_id"].to_pylist() == store.history("u1").event_id == ["e0", "e1"]
    assert store.load([batch_of([event(1), event(2)])], source="b").accepted == 1
    assert store.compact() == 1


def test_a_failure_after_the_commit_does_not_undo_it(
    store: ShopStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as a checkpoint or an index for which there is no room: the events are stored, and known."""
    store.load([batch_of([event(0)])], source="a")
    write = store._table._write_log

    def refuse(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def write_and_refuse(*args: object) -> None:
        write(*args)
        refuse()

    monkeypatch.setattr(store._table, "_write_log", write_and_refuse)
    monkeypatch.setattr(store._table, "_finish", refuse)
    assert store.load([batch_of([event(1), event(2)])], source="b").accepted == 2
    assert store.append([event(1), event(3)]) == ["duplicate", "stored"]
    monkeypatch.undo()
    if store.load([batch_of([event(2), event(4)])], source="c").already_stored != 1:
        raise AssertionError("the index forgot a load whose publication had failed")
    store.close()
    with open_store(store.path) as again:
        assert again.append([event(n) for n in range(6)]) == ["duplicate"] * 5 + ["stored"]


def test_histories_follow_the_journal_after_a_crash(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process may die between the commit of an event and the live history."""
    store = open_store(shop)
    store.append([event(1), event(2, "u2")])
    store.warm()
    monkeypatch.setattr(store._live, "apply", lambda *args: None)
    store.append([event(3), event(4)])
    assert store.history("u1").event_id == ["e1"]
    store.close()
    monkeypatch.undo()
    with open_store(shop) as again, open_store(shop, readonly=True) as reader:
        assert reader.history("u1").event_id == ["e1", "e3", "e4"]
        assert again.history("u1").event_id == ["e1", "e3", "e4"]
        assert again._live.is_built(0)


def test_an_interrupted_append_blocks_nobody(store: ShopStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.history("u1")

    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(store._live, "apply", interrupt)
    with pytest.raises(KeyboardInterrupt):
        store.append([event(1)])
    monkeypatch.undo()
    assert store.append([event(2)]) == ["stored"]
    assert store.history("u1").event_id == ["e1", "e2"]


def test_a_reboot_throws_the_live_histories_away(shop: Path) -> None:
    """LMDB does not sync: after a crash of the machine nothing of it may be trusted."""
    store = open_store(shop)
    store.append([event(1)])
    store.warm()
    store.close()
    (shop / "live" / "boot").write_text("another boot, not ended cleanly")
    with open_store(shop, readonly=True) as reader:
        assert not reader._live.trusted
        assert reader.history("u1").event_id == ["e1"]
    with open_store(shop) as again:
        assert not again._live.is_built(0)
        assert again.history("u1").event_id == ["e1"]
