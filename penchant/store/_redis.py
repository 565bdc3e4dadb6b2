"""Live histories in Redis or Valkey, for servers that share them: the same windows as in LMDB, one hash a bucket.

A cache like the other one. A bucket without its position is not built; building fills a key of its own that then takes
the bucket's name where there is none, so that readers see the old or the new. The ``run_id`` of the server stands in
every name: after its restart nothing of it is believed, for what it lost, nobody knows. While it does not answer,
histories are read from journal and table.

Several processes may write: what one has worked out is taken only if the bucket still stands where it read it.
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
_SLOWLY = 2.0  # seconds that building and erasing wait
_REST = 1.0  # seconds without asking after it did not answer
_CHUNK = 1000  # entries sent at once while a bucket is built, and rows applied
_UNLINKED = 3600  # seconds after which a key goes that was built and never linked
_TRIES = 50  # attempts to write what others write too
# Write fields of a bucket (KEYS[1]) if its position (the field ARGV[1]) still is ARGV[2].
_SWAP = """
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], unpack(ARGV, 3))
return 1
"""

T = TypeVar("T")


class RedisHistories:
    """The histories of one shop in a server; made and used like ``LiveHistories``."""

    def __init__(
        self, url: str, shop: str, persons: Persons, *, readonly: bool, shared: bool = False
    ) -> None:
        try:
            import redis
        except ImportError:
            raise MissingExtra("redis", "live histories in Redis or Valkey") from None
        self._errors = redis.exceptions.RedisError
        self._gone = (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError)
        self.readonly, self._shared, self._persons = readonly, shared, persons
        self._all = f"{schema_of(shop)}:live"
        self._prefix = ""  # with the server's run_id, once it has said it
        once = redis.retry.Retry(redis.backoff.NoBackoff(), 0)  # a new connection may lead to another server
        self._quick: Any = redis.Redis.from_url(
            url, socket_timeout=_PATIENCE, socket_connect_timeout=_PATIENCE, retry=once
        )
        self._slow: Any = redis.Redis.from_url(
            url, socket_timeout=_SLOWLY, socket_connect_timeout=1.0, retry=once
        )
        self._swap: Any = self._quick.register_script(_SWAP)
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
        """Ask which server this is; what an earlier one left behind is deleted."""
        try:
            prefix = f"{self._all}{FORM}:{self._quick.info('server')['run_id'][:16]}:"
            if prefix != self._prefix and not self.readonly:
                found = [
                    key
                    for key in self._slow.scan_iter(match=self._all + "*", count=500)
                    if not key.startswith(prefix.encode())
                ]
                if found:
                    self._slow.delete(*found)
                if self._prefix:
                    self._distrusted.clear()
            self._prefix = prefix
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
        if not self.trusted:
            self._distrusted.add(bucket)
            return
        try:
            for start in range(0, len(rows), _CHUNK):
                self._apply(self._key(bucket), rows[start : start + _CHUNK])
        except self._gone:
            self._rest()
            raise

    def _apply(self, key: str, rows: Sequence[Stored]) -> None:
        persons = {self._persons(stored.row.subject) for stored in rows}
        fields = [_POSITION, *(key for person in persons for key in keys_of(person))]
        for _ in range(_TRIES):
            found = dict(zip(fields, self._quick.hmget(key, fields), strict=True))
            before = found[_POSITION]
            if before is None or int(before) >= rows[-1].seq:
                return  # not built, or somebody else was faster
            position = int(before)
            changed: dict[bytes, bytes] = {}

            def put(field: bytes, value: bytes, found: Any = found, changed: Any = changed) -> None:
                found[field] = changed[field] = value

            for stored in rows:
                if stored.seq > position:
                    take_in(found.get, put, self._persons(stored.row.subject), stored.row)
            changed[_POSITION] = b"%d" % rows[-1].seq
            flat = [part for pair in changed.items() for part in pair]
            if self._swap(keys=[key], args=[_POSITION, before, *flat]):
                return
        self._quick.delete(key)  # built again when next asked for

    def build(self, bucket: int, rows: pa.Table, position: int) -> str:
        """Fill a new key from a bucket's ordered rows; ``link`` gives it the bucket's name.

        Raises:
            Exception: The server does not answer, or did not lately: whoever asks is not kept waiting for it.
        """
        if not self.trusted:
            raise self._gone[0]("the server of the live histories does not answer")
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
            self._slow.expire(name, _UNLINKED)
        except self._gone:
            self._rest()
            raise
        return name

    def link(self, bucket: int, name: str, later: Sequence[Stored] = ()) -> None:
        """Put a built key into use, with what was stored since; where another process was faster, theirs stays."""
        for start in range(0, len(later), _CHUNK):
            self._apply(name, later[start : start + _CHUNK])
        if name.startswith(self._prefix):  # else the server is another one by now
            if self._slow.renamenx(name, self._key(bucket)):
                self._slow.persist(self._key(bucket))
            else:
                self._slow.delete(name)
        self._distrusted.discard(bucket)

    def discard(self, name: str) -> None:
        """Delete a key that is not used."""
        self._slow.delete(name)

    def invalidate(self, buckets: Iterable[int]) -> None:
        """Forget buckets: they are built again when next asked for.

        Raises:
            Exception: The server does not answer, and other processes may go on reading what it holds.
        """
        for bucket in buckets:
            self.drop(bucket, strict=self._shared)

    def drop(self, bucket: int, *, strict: bool = False) -> None:
        """Forget a bucket; while the server does not answer, stop reading it, or fail where that is ``strict``.

        What is dropped while nobody waits for the server is deleted when it answers again.
        """
        self._distrusted.add(bucket)
        if not strict and time.monotonic() < self._resting_until:
            return
        try:
            if not self._prefix:
                self._look()
            if self._prefix:
                (self._slow if strict else self._quick).delete(self._key(bucket))
                self._distrusted.discard(bucket)
            elif strict:
                raise self._gone[0]("the server of the live histories does not answer")
        except self._errors:
            self._rest()
            if strict:
                raise

    def entries(self, bucket: int) -> int:
        """How many people a built bucket knows."""
        return self._ask(lambda: sum(len(field) == 16 for field in self._slow.hkeys(self._key(bucket))), 0)

    def close(self) -> None:
        """Close the connections."""
        self._quick.close()
        self._slow.close()
