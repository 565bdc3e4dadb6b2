"""Live histories in Redis or Valkey, for servers that share them: the same windows as in LMDB, one hash a bucket.

A cache like the other one. A bucket without its position is not built; building fills a key of its own that then takes
the bucket's name, so that readers see the old or the new. After a restart of the server (another ``run_id``) nothing
of it is believed: what it lost, nobody knows. While it does not answer, histories are read from journal and table.
"""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import msgspec
import pyarrow as pa

from penchant.core import History
from penchant.core.errors import MissingExtra
from penchant.store._hashing import Persons
from penchant.store._live import FORM, entries_of, keys_of, read_history, take_in
from penchant.store._postgres import schema_of
from penchant.store._rows import Stored

_POSITION = b"\x00seq"
_PATIENCE = 0.05  # seconds that a request waits for the server
_REST = 1.0  # seconds without asking after it did not answer
_CHUNK = 1000  # entries sent at once while a bucket is built

T = TypeVar("T")


class RedisHistories:
    """The histories of one shop in a server; made and used like ``LiveHistories``."""

    def __init__(self, url: str, shop: str, persons: Persons, *, readonly: bool) -> None:
        try:
            import redis
        except ImportError:
            raise MissingExtra("redis", "live histories in Redis or Valkey") from None
        self._errors = redis.exceptions.RedisError
        self._gone = (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError)
        self.readonly, self._persons = readonly, persons
        self._prefix = f"{schema_of(shop)}:live{FORM}:"
        self._quick: Any = redis.Redis.from_url(
            url, socket_timeout=_PATIENCE, socket_connect_timeout=_PATIENCE
        )
        self._slow: Any = redis.Redis.from_url(url, socket_timeout=10.0, socket_connect_timeout=1.0)
        self._lock = threading.Lock()
        self._resting_until = 0.0
        self._doubtful = True  # whether the server may have lost what it had
        self._distrusted: set[int] = set()  # could not be deleted, must not be read

    def _key(self, bucket: int) -> str:
        return f"{self._prefix}{bucket:02d}"

    @property
    def trusted(self) -> bool:
        """Whether the server answers and has been running since the histories were built."""
        if time.monotonic() < self._resting_until:
            return False
        if self._doubtful:
            with self._lock, contextlib.suppress(self._errors):
                self._look()
        return not self._doubtful

    def _look(self) -> None:
        """Compare the server with the one that the histories were built in; another one's are deleted."""
        try:
            run = self._quick.info("server")["run_id"].encode()
            if self._quick.get(self._prefix + "run") != run:
                if self.readonly:
                    return
                found = list(self._slow.scan_iter(match=self._prefix + "*", count=500))
                if found:
                    self._slow.delete(*found)
                self._slow.set(self._prefix + "run", run)
            if self._distrusted and not self.readonly:
                self._slow.delete(*(self._key(bucket) for bucket in self._distrusted))
                self._distrusted.clear()
            self._doubtful = False
        except self._gone:
            self._rest()

    def _rest(self) -> None:
        self._doubtful = True
        self._resting_until = time.monotonic() + _REST

    def _ask(self, question: Callable[[], T], otherwise: T) -> T:
        """Ask the server; while it does not answer, say the other thing without waiting."""
        if not self.trusted:
            return otherwise
        try:
            return question()
        except self._gone:
            self._rest()
        except self._errors:
            pass
        return otherwise

    def is_built(self, bucket: int) -> bool:
        """Whether the bucket answers from the server."""
        if bucket in self._distrusted:
            return False
        return self._ask(lambda: bool(self._quick.hexists(self._key(bucket), _POSITION)), False)

    def get(self, bucket: int, subject: str, limit: int) -> History | None:
        """A person's history; None when this bucket cannot tell (not built, or too few events kept)."""
        if bucket in self._distrusted:
            return None
        person = self._persons(subject)
        fields = [_POSITION, *keys_of(person)]
        values = self._ask(lambda: self._quick.hmget(self._key(bucket), fields), None)
        if values is None or values[0] is None:
            return None
        try:
            return read_history(dict(zip(fields, values, strict=True)).get, person, subject, limit)
        except msgspec.DecodeError:
            return None

    def position(self, bucket: int) -> int:
        """The last journal row that the bucket's histories hold, -1 at first."""
        raw = self._quick.hget(self._key(bucket), _POSITION)
        return int(raw) if raw is not None else -1

    def apply(self, bucket: int, rows: Sequence[Stored]) -> None:
        """Add events in order of arrival; rows that are in already are passed over.

        Raises:
            Exception: The server refused, or did not answer: what it has of the bucket is in doubt.
        """
        if not rows or bucket in self._distrusted:
            return
        if time.monotonic() < self._resting_until:
            self._distrusted.add(bucket)
            return
        key = self._key(bucket)
        persons = {self._persons(stored.row.subject) for stored in rows}
        fields = [_POSITION, *(key for person in persons for key in keys_of(person))]
        try:
            found = dict(zip(fields, self._quick.hmget(key, fields), strict=True))
            if found[_POSITION] is None:
                return  # not built
            position = int(found[_POSITION])
            changed: dict[bytes, bytes] = {}

            def put(field: bytes, value: bytes) -> None:
                found[field] = changed[field] = value

            for stored in rows:
                if stored.seq > position:
                    take_in(found.get, put, self._persons(stored.row.subject), stored.row)
            changed[_POSITION] = b"%d" % max(position, rows[-1].seq)
            self._quick.hset(key, mapping=changed)
        except self._gone:
            self._rest()
            raise

    def build(self, bucket: int, rows: pa.Table, position: int) -> str:
        """Fill a new key from a bucket's ordered rows; ``link`` gives it the bucket's name."""
        name = f"{self._key(bucket)}:{uuid.uuid4().hex[:12]}"
        part: dict[bytes, bytes] = {_POSITION: b"%d" % position}
        try:
            for field, value in entries_of(rows, self._persons):
                part[field] = value
                if len(part) >= _CHUNK:
                    self._slow.hset(name, mapping=part)
                    part = {}
            if part:
                self._slow.hset(name, mapping=part)
        except self._gone:
            self._rest()
            raise
        return name

    def link(self, bucket: int, name: str) -> None:
        """Put a built key into use in place of the one before."""
        self._slow.rename(name, self._key(bucket))
        self._distrusted.discard(bucket)

    def discard(self, name: str) -> None:
        """Delete a key that is not used."""
        self._slow.delete(name)

    def invalidate(self, buckets: Iterable[int]) -> None:
        """Forget buckets: they are built again when next asked for."""
        for bucket in buckets:
            self.drop(bucket)

    def drop(self, bucket: int) -> None:
        """Forget a bucket; while the server does not answer, stop reading it."""
        self._distrusted.add(bucket)
        try:
            self._slow.delete(self._key(bucket))
            self._distrusted.discard(bucket)
        except self._errors:
            self._rest()

    def entries(self, bucket: int) -> int:
        """How many people a built bucket knows."""
        return self._ask(lambda: sum(len(field) == 16 for field in self._slow.hkeys(self._key(bucket))), 0)

    def close(self) -> None:
        """Close the connections."""
        self._quick.close()
        self._slow.close()
