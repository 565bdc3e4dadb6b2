"""The journal: live events, decisions and tombstones in one database that syncs before it answers.

People are keyed by a salted hash (``person``), never by their id; the ids stand only in the JSON bodies, in
quotes, where an erasure removes them and a byte search can tell them apart.

Every row carries a checksum of all that it says. One that does not fit it is set aside in ``damaged`` and counted:
it is never served and never moved to the table.
"""

from __future__ import annotations

import secrets
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from penchant.core import Cipher
from penchant.core.errors import ShopError, StorageError
from penchant.store._database import Connection, Database, SQLite, make_sqlite
from penchant.store._files import guard
from penchant.store._hashing import U64
from penchant.store._rows import Stored, decode_row

SCHEMA_VERSION = 3
# Since version 3: whose a guest's device is, events kept aside, and how far sources outside were read.
_SCHEMA_3 = """
CREATE TABLE links (
    guest BLOB NOT NULL, person BLOB NOT NULL, ts INTEGER NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (guest, person)) WITHOUT ROWID;
CREATE INDEX links_person ON links (person);
CREATE INDEX links_ts ON links (ts);
CREATE TABLE letters (
    number INTEGER PRIMARY KEY, ts INTEGER NOT NULL, person BLOB, device BLOB, body BLOB NOT NULL);
CREATE INDEX letters_person ON letters (person);
CREATE TABLE positions (source TEXT PRIMARY KEY, position INTEGER NOT NULL) WITHOUT ROWID;
"""
SCHEMA = (
    """
CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE journal (
    seq INTEGER PRIMARY KEY, id_hash INTEGER NOT NULL UNIQUE, content INTEGER NOT NULL,
    person BLOB NOT NULL, bucket INTEGER NOT NULL, ts INTEGER NOT NULL, body BLOB NOT NULL, sum INTEGER);
CREATE INDEX journal_bucket ON journal (bucket, seq);
CREATE TABLE decisions (
    number INTEGER PRIMARY KEY, recommendation_id TEXT NOT NULL UNIQUE, ts INTEGER NOT NULL,
    person BLOB NOT NULL, body BLOB NOT NULL, sum INTEGER);
CREATE INDEX decisions_person ON decisions (person, ts);
CREATE INDEX decisions_ts ON decisions (ts);
CREATE TABLE tombstones (person BLOB PRIMARY KEY, ts INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE erasures (person BLOB PRIMARY KEY, device BLOB, bucket INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE damaged (seq INTEGER PRIMARY KEY, body BLOB);
"""
    + _SCHEMA_3
)
_COLUMNS = "seq, id_hash, content, person, bucket, ts, body, sum"
_PAGE = 10_000

EventRow = tuple[int, int, int, bytes, int, int, bytes]
"""seq, id_hash, content, person, bucket, ts, body."""
LinkRow = tuple[bytes, bytes, int, bytes]
"""guest, person, ts, both ids as JSON."""


def signed(number: int) -> int:
    """An unsigned 64-bit hash as databases store integers."""
    return number - (1 << 64) if number >= 1 << 63 else number


def event_sum(row: EventRow) -> int:
    """Checksum of an event's row."""
    seq, id_hash, content, person, bucket, ts, body = row
    head = struct.pack("<qqqqq", seq, id_hash, content, bucket, ts)
    return zlib.crc32(body, zlib.crc32(person, zlib.crc32(head)))


def decision_sum(row: tuple[str, int, bytes, bytes]) -> int:
    """Checksum of a decision's row (recommendation_id, ts, person, body)."""
    recommendation_id, ts, person, body = row
    head = zlib.crc32(struct.pack("<q", ts), zlib.crc32(recommendation_id.encode()))
    return zlib.crc32(body, zlib.crc32(person, head))


def first_rows() -> list[tuple[str, bytes]]:
    """What ``meta`` holds in a new journal; numbers are written as text."""
    return [
        ("schema", b"%d" % SCHEMA_VERSION),
        ("salt", secrets.token_bytes(16)),
        ("next_seq", b"0"),
        ("compacted", b"-1"),
        ("linked", b"1"),  # whether events that came before links were kept have been searched for them
    ]


def open_file(path: Path, *, readonly: bool) -> Database:
    """The journal's SQLite file, made if it is new.

    Raises:
        StorageError: It is empty or damaged, or the disk refuses.
    """
    with guard("the journal cannot be opened", path):
        if not readonly and not path.exists():
            make_sqlite(
                path, SCHEMA, lambda db: db.executemany("INSERT INTO meta VALUES (?, ?)", first_rows())
            )
        if path.stat().st_size == 0:
            raise StorageError(
                f"the journal is empty ({path}): its file has 0 bytes, so live events may be lost",
                hint="restore it from a backup, or delete it to go on with what the event table holds",
            )
        return SQLite(path, readonly=readonly)


class Journal:
    """What the store asks of its database."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._linked: bool | None = None
        try:
            self._check()
        except BaseException:
            database.close()
            raise

    def _check(self) -> None:
        schema = int(self.meta("schema"))
        if schema > SCHEMA_VERSION:
            raise ShopError(
                "this shop was written by a newer version",
                value=schema,
                hint="pip install --upgrade penchant",
            )
        if schema < SCHEMA_VERSION:
            if self.database.readonly:
                raise ShopError(
                    "this shop was written by an older version",
                    value=schema,
                    hint="open it for writing once, such as by `penchant status`: that brings it up to date",
                )
            if schema < 2:
                self._add_sums()
            self._add_links()
        self.salt: bytes = bytes(self.meta("salt"))

    def _add_sums(self) -> None:
        """From version 1, which had no checksums."""
        with self.transaction("cannot bring the journal up to date") as db:
            db.execute("ALTER TABLE journal ADD COLUMN sum INTEGER")
            db.execute("ALTER TABLE decisions ADD COLUMN sum INTEGER")
            db.execute("CREATE TABLE damaged (seq INTEGER PRIMARY KEY, body BLOB)")
            columns = _COLUMNS.removesuffix(", sum")
            for row in db.execute(f"SELECT {columns} FROM journal").fetchall():
                db.execute("UPDATE journal SET sum = ? WHERE seq = ?", (event_sum(row), row[0]))
            for number, *row in db.execute(
                "SELECT number, recommendation_id, ts, person, body FROM decisions"
            ).fetchall():
                made = decision_sum((row[0], row[1], row[2], row[3]))
                db.execute("UPDATE decisions SET sum = ? WHERE number = ?", (made, number))
            _put_number(db, "schema", 2)

    def _add_links(self) -> None:
        """From version 2, which did not join guests to users; the store looks for links in what is there."""
        with self.transaction("cannot bring the journal up to date") as db:
            for statement in _SCHEMA_3.split(";")[:-1]:
                db.execute(statement)
            _put_number(db, "linked", 0)
            _put_number(db, "schema", SCHEMA_VERSION)

    # ---- reading -------------------------------------------------------------------------------------

    def query(self, sql: str, *values: Any) -> list[Any]:
        """Rows of a question."""
        return self.database.read(sql, *values)

    def meta(self, key: str) -> Any:
        """One value of the ``meta`` table."""
        found = self.query("SELECT value FROM meta WHERE key = ?", key)
        if not found:
            raise StorageError(
                f"the journal is damaged ({self.database.name}): it lacks {key}",
                hint="restore it from a backup",
            )
        return found[0][0]

    def rows(
        self,
        bucket: int | None,
        *,
        after: int = -1,
        up_to: int | None = None,
        limit: int | None = None,
        cipher: Cipher | None = None,
    ) -> list[Stored]:
        """Sound events of one bucket or all with after < seq <= up_to, in order of arrival.

        With a limit, fewer than that many came only where no more are left.
        """
        found: list[Stored] = []
        while True:
            page = self._page(bucket, after, up_to, None if limit is None else limit - len(found))
            found += [Stored(row[0], decode_row(row[6], cipher)) for row in self._sound(page)]
            if not page or limit is None or len(found) >= limit:
                return found
            after = page[-1][0]

    def _page(self, bucket: int | None, after: int, up_to: int | None, limit: int | None) -> list[Any]:
        where, values = ["seq > ?"], [after]
        if bucket is not None:
            where.append("bucket = ?")
            values.append(bucket)
        if up_to is not None:
            where.append("seq <= ?")
            values.append(up_to)
        sql = f"SELECT {_COLUMNS} FROM journal WHERE {' AND '.join(where)} ORDER BY seq"
        if limit is not None:
            sql += " LIMIT ?"
            values.append(limit)
        return self.query(sql, *values)

    def _sound(self, page: list[Any]) -> list[Any]:
        """Rows whose checksum fits; the writer sets the others aside."""
        sound = [row for row in page if _is_sound(row)]
        if len(sound) < len(page) and not self.database.readonly:
            lost = [(row[0], row[6]) for row in page if not _is_sound(row)]
            with self.transaction("cannot set damaged rows aside") as db:
                db.executemany("INSERT INTO damaged VALUES (?, ?) ON CONFLICT DO NOTHING", lost)
                db.executemany("DELETE FROM journal WHERE seq = ?", [(seq,) for seq, _ in lost])
        return sound

    def num_damaged(self) -> int:
        """How many rows were set aside."""
        return int(self.query("SELECT count(*) FROM damaged")[0][0])

    def contents(self, hashes: Sequence[int]) -> dict[int, int]:
        """Content hash of those id hashes that are in the journal (both as databases store them)."""
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

    def num_events(self, *, after: int) -> int:
        """How many events are in the journal with after < seq."""
        return int(self.query("SELECT count(*) FROM journal WHERE seq > ?", after)[0][0])

    def last_seq(self) -> int:
        """Highest seq in the journal, -1 when it is empty."""
        return int(self.query("SELECT coalesce(max(seq), -1) FROM journal")[0][0])

    def tombstones(self) -> set[bytes]:
        """Persons who were erased."""
        return {bytes(person) for (person,) in self.query("SELECT person FROM tombstones")}

    def links(self, where: str, *values: Any) -> list[tuple[int, bytes]]:
        """Time and ids of links."""
        return self.query(f"SELECT ts, body FROM links WHERE {where}", *values)

    @property
    def has_links(self) -> bool:
        """Whether anybody may be linked; most shops' answers need not look further. A reader cannot know."""
        if self._linked is None:
            self._linked = self.database.readonly or self.num_links((1 << 63) - 1) > 0
        return self._linked

    def num_links(self, before: int) -> int:
        """How many links are known of before a time."""
        return int(self.query("SELECT count(*) FROM links WHERE ts < ?", before)[0][0])

    def stamp_of_links(self) -> tuple[int, int]:
        """How many links there are, and a number that changes when one is found to be older than it seemed."""
        count, seconds = self.query("SELECT count(*), coalesce(sum(ts / 1000003), 0) FROM links")[0]
        return int(count), int(seconds)

    def decisions(self, person: bytes | None, newest: int | None = None) -> Iterator[bytes]:
        """Sound bodies of decisions, of one person or all, in order of time; read page by page.

        With ``newest`` only the last so many of all people.
        """
        ts, number = -(1 << 63), -1
        if newest is not None and (
            start := self.query("SELECT ts, number FROM decisions ORDER BY ts DESC LIMIT 1 OFFSET ?", newest)
        ):
            ts, number = start[0]
        while True:
            who, values = ("AND person = ?", [person]) if person is not None else ("", [])
            page = self.query(
                "SELECT ts, number, recommendation_id, person, body, sum FROM decisions"
                f" WHERE (ts, number) > (?, ?) {who} ORDER BY ts, number LIMIT 200",
                ts, number, *values,
            )  # fmt: skip
            for moment, _, recommendation_id, whose, body, made in page:
                if made is None or _fits(decision_sum, (recommendation_id, moment, whose, body), made):
                    yield body
            if len(page) < 200:
                return
            ts, number = page[-1][:2]

    # ---- writing -------------------------------------------------------------------------------------

    def transaction(self, what: str = "cannot write the journal") -> AbstractContextManager[Connection]:
        """All or nothing, on disk when the block ends; raises ``StorageError`` when it is not."""
        return self.database.transaction(what)

    def insert_events(
        self,
        rows: Iterable[EventRow],
        links: Iterable[LinkRow] = (),
        positions: Iterable[tuple[str, int]] = (),
    ) -> None:
        """Add events in one transaction, with links (the earliest of a pair stays) and positions of sources."""
        with self.transaction() as db:
            db.executemany(
                f"INSERT INTO journal ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [(*row, event_sum(row)) for row in rows],
            )
            if links:
                self._linked = True
                db.executemany(
                    "INSERT INTO links VALUES (?, ?, ?, ?) ON CONFLICT (guest, person)"
                    " DO UPDATE SET ts = excluded.ts WHERE excluded.ts < links.ts",
                    links,
                )
            if positions:
                db.executemany(
                    "INSERT INTO positions VALUES (?, ?) ON CONFLICT (source) DO UPDATE"
                    " SET position = excluded.position WHERE excluded.position > positions.position",
                    positions,
                )

    def insert_decisions(self, rows: Iterable[tuple[str, int, bytes, bytes]]) -> None:
        """Add decisions; one that is there already stays as it is."""
        with self.transaction("cannot write the decision log") as db:
            db.executemany(
                "INSERT INTO decisions (recommendation_id, ts, person, body, sum) VALUES (?, ?, ?, ?, ?)"
                " ON CONFLICT DO NOTHING",
                [(*row, decision_sum(row)) for row in rows],
            )

    def change_bodies(self, db: Connection, change: Any) -> None:
        """Rewrite bodies inside a transaction: ``change`` takes a body and gives the new one, or None to keep it."""
        last = -1
        while page := db.execute(
            f"SELECT {_COLUMNS} FROM journal WHERE seq > ? ORDER BY seq LIMIT {_PAGE}", (last,)
        ).fetchall():
            for row in page:
                last = row[0]
                body = change(row[6]) if _is_sound(row) else None
                if body is not None:
                    made = event_sum((*row[:6], body))
                    db.execute("UPDATE journal SET body = ?, sum = ? WHERE seq = ?", (body, made, last))

    def set_number(self, key: str, value: int) -> None:
        """Store one number durably."""
        with self.transaction() as db:
            _put_number(db, key, value)

    def delete_moved(self, seq: int) -> None:
        """Forget journal rows that are in the table now."""
        with self.transaction() as db:
            db.execute("DELETE FROM journal WHERE seq <= ?", (seq,))
            for key, least in (("next_seq", seq + 1), ("compacted", seq)):
                now = db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchall()
                _put_number(db, key, max(int(now[0][0]), least))

    def close(self) -> None:
        """Close the database."""
        self.database.close()


def _is_sound(event: Any) -> bool:
    """Whether an event (_COLUMNS) is as it was written."""
    return _fits(event_sum, event[:7], event[7])


def _fits(sum_of: Callable[[Any], int], row: tuple[Any, ...], made: int | None) -> bool:
    try:
        return sum_of(row) == made
    except (AttributeError, TypeError, struct.error):  # a flipped bit can make a number of a text
        return False


def _put_number(db: Connection, key: str, value: int) -> None:
    db.execute(
        "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        (key, b"%d" % value),
    )
