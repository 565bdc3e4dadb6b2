"""Reading live histories, and building those that are not there from table and journal."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from penchant.core import NUM_BUCKETS, Cipher, History, Progress, bucket_of
from penchant.store._files import is_storage_failure
from penchant.store._journal import Journal
from penchant.store._live import LiveHistories, history_of
from penchant.store._reader import EventReader
from penchant.store._redis import RedisHistories

COLUMNS = ("subject", "ts", "kind", "item_id", "value", "event_id", "seq")


class Histories:
    """The histories of one store.

    Args:
        live: Where they lie.
        journal: The live events.
        events: All events.
        cipher: Opens what is sealed.
        place: The number of the last event, and what differs after every change of the table; asked while others are
            kept from appending.
        exclusive: Keeps others from appending and from changing the table.
    """

    def __init__(
        self,
        live: LiveHistories | RedisHistories,
        journal: Journal,
        events: EventReader,
        cipher: Cipher | None,
        *,
        place: Callable[[], tuple[int, int]],
        exclusive: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        self._live, self._journal, self._events, self._cipher = live, journal, events, cipher
        self._place, self._exclusive = place, exclusive
        self._lock = threading.Lock()

    def own(self, subject: str, limit: int) -> History:
        """The last events that were stored as this subject's."""
        bucket = bucket_of(subject)
        found = self._live.get(bucket, subject, limit)
        if found is None and not self._live.readonly and not self._live.is_built(bucket):
            self.build(bucket)
            found = self._live.get(bucket, subject, limit)
        if found is None:  # a reader of a bucket not built, or more events asked for than are kept
            found = history_of(subject, self._events.bucket(bucket, COLUMNS, subject=subject), limit)
        return found

    def build(self, bucket: int) -> None:
        """Build a bucket's live histories from table and journal. A full disk is no reason to fail."""
        with self._lock:
            while not self._live.is_built(bucket):
                with self._exclusive():
                    position, epoch = self._place()
                rows = self._events.bucket(bucket, COLUMNS, up_to=position)
                try:
                    name = self._live.build(bucket, rows, position)
                    with self._exclusive():
                        if epoch != self._place()[1]:
                            self._live.discard(name)
                            continue
                        later = self._journal.rows(bucket, after=position, cipher=self._cipher)
                        self._live.link(bucket, name, later)
                except Exception as error:
                    if not is_storage_failure(error):
                        raise
                    self._live.drop(bucket)
                    return

    def warm(self, progress: Progress) -> int:
        """Build all buckets that are not; returns how many were built."""
        stale = [bucket for bucket in range(NUM_BUCKETS) if not self._live.is_built(bucket)]
        for done, bucket in enumerate(stale):
            progress("building live histories", done, len(stale), {})
            self.build(bucket)
        progress("building live histories", len(stale), len(stale), {})
        return len(stale)

    def count(self) -> tuple[int, int]:
        """How many people have events, and how many buckets are built."""
        built = {bucket for bucket in range(NUM_BUCKETS) if self._live.is_built(bucket)}
        people = sum(
            self._live.entries(b) if b in built else self._events.people(b) for b in range(NUM_BUCKETS)
        )
        return people, len(built)
