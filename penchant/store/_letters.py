"""Live events that were refused, kept aside with their reason: the newest ten thousand."""

from __future__ import annotations

import base64
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import msgspec

from penchant.core import Cipher, subject_of
from penchant.core.errors import StorageError
from penchant.store._database import Connection
from penchant.store._hashing import Persons
from penchant.store._journal import Journal

MOST_LETTERS = 10_000
_ENCODE = msgspec.json.Encoder().encode
_WHOLE = 16_384  # bytes of a letter that is kept whole
_TELLING = 4  # bytes of an id that does not turn up by chance


class _Letter(msgspec.Struct, frozen=True):
    """One letter as it lies in the journal; with a cipher the event is sealed."""

    reason: str
    event: dict[str, Any] | None = None
    subject: str | None = None
    sealed: str | None = None


_decode = msgspec.json.Decoder(_Letter).decode


class Letters:
    """The dead letters of one shop."""

    def __init__(self, journal: Journal, persons: Persons, cipher: Cipher | None) -> None:
        self._journal, self._persons, self._cipher = journal, persons, cipher

    def add(
        self,
        letters: Sequence[tuple[str, Mapping[str, Any]]],
        ts: int,
        erased: Callable[[Connection], set[bytes]],
    ) -> None:
        """Keep events (reason, columns of an event) durably; none of erased people, told within the transaction."""
        rows = [self._row(reason, event, ts) for reason, event in letters]
        if not rows:
            return
        if self._cipher is not None:
            self._cipher.flush()
        with self._journal.transaction("cannot keep a refused event") as db:
            tombstones = erased(db)
            rows = [row for row in rows if row[1] not in tombstones and row[2] not in tombstones]
            db.executemany("INSERT INTO letters (ts, person, device, body) VALUES (?, ?, ?, ?)", rows)
            db.execute(
                "DELETE FROM letters WHERE number <= (SELECT max(number) FROM letters) - ?", (MOST_LETTERS,)
            )

    def _row(
        self, reason: str, event: Mapping[str, Any], ts: int
    ) -> tuple[int, bytes | None, bytes | None, bytes]:
        user, guest = (_text(event.get(name)) for name in ("user_id", "anonymous_id"))
        subject = subject_of(user, guest) if user or guest else None
        kept = {name: value for name, value in event.items() if value is not None}
        try:
            body = _ENCODE(kept)
        except (msgspec.MsgspecError, TypeError, ValueError, RecursionError):
            body = b""
        if not 0 < len(body) <= _WHOLE:  # what it was about is enough
            kept = {
                name: value for name, value in kept.items() if isinstance(value, str) and len(value) <= 512
            }
            body = _ENCODE({name: value.encode("utf-8", "replace").decode() for name, value in kept.items()})
        if self._cipher is not None and subject is not None:
            sealed = base64.b64encode(self._cipher.encrypt(subject, "letter", body)).decode()
            letter = _Letter(reason, subject=subject, sealed=sealed)
        else:
            letter = _Letter(reason, event=msgspec.json.decode(body))
        person = None if subject is None else self._persons(subject)
        return ts, person, self._persons(guest) if guest else None, _ENCODE(letter)

    def page(
        self, *, limit: int, before: int | None, person: bytes | None = None
    ) -> list[tuple[int, int, str, dict[str, Any]]]:
        """Number, time, reason and event of letters, the newest first."""
        where, values = "number < ?", [(1 << 62) if before is None else before]
        if person is not None:
            where += " AND person = ?"
            values.append(person)  # type: ignore[arg-type]
        found = self._journal.query(
            f"SELECT number, ts, body FROM letters WHERE {where} ORDER BY number DESC LIMIT ?", *values, limit
        )
        return [(number, ts, *self._opened(body)) for number, ts, body in found]

    def of(self, person: bytes) -> list[dict[str, Any]]:
        """Every letter of one person, as JSON values."""
        names = ("number", "ts", "reason", "event")
        found = self.page(limit=MOST_LETTERS, before=None, person=person)
        return [dict(zip(names, letter, strict=True)) for letter in found]

    def _opened(self, body: bytes) -> tuple[str, dict[str, Any]]:
        letter = _decode(body)
        if letter.sealed is None or letter.subject is None or self._cipher is None:
            return letter.reason, letter.event or {}
        try:
            plain = self._cipher.decrypt(letter.subject, "letter", base64.b64decode(letter.sealed))
        except StorageError:  # the person's key was destroyed
            return letter.reason, {}
        event: dict[str, Any] = msgspec.json.decode(plain)
        return letter.reason, event

    def forget_mentions(self, ids: Collection[str]) -> int:
        """Remove letters of others that name a person anywhere, as in the id of an event; returns how many.

        Ids of less than four bytes turn up by chance and are passed over.
        """
        wanted = [_ENCODE(one)[1:-1] for one in ids if len(one.encode()) >= _TELLING]
        letters = self._journal.query("SELECT number, body FROM letters") if wanted else []
        found = [
            (number,)
            for number, body in letters
            if any(one in text for text in (body, _ENCODE(self._opened(body))) for one in wanted)
        ]
        if found:
            with self._journal.transaction("cannot remove refused events") as db:
                db.executemany("DELETE FROM letters WHERE number = ?", found)
        return len(found)

    def count(self) -> int:
        """How many are kept."""
        return int(self._journal.query("SELECT count(*) FROM letters")[0][0])


def _text(value: Any) -> str | None:
    """An id that can be hashed; None for anything else."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) and value else None
