"""Removing a person for good: journal, decisions, table, id index, attributes, live histories.

First the tombstone and a row in ``erasures`` are committed together with the removal from journal and
decisions; they name the person by salted hash only, so a crash leaves no id behind, and the rest is finished
when the shop is next opened. Every step may be repeated.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penchant.core import GUEST_PREFIX, Cipher, Noun, bucket_of
from penchant.store._answers import BatchAnswers
from penchant.store._decisions import DecisionLog
from penchant.store._frames import Frame
from penchant.store._hashing import Persons
from penchant.store._journal import Journal
from penchant.store._live import LiveHistories
from penchant.store._load import rewrite
from penchant.store._parquet import FILE_SCHEMA, DataFile, read_file
from penchant.store._redis import RedisHistories
from penchant.store._rows import decode_row, encode_row
from penchant.store._search import Needle
from penchant.store._table import EventTable


class Erasure(Noun, frozen=True):
    """An erasure as it is written down outside the store: salted hashes, hexadecimal."""

    person: str
    device: str | None
    bucket: int
    ts: int = 0


@dataclass(frozen=True)
class Target:
    """Who is to be removed, by salted hash: the person, for a guest also the bare device id."""

    person: bytes
    device: bytes | None
    bucket: int

    @classmethod
    def of(cls, erasure: Erasure) -> Target:
        """Whoever an erasure that was written down is about."""
        device = None if erasure.device is None else bytes.fromhex(erasure.device)
        return cls(bytes.fromhex(erasure.person), device, erasure.bucket)


class Eraser:
    """Removes people from the parts of one store.

    ``exclusive`` gives the lock under which the table may change and the journal be written.
    """

    def __init__(
        self,
        journal: Journal,
        decisions: DecisionLog,
        answers: BatchAnswers,
        table: EventTable,
        live: LiveHistories | RedisHistories,
        users: Frame,
        persons: Persons,
        cipher: Cipher | None,
        exclusive: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        self._journal, self._decisions, self._table, self._live = journal, decisions, table, live
        self._answers = answers
        self._users, self._persons, self._cipher, self._exclusive = users, persons, cipher, exclusive

    def target(self, subject: str) -> Target:
        """The hashes of a subject."""
        device = subject.removeprefix(GUEST_PREFIX) if subject.startswith(GUEST_PREFIX) else ""
        return Target(self._persons(subject), self._persons(device) if device else None, bucket_of(subject))

    def announce(self, target: Target, ts: int) -> dict[str, int]:
        """Commit the tombstone, and remove the person from journal and decision log."""
        self._decisions.drop(target.person)
        with self._exclusive(), self._journal.transaction("cannot begin the erasure") as db:
            db.execute("INSERT INTO tombstones VALUES (?, ?) ON CONFLICT DO NOTHING", (target.person, ts))
            self._journal.learn_anew(db)
            db.execute(
                "INSERT INTO erasures VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                (target.person, target.device, target.bucket),
            )
            events = db.execute("DELETE FROM journal WHERE person = ?", (target.person,)).rowcount
            decisions = db.execute("DELETE FROM decisions WHERE person = ?", (target.person,)).rowcount
            db.execute("DELETE FROM damaged")  # whose they were can no longer be told
            letters = db.execute(
                "DELETE FROM letters WHERE person = ? OR device = ?", (target.person, target.device)
            ).rowcount
            links = db.execute(
                "DELETE FROM links WHERE person = ? OR guest = ?", (target.person, target.person)
            ).rowcount
            self._blank_device(db, target)
        return {"journal": events, "decisions": decisions, "links": links, "letters": letters}

    def _blank_device(self, db: Any, target: Target) -> None:
        """Events of known users may carry the guest's device id: take it out of them."""
        if target.device is None:
            return

        def without_device(body: bytes) -> bytes | None:
            row = decode_row(body, self._cipher)
            if row.anonymous_id is None or self._persons(row.anonymous_id) != target.device:
                return None
            row.anonymous_id = None
            return encode_row(row, self._cipher)

        self._journal.change_bodies(db, without_device)

    def remove(self, target: Target) -> dict[str, int]:
        """Remove the person from table, id index, attributes and live histories."""
        users = self._remove_attributes(target)
        answers = self._answers.remove(lambda user: self._persons(user) == target.person)
        events, files = self._remove_from_table(target)
        with self._exclusive():
            self._live.invalidate([target.bucket])
        keys = 0 if self._cipher is None else self._cipher.destroy(target.person)
        return {
            "keys": keys,
            "events": events,
            "event_files": files,
            "users": users,
            "batch_answers": answers,
            "live": 1,
        }

    def _remove_attributes(self, target: Target) -> int:
        table = self._users.read()
        gone = np.array([self._persons(u) == target.person for u in table["user_id"].to_pylist()], bool)
        if gone.any():
            self._users.write(table.filter(pa.array(~gone)))
        return int(gone.sum())

    def _remove_from_table(self, target: Target) -> tuple[int, int]:
        token = self._table.begin()
        added: list[DataFile] = []
        removed: list[DataFile] = []
        event_ids: list[str] = []
        try:
            for file in self._candidates(target):
                kept, gone = self._without(file, target)
                if kept is None:
                    continue
                removed.append(file)
                event_ids += gone
                if len(kept):
                    added += rewrite(self._table.folder, f"{token}-{len(removed)}", file.bucket, kept)
            if not removed:
                self._table.cancel(token)
                return 0, 0
            runs = self._table.forget_ids(event_ids)
            with self._exclusive():
                self._live.invalidate({file.bucket for file in removed})
                self._table.commit(token, added, removed, runs)
        except BaseException:
            self._table.cancel(token)
            raise
        return len(event_ids), len(removed)

    def _candidates(self, target: Target) -> Iterator[DataFile]:
        state = self._table.state()
        if target.device is None:
            yield from state.files.get(target.bucket, ())
        else:
            yield from state.all_files()

    def _has(self, column: pa.ChunkedArray, hashed: bytes) -> str | None:
        """The id in a column that hashes to this, if there is one."""
        for value in pc.unique(column).to_pylist():
            if value is not None and self._persons(value) == hashed:
                return str(value)
        return None

    def _without(self, file: DataFile, target: Target) -> tuple[pa.Table | None, list[str]]:
        """A file's rows without the person, and the ids of the events that go; None when it has none."""
        folder = self._table.folder
        ids = read_file(folder, file, ["subject", "anonymous_id"])
        subject = self._has(ids["subject"], target.person) if file.bucket == target.bucket else None
        device = self._has(ids["anonymous_id"], target.device) if target.device is not None else None
        if subject is None and device is None:
            return None, []
        table = read_file(folder, file, FILE_SCHEMA.names)
        gone: list[str] = []
        if subject is not None:
            mine = pc.equal(table["subject"], subject)
            gone = table.filter(mine)["event_id"].to_pylist()
            table = table.filter(pc.invert(mine))
        if device is not None:
            index = table.schema.get_field_index("anonymous_id")
            column = table["anonymous_id"]
            blank = pc.if_else(
                pc.fill_null(pc.equal(column, device), False), pa.scalar(None, pa.string()), column
            )
            table = table.set_column(index, table.schema.field(index), blank)
        return table, gone

    def close(self, target: Target, *, rewrite_journal: bool) -> bool:
        """Mark the erasure as done and clear the journal's files; False when a reader hinders it."""
        with self._journal.transaction("cannot finish the erasure") as db:
            db.execute("DELETE FROM decisions WHERE person = ?", (target.person,))  # queued meanwhile
            db.execute("DELETE FROM erasures WHERE person = ?", (target.person,))
            self._journal.learn_anew(db)
        return self._journal.database.reclaim(rewrite=rewrite_journal)

    def search_journal(self, needle: Needle) -> tuple[int, list[str]]:
        """Look for ids in the journal's files; when bytes are found that no living row explains, rewrite it.

        Returns:
            Bytes searched, and the names of the files that hold an id: the database when a row of the
            person is left, its write-ahead log when another process reads and keeps it from being emptied.
        """
        database = self._journal.database
        if any(_in_file(path, needle) for path in database.files()[:1]):
            database.reclaim(rewrite=True)
        held = [database.name] if self._rows_left(needle) else []
        held += [path.name for path in database.files()[1:] if _in_file(path, needle)]
        return sum(path.stat().st_size for path in database.files()), held

    def _rows_left(self, needle: Needle) -> bool:
        last = -1
        while page := self._journal.rows(None, after=last, limit=10_000):
            last = page[-1].seq
            if any(s.row.subject == needle.subject for s in page):
                return True
            if needle.device is not None and any(s.row.anonymous_id == needle.device for s in page):
                return True
        person = self._persons(needle.subject)
        return bool(self._journal.query("SELECT 1 FROM decisions WHERE person = ? LIMIT 1", person))

    def unfinished(self) -> list[Target]:
        """Erasures that a crash interrupted."""
        return [Target(*row) for row in self._journal.query("SELECT person, device, bucket FROM erasures")]


def _in_file(path: Path, needle: Needle) -> bool:
    if path.stat().st_size == 0:
        return False
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return needle.in_bytes(content)
