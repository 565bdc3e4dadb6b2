"""Several processes that serve one shop by one PostgreSQL and one Valkey or Redis agree, and survive each other."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pyarrow as pa
import pytest

from penchant import Engine
from tests.engine.lookers import NOW, lookers
from tests.store.servers import Cache, postgres

NEWS = 5.0  # seconds within which the other knows; it takes a tenth, but this machine may be busy


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[str, str]]:
    cache = Cache()
    try:
        with postgres() as url:
            yield url, cache.url
    finally:
        cache.stop()


@pytest.fixture
def shop(tmp_path: Path, servers: tuple[str, str]) -> Path:
    """A shop on both servers, with forty people and a model."""
    folder = tmp_path / "shop"
    with Engine.open(folder) as engine:
        engine.init(name=tmp_path.name)
    config = folder / "shop.toml"
    lines = config.read_text().replace('journal = ""', f'journal = "{servers[0]}"')
    config.write_text(lines.replace('live = ""', f'live = "{servers[1]}"'))
    with Engine.open(folder, clock=lambda: NOW) as engine:
        engine.ingest(files=[lookers(tmp_path)])
        engine.train(models=["item_knn"])
    return folder


@contextmanager
def two(shop: Path) -> Iterator[tuple[Engine, Engine]]:
    """Two servers' engines on one shop, in this process."""
    with Engine.open(shop) as one, Engine.open(shop) as other:
        for engine in (one, other):
            engine.warm()
            engine.keep()
        yield one, other


def soon(true) -> None:
    deadline = time.monotonic() + NEWS
    while not true() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert true()


def view(number: int, user: str = "u1", item: str = "i3", **more: object) -> dict[str, object]:
    return {"kind": "view", "event_id": f"new-{number}", "user_id": user, "item_id": item, **more}


def answer(engine: Engine, user: str, **more: object) -> list[tuple[str, float, float]]:
    moment = dt.datetime(2026, 11, 20, tzinfo=dt.UTC)
    slate = engine.recommend(user_id=user, k=6, seed=7, now=moment, **more)
    return [(item.item_id, item.score, item.odds) for item in slate.items]


def test_an_event_told_to_one_is_in_the_other_s_next_answer(shop: Path) -> None:
    with two(shop) as (one, other):
        for number in range(30):
            engine, next_one = (one, other) if number % 2 else (other, one)
            assert engine.observe(events=[view(number, item=f"i{number % 12}")]).stored == 1
            assert next_one.shop.store.history("u1").event_id[-1] == f"new-{number}"
            assert next_one.observe(events=[view(number, item=f"i{number % 12}")]).results[0].status in {
                "duplicate",
                "conflict",  # without a time of its own it is another event
            }


def test_the_same_request_gives_the_same_answer(shop: Path) -> None:
    """Also after both learned from outcomes of each other's answers, and in one that starts later."""
    with two(shop) as (one, other):
        for number in range(40):
            engine, next_one = (one, other) if number % 3 else (other, one)
            slate = engine.recommend(user_id=f"u{number}", k=6)
            told = [
                {
                    "kind": kind,
                    "event_id": f"{number}-{place}-{kind}",
                    "user_id": f"u{number}",
                    "item_id": item.item_id,
                    "recommendation_id": slate.recommendation_id,
                }
                for place, item in enumerate(slate.items)
                for kind in (("impression", "click") if (number + place) % 3 == 0 else ("impression",))
            ]
            next_one.observe(events=told)
        updates = [lambda e=e: e.serving.ranker.exploration.learner.updates for e in (one, other)]
        for engine in (one, other):
            engine.shop.store.flush()
        soon(lambda: updates[0]() == updates[1]() > 10)
        soon(lambda: len({e.serving.ranker.exploration.position for e in (one, other)}) == 1)
        expected = [answer(one, f"u{n}") for n in range(10)]
        assert [answer(other, f"u{n}") for n in range(10)] == expected
        for engine in (one, other):
            engine.shop.store.flush()
        with Engine.open(shop) as third:
            third.warm()
            assert [answer(third, f"u{n}") for n in range(10)] == expected


def test_what_a_person_says_to_one_holds_at_the_other(shop: Path) -> None:
    """Wishes, consent and keys: each within its bound."""
    with two(shop) as (one, other):
        first = other.recommend(user_id="u1", k=6, seed=7).item_ids[0]
        one.observe(events=[{"kind": "not_interested", "user_id": "u1", "item_id": first}])
        assert first not in one.recommend(user_id="u1", k=6, seed=7).item_ids
        soon(lambda: first not in other.recommend(user_id="u1", k=6, seed=7).item_ids)
        one.consent(user_id="u2", withdraw=["personalise", "analytics"])
        soon(lambda: "personalise" not in other.consent(user_id="u2").allows)
        made = one.keys(action="create", name="site", scopes=["serve"])
        assert [key.name for key in other.keys(action="list").keys] == ["site"]
        one.keys(action="revoke", key=made.keys[0].id)
        assert other.keys(action="list").keys[0].state == "revoked"


def test_who_is_erased_at_one_is_gone_at_the_other(shop: Path) -> None:
    with two(shop) as (one, other):
        other.observe(events=[view(1)])
        other.recommend(user_id="u1", k=6)
        one.erase_user(user_id="u1")
        assert other.observe(events=[view(2)]).results[0].status == "erased"
        assert not other.shop.store.history("u1").event_id
        soon(lambda: other.serving._stamp is not None and other.serving._stamp[2] == one.shop.store.remade)
        other.recommend(user_id="u1", k=6)
        other.shop.store.flush()
        assert list(one.shop.store.decisions("u1")) == []
        assert answer(one, "u3") == answer(other, "u3")


def test_a_promotion_reaches_both(shop: Path) -> None:
    with two(shop) as (one, other):
        made = one.train(models=["transitions"]).artifacts["transitions"]
        one.promote(artifact=made)
        soon(lambda: other.recommend(user_id="u1").model_id == made)
        assert answer(one, "u3") == answer(other, "u3")


def test_one_leads_and_the_other_takes_over(shop: Path) -> None:
    with two(shop) as (one, other):
        leads = [engine._keeper._chores is not None for engine in (one, other)]
        assert leads == [True, False]
        for number in range(20):
            (one, other)[number % 2].observe(events=[view(number)])
        one.close()
        soon(lambda: other._keeper._chores is not None)
        assert other.shop.store.compact() == 20
        assert other.observe(events=[view(3, ts=5)]).results[0].status in {"conflict", "refused"}
        assert len(other.shop.store.scan(subject="u1")) == 26


def test_while_one_moves_the_journal_the_other_stores(shop: Path) -> None:
    """Every event once, in the log and in the histories, whatever is moved, loaded and built meanwhile."""
    with two(shop) as (one, other):
        words: Counter[str] = Counter()
        stop = threading.Event()

        def tell(engine: Engine, name: str) -> None:
            for number in range(60):
                events = [view(0, user=f"p{n % 7}", item=f"i{n % 12}") for n in range(5)]
                for place, event in enumerate(events):
                    event["event_id"] = f"{name}-{number}-{place}"
                    event["ts"] = NOW + number
                for result in engine.observe(events=events + events[:1]).results:
                    words[result.status] += 1

        def move() -> None:
            while not stop.is_set():
                one.shop.store.compact()
                other.shop.store.history("p1")

        threads = [
            threading.Thread(target=tell, args=pair) for pair in ((one, "a"), (other, "b"), (other, "a"))
        ]
        mover = threading.Thread(target=move)
        for thread in (*threads, mover):
            thread.start()
        for thread in threads:
            thread.join()
        stop.set()
        mover.join()
        assert words["stored"] == 600
        assert words["duplicate"] == 300 + 180
        assert sum(words.values()) == 1080
        for engine in (one, other):
            table = engine.shop.store.scan(since=NOW - 1, columns=["event_id", "ts"])
            ids = table.filter(pa.compute.less(table["ts"], NOW + 100))["event_id"].to_pylist()
            assert Counter(ids).most_common(1)[0][1] == 1
            assert len(ids) == 600
            for n in range(7):
                mine = engine.shop.store.scan(subject=f"p{n}", columns=["event_id"])["event_id"].to_pylist()
                assert sorted(engine.shop.store.history(f"p{n}", 1000).event_id) == sorted(mine)


SERVER = [sys.executable, "-m", "penchant", "serve", "--port", "0", "--shop"]


@contextmanager
def server(shop: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server process; gives it and its address."""
    process = subprocess.Popen([*SERVER, str(shop)], text=True, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        yield process, next(word for word in process.stdout.readline().split() if word.startswith("http"))
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("victim", [0, 1])
def test_either_may_be_killed(shop: Path, victim: int) -> None:
    """kill -9 in the middle of traffic: nothing acknowledged is lost or doubled, and the other goes on answering."""
    with server(shop) as (one, first), server(shop) as (other, second):
        urls, acknowledged, failed = [first, second], set[str](), [0]
        stop = threading.Event()

        def traffic(number: int) -> None:
            client = httpx.Client(timeout=10)
            place = 0
            while not stop.is_set():
                place += 1
                event = view(0, user=f"p{number}", item=f"i{place % 12}")
                event["event_id"] = f"{number}-{place}"
                event["ts"] = NOW + place
                for url in (urls[place % 2], urls[(place + 1) % 2]):  # as a balancer sends it again
                    try:
                        told = client.post(f"{url}/v1/observe", json={"events": [event]})
                        asked = client.post(f"{url}/v1/recommend", json={"user_id": f"p{number}", "k": 3})
                    except httpx.HTTPError:
                        failed[0] += 1
                        continue
                    if told.status_code == 200 and told.json()["results"][0]["status"] in {
                        "stored",
                        "duplicate",
                    }:
                        acknowledged.add(f"{number}-{place}")
                        assert asked.status_code == 200
                        break
            client.close()

        threads = [threading.Thread(target=traffic, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(1.5)
        (one, other)[victim].kill()
        time.sleep(2.0)
        stop.set()
        for thread in threads:
            thread.join()
        left = urls[1 - victim]
        assert failed[0]
        assert httpx.get(f"{left}/readyz", timeout=20).status_code == 200
        assert len(acknowledged) > 20
    with Engine.open(shop) as engine:
        stored = engine.shop.store.scan(since=NOW - 1, columns=["event_id"])["event_id"].to_pylist()
        assert max(Counter(stored).values()) == 1
        assert acknowledged <= set(stored)
        for n in range(4):
            mine = engine.shop.store.scan(subject=f"p{n}", columns=["event_id"])["event_id"].to_pylist()
            assert engine.shop.store.history(f"p{n}", 10_000).event_id == mine


def test_two_shops_of_one_name(tmp_path: Path, servers: tuple[str, str]) -> None:
    """Neither reads, counts nor erases the other's people."""
    engines = []
    for place in ("here", "there"):
        with Engine.open(tmp_path / place) as engine:
            engine.init(name="twins")
        config = tmp_path / place / "shop.toml"
        lines = config.read_text().replace('journal = ""', f'journal = "{servers[0]}"')
        config.write_text(lines.replace('live = ""', f'live = "{servers[1]}"'))
        engines.append(Engine.open(tmp_path / place))
    with engines[0] as one, engines[1] as other:
        one.observe(events=[view(1)])
        assert other.observe(events=[view(1, item="i9")]).results[0].status == "stored"
        assert one.shop.store.history("u1").item == ["i3"]
        assert other.shop.store.history("u1").item == ["i9"]
        one.erase_user(user_id="u1")
        assert other.shop.store.history("u1").item == ["i9"]
        assert other.status().events == 1
