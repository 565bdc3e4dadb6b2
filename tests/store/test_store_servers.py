"""The journal in PostgreSQL and the histories in Redis or Valkey keep every promise of a store."""

import signal
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from penchant.core import Store
from penchant.core.errors import ShopBusy, ShopError, StorageError
from penchant.store import Servers, open_store
from penchant.testing import StoreTests
from penchant.testing._store import batch_of, event
from tests.store.servers import Cache, postgres


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    with postgres() as url:
        yield url


@pytest.fixture(scope="module")
def cache() -> Iterator[Cache]:
    made = Cache()
    yield made
    made.stop()


class _OnServers(StoreTests):
    servers: Servers

    @pytest.fixture(autouse=True)
    def _with_servers(self, servers: Servers) -> None:
        self.servers = servers

    def open(self, path: Path) -> Store:
        name = f"{self.servers.shop}-{path.parent.name}-{path.name}"  # each test's shop is its own
        return open_store(path, servers=Servers(name[-48:], self.servers.journal, self.servers.live))


class TestPostgres(_OnServers):
    @pytest.fixture
    def servers(self, database: str) -> Servers:
        return Servers(uuid.uuid4().hex[:8], journal=database)


class TestRedis(_OnServers):
    @pytest.fixture
    def servers(self, cache: Cache) -> Servers:
        return Servers(uuid.uuid4().hex[:8], live=cache.url)


class TestBoth(_OnServers):
    @pytest.fixture
    def servers(self, database: str, cache: Cache) -> Servers:
        return Servers(uuid.uuid4().hex[:8], journal=database, live=cache.url)


def test_one_writer_to_a_schema(tmp_path: Path, database: str) -> None:
    """Fault 16: two machines with folders of their own, one journal."""
    servers = Servers(uuid.uuid4().hex[:8], journal=database)
    with open_store(tmp_path / "one", servers=servers), pytest.raises(ShopBusy, match="another process"):
        open_store(tmp_path / "two", servers=servers)
    with open_store(tmp_path / "two", servers=servers) as store:
        assert store.append([event(1)]) == ["stored"]


def test_a_connection_that_breaks(tmp_path: Path, database: str) -> None:
    """Fault 13: what is sent again is stored once, whether or not the first time got through."""
    import psycopg

    servers = Servers(uuid.uuid4().hex[:8], journal=database)
    told: list[str] = []
    words: list[str] = []
    with open_store(tmp_path / "shop", servers=servers) as store:
        for number in range(30):
            if number % 3 == 0:
                with psycopg.connect(database, autocommit=True) as other:
                    other.execute(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                        " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
                    )
            for _ in range(5):
                try:
                    words = store.append([event(number)])
                    break
                except (StorageError, ShopBusy) as error:
                    told.append(str(error))
                    time.sleep(0.05)
            assert set(words) <= {"stored", "duplicate"}
            words = []
        assert store.scan()["event_id"].to_pylist() == [f"e{n}" for n in range(30)]
        assert store.history("u1").event_id == [f"e{n}" for n in range(30)]
    assert not any("shop@" in text for text in told), "an address may hold a password"


def test_the_cache_goes_and_comes_back(tmp_path: Path) -> None:
    """Fault 12: histories are right whether the server is there, gone, emptied, or new."""
    cache = Cache()
    try:
        servers = Servers(uuid.uuid4().hex[:8], live=cache.url)
        with open_store(tmp_path / "shop", servers=servers) as store:
            store.load([batch_of([event(n) for n in range(3)])], source="a")

            def right(count: int) -> bool:
                return store.history("u1").event_id == [f"e{n}" for n in range(count)]

            assert right(3)
            assert store.append([event(3)]) == ["stored"]
            assert right(4)
            store._live._quick.flushall()
            assert right(4)
            cache.stop()
            assert right(4)
            assert store.append([event(4)]) == ["stored"]
            started = time.monotonic()
            assert all(right(5) for _ in range(20))
            assert time.monotonic() - started < 5, "a server that is gone is not waited for each time"
            cache.start()
            time.sleep(1.1)
            assert right(5)
            assert store.append([event(5)]) == ["stored"]
            assert right(6)
            assert store.warm() > 0
            assert store._live.is_built(0)
            assert right(6)
    finally:
        cache.stop()


def test_a_cache_that_does_not_answer(tmp_path: Path) -> None:
    """Fault 12: it holds its connections and says nothing for two seconds; nobody waits for it, and all is right."""
    cache = Cache()
    assert cache.process is not None
    try:
        servers = Servers(uuid.uuid4().hex[:8], live=cache.url)
        with open_store(tmp_path / "shop", servers=servers) as store:
            store.append([event(n) for n in range(3)])
            assert len(store.history("u1").event_id) == 3
            cache.process.send_signal(signal.SIGSTOP)
            stopped = time.monotonic()
            for number in range(3, 13):
                started = time.monotonic()
                assert store.append([event(number)]) == ["stored"]
                assert store.history("u1").event_id == [f"e{n}" for n in range(number + 1)]
                assert time.monotonic() - started < 0.8, "a server that says nothing was waited for"
            time.sleep(max(0.0, 2 - (time.monotonic() - stopped)))
            cache.process.send_signal(signal.SIGCONT)
            time.sleep(1.1)
            assert store.append([event(13)]) == ["stored"]
            assert store.history("u1").event_id == [f"e{n}" for n in range(14)]
    finally:
        cache.process.send_signal(signal.SIGCONT)
        cache.stop()


def test_two_readers_share_the_histories(tmp_path: Path, database: str, cache: Cache) -> None:
    """Another process with another folder sees an event as soon as it is acknowledged."""
    servers = Servers(uuid.uuid4().hex[:8], journal=database, live=cache.url)
    with open_store(tmp_path / "writer", servers=servers) as writer:
        writer.append([event(1)])
        writer.warm()
        with open_store(tmp_path / "reader", servers=servers, readonly=True) as reader:
            for number in range(2, 20):
                writer.append([event(number)])
                assert reader.history("u1").event_id[-1] == f"e{number}"
                assert reader.scan()["event_id"].to_pylist()[-1] == f"e{number}"


def test_threads_share_commits(tmp_path: Path, database: str) -> None:
    servers = Servers(uuid.uuid4().hex[:8], journal=database)
    with open_store(tmp_path / "shop", servers=servers) as store:
        words: list[str] = []

        def work(number: int) -> None:
            for n in range(20):
                words.extend(store.append([event(100 * number + n)]))

        threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert words == ["stored"] * 160
        assert store.compact() == 160


def test_a_shop_of_before_ids_keeps_its_journal(tmp_path: Path, database: str) -> None:
    """And another of the same name is refused it, where they could be taken for each other."""
    name = uuid.uuid4().hex[:8]
    with open_store(tmp_path / "old", servers=Servers(name, journal=database)) as store:
        store.append([event(1)])
    mine = Servers(uuid.uuid4().hex[:16], journal=database, before=name)
    for _ in range(2):
        with open_store(tmp_path / "old", servers=mine) as store:
            assert store.scan()["event_id"].to_pylist() == ["e1"]
    with open_store(tmp_path / "old", servers=mine, readonly=True) as store:
        assert len(store.scan()) == 1
    with pytest.raises(ShopError, match="another shop of that name"):
        open_store(tmp_path / "twin", servers=Servers(uuid.uuid4().hex[:16], journal=database, before=name))
    with open_store(tmp_path / "new", servers=Servers(uuid.uuid4().hex[:16], journal=database)) as store:
        assert len(store.scan()) == 0


def test_another_copy_of_the_folder_is_refused(tmp_path: Path, database: str, cache: Cache) -> None:
    """Fault 16: two processes with folders of their own, one journal that both may write."""
    import shutil

    servers = Servers(uuid.uuid4().hex[:8], journal=database, live=cache.url)
    with open_store(tmp_path / "one", servers=servers) as store:
        store.append([event(1)])
        shutil.copytree(tmp_path / "one", tmp_path / "copy")
        for number in range(2, 5):
            store.append([event(number)])
            store.compact()
        with pytest.raises(ShopError, match="one shared folder"):
            open_store(tmp_path / "copy", servers=servers)
        with open_store(tmp_path / "one", servers=servers) as other:
            assert len(other.scan()) == 4
