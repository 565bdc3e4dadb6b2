"""The decision log: slates are handed over in microseconds and committed in groups by one thread."""

from __future__ import annotations

import base64
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass

import msgspec

from penchant.core import Cipher, Noun, PackedCandidates, Slate
from penchant.core.errors import StorageError
from penchant.store._hashing import Persons
from penchant.store._journal import Journal

_GROUP = 100  # rows of one commit
_DELAY = 0.05  # seconds that a slate may wait for company
_BACKLOG = 10_000  # slates kept while the disk refuses


class _Sealed(msgspec.Struct, frozen=True):
    """An encrypted decision: the person's id, needed to find the key, and the sealed slate."""

    subject: str
    sealed: str


class _Item(msgspec.Struct, frozen=True):
    item_id: str


class _Items(msgspec.Struct, frozen=True):
    """What an answer showed; the rest of it is passed over."""

    ts: int
    policy_id: str
    items: list[_Item]


class _LoggedItems(msgspec.Struct, frozen=True):
    slate: _Items


class _Logged(Noun, frozen=True):
    """A decision with its candidates in few bytes."""

    slate: Slate
    packed: PackedCandidates


_encode = msgspec.json.Encoder().encode
_decode_plain = msgspec.json.Decoder(Slate).decode
_decode_logged = msgspec.json.Decoder(_Logged).decode


def _decode_slate(body: bytes) -> Slate:
    if not body.startswith(b'{"slate":'):
        return _decode_plain(body)
    logged = _decode_logged(body)
    return msgspec.structs.replace(logged.slate, candidates=logged.packed.unpack())


_decode_items = msgspec.json.Decoder(_Items).decode
_decode_logged_items = msgspec.json.Decoder(_LoggedItems).decode


def _decode_shown(body: bytes) -> _Items:
    return _decode_logged_items(body).slate if body.startswith(b'{"slate":') else _decode_items(body)


_decode_sealed = msgspec.json.Decoder(_Sealed).decode
_SEALED = b'{"subject":'  # how a sealed body begins; a plain one begins with its recommendation_id


DecisionRow = tuple[str, int, bytes, bytes]
"""recommendation_id, ts, person, body."""


@dataclass(eq=False, slots=True)
class _Queued:
    slate: Slate
    candidates: Callable[[], PackedCandidates] | None
    row: DecisionRow | None = None


class DecisionLog:
    """Queues decisions and writes at most 100 of them, or those of 50 ms, in one transaction.

    Args:
        journal: Where they are read.
        persons: Names people.
        cipher: Seals them.
        write: Writes a group of rows durably.
    """

    def __init__(
        self,
        journal: Journal,
        persons: Persons,
        cipher: Cipher | None,
        write: Callable[[list[DecisionRow]], None],
    ) -> None:
        self.lost = 0
        self._write = write
        self._journal, self._persons, self._cipher = journal, persons, cipher
        self._queue: deque[_Queued] = deque()
        self._fresh: deque[_Queued] = deque(maxlen=_GROUP)  # the newest, for `pack`
        self._wake, self._stop = threading.Event(), threading.Event()
        self._writing = threading.Lock()
        self._thread: threading.Thread | None = None

    def add(self, slate: Slate, candidates: Callable[[], PackedCandidates] | None = None) -> bool:
        """Take a slate over; False when the disk has refused for long, so that no more are kept."""
        if len(self._queue) >= _BACKLOG:
            self.lost += 1
            return False
        queued = _Queued(slate, candidates)
        self._queue.append(queued)
        self._fresh.append(queued)
        if self._thread is None:
            self._start()
        if not self._wake.is_set():
            self._wake.set()
        return True

    def pack(self) -> None:
        """Put what waits into bytes, in the caller's thread: the thread that writes keeps nobody waiting with it."""
        while self._fresh:
            with contextlib.suppress(IndexError):  # another thread was sooner
                queued = self._fresh.popleft()
                queued.row = self._row(queued)

    def _row(self, queued: _Queued) -> DecisionRow:
        slate, candidates = queued.slate, queued.candidates
        body = _encode(slate if candidates is None else _Logged(slate, candidates()))
        if self._cipher is not None:
            sealed = self._cipher.encrypt(slate.subject, "decision", body)
            body = _encode(_Sealed(slate.subject, base64.b64encode(sealed).decode()))
        return slate.recommendation_id, slate.ts, self._persons(slate.subject), body

    def _start(self) -> None:
        with self._writing:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="penchant-decisions", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wake.wait()
            self._wake.clear()
            if len(self._queue) < _GROUP:
                self._stop.wait(_DELAY)
            try:
                self.flush()
            except StorageError:
                self._stop.wait(1.0)  # the slates stay queued; `flush` tells the caller
                self._wake.set()

    def flush(self) -> None:
        """Make everything handed over durable."""
        with self._writing:
            while self._queue:
                group = [self._queue[i] for i in range(min(_GROUP, len(self._queue)))]
                rows = []
                for queued in group:
                    if queued.row is None:
                        queued.row = self._row(queued)
                        time.sleep(0)  # answers go first: none of them waits for more than one row
                    rows.append(queued.row)
                if self._cipher is not None:
                    self._cipher.flush()
                self._write(rows)
                for _ in group:
                    self._queue.popleft()

    def decode(self, body: bytes) -> Slate | None:
        """A stored body as a slate; None when its key was destroyed."""
        plain = self._opened(body)
        return None if plain is None else _decode_slate(plain)

    def _opened(self, body: bytes) -> bytes | None:
        if self._cipher is None or not body.startswith(_SEALED):
            return body
        sealed = _decode_sealed(body)
        try:
            return self._cipher.decrypt(sealed.subject, "decision", base64.b64decode(sealed.sealed))
        except StorageError:
            return None

    def shown(self, subject: str, since: int, most: int, but: Collection[str]) -> list[tuple[int, list[str]]]:
        """When a person was shown which items, in their newest answers since a moment, those not yet on disk too.

        Answers of the policies ``but`` are left out.
        """
        bodies = (self._opened(body) for body in self._journal.newest_of(self._persons(subject), since, most))
        logged = [_decode_shown(body) for body in bodies if body is not None]
        found = [(one.ts, [i.item_id for i in one.items]) for one in logged if one.policy_id not in but]
        queued = [one.slate for one in list(self._queue)]
        waiting = [slate for slate in queued if slate.subject == subject and slate.ts >= since]
        return [*found, *((slate.ts, slate.item_ids) for slate in waiting if slate.policy_id not in but)]

    def drop(self, person: bytes) -> None:
        """Forget queued decisions of an erased person."""
        with self._writing:
            for queued in list(self._queue):  # others may be added meanwhile
                if self._persons(queued.slate.subject) == person:
                    self._queue.remove(queued)
                    with contextlib.suppress(ValueError):  # it may be packed by now
                        self._fresh.remove(queued)

    def close(self) -> None:
        """Stop the thread, then write what is left."""
        self._stop.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
        self.flush()
