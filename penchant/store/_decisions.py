"""The decision log: slates are handed over in microseconds and committed in groups by one thread."""

from __future__ import annotations

import base64
import threading
from collections import deque

import msgspec

from penchant.core import Cipher, Slate
from penchant.core.errors import StorageError
from penchant.store._hashing import Persons
from penchant.store._journal import Journal

_GROUP = 100  # rows of one commit
_DELAY = 0.005  # seconds that a row may wait for company
_BACKLOG = 100_000  # rows kept while the disk refuses


class _Sealed(msgspec.Struct, frozen=True):
    """An encrypted decision: the person's id, needed to find the key, and the sealed slate."""

    subject: str
    sealed: str


_encode = msgspec.json.Encoder().encode
_decode_slate = msgspec.json.Decoder(Slate).decode
_decode_sealed = msgspec.json.Decoder(_Sealed).decode
_SEALED = b'{"subject":'  # how a sealed body begins; a plain one begins with its recommendation_id


class DecisionLog:
    """Queues decisions and writes at most 100 of them, or those of 5 ms, in one transaction."""

    def __init__(self, journal: Journal, persons: Persons, cipher: Cipher | None) -> None:
        self._journal, self._persons, self._cipher = journal, persons, cipher
        self._queue: deque[tuple[str, int, bytes, bytes]] = deque()
        self._wake, self._stop = threading.Event(), threading.Event()
        self._writing = threading.Lock()
        self._failure: StorageError | None = None
        self._thread: threading.Thread | None = None

    def add(self, slate: Slate) -> None:
        """Take a slate over; raises ``StorageError`` when the disk has refused for long."""
        if self._failure is not None and len(self._queue) >= _BACKLOG:
            raise self._failure
        body = _encode(slate)
        if self._cipher is not None:
            sealed = self._cipher.encrypt(slate.subject, "decision", body)
            body = _encode(_Sealed(slate.subject, base64.b64encode(sealed).decode()))
        self._queue.append((slate.recommendation_id, slate.ts, self._persons(slate.subject), body))
        if self._thread is None:
            self._start()
        self._wake.set()

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
                self._stop.wait(1.0)  # the rows stay queued; `flush` tells the caller
                self._wake.set()

    def flush(self) -> None:
        """Make everything handed over durable."""
        with self._writing:
            while self._queue:
                group = [self._queue[i] for i in range(min(_GROUP, len(self._queue)))]
                try:
                    if self._cipher is not None:
                        self._cipher.flush()
                    self._journal.insert_decisions(group)
                except StorageError as error:
                    self._failure = error
                    raise
                for _ in group:
                    self._queue.popleft()
            self._failure = None

    def decode(self, body: bytes) -> Slate | None:
        """A stored body as a slate; None when its key was destroyed."""
        if self._cipher is None or not body.startswith(_SEALED):
            return _decode_slate(body)
        sealed = _decode_sealed(body)
        try:
            return _decode_slate(
                self._cipher.decrypt(sealed.subject, "decision", base64.b64decode(sealed.sealed))
            )
        except StorageError:
            return None

    def drop(self, person: bytes) -> None:
        """Forget queued decisions of an erased person."""
        with self._writing:
            for row in list(self._queue):  # others may be added meanwhile
                if row[2] == person:
                    self._queue.remove(row)

    def close(self) -> None:
        """Stop the thread, then write what is left."""
        self._stop.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
        self.flush()
