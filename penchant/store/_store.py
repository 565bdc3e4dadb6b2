"""The store of one shop on one machine: Delta table, SQLite journal and LMDB histories behind ``Store``."""

from __future__ import annotations

import contextlib
import heapq
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    LoadReport,
    PackedCandidates,
    Progress,
    Slate,
    StoreStatus,
    bucket_of,
    no_progress,
)
from penchant.core.errors import InputError, ShopError, StorageError
from penchant.store import _compact
from penchant.store._answers import BatchAnswers
from penchant.store._append import Append, commit_appends
from penchant.store._database import Database, copy_file
from penchant.store._decisions import DecisionLog
from penchant.store._erase import Eraser, Erasure, Target
from penchant.store._files import folder_bytes, guard, is_storage_failure, sweep
from penchant.store._frames import USER_SCHEMA, Frame, conform_catalog, conform_users
from penchant.store._hashing import Persons
from penchant.store._journal import Journal, open_file
from penchant.store._live import LiveHistories, history_of
from penchant.store._load import Known, Loader
from penchant.store._lock import WriterLock
from penchant.store._parquet import DataFile, empty_table, read_file
from penchant.store._rows import rows_to_table, unseal_table
from penchant.store._search import Needle, search_folder
from penchant.store._servers import Servers
from penchant.store._sorting import merge_buckets, sort_events
from penchant.store._table import EventTable

if TYPE_CHECKING:
    from penchant.store._redis import RedisHistories

_HISTORY_COLUMNS = ("subject", "ts", "kind", "item_id", "value", "event_id", "seq")
_ORDER_COLUMNS = ("subject", "ts", "seq")
_MAX = (1 << 63) - 1


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
        self._lock, self._table_lock, self._build_lock = (
            threading.RLock(),
            threading.RLock(),
            threading.Lock(),
        )
        self._queue: deque[Append] = deque()
        self._epoch = 0  # grows with every commit to the table
        self._writer_lock = None if readonly else WriterLock(path / ".lock", wait)
        self._journal: Journal | None = None
        try:
            self._open()
        except BaseException:
            self._release()
            raise

    def _open(self) -> None:
        self._journal = journal = Journal(self._open_database())
        persons = self._persons = Persons(journal.salt)
        if self._cipher is not None:
            self._cipher.bind(persons)
        self._table = EventTable(self.path, readonly=self.readonly, cipher=self._cipher)
        self._catalog = Frame(self.path / "catalog" / "catalog.parquet", "id", CATALOG_SCHEMA)
        self._users = Frame(self.path / "users" / "users.parquet", USER_KEY, USER_SCHEMA, self._cipher)
        self._decisions = DecisionLog(journal, persons, self._cipher)
        self._answers = BatchAnswers(self.path / "decisions")
        if self.readonly:
            self._live = self._open_histories(persons)
            return
        with guard("cannot clear what a killed process left behind", self.path):
            for name in (
                "users",
                "catalog",
                *([] if self._servers.live else ["live"]),
            ):  # half-made files hold people that an erasure must find
                sweep(self.path / name)
        rebuilt = self._table.recover()
        with guard("cannot open the live histories", self.path / "live"):
            self._live = self._open_histories(persons)
            if rebuilt:  # the table was changed by somebody else: nothing derived from it can be trusted
                self._live.invalidate(range(NUM_BUCKETS))
        self._next_seq = max(int(journal.meta("next_seq")), journal.last_seq() + 1)
        self._tombstones = journal.tombstones()
        self._replay()
        self._eraser = Eraser(
            journal,
            self._decisions,
            self._answers,
            self._table,
            self._live,
            self._users,
            persons,
            self._cipher,
            self._exclusive,
        )
        for target in self._eraser.unfinished():
            self._finish_erasure(target, rewrite_journal=True)

    def _open_database(self) -> Database:
        if not self._servers.journal:
            return open_file(self.path / "journal.db", readonly=self.readonly)
        from penchant.store._postgres import Postgres

        return Postgres(self._servers.journal, self._servers.shop, readonly=self.readonly)

    def _open_histories(self, persons: Persons) -> LiveHistories | RedisHistories:
        if not self._servers.live:
            return LiveHistories(self.path / "live", persons, readonly=self.readonly)
        from penchant.store._redis import RedisHistories

        return RedisHistories(self._servers.live, self._servers.shop, persons, readonly=self.readonly)

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
        with self._lock:
            yield

    def _changed(self) -> None:
        self._epoch += 1

    # ---- live events ---------------------------------------------------------------------------------

    def append(self, events: Sequence[Event]) -> list[str]:
        """Store live events durably and add them to the live histories; see ``Store.append``.

        Calls from several threads that meet share one commit to the disk.

        Raises:
            InputError: an event lacks event_id, ts or a person; nothing was stored.
            StorageError: the disk refused; nothing of this call was stored.
        """
        self._require_writer()
        request = Append.of(events, self._persons, self._cipher)
        self._queue.append(request)
        with self._lock:
            if request.words is None and request.error is None:
                self._commit_queue()
        if request.error is not None:
            raise request.error
        assert request.words is not None
        return request.words

    def _flush_keys(self) -> None:
        """What is sealed must not be on disk before the keys are that open it."""
        if self._cipher is not None:
            self._cipher.flush()

    def _commit_queue(self) -> None:
        """Commit all waiting calls at once; one of them holds the lock and works for the others."""
        requests: list[Append] = []
        while self._queue:
            requests.append(self._queue.popleft())
        try:
            self._commit_all(requests)
        except Exception as error:
            for request in requests:
                request.error = error
        except BaseException:  # interrupted: others take over, and nobody trusts what was half done
            self._queue.extendleft(r for r in reversed(requests) if r.words is None)
            self._next_seq = max(self._next_seq, self._log.last_seq() + 1)
            for bucket in {event.bucket for request in requests for event in request.events}:
                self._live.drop(bucket)
            raise

    def _commit_all(self, requests: list[Append]) -> None:
        if self._log.database.unsure:  # what was told as failed may be there all the same
            self._next_seq = max(self._next_seq, self._log.last_seq() + 1)
            self._replay()
            self._log.database.unsure = False
        self._flush_keys()
        stored = commit_appends(requests, self._log, self._table.ids, self._tombstones, self._next_seq)
        self._next_seq += sum(len(rows) for rows in stored.values())
        for bucket, rows in stored.items():
            try:
                self._live.apply(bucket, rows)
            except Exception as error:
                if not is_storage_failure(error):
                    raise
                self._live.drop(bucket)  # the events are safe; the bucket is built again

    def _replay(self) -> None:
        """Bring built histories up to the journal: a crash may have come between the two."""
        journal = self._log
        for bucket, last in journal.query("SELECT bucket, max(seq) FROM journal GROUP BY bucket"):
            try:
                if self._live.is_built(bucket) and self._live.position(bucket) < last:
                    after = self._live.position(bucket)
                    self._live.apply(bucket, journal.rows(bucket, after=after, cipher=self._cipher))
            except Exception as error:
                if not is_storage_failure(error):
                    raise
                self._live.drop(bucket)

    # ---- bulk ----------------------------------------------------------------------------------------

    def load(self, batches: Iterable[pa.RecordBatch], *, source: str) -> LoadReport:
        """Write accepted rows in one atomic commit; see ``Store.load``.

        Live events may be appended meanwhile; where both bring the same event, the appended one came first.

        Raises:
            InputError: a batch lacks a column, or a column has the wrong type; nothing was stored.
            StorageError: the disk refused; nothing was stored.
        """
        journal = self._require_writer()
        with self._table_lock:
            token = self._table.begin()
            with self._lock:
                watermark = self._next_seq - 1
                known = Known(list(self._table.ids.manifest.runs), journal.pairs())
            loader = Loader(
                self._table.folder, self._table.ids_folder, token, source,
                known=known, persons=self._persons, tombstones=self._tombstones, reserve=self._reserve,
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
        with self._lock:
            first = self._next_seq
            self._log.set_number("next_seq", first + count)
            self._next_seq = first + count
            return first

    def _commit_load(self, loader: Loader, files: list[DataFile], token: str, watermark: int) -> int:
        with self._lock:
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
            self._flush_keys()
            version = self._table.commit(token, files, [], runs)
            self._changed()
            return version

    def compact(self) -> int:
        """Move the journal into the table; returns how many events moved."""
        journal = self._require_writer()
        with (
            self._table_lock,
            guard("the journal was not moved", self._table.folder, "all events are stored"),
        ):
            moved = _compact.move_journal(journal, self._table, self._cipher, self._exclusive, self._changed)
            _compact.merge_small_files(self._table, self._exclusive, self._changed)
            return moved

    # ---- reading events ------------------------------------------------------------------------------

    def scan(
        self,
        *,
        bucket: int | None = None,
        columns: Sequence[str] | None = None,
        as_of: int | None = None,
        since: int | None = None,
    ) -> pa.Table:
        """Events with since <= ts < as_of, ordered by (subject, ts, seq); see ``Store.scan``.

        Args:
            bucket: One bucket, or None for all.
            columns: Names of TABLE_SCHEMA; None for all of them.
            as_of: Only events before this time, in microseconds.
            since: Only events at or after this time.
        """
        wanted = list(TABLE_SCHEMA.names if columns is None else columns)
        unknown = [name for name in wanted if name not in TABLE_SCHEMA.names]
        if unknown:
            raise InputError("events have no such column", value=unknown, hint=f"use {TABLE_SCHEMA.names}")
        if bucket is not None and not 0 <= bucket < NUM_BUCKETS:
            raise InputError("there is no such bucket", value=bucket, hint=f"use 0 to {NUM_BUCKETS - 1}")
        needed = [name for name in TABLE_SCHEMA.names if name in {*wanted, *_ORDER_COLUMNS}]
        numbers = range(NUM_BUCKETS) if bucket is None else [bucket]
        parts = [self._read_bucket(number, needed, since=since, as_of=as_of) for number in numbers]
        return merge_buckets(parts).select(wanted)

    def _read_bucket(
        self,
        bucket: int,
        columns: Sequence[str],
        *,
        since: int | None = None,
        as_of: int | None = None,
        subject: str | None = None,
        up_to: int = _MAX,
    ) -> pa.Table:
        """One bucket, ordered: the journal is read first and rows that have moved on are passed over."""
        low, high = -_MAX - 1 if since is None else since, _MAX if as_of is None else as_of - 1
        live = self._log.rows(bucket, up_to=up_to, cipher=self._cipher)
        parts, done = self._read_files(bucket, columns, low, high, subject)
        live = [s for s in live if s.seq > done and (subject is None or s.row.subject == subject)]
        table = unseal_table(pa.concat_tables(parts), self._cipher) if parts else empty_table(columns)
        if live:
            table = pa.concat_tables([table, rows_to_table(live, columns)])
        if since is not None or as_of is not None:
            ts = table["ts"]
            table = table.filter(pc.and_(pc.greater_equal(ts, low), pc.less_equal(ts, high)))
        return sort_events(table)

    def _read_files(
        self, bucket: int, columns: Sequence[str], low: int, high: int, subject: str | None
    ) -> tuple[list[pa.Table], int]:
        """Tables of the bucket's files, and up to where the journal is in them."""
        for _ in range(10):
            state = self._table.state()
            files = [f for f in state.files.get(bucket, ()) if f.max_ts >= low and f.min_ts <= high]
            try:
                tables = [read_file(self._table.folder, file, columns, subject) for file in files]
            except FileNotFoundError:
                if self._table.latest_version() == state.version:  # not replaced: really gone
                    missing = [f.path for f in files if not (self._table.folder / f.path).exists()]
                    raise StorageError(
                        "event files are missing", value=missing, hint="restore the folder from a backup"
                    ) from None
                continue
            return tables, state.journal_seq
        raise StorageError("the event table changes faster than it can be read", hint="try again")

    def history(self, subject: str, limit: int = HISTORY_EVENTS) -> History:
        """The last events of one person, fresh to the last acknowledged event; see ``Store.history``."""
        bucket = bucket_of(subject)
        _ = self._log  # a closed store answers nothing
        found = self._live.get(bucket, subject, limit)
        if found is None and not self.readonly and not self._live.is_built(bucket):
            self._build(bucket)
            found = self._live.get(bucket, subject, limit)
        if found is None:  # a reader of a bucket not built, or more events asked for than are kept
            found = history_of(subject, self._read_bucket(bucket, _HISTORY_COLUMNS, subject=subject), limit)
        return found

    def _build(self, bucket: int) -> None:
        """Build a bucket's live histories from table and journal. A full disk is no reason to fail."""
        with self._build_lock:
            while not self._live.is_built(bucket):
                with self._lock:
                    epoch, position = self._epoch, self._next_seq - 1
                rows = self._read_bucket(bucket, _HISTORY_COLUMNS, up_to=position)
                try:
                    name = self._live.build(bucket, rows, position)
                    with self._lock:
                        if epoch != self._epoch:
                            self._live.discard(name)
                            continue
                        self._live.link(bucket, name)
                        later = self._log.rows(bucket, after=position, cipher=self._cipher)
                        self._live.apply(bucket, later)
                except Exception as error:
                    if not is_storage_failure(error):
                        raise
                    self._live.drop(bucket)
                    return

    def warm(self, progress: Progress = no_progress) -> int:
        """Build the live histories of all buckets that are not; returns how many were built."""
        self._require_writer()
        stale = [bucket for bucket in range(NUM_BUCKETS) if not self._live.is_built(bucket)]
        for done, bucket in enumerate(stale):
            progress("building live histories", done, len(stale), {})
            self._build(bucket)
        progress("building live histories", len(stale), len(stale), {})
        return len(stale)

    # ---- catalogue and users -------------------------------------------------------------------------

    def put_catalog(self, table: pa.Table) -> None:
        """Replace rows by id, add new ones; columns that CATALOG_SCHEMA lacks are refused."""
        self._require_writer()
        with self._table_lock:
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
        with self._table_lock:
            given: int = table.num_rows
            if self._tombstones:
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
        if self._tombstones and self._persons(slate.subject) in self._tombstones:
            return True
        return self._decisions.add(slate, candidates)

    def decisions(self, subject: str | None = None, *, newest: int | None = None) -> Iterator[Slate]:
        """Logged slates in order of time, of one person or all; with ``newest`` the last so many single ones."""
        if not self.readonly:
            self._decisions.flush()
        person = None if subject is None else self._persons(subject)
        single = (self._decisions.decode(body) for body in self._log.decisions(person, newest))
        known = (slate for slate in single if slate is not None)
        if newest is not None:
            yield from known
            return
        yield from heapq.merge(known, self._answers.slates(subject), key=lambda slate: slate.ts)

    def log_batch(self, path: Path) -> None:
        """Keep a Parquet file of answers for many people in the decision log.

        Args:
            path: One row an item, the rows of a person together, with user_id (the subject), item_id, score,
                odds, explored, reason, recommendation_id, policy_id, model_id, surface, ts, seed, degraded.
        """
        self._require_writer()
        with self._table_lock:
            self._answers.add(Path(path), self._clock())

    def flush(self) -> None:
        """Make everything handed over durable."""
        if not self.readonly:
            self._decisions.flush()

    # ---- copies --------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def still(self) -> Iterator[None]:
        """Files of the table, the catalogue, attributes and batch answers stay as they are; live events go on."""
        with self._table_lock:
            yield

    def copy_journal(self, to: Path) -> None:
        """Write a copy of the journal as it is at one moment.

        Raises:
            ShopError: The journal lies on a server, which has its own means.
        """
        copy_file(self._log.database, to)

    # ---- people --------------------------------------------------------------------------------------

    def erase(self, subject: str) -> ErasureReceipt:
        """Remove a person from every store for good and leave a tombstone; see ``Store.erase``.

        For a guest (``anon:<id>``) the bare id goes too, from the events of others that carry it. The
        receipt's ``remaining`` names files below the shop in which the id was still found, by the rules of
        the byte search; files of other rooms are theirs to clean.
        """
        self._require_writer()
        if not subject:
            raise InputError("an erasure needs a subject", value=subject)
        ts = self._clock()
        with self._table_lock:
            target = self._eraser.target(subject)
            before = target.person in self._tombstones
            self._tombstones.add(target.person)  # from here on nothing of the person is taken
            try:
                removed = self._eraser.announce(target, ts)
            except BaseException:
                if not before:
                    self._tombstones.discard(target.person)
                raise
            removed |= self._finish_erasure(target)
            searched, remaining = self._search(subject)
        return ErasureReceipt(
            subject=subject, ts=ts, removed=removed, bytes_searched=searched, remaining=remaining
        )

    def erasure_of(self, subject: str) -> Erasure:
        """What stands for the erasure of a person, without naming them: it can be done again on a restored shop."""
        target = self._eraser.target(subject)
        device = None if target.device is None else target.device.hex()
        return Erasure(person=target.person.hex(), device=device, bucket=target.bucket)

    @property
    def num_erased(self) -> int:
        """How many people were erased."""
        return len(self._tombstones)

    def is_erased(self, subject: str) -> bool:
        """Whether a person was erased, so that nothing of theirs may be taken in again."""
        return bool(self._tombstones) and self._persons(subject) in self._tombstones

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
        """Everything kept about a person as JSON: subject, erased, events, decisions, attributes."""
        rows = self._read_bucket(bucket_of(subject), TABLE_SCHEMA.names, subject=subject)
        users = self.users()
        mine = users.filter(pc.equal(users[USER_KEY], subject)).to_pylist()
        erased = self._log.query("SELECT ts FROM tombstones WHERE person = ?", self._persons(subject))
        return {
            "subject": subject,
            "erased": bool(erased),
            "events": rows.drop_columns(["seq", "bucket"]).to_pylist(),
            "decisions": [_builtins(slate) for slate in self.decisions(subject)],
            "attributes": mine[0] if mine else None,
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
        done = self._table.state().journal_seq
        return int(self._log.query("SELECT count(*) FROM journal WHERE seq > ?", done)[0][0])

    def status(self) -> StoreStatus:
        """Counts and sizes; ``subjects`` counts people with events."""
        journal, state = self._log, self._table.state()
        waiting = self.num_waiting()
        decisions = journal.query("SELECT count(*) FROM decisions")[0][0]
        built = [bucket for bucket in range(NUM_BUCKETS) if self._live.is_built(bucket)]
        return StoreStatus(
            events=state.rows + waiting,
            journal_events=waiting,
            subjects=self._count_subjects(set(built)),
            items=self.catalog().num_rows,
            first_ts=_compact.oldest(journal, self._table),
            last_ts=self.last_ts(),
            table_version=state.version,
            decisions=decisions,
            bytes=folder_bytes(self.path),
            detail={
                "event_files": len(state.all_files()),
                "live_buckets": len(built),
                "erased_subjects": journal.query("SELECT count(*) FROM tombstones")[0][0],
                "users": self.users().num_rows,
                "damaged_events": journal.num_damaged(),
                "decisions_lost": self._decisions.lost,
            },
        )

    def _count_subjects(self, built: set[int]) -> int:
        total = 0
        for bucket in range(NUM_BUCKETS):
            if bucket in built:
                total += self._live.entries(bucket)
                continue
            parts, _ = self._read_files(bucket, ["subject"], -_MAX - 1, _MAX, None)
            people = {s.row.subject for s in self._log.rows(bucket)}
            for part in parts:
                people.update(pc.unique(part["subject"]).to_pylist())
            total += len(people)
        return total

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


def _builtins(slate: Slate) -> Any:
    import msgspec

    return msgspec.to_builtins(slate)
