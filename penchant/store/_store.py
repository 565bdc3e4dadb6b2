"""The store of one shop: Delta table, journal and live histories behind ``Store``."""

from __future__ import annotations

import contextlib
import heapq
import threading
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from penchant.core import (
    CATALOG_SCHEMA,
    HISTORY_EVENTS,
    NUM_BUCKETS,
    TABLE_SCHEMA,
    USER_KEY,
    Cipher,
    Clock,
    ErasureReceipt,
    Event,
    History,
    Identified,
    LoadReport,
    PackedCandidates,
    Progress,
    Slate,
    StoreStatus,
    no_progress,
)
from penchant.core.errors import InputError, ShopBusy, ShopError, StorageError
from penchant.store import _compact
from penchant.store._answers import BatchAnswers
from penchant.store._append import Append
from penchant.store._database import copy_file
from penchant.store._decisions import DecisionLog
from penchant.store._erase import Eraser, Erasure, Target
from penchant.store._files import folder_bytes, guard, sweep
from penchant.store._frames import USER_SCHEMA, Frame, conform_catalog, conform_users
from penchant.store._hashing import Persons, hash_text
from penchant.store._histories import COLUMNS, Histories
from penchant.store._identity import Identities
from penchant.store._journal import Journal, signed
from penchant.store._letters import Letters
from penchant.store._live import history_of
from penchant.store._load import Known, Loader
from penchant.store._lock import WriterLock
from penchant.store._news import Entry, read_news
from penchant.store._parquet import DataFile
from penchant.store._peers import Peers
from penchant.store._reader import EventReader
from penchant.store._search import Needle, search_folder
from penchant.store._servers import Servers
from penchant.store._status import status_of
from penchant.store._table import EventTable


class ShopStore:
    """A ``Store`` in one folder. Open it with ``open_store``; close it, or use it in a ``with`` block."""

    num_buckets = NUM_BUCKETS

    def __init__(
        self,
        path: Path,
        *,
        readonly: bool,
        clock: Clock,
        cipher: Cipher | None,
        wait: float,
        servers: Servers,
    ) -> None:
        self.path, self.readonly = path, readonly
        self._servers = servers
        self._clock, self._cipher = clock, cipher
        self._lock, self._table_lock = threading.RLock(), threading.RLock()
        self._queue: deque[Append] = deque()
        self._epoch = 0  # grows with every commit to the table
        self._in_turn = False
        self._writer_lock = None if readonly else WriterLock(path / ".lock", wait, shared=servers.shared)
        self._journal: Journal | None = None
        try:
            self._open()
        except BaseException:
            self._release()
            raise

    def _open(self) -> None:
        self._journal = journal = Journal(self._servers.database(self.path, readonly=self.readonly))
        persons = self._persons = Persons(journal.salt)
        if self._cipher is not None:
            self._cipher.bind(persons)
        self._table = EventTable(self.path, readonly=self.readonly, cipher=self._cipher)
        self._catalog = Frame(self.path / "catalog" / "catalog.parquet", "id", CATALOG_SCHEMA)
        self._users = Frame(self.path / "users" / "users.parquet", USER_KEY, USER_SCHEMA, self._cipher)
        self._decisions = DecisionLog(
            journal, persons, self._cipher, lambda rows: self._peers.write_decisions(rows)
        )
        self._answers = BatchAnswers(self.path / "decisions")
        self._identities = Identities(journal, persons)
        self._events = EventReader(journal, self._table, self._identities, self._cipher)
        self._letters = Letters(journal, persons, self._cipher)
        with guard("cannot open the live histories", self.path / "live"):
            if not self._servers.live and not self.readonly:
                sweep(self.path / "live")
            self._live = self._servers.histories(self.path, persons, readonly=self.readonly)
        self._histories = Histories(
            self._live, journal, self._events, self._cipher, place=self._place, exclusive=self._exclusive
        )
        if self.readonly:
            return
        self._table.ids.read()
        self._peers = Peers(journal, self._table, self._live, self._cipher)
        self._eraser = Eraser(
            journal, self._decisions, self._answers, self._table, self._live, self._users, persons,
            self._cipher, self._exclusive,
        )  # fmt: skip
        self._peers.replay()
        with contextlib.suppress(
            ShopBusy
        ):  # another process that shares the shop changes it just now: all is well
            self.mend(wait=0)
        self._peers.check_folder()

    def mend(self, wait: float | None = None) -> None:
        """Finish or undo what a process that died left half done."""
        journal = self._require_writer()
        with self._turn(wait, look=False):
            with guard("cannot clear what a killed process left behind", self.path):
                for name in ("users", "catalog"):  # half-made files hold people that an erasure must find
                    sweep(self.path / name)
            if self._table.recover():  # somebody else changed it: nothing derived from it can be trusted
                self._live.invalidate(range(NUM_BUCKETS))
            if journal.database.shared:
                with self._exclusive():
                    self._peers.check_folder()
                    self._table.announce(self._table.latest_version())
            if not int(journal.meta("linked")):
                self._identities.look_back(self._events.bucket, self._peers.tombstones)
            for target in self._eraser.unfinished():
                self._finish_erasure(target, rewrite_journal=True)

    @property
    def _log(self) -> Journal:
        if self._journal is None:
            raise ShopError("the store is closed", value=str(self.path), hint="open it again")
        return self._journal

    def _require_writer(self) -> Journal:
        journal = self._log
        if self.readonly:
            raise ShopError("the store was opened for reading only", value=str(self.path))
        return journal

    @contextlib.contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Nobody appends or commits to the table meanwhile."""
        with self._lock, self._log.database.exclusive():
            yield

    @contextlib.contextmanager
    def _turn(self, wait: float | None = None, *, look: bool = True) -> Iterator[None]:
        """Nobody else changes table, catalogue, attributes or batch answers meanwhile."""
        with self._table_lock:
            if self._in_turn:
                yield
                return
            with self._log.database.turn(wait):
                if self._log.database.shared and look:
                    self._peers.look()
                self._in_turn = True
                try:
                    yield
                finally:
                    self._in_turn = False

    def _changed(self) -> None:
        self._epoch += 1

    def _place(self) -> tuple[int, int]:
        """The number of the last event, and what differs after every change of the table, by whatever process."""
        if not self._peers.shared:
            return self._peers.next_seq - 1, self._epoch
        marks = self._log.marks()
        return marks.next_seq - 1, marks.table

    # ---- live events ---------------------------------------------------------------------------------

    def append(
        self,
        events: Sequence[Event],
        *,
        said: Sequence[int | None] | None = None,
        identified: Iterable[Identified] = (),
        positions: Mapping[str, int] | None = None,
    ) -> list[str]:
        """Store live events durably and add them to the live histories; see ``Store.append``.

        Calls from several threads that meet share one commit to the disk.

        Raises:
            InputError: an event lacks event_id, ts or a person; nothing was stored.
            StorageError: the disk refused; nothing of this call was stored.
        """
        self._require_writer()
        request = Append.of(
            events, self._persons, self._cipher, said=said, identified=identified, positions=positions
        )
        self._queue.append(request)
        with self._lock:
            if request.words is None and request.error is None:
                self._commit_queue()
        if request.error is not None:
            raise request.error
        assert request.words is not None
        return request.words

    def _commit_queue(self) -> None:
        """Commit all waiting calls at once; one of them holds the lock and works for the others."""
        requests: list[Append] = []
        while self._queue:
            requests.append(self._queue.popleft())
        try:
            self._peers.commit(requests)
        except Exception as error:
            for request in requests:
                request.error = error
        except BaseException:  # interrupted: others take over, and nobody trusts what was half done
            self._queue.extendleft(r for r in reversed(requests) if r.words is None)
            self._peers.next_seq = max(self._peers.next_seq, self._log.last_seq() + 1)
            for bucket in {event.bucket for request in requests for event in request.events}:
                self._live.drop(bucket)
            raise

    def follow(self, *, histories: bool = True) -> None:
        """Take up what other processes that share the shop changed; without any there is nothing to do."""
        if self.shared:
            with self._lock:
                (self._peers.follow if histories else self._peers.look)()

    @property
    def shared(self) -> bool:
        """Whether other processes may write the shop as this one does."""
        return self._servers.shared and not self.readonly

    def lead(self) -> bool:
        """Whether this process is the one of those that share the shop that does what only one should."""
        return self._log.database.lead()

    def known(self, event_ids: Sequence[str]) -> list[bool]:
        """Whether events of these ids are stored."""
        hashes = [hash_text(event_id) for event_id in event_ids]
        live = self._log.contents([signed(number) for number in hashes])
        self.follow(histories=False)  # afterwards: what the journal has no more, the index has by then
        return [signed(number) in live or self._table.ids.find(number) is not None for number in hashes]

    def keep_aside(self, letters: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
        """Keep refused live events durably, each a reason and the columns of an event; the newest ten thousand."""
        self._require_writer()
        self._letters.add(letters, self._clock(), self._peers.erased)

    def letters(
        self, *, limit: int = 100, before: int | None = None
    ) -> tuple[int, list[tuple[int, int, str, dict[str, Any]]]]:
        """How many refused events are kept aside; and number, time, reason and event of some, the newest first."""
        return self._letters.count(), self._letters.page(limit=limit, before=before)

    def positions(self) -> dict[str, int]:
        """How far each source outside was read; see ``append``."""
        return dict(self._log.query("SELECT source, position FROM positions"))

    # ---- bulk ----------------------------------------------------------------------------------------

    def load(self, batches: Iterable[pa.RecordBatch], *, source: str) -> LoadReport:
        """Write accepted rows in one atomic commit; see ``Store.load``.

        Live events may be appended meanwhile; where both bring the same event, the appended one came first.

        Raises:
            InputError: a batch lacks a column, or a column has the wrong type; nothing was stored.
            StorageError: the disk refused; nothing was stored.
        """
        journal = self._require_writer()
        with self._turn():
            token = self._table.begin()
            with self._exclusive():
                watermark = self._place()[0]
                known = Known(list(self._table.ids.manifest.runs), journal.pairs())
            loader = Loader(
                self._table.folder, self._table.ids_folder, token, source,
                known=known, persons=self._persons, tombstones=self._peers.tombstones, reserve=self._reserve,
                newest=_compact.newest(journal, self._table), cipher=self._cipher,
            )  # fmt: skip
            try:
                for batch in batches:
                    with guard("the load was stopped", self._table.folder, "nothing of it was stored"):
                        loader.add(batch)
                with guard("the load was stopped", self._table.folder, "nothing of it was stored"):
                    files = loader.finish()
                    version = self._commit_load(loader, files, token, watermark)
            except BaseException:
                loader.abort()
                self._table.cancel(token)
                raise
            if files:
                with contextlib.suppress(StorageError):  # housekeeping: the load stands without it
                    _compact.merge_small_files(self._table, self._exclusive, self._changed)
                version = self._table.latest_version()
            counts = loader.counts
            refused = loader.refused.table()
            return LoadReport(counts.accepted, counts.already, refused, counts.erased, counts.late, version)

    def _reserve(self, count: int) -> int:
        """Numbers of arrival for a group of rows, never handed out again even after a crash."""
        with self._exclusive():
            first = self._place()[0] + 1
            self._log.set_number("next_seq", first + count)
            self._peers.next_seq = first + count
            return first

    def _commit_load(self, loader: Loader, files: list[DataFile], token: str, watermark: int) -> int:
        with self._exclusive():
            appended = self._log.pairs(after=watermark)
            both = loader.overlap(appended[0])
            if len(both):
                files = loader.withdraw(files, both, appended, token)
            loader.refused.table()  # its file must be safe from the sweep that ends the change
            if not files:
                self._table.cancel(token)
                return self._table.latest_version()
            runs = self._table.settled(loader.accepted_runs)
            self._live.invalidate({file.bucket for file in files})
            self._peers.flush_keys()
            self._identities.learn(loader.told(), self._peers.tombstones)
            version = self._table.commit(token, files, [], runs)
            if self._peers.shared:
                self._log.learn_anew()
            self._changed()
            return version

    def compact(self) -> int:
        """Move the journal into the table; returns how many events moved."""
        journal = self._require_writer()
        with self._turn(), guard("the journal was not moved", self._table.folder, "all events are stored"):
            moved = _compact.move_journal(
                journal, self._table, self._cipher, self._exclusive, self._changed, self._caught_up
            )
            _compact.merge_small_files(self._table, self._exclusive, self._changed)
            return moved

    def _caught_up(self) -> bool:
        """Whether the histories hold all of the journal, so that no process needs its rows to make them good."""
        if not self._peers.shared:
            return True
        with self._lock:
            return self._peers.replay()

    # ---- reading events ------------------------------------------------------------------------------

    def scan(
        self,
        *,
        bucket: int | None = None,
        subject: str | None = None,
        columns: Sequence[str] | None = None,
        as_of: int | None = None,
        since: int | None = None,
        up_to: int | None = None,
    ) -> pa.Table:
        """Events with since <= ts < as_of, ordered by (subject, ts, seq); see ``Store.scan``.

        With ``up_to`` only those that had come in when the log had this number; see ``news``.
        """
        _ = self._log  # a closed store answers nothing
        return self._events.scan(
            bucket=bucket, subject=subject, columns=columns, as_of=as_of, since=since, up_to=up_to
        )

    def news(self, after: int) -> tuple[int, list[Entry]]:
        """Live events and logged slates after a number, in the order in which all processes see them.

        Returns:
            Up to which number that is, and the entries with theirs.
        """
        return read_news(self._log, self._events, self._decisions.decode, after)

    def agree(self, key: str, *, at_least: int | None = None) -> int:
        """The number up to which all processes that share the shop read the log for a purpose.

        The first to ask decides: by default all that is there; who says ``at_least`` more moves it on for all.
        """
        number = self._log.marks().next_seq - 1 if at_least is None else at_least
        return self._log.agree(f"agreed:{key}", number, move_on=at_least is not None)

    def agreed(self, key: str) -> int | None:
        """The number that was agreed on under a key; None when nobody asked yet."""
        found = self._log.query("SELECT value FROM meta WHERE key = ?", f"agreed:{key}")
        return int(found[0][0]) if found else None

    @property
    def remade(self) -> int:
        """Grows whenever what was learned of people has to be learned anew: after erasures and bulk loads."""
        return 0 if self.readonly else self._peers.remade

    def history(self, subject: str, limit: int = HISTORY_EVENTS) -> History:
        """The last events of one person, fresh to the last acknowledged event; see ``Store.history``."""
        _ = self._log  # a closed store answers nothing
        found = self._identities.history(subject, limit, self._histories.own)
        if found is None:
            found = history_of(subject, self._events.person(subject, COLUMNS), limit)
        return found

    def warm(self, progress: Progress = no_progress) -> int:
        """Build the live histories of all buckets that are not; returns how many were built."""
        self._require_writer()
        return self._histories.warm(progress)

    # ---- catalogue and users -------------------------------------------------------------------------

    def put_catalog(self, table: pa.Table) -> None:
        """Replace rows by id, add new ones; columns that CATALOG_SCHEMA lacks are refused."""
        self._require_writer()
        with self._turn():
            self._catalog.merge(conform_catalog(table), whole_rows=True)

    def catalog(self) -> pa.Table:
        """The whole catalogue (CATALOG_SCHEMA), sorted by id."""
        return self._catalog.read()

    def catalog_stamp(self) -> tuple[int, int, int]:
        """A mark that changes whenever the catalogue is replaced, by whatever process."""
        return self._catalog.stamp()

    def put_users(self, table: pa.Table) -> int:
        """Merge attributes by ``user_id``; returns how many rows were passed over, for their users were erased.

        A column that ``table`` lacks keeps its values; integers widen to decimals where the new values need
        it; an empty cell empties the attribute.
        """
        self._require_writer()
        table = conform_users(table)
        with self._turn():
            given: int = table.num_rows
            if self._peers.tombstones:
                keep = [u is None or not self.is_erased(u) for u in table[USER_KEY].to_pylist()]
                table = table.filter(pa.array(keep, pa.bool_()))
            self._users.merge(table, whole_rows=False)
            return given - int(table.num_rows)

    def users(self) -> pa.Table:
        """All user attributes, sorted by ``user_id``."""
        return self._users.read()

    # ---- decisions -----------------------------------------------------------------------------------

    def log_decision(self, slate: Slate, candidates: Callable[[], PackedCandidates] | None = None) -> bool:
        """Hand a slate to the decision log, on disk a few milliseconds later or by ``flush``; not for erased people.

        Args:
            slate: The answer.
            candidates: Makes what the log says of the candidates, in the thread that writes.

        Returns:
            False when the disk has refused for so long that the log takes no more.
        """
        self._require_writer()
        if self.is_erased(slate.subject):
            return True
        return self._decisions.add(slate, candidates)

    def pack_decisions(self) -> None:
        """Do now, in this thread, what the thread of the decision log would do to logged slates before it writes."""
        self._decisions.pack()

    def decisions(
        self, subject: str | None = None, *, newest: int | None = None, up_to: int | None = None
    ) -> Iterator[Slate]:
        """Logged slates in order of time, of one person or all; with ``newest`` the last so many single ones.

        With ``up_to`` only those that were logged up to this number; see ``news``.
        """
        if not self.readonly:
            self._decisions.flush()
        person = None if subject is None else self._persons(subject)
        single = (self._decisions.decode(body) for body in self._log.decisions(person, newest, up_to))
        known = (slate for slate in single if slate is not None)
        if newest is not None:
            yield from known
            return
        yield from heapq.merge(known, self._answers.slates(subject), key=lambda slate: slate.ts)

    def shown(
        self, subject: str, *, since: int, most: int = 200, but: Collection[str] = ()
    ) -> list[tuple[int, list[str]]]:
        """When a person was shown what: their newest answers since a moment, ``but`` of some policies, and batches."""
        found = self._decisions.shown(subject, since, most, but)
        return [*self._answers.shown(subject, since), *found]

    def log_batch(self, path: Path) -> None:
        """Keep a Parquet file of answers for many people in the decision log.

        Args:
            path: One row an item, the rows of a person together, with user_id (the subject), item_id, score,
                odds, explored, reason, recommendation_id, policy_id, model_id, surface, ts, seed, degraded.
        """
        self._require_writer()
        with self._turn():
            self._answers.add(Path(path), self._clock())

    def flush(self) -> None:
        """Make everything handed over durable."""
        if not self.readonly:
            self._decisions.flush()

    # ---- copies --------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def still(self) -> Iterator[None]:
        """Files of the table, the catalogue, attributes and batch answers stay as they are; live events go on."""
        with self._turn():
            yield

    def copy_journal(self, to: Path) -> None:
        """Write a copy of the journal as it is at one moment.

        Raises:
            ShopError: The journal lies on a server, which has its own means.
        """
        copy_file(self._log.database, to)

    # ---- people --------------------------------------------------------------------------------------

    def guests(self, subject: str) -> list[str]:
        """The guests that turned out to be this user, as subjects, in the order of their hashes."""
        return self._identities.guests(subject)

    def erase(self, subject: str, *, beside: Callable[[], Any] = lambda: None) -> ErasureReceipt:
        """Remove a person from every store for good and leave a tombstone; see ``Store.erase``.

        The guests that turned out to be a user go with the user. Where a device was several people's, its guest goes
        with the first of them who is erased: whose an event without a user is, is likely and not certain.
        For a guest (``anon:<id>``) the bare id goes too, from the events of others that carry it. The
        receipt's ``remaining`` names files below the shop in which the id was still found, by the rules of
        the byte search; files of other rooms are theirs to clean: ``beside`` does that, when nothing of the person is
        taken in any more and before the search.
        """
        self._require_writer()
        if not subject:
            raise InputError("an erasure needs a subject", value=subject)
        ts = self._clock()
        removed: Counter[str] = Counter()
        searched, remaining = 0, set[str]()
        with self._turn():
            names = [*self.guests(subject), subject]  # guests first: their links fall with them
            for name in names:
                mentions = self._letters.forget_mentions(Needle(name).ids)  # before the files are cleared
                removed.update(self._erase_one(self._eraser.target(name), ts), letters=mentions)
            beside()
            for name in names:
                size, held = self._search(name)
                searched, remaining = max(searched, size), remaining | set(held)
        return ErasureReceipt(
            subject=subject,
            ts=ts,
            removed=dict(removed),
            bytes_searched=searched,
            remaining=sorted(remaining),
        )

    def erasure_of(self, subject: str) -> Erasure:
        """What stands for the erasure of a person, without naming them: it can be done again on a restored shop."""
        target = self._eraser.target(subject)
        device = None if target.device is None else target.device.hex()
        return Erasure(person=target.person.hex(), device=device, bucket=target.bucket)

    def _erase_one(self, target: Target, ts: int, *, rewrite_journal: bool = False) -> dict[str, int]:
        tombstones = self._peers.tombstones
        before = target.person in tombstones
        tombstones.add(target.person)  # from here on nothing of the person is taken
        try:
            removed = self._eraser.announce(target, ts)
        except BaseException:
            if not before:
                tombstones.discard(target.person)
            raise
        return removed | self._finish_erasure(target, rewrite_journal=rewrite_journal)

    def erase_again(self, erasures: Iterable[Erasure]) -> int:
        """Do erasures that were written down elsewhere; returns how many this store did not know of."""
        self._require_writer()
        done = 0
        with self._turn():
            for erasure in erasures:
                target = Target.of(erasure)
                if target.person not in self._peers.tombstones:
                    self._erase_one(target, erasure.ts, rewrite_journal=True)
                    done += 1
        return done

    @property
    def num_erased(self) -> int:
        """How many people were erased."""
        return len(self._peers.tombstones)

    def is_erased(self, subject: str) -> bool:
        """Whether a person was erased, so that nothing of theirs may be taken in again."""
        tombstones = self._peers.tombstones
        return bool(tombstones) and self._persons(subject) in tombstones

    def _finish_erasure(self, target: Target, *, rewrite_journal: bool = False) -> dict[str, int]:
        with guard("the erasure is not complete", self.path, "it is finished when the shop is next opened"):
            removed = self._eraser.remove(target)
            self._changed()
            self._eraser.close(target, rewrite_journal=rewrite_journal)
            return removed

    def _search(self, subject: str) -> tuple[int, list[str]]:
        needle = Needle(subject)
        own = ("journal.db", "journal.db-wal", "journal.db-shm", "live/", "catalog/", ".lock")
        searched, remaining = search_folder(self.path, needle, own)
        size, held = self._eraser.search_journal(needle)
        return searched + size + folder_bytes(self.path / "live"), sorted([*remaining, *held])

    def export(self, subject: str) -> dict[str, Any]:
        """Everything kept about a person as JSON: subject, erased, events, decisions, attributes, letters."""
        rows = self._events.person(subject, TABLE_SCHEMA.names)
        users = self.users()
        mine = users.filter(pc.equal(users[USER_KEY], subject)).to_pylist()
        names = [subject, *self.guests(subject)]
        return {
            "subject": subject,
            "erased": self._log.query("SELECT ts FROM tombstones WHERE person = ?", self._persons(subject))
            != [],
            "events": rows.drop_columns(["seq", "bucket"]).to_pylist(),
            "decisions": [msgspec.to_builtins(slate) for name in names for slate in self.decisions(name)],
            "attributes": mine[0] if mine else None,
            "letters": self._letters.of(self._persons(subject)),
        }

    # ---- the rest ------------------------------------------------------------------------------------

    @property
    def failure(self) -> StorageError | None:
        """Why nothing is taken in until the store is opened anew; None while all is well."""
        return self._log.database.failed

    def last_ts(self) -> int | None:
        """Time of the newest event; None without events."""
        return _compact.newest(self._log, self._table)

    def table_version(self) -> int:
        """Version of the event table, -1 before the first one."""
        return self._table.latest_version()

    def num_waiting(self) -> int:
        """Events that are in the journal and not yet in the table."""
        return self._log.num_events(after=self._table.state().journal_seq)

    def status(self) -> StoreStatus:
        """Counts and sizes; ``subjects`` counts people with events."""
        people, built = self._histories.count()
        return status_of(
            self.path,
            self._log,
            self._table,
            subjects=people,
            items=self.catalog().num_rows,
            users=self.users().num_rows,
            built=built,
            lost=self._decisions.lost,
        )

    def close(self) -> None:
        """Flush and release the locks; harmless when repeated."""
        if self._journal is None:
            return
        try:
            if not self.readonly:
                self._decisions.close()
        finally:
            self._live.close()
            self._release()

    def _release(self) -> None:
        if self._journal is not None:
            self._journal.close()
            self._journal = None
        if self._writer_lock is not None:
            self._writer_lock.release()

    def __enter__(self) -> ShopStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
