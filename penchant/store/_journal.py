"""The journal: live events, decisions and tombstones in one SQLite file that syncs before it answers.

People are keyed by a salted hash (``person``), never by their id; the ids stand only in the JSON bodies, in
quotes, where an erasure removes them and a byte search can tell them apart.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from penchant.core import Cipher
from penchant.core.errors import ShopError, StorageError
from penchant.store._files import fsync, guard
from penchant.store._hashing import U64
from penchant.store._rows import Stored, decode_row

SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE journal (
    seq INTEGER PRIMARY KEY, id_hash INTEGER NOT NULL UNIQUE, content INTEGER NOT NULL,
    person BLOB NOT NULL, bucket INTEGER NOT NULL, ts INTEGER NOT NULL, body BLOB NOT NULL);
CREATE INDEX journal_bucket ON journal (bucket, seq);
CREATE TABLE decisions (
    number INTEGER PRIMARY KEY, recommendation_id TEXT NOT NULL UNIQUE, ts INTEGER NOT NULL,
    person BLOB NOT NULL, body BLOB NOT NULL);
CREATE INDEX decisions_person ON decisions (person, ts);
CREATE INDEX decisions_ts ON decisions (ts);
CREATE TABLE tombstones (person BLOB PRIMARY KEY, ts INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE erasures (person BLOB PRIMARY KEY, device BLOB, bucket INTEGER NOT NULL) WITHOUT ROWID;
"""


def signed(number: int) -> int:
    """An unsigned 64-bit hash as SQLite stores integers."""
    return number - (1 << 64) if number >= 1 << 63 else number


def create_journal(path: Path) -> None:
    """Make an empty journal beside ``path`` and move it there, so that no half-made one is ever seen."""
    temporary = path.with_suffix(".new")
    temporary.unlink(missing_ok=True)
    db = sqlite3.connect(temporary, isolation_level=None)
    try:
        db.executescript(_SCHEMA)
        db.executemany(
            "INSERT INTO meta VALUES (?, ?)",
            [
                ("schema", SCHEMA_VERSION),
                ("salt", secrets.token_bytes(16)),
                ("next_seq", 0),
                ("compacted", -1),
            ],
        )
    finally:
        db.close()
    fsync(temporary)
    os.replace(temporary, path)
    fsync(path.parent)


class Journal:
    """One connection that writes (unless ``readonly``) and one that reads, each behind its lock."""

    def __init__(self, path: Path, *, readonly: bool) -> None:
        self.path, self.readonly = path, readonly
        self._reader: sqlite3.Connection | None = None
        self._writer: sqlite3.Connection | None = None
        self._read_lock, self.lock = threading.RLock(), threading.RLock()
        with guard("the journal cannot be opened", path):
            if not readonly and not path.exists():
                create_journal(path)
            if path.stat().st_size == 0:
                raise StorageError(
                    f"the journal is empty ({path}): its file has 0 bytes, so live events may be lost",
                    hint="restore it from a backup, or delete it to go on with what the event table holds",
                )
            if not readonly:
                self._writer = self._connect("rw")
                self._writer.execute("PRAGMA journal_mode=WAL")
                self._writer.execute("PRAGMA synchronous=FULL")
                self._writer.execute("PRAGMA secure_delete=ON")
            self._reader = self._connect("ro")
            self._check()

    def _connect(self, mode: str) -> sqlite3.Connection:
        uri = f"{self.path.absolute().as_uri()}?mode={mode}"
        log = self.path.with_name(self.path.name + "-wal")
        if mode == "ro" and not log.exists() and not os.access(self.path.parent, os.W_OK):
            uri += (
                "&immutable=1"  # on a read-only disk nobody writes, and SQLite cannot make its shared memory
            )
        db = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=10)
        db.execute("PRAGMA temp_store=MEMORY")
        return db

    def _check(self) -> None:
        schema = self.meta("schema")
        if schema > SCHEMA_VERSION:
            raise ShopError(
                "this shop was written by a newer version",
                value=schema,
                hint="pip install --upgrade penchant",
            )
        self.salt: bytes = self.meta("salt")

    # ---- reading -------------------------------------------------------------------------------------

    def query(self, sql: str, *values: Any) -> list[Any]:
        """Rows of a question, read at once so that no read transaction stays open."""
        with self._read_lock, guard("the journal cannot be read", self.path):
            assert self._reader is not None
            return self._reader.execute(sql, values).fetchall()

    def meta(self, key: str) -> Any:
        """One value of the ``meta`` table."""
        found = self.query("SELECT value FROM meta WHERE key = ?", key)
        if not found:
            raise StorageError(
                f"the journal is damaged ({self.path}): it lacks {key}", hint="restore it from a backup"
            )
        return found[0][0]

    def rows(
        self,
        bucket: int | None,
        *,
        after: int = -1,
        up_to: int | None = None,
        limit: int = -1,
        cipher: Cipher | None = None,
    ) -> list[Stored]:
        """Events of one bucket or all with after < seq <= up_to, in order of arrival."""
        where, values = ["seq > ?"], [after]
        if bucket is not None:
            where.append("bucket = ?")
            values.append(bucket)
        if up_to is not None:
            where.append("seq <= ?")
            values.append(up_to)
        sql = f"SELECT seq, body FROM journal WHERE {' AND '.join(where)} ORDER BY seq LIMIT ?"
        found = self.query(sql, *values, limit)
        return [Stored(seq, decode_row(body, cipher)) for seq, body in found]

    def contents(self, hashes: Sequence[int]) -> dict[int, int]:
        """Content hash of those id hashes that are in the journal (both as SQLite stores them)."""
        found: dict[int, int] = {}
        for start in range(0, len(hashes), 500):
            part = hashes[start : start + 500]
            marks = ",".join("?" * len(part))
            found.update(
                self.query(f"SELECT id_hash, content FROM journal WHERE id_hash IN ({marks})", *part)
            )
        return found

    def pairs(self, *, after: int = -1, up_to: int = (1 << 63) - 1) -> tuple[U64, U64]:
        """Ascending id hashes of journal rows with after < seq <= up_to, and their content hashes."""
        found = self.query("SELECT id_hash, content FROM journal WHERE seq > ? AND seq <= ?", after, up_to)
        both = np.array(found, np.int64).reshape(-1, 2).view(np.uint64)
        order = np.argsort(both[:, 0], kind="stable")
        return both[order, 0], both[order, 1]

    def last_seq(self) -> int:
        """Highest seq in the journal, -1 when it is empty."""
        return int(self.query("SELECT coalesce(max(seq), -1) FROM journal")[0][0])

    def tombstones(self) -> set[bytes]:
        """Persons who were erased."""
        return {person for (person,) in self.query("SELECT person FROM tombstones")}

    def decisions(self, person: bytes | None) -> Iterator[bytes]:
        """Bodies of decisions, of one person or all, in order of time; read page by page."""
        ts, number = -(1 << 63), -1
        while True:
            who, values = ("AND person = ?", [person]) if person is not None else ("", [])
            page = self.query(
                f"SELECT ts, number, body FROM decisions WHERE (ts, number) > (?, ?) {who}"
                " ORDER BY ts, number LIMIT 1000",
                ts, number, *values,
            )  # fmt: skip
            yield from (body for _, _, body in page)
            if len(page) < 1000:
                return
            ts, number, _ = page[-1]

    # ---- writing -------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def transaction(self, what: str = "cannot write the journal") -> Iterator[sqlite3.Connection]:
        """All or nothing, on disk when the block ends; raises ``StorageError`` when it is not."""
        with self.lock, guard(what, self.path, "nothing of this request was stored"):
            assert self._writer is not None
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self._writer.execute("ROLLBACK")
                raise

    def insert_events(self, rows: Iterable[tuple[int, int, int, bytes, int, int, bytes]]) -> None:
        """Add journal rows (seq, id_hash, content, person, bucket, ts, body) in one transaction."""
        with self.transaction() as db:
            db.executemany("INSERT INTO journal VALUES (?, ?, ?, ?, ?, ?, ?)", rows)

    def insert_decisions(self, rows: Iterable[tuple[str, int, bytes, bytes]]) -> None:
        """Add decisions; one that is there already stays as it is."""
        with self.transaction("cannot write the decision log") as db:
            db.executemany(
                "INSERT OR IGNORE INTO decisions (recommendation_id, ts, person, body) VALUES (?, ?, ?, ?)",
                rows,
            )

    def set_meta(self, key: str, value: Any) -> None:
        """Store one value durably."""
        with self.transaction() as db:
            db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def delete_moved(self, seq: int) -> None:
        """Forget journal rows that are in the table now."""
        with self.transaction() as db:
            db.execute("DELETE FROM journal WHERE seq <= ?", (seq,))
            db.execute("UPDATE meta SET value = max(value, ?) WHERE key = 'next_seq'", (seq + 1,))
            db.execute("UPDATE meta SET value = max(value, ?) WHERE key = 'compacted'", (seq,))

    def truncate_log(self) -> bool:
        """Copy the write-ahead log into the database and empty it; False when a reader prevents it."""
        with self.lock, guard("cannot empty the journal's write-ahead log", self.path):
            assert self._writer is not None
            return bool(self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0)

    def vacuum(self) -> None:
        """Write the whole database anew, without any trace of deleted rows."""
        with self.lock, guard("cannot rewrite the journal", self.path):
            assert self._writer is not None
            self._writer.execute("VACUUM")
        self.truncate_log()

    def close(self) -> None:
        """Close both connections; the write-ahead log is emptied by the last writer."""
        for db in (self._reader, self._writer):
            if db is not None:
                with contextlib.suppress(sqlite3.Error):
                    db.close()
        self._reader = self._writer = None
