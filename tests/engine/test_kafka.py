"""Kafka as a source, against a broker that speaks the protocol: librdkafka's mock cluster, on a port of its own."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from penchant.core.errors import InputError, StorageError
from penchant.engine import Engine, _kafka

confluent_kafka = pytest.importorskip(
    "confluent_kafka", reason="Kafka is NOT TESTED: confluent-kafka is missing"
)


class Broker:
    """Two brokers in this process and a producer to them."""

    def __init__(self) -> None:
        self.producer = confluent_kafka.Producer({"test.mock.num.brokers": 2, "log_level": 0})
        told = self.producer.list_topics(timeout=10).brokers.values()
        self.address = ",".join(f"{broker.host}:{broker.port}" for broker in told)

    def send(self, *values: Any, topic: str = "events", partition: int = 0) -> None:
        for value in values:
            body = value if isinstance(value, bytes) else json.dumps(value).encode()
            self.producer.produce(topic, body, partition=partition)
        assert self.producer.flush(10) == 0


@pytest.fixture(autouse=True)
def ids(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What brokers say of topics' ids: the mock cluster tells none, and would be waited for."""
    known: dict[str, str] = {}
    monkeypatch.setattr(_kafka, "topic_id", lambda kafka, options, topic: known.get(topic))
    return known


@pytest.fixture(scope="module")
def broker() -> Broker:
    return Broker()


@pytest.fixture
def make(tmp_path: Path, broker: Broker, request: pytest.FixtureRequest) -> Callable[..., Engine]:
    """Open one shop, again and again, that reads a topic of its own."""
    topic = request.node.name.replace("[", "-").rstrip("]")

    def make(form: str = "canonical", brokers: str | None = None) -> Engine:
        engine = Engine.open(tmp_path / "shop")
        if not (tmp_path / "shop").exists():
            engine.init()
            settings = tmp_path / "shop" / "shop.toml"
            table = (
                f'[kafka]\nbrokers = "{brokers or broker.address}"\ntopics = ["{topic}"]\nform = "{form}"\n'
            )
            text = settings.read_text()
            start = text.index("[kafka]")
            end = text.index("\n[", text.index("[kafka.options]") + 1)
            settings.write_text(text[:start] + table + text[end:])
        return engine

    make.topic = topic  # type: ignore[attr-defined]
    return make


def view(number: int, **fields: Any) -> dict[str, Any]:
    return {"kind": "view", "user_id": f"u{number}", "item_id": f"i{number}", **fields}


def test_each_message_is_stored_once_and_reading_goes_on_where_it_ended(make, broker: Broker) -> None:
    broker.send(*(view(n) for n in range(20)), topic=make.topic)
    broker.send(*(view(n) for n in range(20, 30)), topic=make.topic, partition=2)
    with make() as engine:
        told = engine.consume()
        assert (told.messages, told.stored, told.results) == (30, 30, {"stored": 30})
        assert told.positions == {f"kafka:{make.topic}:0": 20, f"kafka:{make.topic}:2": 10}
        assert engine.consume().messages == 0
    broker.send(view(30), topic=make.topic)
    with make() as engine:
        assert engine.consume().results == {"stored": 1}
        assert engine.shop.store.status().events == 31
        row = engine.shop.store.scan(subject="u30").to_pylist()[0]
        assert row["event_id"] == f"kafka:{make.topic}:0:20"
        assert abs(engine.clock() - row["ts"]) < 60_000_000, "the time it came to the broker"


def test_what_cannot_be_believed_is_kept_aside_and_passed_over(make, broker: Broker) -> None:
    broker.send(b"no json", b"[]", view(1), {"kind": "dance"}, view(2, event_id="e"), topic=make.topic)
    broker.send(view(2, event_id="e", ts=1_700_000_000_000_000), topic=make.topic)
    with make() as engine:
        told = engine.consume()
        assert (told.messages, told.results) == (6, {"stored": 2, "refused": 3, "conflict": 1})
        assert engine.dead_letters().kept == 4


def test_segment_messages(make, broker: Broker) -> None:
    call = {"type": "track", "event": "Product Viewed", "userId": "anna", "properties": {"product_id": "tea"}}
    told_by = {"type": "identify", "userId": "anna", "anonymousId": "phone"}
    broker.send(call, {**call, "messageId": "m1"}, {**call, "messageId": "m1"}, told_by, topic=make.topic)
    with make("segment") as engine:
        assert engine.consume().results == {"stored": 2, "duplicate": 1, "identified": 1}
        assert engine.shop.store.guests("anna") == ["anon:phone"]


def test_a_crash_between_reading_and_storing_loses_and_doubles_nothing(make, broker, monkeypatch) -> None:
    broker.send(*(view(n) for n in range(40)), topic=make.topic)
    monkeypatch.setattr(_kafka, "_BATCH", 7)
    append = None
    with make() as engine:
        store = engine.shop.store
        append, calls = store.append, []

        def failing(*given: Any, **options: Any) -> list[str]:
            calls.append(1)
            if len(calls) % 3 == 2:
                raise StorageError("the disk is full")
            return append(*given, **options)

        monkeypatch.setattr(store, "append", failing)
        for _ in range(20):
            try:
                engine.consume()
                break
            except StorageError:
                continue
        assert store.status().events == 40
        assert store.positions() == {f"kafka:{make.topic}:0": 40}
        assert len(calls) > 6


def test_a_poisonous_message_is_tried_three_times_and_passed_over(make, broker, monkeypatch) -> None:
    broker.send(view(1), view(2, item_id="poison"), view(3), topic=make.topic)
    tries = []
    check = _kafka_live().check_event

    def poisoned(event: Any, *rest: Any) -> Any:
        if event.item_id == "poison":
            tries.append(1)
            raise RuntimeError("a fault of ours")
        return check(event, *rest)

    monkeypatch.setattr(_kafka_live(), "check_event", poisoned)
    with make() as engine:
        assert engine.consume().results == {"stored": 2, "refused": 1}
        assert len(tries) == 4  # with its neighbours once, then alone
        assert "RuntimeError" in engine.dead_letters().letters[0].reason
        assert engine.consume().messages == 0


def test_a_fault_after_the_commit_does_not_store_again(make, broker, monkeypatch) -> None:
    """The Measurement Protocol has no ids: another try would count its events anew."""
    event = {"name": "view_item", "params": {"items": [{"item_id": "tea"}]}}
    broker.send(*[{"client_id": "c", "event": event}] * 2, topic=make.topic)
    with make("ga4-measurement") as engine:

        def failing(events: Any) -> None:
            raise RuntimeError("cannot learn")

        monkeypatch.setattr(engine.serving, "observed", failing)
        assert engine.consume().messages == 2
        assert len(engine.export_user(anonymous_id="c").events) == 2
        assert engine.dead_letters().kept == 0


def _kafka_live() -> Any:
    from penchant.engine import _live

    return _live


def test_a_server_reads_all_the_time(make, broker: Broker) -> None:
    broker.send(view(1), topic=make.topic)
    with make() as engine:
        engine.keep()
        broker.send(view(2), topic=make.topic)
        deadline = time.monotonic() + 20
        while engine.shop.store.status().events < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert engine.shop.store.status().events == 2


def test_brokers_that_are_not_there_are_named(make, monkeypatch) -> None:
    monkeypatch.setattr(_kafka, "_REACH", 1.0)
    with make(brokers="127.0.0.1:1") as engine, pytest.raises(InputError, match="Kafka cannot be read"):
        engine.consume()


def test_without_settings_it_says_what_to_set(tmp_path: Path) -> None:
    with Engine.open(tmp_path) as engine:
        engine.init()
        with pytest.raises(InputError, match="brokers and topics"):
            engine.consume()


def test_a_topic_that_was_made_anew_is_read_from_its_beginning(
    make, broker: Broker, ids: dict[str, str]
) -> None:
    """Its offsets begin again: none of its events may be passed over, nor taken for those of the topic before."""
    ids[make.topic] = "first"
    broker.send(*(view(n) for n in range(5)), topic=make.topic)
    with make() as engine:
        assert engine.consume().stored == 5
        assert engine.consume().messages == 0
        ids[make.topic] = "second"  # the same offsets, other messages as far as anybody can tell
        told = engine.consume()
        assert (told.messages, told.stored) == (5, 5)
        assert told.positions[f"kafka:{make.topic}#2:0"] == 5
        assert engine.consume().messages == 0
        ids[make.topic] = "first"
        assert engine.consume().messages == 0, "what was read of it is known still"


def test_where_no_ids_are_told_an_end_before_the_position_says_so(make, broker: Broker) -> None:
    broker.send(*(view(n) for n in range(5)), topic=make.topic)
    with make() as engine:
        engine.shop.store.append(
            [], positions={f"kafka:{make.topic}:0": 9}
        )  # read from a topic that is no more
        told = engine.consume()
        assert (told.messages, told.stored) == (5, 5)
        assert told.positions[f"kafka:{make.topic}#2:0"] == 5
