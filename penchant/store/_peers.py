"""Several processes that write one shop: what keeps them in step.

Events and decisions get their numbers under one lock of the journal's server, held until they are committed, so the
numbers grow in the order in which rows appear and whoever has read up to one has missed nothing before it. Under the
same lock a process looks what others changed (the table, who was erased) before it judges an event. Whoever changes
the table announces the new version in the journal first, so that nobody judges by an index of ids that is behind.

Live histories are applied row by row in the order of numbers. A process that died between its commit and the histories
is made good by the others, who follow the journal.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from penchant.core import Cipher, bucket_of
from penchant.core.errors import ShopError, StorageError
from penchant.store._append import Append, id_hashes, judge_appends
from penchant.store._database import Connection
from penchant.store._decisions import DecisionRow
from penchant.store._files import is_storage_failure
from penchant.store._journal import Journal
from penchant.store._live import LiveHistories
from penchant.store._redis import RedisHistories
from penchant.store._rows import Stored
from penchant.store._table import EventTable

log = logging.getLogger("penchant.store")
_PAGE = 10_000  # journal rows followed at a time


class Peers:
    """What one process knows of the others. Whoever calls holds the store's lock, but for ``arrive``."""

    def __init__(
        self, journal: Journal, table: EventTable, live: LiveHistories | RedisHistories, cipher: Cipher | None
    ) -> None:
        self._journal, self._table, self._live, self._cipher = journal, table, live, cipher
        self.shared = journal.database.shared and not journal.database.readonly
        marks = journal.marks()
        self.next_seq = marks.next_seq  # of a single writer
        self.tombstones = journal.tombstones()
        self.remade = marks.remade
        self._applied = marks.next_seq - 1  # histories hold all rows up to here, once `replay` has run
        self._trusted = True
        if self.shared:
            table.announce = lambda version: journal.set_number("table", version)

    def check_folder(self) -> None:
        """Of several processes that share a journal each must work on the very same folder.

        Raises:
            ShopError: This one lacks changes of the event table that the journal knows of.
        """
        known, found = self._journal.marks().table, self._table.latest_version()
        if self.shared and found < known - 1:
            raise ShopError(
                "this folder lacks events that were moved into the table of another folder of this shop",
                value=f"{self._table.folder}: version {found} of {known}",
                hint="let all processes of the shop work on one shared folder",
            )

    # -- what others changed -------------------------------------------------------------------------------

    def arrive(self, db: Connection) -> int:
        """Wait within a transaction for the right to add rows; the number of the first of them.

        Raises:
            StorageError: A change of the table is announced that this folder does not show.
        """
        self._journal.database.arrive(db)
        marks = self._journal.marks(db)
        self._take_up(marks.table, marks.remade)
        return marks.next_seq

    def erased(self, db: Connection) -> set[bytes]:
        """Everybody who was erased, as it stands within a transaction."""
        if self.shared:
            self.arrive(db)
        return self.tombstones

    def look(self) -> int:
        """Take up what others changed; the number of the table's version."""
        marks = self._journal.marks()
        self._take_up(marks.table, marks.remade)
        return marks.table

    def _take_up(self, table: int, remade: int) -> None:
        if remade != self.remade:
            self.tombstones |= self._journal.tombstones()
            self.remade = remade
        if table > self._table.ids.manifest.version and self._table.refresh() < table:
            raise StorageError(
                "a change of the event table is not complete, or this folder is not the one that it was made in",
                value=str(self._table.folder),
                hint="it is completed by another process within seconds: try again",
            )

    # -- writing -------------------------------------------------------------------------------------------

    def flush_keys(self) -> None:
        """What is sealed must not be on disk before the keys are that open it."""
        if self._cipher is not None:
            self._cipher.flush()

    def commit(self, requests: Sequence[Append]) -> None:
        """Store the events of several calls in one transaction and say what became of them; histories follow."""
        journal = self._journal
        if journal.database.unsure:  # what was told as failed may be there all the same
            self.next_seq = max(self.next_seq, journal.last_seq() + 1)
            self.replay()
            journal.database.unsure = False
        self.flush_keys()
        hashes, ids = id_hashes(requests), self._table.ids
        if self.shared:
            with journal.transaction() as db:
                first = self.arrive(db)
                judged = judge_appends(requests, journal.contents(hashes, db), ids, self.tombstones, first)
                journal.insert(db, judged.rows, judged.links, judged.positions)
        else:
            judged = judge_appends(requests, journal.contents(hashes), ids, self.tombstones, self.next_seq)
            if judged.rows or judged.links or judged.positions:
                journal.insert_events(judged.rows, judged.links, judged.positions)
            self.next_seq += len(judged.rows)
        judged.tell(requests)
        self.apply(judged.stored)

    def write_decisions(self, rows: Sequence[DecisionRow]) -> None:
        """Write logged slates durably. Where several processes write, they have their place among the events."""
        with self._journal.transaction("cannot write the decision log") as db:
            if not self.shared:
                self._journal.insert_decisions(db, rows, numbered=False)
                return
            first = self.arrive(db)
            kept = [row for row in rows if row[2] not in self.tombstones]
            numbered = [(number, *row) for number, row in enumerate(kept, first)]
            self._journal.insert_decisions(db, numbered, numbered=True)

    # -- live histories ------------------------------------------------------------------------------------

    def apply(self, stored: dict[int, list[Stored]]) -> None:
        """Bring rows that were just stored into the histories, behind those of others."""
        first = min((rows[0].seq for rows in stored.values()), default=None)
        if first is None:
            return
        if self.shared and first > self._applied + 1:
            self._apply_rows(
                self._journal.rows(None, after=self._applied, up_to=first - 1, cipher=self._cipher)
            )
        for bucket, rows in stored.items():
            self._apply(bucket, rows)
        self._applied = max(rows[-1].seq for rows in stored.values())

    def follow(self) -> None:
        """Bring what others stored into the histories, where they have not done so."""
        self.look()
        if self._live.trusted != self._trusted:
            self._trusted = self._live.trusted
            if self._trusted:  # while it did not answer, others may have come and gone
                self.replay()
        while page := self._journal.rows(None, after=self._applied, limit=_PAGE, cipher=self._cipher):
            self._apply_rows(page)
            self._applied = page[-1].seq

    def _apply_rows(self, rows: Iterable[Stored]) -> None:
        by_bucket: dict[int, list[Stored]] = {}
        for stored in rows:
            by_bucket.setdefault(bucket_of(stored.row.subject), []).append(stored)
        for bucket, mine in by_bucket.items():
            self._apply(bucket, mine)

    def _apply(self, bucket: int, rows: list[Stored]) -> None:
        try:
            self._live.apply(bucket, rows)
        except Exception as error:
            if not is_storage_failure(error):
                raise
            self._live.drop(bucket)  # the events are safe; the bucket is built again

    def replay(self) -> bool:
        """Bring built histories up to the journal, a crash may have come between; False where that is uncertain."""
        for bucket, last in self._journal.query("SELECT bucket, max(seq) FROM journal GROUP BY bucket"):
            try:
                if self._live.is_built(bucket) and self._live.position(bucket) < last:
                    after = self._live.position(bucket)
                    self._live.apply(bucket, self._journal.rows(bucket, after=after, cipher=self._cipher))
            except Exception as error:
                if not is_storage_failure(error):
                    raise
                self._live.drop(bucket)
        return not self.shared or self._live.trusted
