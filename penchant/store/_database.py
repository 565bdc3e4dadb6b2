"""Where a journal lies: the few verbs it needs of a database, and SQLite, which keeps them in one file.

The statements are written once, in the words that SQLite and PostgreSQL share; ``?`` stands for a value.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from penchant.core.errors import ShopError, StorageError
from penchant.store._files import fsync, guard

_CHECKPOINT = 4 << 20  # bytes of write-ahead log from which it is copied into the database
_TOO_LONG = 32 << 20  # bytes at which writers wait for that


class Cursor(Protocol):
    """What a statement gave."""

    @property
    def rowcount(self) -> int:
        """Rows that it changed."""
        ...

    def fetchall(self) -> list[Any]:
        """All rows that it found."""
        ...


class Connection(Protocol):
    """Statements of one transaction."""

    def execute(self, sql: str, values: Sequence[Any] = (), /) -> Cursor:
        """Run one statement."""
        ...

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]], /) -> Any:
        """Run one statement for each row."""
        ...


class Database(Protocol):
    """One connection that writes (unless ``readonly``) and one that reads, each behind its lock."""

    name: str  # as errors and receipts call it
    readonly: bool
    shared: bool  # whether other processes may write too
    failed: StorageError | None  # why nothing can be written until it is opened anew
    unsure: bool  # whether the last transaction may have been committed although it failed

    def read(self, sql: str, *values: Any) -> list[Any]:
        """Rows of a question, read at once so that no read transaction stays open."""
        ...

    def transaction(self, what: str) -> contextlib.AbstractContextManager[Connection]:
        """All or nothing, on disk when the block ends; raises ``StorageError`` when it is not."""
        ...

    def exclusive(self) -> contextlib.AbstractContextManager[None]:
        """Meanwhile no other process appends."""
        ...

    def turn(self, wait: float | None = None) -> contextlib.AbstractContextManager[None]:
        """Meanwhile no other process changes the table; raises ``ShopBusy`` after ``wait`` seconds, None: never."""
        ...

    def arrive(self, db: Connection) -> None:
        """Wait in a transaction until nobody else appends; what others appended is then there to be read."""
        ...

    def lead(self) -> bool:
        """Whether this process is the one that does what only one should; asking makes it so where none is."""
        ...

    def reclaim(self, *, rewrite: bool) -> bool:
        """Leave no trace of deleted rows in the log, with ``rewrite`` in the data; False when a reader prevents it."""
        ...

    def files(self) -> list[Path]:
        """Files in which bytes of rows may lie, for a search: the data, then its logs."""
        ...

    def close(self) -> None:
        """Close the connections."""
        ...


def make_sqlite(path: Path, script: str, fill: Callable[[sqlite3.Connection], Any]) -> None:
    """Make a database beside ``path`` and move it there, so that no half-made one is ever seen."""
    temporary = path.with_suffix(".new")
    temporary.unlink(missing_ok=True)
    db = sqlite3.connect(temporary, isolation_level=None)
    try:
        db.executescript(script)
        fill(db)
    finally:
        db.close()
    fsync(temporary)
    os.replace(temporary, path)
    fsync(path.parent)


def copy_file(database: Database, to: Path) -> None:
    """Write a copy of a database's file as it is at one moment; others may go on writing.

    Raises:
        ShopError: It lies on a server, which has its own means.
    """
    files = database.files()
    if not files:
        raise ShopError(
            "this shop's journal lies on a database server",
            hint="back that up by its own means, at the same time",
        )
    uri = f"{files[0].absolute().as_uri()}?mode=ro"
    with (
        guard("the journal cannot be copied", files[0]),
        contextlib.closing(sqlite3.connect(uri, uri=True, timeout=10)) as source,
        contextlib.closing(sqlite3.connect(to)) as target,
    ):
        source.backup(target)


class SQLite:
    """A file that syncs before it answers (write-ahead log, ``synchronous=FULL``).

    The log is copied into the database by a thread of its own, never by a writer: a copy that the disk refuses must
    not go unnoticed, as it would inside a commit. After a sync that failed nobody knows what the disk holds, and a
    second sync would say that all is well: from then on nothing is written until the file is opened anew, which reads
    what the disk really has.
    """

    def __init__(self, path: Path, *, readonly: bool) -> None:
        self.path, self.readonly, self.shared = path, readonly, False
        self.name = path.name
        self.failed: StorageError | None = None
        self.unsure = False  # a rollback is one: the file is ours alone
        self._log = path.with_name(path.name + "-wal")
        self._reader: sqlite3.Connection | None = None
        self._writer: sqlite3.Connection | None = None
        self._copier: sqlite3.Connection | None = None
        self._read_lock, self.lock, self._copy_lock = threading.RLock(), threading.RLock(), threading.Lock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._closing = False
        try:
            if not readonly:
                self._writer = self._connect("rw")
                self._writer.execute("PRAGMA journal_mode=WAL")
                self._writer.execute("PRAGMA synchronous=FULL")
                self._writer.execute("PRAGMA secure_delete=ON")
                self._writer.execute("PRAGMA wal_autocheckpoint=0")
                self._mend()
            self._reader = self._connect("ro")
        except BaseException:
            self.close()
            raise

    def _connect(self, mode: str) -> Any:
        uri = f"{self.path.absolute().as_uri()}?mode={mode}"
        if mode == "ro" and not self._log.exists() and not os.access(self.path.parent, os.W_OK):
            uri += (
                "&immutable=1"  # on a read-only disk nobody writes, and SQLite cannot make its shared memory
            )
        db = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=10)
        db.execute("PRAGMA temp_store=MEMORY")
        return db

    def _mend(self) -> None:
        """Look at every page; an index that does not fit its table is made anew, a damaged table is an error."""
        assert self._writer is not None
        told = [text for (text,) in self._writer.execute("PRAGMA integrity_check(100)").fetchall()]
        if told == ["ok"]:
            return
        if all("index" in text for text in told):
            self._writer.execute("REINDEX")
            told = [text for (text,) in self._writer.execute("PRAGMA integrity_check(1)").fetchall()]
        if told != ["ok"]:
            raise sqlite3.DatabaseError(told[0])

    def read(self, sql: str, *values: Any) -> list[Any]:
        """Rows of a question, read at once so that no read transaction stays open."""
        with self._read_lock, guard("the journal cannot be read", self.path):
            assert self._reader is not None
            return self._reader.execute(sql, values).fetchall()

    @contextlib.contextmanager
    def transaction(self, what: str) -> Iterator[Connection]:
        """All or nothing, on disk when the block ends; raises ``StorageError`` when it is not."""
        with self.lock, guard(what, self.path, "nothing of this request was stored"):
            if self.failed is not None:
                raise self.failed
            assert self._writer is not None
            with self._watched():
                self._writer.execute("BEGIN IMMEDIATE")
                try:
                    yield self._writer
                    self._writer.execute("COMMIT")
                except BaseException:
                    with contextlib.suppress(sqlite3.Error):
                        self._writer.execute("ROLLBACK")
                    raise
        self._copy_soon()

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        """Remember a sync that failed."""
        try:
            yield
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorname", "") not in {"SQLITE_IOERR_FSYNC", "SQLITE_IOERR_DIR_FSYNC"}:
                raise
            self.failed = StorageError(
                f"the disk failed to make a write durable ({self.path}): nothing is taken in any more",
                hint="check the disk, then restart: what the disk really holds is read anew",
            )
            raise self.failed from error

    # ---- the write-ahead log ---------------------------------------------------------------------------

    def _log_size(self) -> int:
        try:
            return self._log.stat().st_size
        except OSError:
            return 0

    def _copy_soon(self) -> None:
        size = self._log_size()
        if size < _CHECKPOINT:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="penchant-checkpoint", daemon=True)
            self._thread.start()
        self._wake.set()
        if size > _TOO_LONG:
            self._copy()

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            if self._closing:
                return
            self._copy()

    def _copy(self) -> None:
        """Copy the log into the database beside the writers, then what came meanwhile, so that it starts anew."""
        with self._copy_lock:
            if self._closing or self.failed is not None or self._log_size() < _CHECKPOINT:
                return
            with contextlib.suppress(sqlite3.Error, StorageError), self._watched():
                if self._copier is None:
                    self._copier = self._connect("rw")
                    self._copier.execute("PRAGMA synchronous=FULL")
                    self._copier.execute("PRAGMA wal_autocheckpoint=0")
                self._copier.execute("PRAGMA wal_checkpoint(PASSIVE)")
            with self.lock, contextlib.suppress(sqlite3.Error, StorageError), self._watched():
                if self._writer is not None:
                    self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def exclusive(self) -> contextlib.AbstractContextManager[None]:
        """Nobody else writes a file."""
        return contextlib.nullcontext()

    def turn(self, wait: float | None = None) -> contextlib.AbstractContextManager[None]:
        """Nobody else writes a file."""
        return contextlib.nullcontext()

    def arrive(self, db: Connection) -> None:
        """Nobody else writes a file."""

    def lead(self) -> bool:
        """The one who writes a file leads."""
        return not self.readonly

    def reclaim(self, *, rewrite: bool) -> bool:
        """Empty the log into the database, with ``rewrite`` write that anew; False when a reader prevents it."""
        if rewrite:
            with self.lock, guard("cannot rewrite the journal", self.path), self._watched():
                assert self._writer is not None
                self._writer.execute("VACUUM")
        with self.lock, guard("cannot empty the journal's write-ahead log", self.path), self._watched():
            assert self._writer is not None
            return bool(self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0)

    def files(self) -> list[Path]:
        """The database and its log."""
        return [self.path, *([self._log] if self._log.exists() else [])]

    def close(self) -> None:
        """Close all connections; the write-ahead log is emptied by the last writer."""
        self._closing = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
        for db in (self._copier, self._reader, self._writer):
            if db is not None:
                with contextlib.suppress(sqlite3.Error):
                    db.close()
        self._copier = self._reader = self._writer = None
