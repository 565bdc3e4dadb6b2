"""Kafka as a source: read at least once, counted once, because how far it was read is stored with the events.

Brokers' own offsets are not used. Every commit of events holds the next offset of their partitions, so a crash, a
broker that sends again and a shop restored from a backup all go on where the stored events end. One process writes a
shop, or one of several leads, so it reads all partitions itself; consumer groups and their rebalancing are not needed.

A topic that was deleted and made anew counts its offsets from 0 again. Where the brokers tell the id of a topic (Kafka
2.8 and later) each of its incarnations has positions and event ids of its own; of older brokers' topics a new one is
known by an end before the stored position, or by offsets that fall while it is read.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from penchant.core import Progress, no_progress
from penchant.core.errors import InputError, MissingExtra, PenchantError, StorageError
from penchant.engine import _collect_requests as cr
from penchant.engine import _requests as rq
from penchant.engine._collect import collect, keep_aside
from penchant.engine._live import observe
from penchant.engine._shop import named
from penchant.engine._worker import Worker

if TYPE_CHECKING:
    from penchant.engine._serving import Serving
    from penchant.engine._shop import Shop

log = logging.getLogger("penchant.kafka")

_BATCH = 500  # messages of one commit
_TRIES = 3
_WAIT = 0.5  # seconds for messages to come
_LOOK = 60.0  # seconds between looks for new partitions
_REACH = 10.0  # seconds in which a broker must answer
_IDS = 3.0  # seconds to wait for the ids of topics, which not every broker tells
_LONGEST = 30.0  # seconds between attempts while brokers or disk refuse


def source_of(topic: str, partition: int, incarnation: int = 1) -> str:
    """The name of a partition among the sources whose positions a store keeps.

    Example:
        >>> source_of("events", 3), source_of("events", 3, 2)
        ('kafka:events:3', 'kafka:events#2:3')
    """
    return f"kafka:{topic}{'' if incarnation == 1 else f'#{incarnation}'}:{partition}"


def topic_id(kafka: Any, options: dict[str, str], topic: str) -> str | None:
    """The id of a topic, another one when it is made anew; None where the brokers do not tell."""
    from confluent_kafka.admin import AdminClient

    try:
        asked = AdminClient(options).describe_topics(kafka.TopicCollection([topic]), request_timeout=_IDS)
        found = str(asked[topic].result(_IDS).topic_id)
    except Exception:  # an older broker, or a right to ask that is not given
        return None
    return found if found.strip("A=0-") else None


class KafkaSource:
    """Reads the topics of a shop's ``[kafka]`` settings into it.

    Raises:
        InputError: The settings name no brokers or no topics, or a variable that is not set.
        MissingExtra: The client library is not installed.
    """

    def __init__(self, shop: Shop, serving: Serving) -> None:
        try:
            import confluent_kafka
        except ImportError:
            raise MissingExtra("kafka", "reading from Kafka") from None
        settings = shop.config.kafka
        if not settings.brokers or not settings.topics:
            raise InputError(
                "there is no topic to read", hint="set brokers and topics of [kafka] in shop.toml"
            )
        self._kafka = confluent_kafka
        self._shop, self._serving, self._settings = shop, serving, settings
        self._options = {name: _option(value) for name, value in settings.options.items()}
        self._consumer: Any = None
        self._ends: set[str] = set()
        self._partitions: set[str] = set()
        self._looked = 0.0
        self._incarnation: dict[str, int] = {}  # by topic
        self._fallen: set[str] = set()  # topics whose offsets fell while they were read
        self._next: dict[str, int] = {}  # by source: the offset that comes next
        self.read = self.stored = 0
        self.results: dict[str, int] = {}

    def _open(self) -> None:
        """Connect, and begin where the stored events end."""
        self.close()
        self._consumer = self._kafka.Consumer(
            {
                **self._options,
                "bootstrap.servers": self._settings.brokers,
                "group.id": "penchant",  # asked for, not used: partitions are assigned here
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "enable.partition.eof": True,
                "isolation.level": "read_committed",
            }
        )
        self._assign()

    def _assign(self) -> None:
        """Read every partition there is from its stored position."""
        positions = self._shop.store.positions()
        found = []
        for topic in self._settings.topics:
            told = self._consumer.list_topics(topic, timeout=_REACH).topics[topic]
            if told.error is not None:
                raise self._kafka.KafkaException(told.error)
            self._incarnation[topic] = self._which(topic, sorted(told.partitions), positions)
            found += [(topic, number) for number in sorted(told.partitions)]
        names = {self._source(*place) for place in found}
        if names != self._partitions:
            beginning = self._kafka.OFFSET_BEGINNING
            self._consumer.assign(
                [
                    self._kafka.TopicPartition(t, n, positions.get(self._source(t, n), beginning))
                    for t, n in found
                ]
            )
            self._partitions, self._ends, self._next = names, set(), {}
        self._looked = time.monotonic()

    def _source(self, topic: str, partition: int) -> str:
        return source_of(topic, partition, self._incarnation.get(topic, 1))

    def _which(self, topic: str, partitions: Sequence[int], positions: dict[str, int]) -> int:
        """How often the topic was made, counted from when it was first read; noted where that is news."""
        last = positions.get(f"kafka:{topic}", 1)
        options = {**self._options, "bootstrap.servers": self._settings.brokers}
        own = topic_id(self._kafka, options, topic)
        if own is not None and (known := positions.get(f"kafka:{topic}={own}")) is not None:
            return known
        again = own is not None and any(name.startswith(f"kafka:{topic}=") for name in positions)
        again = again or (own is None and topic in self._fallen)
        again = again or any(self._is_behind(topic, number, last, positions) for number in partitions)
        self._fallen.discard(topic)
        last += again
        news = {f"kafka:{topic}": last} if again else {}
        if own is not None:
            news |= {f"kafka:{topic}": last, f"kafka:{topic}={own}": last}
        if again:
            log.warning("the topic %s was made anew: it is read from its beginning", topic)
        if news:
            self._shop.store.append([], positions=news)
        return last

    def _is_behind(self, topic: str, partition: int, incarnation: int, positions: dict[str, int]) -> bool:
        """Whether a partition ends before the position up to which it was read."""
        stored = positions.get(source_of(topic, partition, incarnation))
        if not stored:
            return False
        place = self._kafka.TopicPartition(topic, partition)
        return bool(self._consumer.get_watermark_offsets(place, timeout=_REACH)[1] < stored)

    def _fell(self, messages: Sequence[Any]) -> bool:
        """Whether offsets fall, as they do where a topic is made anew while it is read."""
        for message in messages:
            source = self._source(message.topic(), message.partition())
            if message.offset() < self._next.get(source, 0):
                self._fallen.add(message.topic())
                return True
            self._next[source] = message.offset() + 1
        return False

    def step(self) -> bool:
        """Read and store what has come; whether the end of every partition was reached.

        Raises:
            StorageError: The disk refuses; nothing of these messages is stored, and they are read again.
            InputError: The brokers cannot be reached, or refuse.
        """
        try:
            if self._consumer is None:
                self._open()
            elif time.monotonic() - self._looked > _LOOK:
                self._assign()
            got = self._consumer.consume(_BATCH, _WAIT)
            messages = [message for message in got if not self._is_end(message)]
            if self._fell(messages):
                self.close()  # these messages are read again, as those of another topic
                return False
            if messages:
                self._store(messages)
        except self._kafka.KafkaException as error:
            self.close()
            said = (
                error.args[0].str() if error.args and hasattr(error.args[0], "str") else type(error).__name__
            )
            raise InputError(
                f"Kafka cannot be read: {said[:200]}",
                value=self._settings.brokers,
                hint="check brokers, topics and options of [kafka]",
            ) from None
        except BaseException:
            self.close()  # read again from where the stored events end
            raise
        return self._ends == self._partitions

    def _is_end(self, message: Any) -> bool:
        """Whether this is no message but the news that a partition is at its end."""
        error = message.error()
        if error is None:
            self._ends.discard(self._source(message.topic(), message.partition()))
            return False
        if error.code() != self._kafka.KafkaError._PARTITION_EOF:
            raise self._kafka.KafkaException(error)
        self._ends.add(self._source(message.topic(), message.partition()))
        return True

    def _store(self, messages: Sequence[Any]) -> None:
        """Store messages with their positions in one commit; a poisonous one is kept aside and passed over."""
        error = self._tried(messages)
        if error is not None and len(messages) > 1:
            for message in messages:
                self._store([message])
            return
        for _ in range(_TRIES - 1):
            error = error and self._tried(messages)
        if error is not None:
            log.error("a message was kept aside after %d tries: %s", _TRIES, type(error).__name__)
            (message,) = messages
            self._aside(f"it cannot be stored: {type(error).__name__}", message)
            self._shop.store.append([], positions=self._positions(messages))
            self._count(["refused"])
        self.read += len(messages)

    def _tried(self, messages: Sequence[Any]) -> Exception | None:
        """Store messages; what failed where nothing of them is stored, None where they are.

        Whether they are, the positions tell, which are in the same commit: what fails after it must not store again.
        """
        before = self._shop.store.positions()
        try:
            self._commit(messages)
        except StorageError:
            raise
        except Exception as error:
            if self._shop.store.positions() == before:
                return error
            log.error("messages are stored, but were not learned from: %s", type(error).__name__)
        return None

    def _commit(self, messages: Sequence[Any]) -> None:
        values, odd = [], 0
        for message in messages:
            value = _value(message)
            if value is None:
                odd += 1
                self._aside("the message is not a JSON object", message)
            else:
                values.append(self._placed(value, message))
        self._count(["refused"] * odd)
        positions = self._positions(messages)
        report: cr.CollectReport | rq.ObserveReport
        if self._settings.form == "canonical":
            request = rq.ObservedRequest(events=values)
            report = observe(self._shop, self._serving, request, positions)
        else:
            asked = cr.CollectRequest(form=self._settings.form, messages=values)
            report = collect(self._shop, self._serving, asked, positions)
        self._count([result.status for result in report.results])
        self.stored += report.stored

    def _placed(self, value: dict[str, Any], message: Any) -> dict[str, Any]:
        """A message with the id and the time that it lacks: where it lies in Kafka, and when it came there."""
        own = f"{self._source(message.topic(), message.partition())}:{message.offset()}"
        kind, milliseconds = message.timestamp()
        if self._settings.form == "segment":
            value.setdefault("messageId", own)
        if self._settings.form != "canonical":
            return value
        value.setdefault("event_id", own)
        if kind != self._kafka.TIMESTAMP_NOT_AVAILABLE and not {"ts", "timestamp"} & set(value):
            value["ts"] = milliseconds * 1000
        return value

    def _positions(self, messages: Sequence[Any]) -> dict[str, int]:
        """Where to read on after these messages."""
        return {self._source(m.topic(), m.partition()): m.offset() + 1 for m in messages}

    def _aside(self, why: str, message: Any) -> None:
        place = {"props": {"topic": message.topic(), "offset": message.offset()}}
        keep_aside(self._shop, [(why, place)])

    def _count(self, words: Sequence[str]) -> None:
        for word in words:
            self.results[word] = self.results.get(word, 0) + 1

    def close(self) -> None:
        """Leave the brokers; the next step connects anew."""
        if self._consumer is not None:
            self._consumer.close()
        self._consumer, self._partitions = None, set()


def _value(message: Any) -> dict[str, Any] | None:
    try:
        value = msgspec.json.decode(message.value() or b"")
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _option(value: str) -> str:
    found = named(value)
    if found is None:
        raise InputError("a variable named in [kafka.options] is not set", value=value, hint="export it")
    return found


def consume(shop: Shop, serving: Serving, progress: Progress = no_progress) -> cr.ConsumeReport:
    """Read what the topics hold, to their ends as they are then."""
    source = KafkaSource(shop, serving)
    try:
        while not source.step():
            progress("reading from Kafka", source.read, None, {"stored": float(source.stored)})
    finally:
        source.close()
    return cr.ConsumeReport(
        messages=source.read, stored=source.stored, results=source.results, positions=shop.store.positions()
    )


class Feed(Worker):
    """A thread that reads from Kafka for as long as a server runs; what refuses is tried again, ever less often."""

    def __init__(self, shop: Shop, serving: Serving) -> None:
        self.source = KafkaSource(shop, serving)
        super().__init__("kafka")

    def _run(self) -> None:
        wait = 0.5
        while not self._stop.is_set():
            try:
                self.source.step()
                wait = 0.5
            except Exception as error:  # a message may quote a person: the class and our own words are enough
                said = error.message if isinstance(error, PenchantError) else type(error).__name__
                log.error("reading from Kafka waits %g seconds: %s", wait, said)
                self._stop.wait(wait)
                wait = min(wait * 2, _LONGEST)
        self.source.close()
