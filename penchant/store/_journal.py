"""The journal: live events, decisions and tombstones in one database that syncs before it answers.

People are keyed by a salted hash (``person``), never by their id; the ids stand only in the JSON bodies, in
quotes, where an erasure removes them and a byte search can tell them apart.

Every row carries a checksum of all that it says. One that does not fit it is set aside in ``damaged`` and counted:
it is never served and never moved to the table.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from penchant.core import Cipher
from penchant.core.errors import ShopError, StorageError
from penchant.store._database import Connection, Database, SQLite, make_sqlite
from penchant.store._files import guard
from penchant.store._hashing import U64
from penchant.store._rows import Stored, decode_row
from penchant.store._sums import EventRow, decision_sum, event_sum, fits, is_sound

SCHEMA_VERSION = 3
# Since version 3: whose a guest's device is, events kept aside, and how far sources outside were read.
SCHEMA_3 = """
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
    + SCHEMA_3
)
EVENT_COLUMNS = "seq, id_hash, content, person, bucket, ts, body, sum"
_ROWS = 100  # of one statement
_PAGE = 10_000

LinkRow = tuple[bytes, bytes, int, bytes]
"""guest, person, ts, both ids as JSON."""


class Marks(NamedTuple):
    """What several processes that write one shop have to agree on."""

    next_seq: int  # the next number of arrival, of events and decisions
    table: int  # the version of the event table, as the journal was told before it was made
    remade: int  # how often all that was learned had to be learned anew: erasures begun and ended, bulk loads
    compacted: int  # up to where rows may have been deleted, for they are in the table


_MARKS = (
    "SELECT (SELECT coalesce(max(seq), -1) FROM journal), (SELECT coalesce(max(number), -1) FROM decisions),"
    " (SELECT value FROM meta WHERE key = 'next_seq'), (SELECT value FROM meta WHERE key = 'table'),"
    " (SELECT value FROM meta WHERE key = 'remade'), (SELECT value FROM meta WHERE key = 'compacted')"
)


def signed(number: int) -> int:
    """An unsigned 64-bit hash as databases store integers."""
    return number - (1 << 64) if number >= 1 << 63 else number


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
            from penchant.store._migrations import bring_up_to_date

            with self.database.exclusive():
                bring_up_to_date(self, int(self.meta("schema")))
        self.salt: bytes = bytes(self.meta("salt"))

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
        sql = f"SELECT {EVENT_COLUMNS} FROM journal WHERE {' AND '.join(where)} ORDER BY seq"
        if limit is not None:
            sql += " LIMIT ?"
            values.append(limit)
        return self.query(sql, *values)

    def _sound(self, page: list[Any]) -> list[Any]:
        """Rows whose checksum fits; the writer sets the others aside."""
        sound = [row for row in page if is_sound(row)]
        if len(sound) < len(page) and not self.database.readonly:
            lost = [(row[0], row[6]) for row in page if not is_sound(row)]
            with self.transaction("cannot set damaged rows aside") as db:
                db.executemany("INSERT INTO damaged VALUES (?, ?) ON CONFLICT DO NOTHING", lost)
                db.executemany("DELETE FROM journal WHERE seq = ?", [(seq,) for seq, _ in lost])
        return sound

    def num_damaged(self) -> int:
        """How many rows were set aside."""
        return int(self.query("SELECT count(*) FROM damaged")[0][0])

    def contents(self, hashes: Sequence[int], db: Connection | None = None) -> dict[int, int]:
        """Content hash of those id hashes that are in the journal (both as databases store them)."""
        found: dict[int, int] = {}
        for start in range(0, len(hashes), 500):
            part = hashes[start : start + 500]
            marks = ",".join("?" * len(part))
            sql = f"SELECT id_hash, content FROM journal WHERE id_hash IN ({marks})"
            found.update(self.query(sql, *part) if db is None else db.execute(sql, part).fetchall())
        return found

    def marks(self, db: Connection | None = None) -> Marks:
        """What all writers agree on; in a transaction after ``arrive`` nobody changes it."""
        row = self.query(_MARKS)[0] if db is None else db.execute(_MARKS).fetchall()[0]
        seq, number, *told = row
        reserved, table, remade, compacted = (None if value is None else int(value) for value in told)
        return Marks(
            max(seq + 1, number + 1 if self.database.shared else 0, reserved or 0),
            -1 if table is None else table,
            remade or 0,
            -1 if compacted is None else compacted,
        )

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
        if self._linked is None or (self.database.shared and not self._linked):
            self._linked = self.database.readonly or self.query("SELECT 1 FROM links LIMIT 1") != []
        return self._linked

    def num_links(self, before: int) -> int:
        """How many links are known of before a time."""
        return int(self.query("SELECT count(*) FROM links WHERE ts < ?", before)[0][0])

    def stamp_of_links(self) -> tuple[int, int]:
        """How many links there are, and a number that changes when one is found to be older than it seemed."""
        count, seconds = self.query("SELECT count(*), coalesce(sum(ts / 1000003), 0) FROM links")[0]
        return int(count), int(seconds)

    def decisions(
        self, person: bytes | None, newest: int | None = None, up_to: int | None = None
    ) -> Iterator[bytes]:
        """Sound bodies of decisions, of one person or all, in order of time; read page by page.

        With ``newest`` only the last so many of all people, of those with number <= up_to.
        """
        ts, number = -(1 << 63), -1
        up_to = (1 << 63) - 1 if up_to is None else up_to
        if newest is not None and (
            start := self.query(
                "SELECT ts, number FROM decisions WHERE number <= ? ORDER BY ts DESC, number DESC LIMIT 1 OFFSET ?",
                up_to,
                newest,
            )
        ):
            ts, number = start[0]
        while True:
            who, values = ("AND person = ?", [person]) if person is not None else ("", [])
            page = self.query(
                "SELECT ts, number, recommendation_id, person, body, sum FROM decisions"
                f" WHERE (ts, number) > (?, ?) AND number <= ? {who} ORDER BY ts, number LIMIT 200",
                ts, number, up_to, *values,
            )  # fmt: skip
            for moment, _, recommendation_id, whose, body, made in page:
                if made is None or fits(decision_sum, (recommendation_id, moment, whose, body), made):
                    yield body
            if len(page) < 200:
                return
            ts, number = page[-1][:2]

    def newest_of(self, person: bytes, since: int, most: int) -> list[bytes]:
        """The newest sound decisions of one person at or after a moment, the newest first."""
        page = self.query(
            "SELECT recommendation_id, ts, person, body, sum FROM decisions WHERE person = ? AND ts >= ?"
            " ORDER BY ts DESC LIMIT ?",
            person,
            since,
            most,
        )
        return [row[3] for row in page if row[4] is None or fits(decision_sum, tuple(row[:4]), row[4])]

    def numbered_decisions(self, after: int, up_to: int) -> Iterator[tuple[int, bytes]]:
        """Sound decisions with after < number <= up_to, in that order."""
        page = self.query(
            "SELECT number, recommendation_id, ts, person, body, sum FROM decisions"
            " WHERE number > ? AND number <= ? ORDER BY number",
            after,
            up_to,
        )
        for number, recommendation_id, moment, whose, body, made in page:
            if made is None or fits(decision_sum, (recommendation_id, moment, whose, body), made):
                yield number, body

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
            self.insert(db, rows, links, positions)

    def insert(
        self,
        db: Connection,
        rows: Iterable[EventRow],
        links: Iterable[LinkRow] = (),
        positions: Iterable[tuple[str, int]] = (),
    ) -> None:
        """The same in a transaction that is open."""
        db.executemany(
            f"INSERT INTO journal ({EVENT_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
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

    def insert_decisions(self, db: Connection, rows: Iterable[tuple[Any, ...]], *, numbered: bool) -> None:
        """Add decisions; one that is there already stays as it is. ``numbered`` ones begin with their number."""
        names = "recommendation_id, ts, person, body, sum"
        names, first = (f"number, {names}", 1) if numbered else (names, 0)
        marks = f"({', '.join('?' * (5 + first))})"
        summed = [(*row, decision_sum(row[first:])) for row in rows]
        for start in range(0, len(summed), _ROWS):
            group = summed[start : start + _ROWS]
            # One statement for all: each has to wait for the interpreter, which answers keep busy.
            db.execute(
                f"INSERT INTO decisions ({names}) VALUES {', '.join([marks] * len(group))} ON CONFLICT DO NOTHING",
                [value for row in group for value in row],
            )

    def learn_anew(self, db: Connection | None = None) -> None:
        """Tell all processes that what they learned may rest on what is no more, or lack what came in bulk."""
        if db is None:
            with self.transaction() as own:
                self.learn_anew(own)
            return
        self.database.arrive(db)
        put_number(db, "remade", self.marks(db).remade + 1)

    def agree(self, key: str, number: int, *, move_on: bool) -> int:
        """The number that all processes go by under a key: what the first said, or a later one who moves it on."""
        with self.transaction() as db:
            self.database.arrive(db)
            found = db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchall()
            agreed = int(found[0][0]) if found else number
            if move_on:
                agreed = max(agreed, number)
            put_number(db, key, agreed)
            return agreed

    def change_bodies(self, db: Connection, change: Any) -> None:
        """Rewrite bodies inside a transaction: ``change`` takes a body and gives the new one, or None to keep it."""
        last = -1
        while page := db.execute(
            f"SELECT {EVENT_COLUMNS} FROM journal WHERE seq > ? ORDER BY seq LIMIT {_PAGE}", (last,)
        ).fetchall():
            for row in page:
                last = row[0]
                body = change(row[6]) if is_sound(row) else None
                if body is not None:
                    made = event_sum((*row[:6], body))
                    db.execute("UPDATE journal SET body = ?, sum = ? WHERE seq = ?", (body, made, last))

    def set_number(self, key: str, value: int, db: Connection | None = None) -> None:
        """Store one number durably, or in a transaction that is open."""
        if db is not None:
            put_number(db, key, value)
            return
        with self.transaction() as own:
            put_number(own, key, value)

    def delete_moved(self, seq: int) -> None:
        """Forget journal rows that are in the table now."""
        with self.transaction() as db:
            db.execute("DELETE FROM journal WHERE seq <= ?", (seq,))
            for key, least in (("next_seq", seq + 1), ("compacted", seq)):
                now = db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchall()
                put_number(db, key, max(int(now[0][0]), least))

    def close(self) -> None:
        """Close the database."""
        self.database.close()


def put_number(db: Connection, key: str, value: int) -> None:
    db.execute(
        "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        (key, b"%d" % value),
    )
