"""Who allowed what: the choices of people about their data, with purpose, source and time.

People are named by a keyed hash, so the file holds no id. It is read again when another process has written it.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import secrets
import sqlite3
import sys
import threading
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Literal, get_args

from penchant.core import Micros, Noun, Purpose
from penchant.core.errors import ShopError, StorageError

SCHEMA_VERSION = 1
PURPOSES: tuple[Purpose, ...] = get_args(Purpose)
_LOOK_EVERY = 0.25  # seconds between looks at the file
_SCHEMA = f"""
CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE choices (
    number INTEGER PRIMARY KEY, person BLOB NOT NULL, purpose TEXT NOT NULL, granted INTEGER NOT NULL,
    ts INTEGER NOT NULL, source TEXT NOT NULL);
CREATE INDEX choices_person ON choices (person, ts);
PRAGMA user_version = {SCHEMA_VERSION};
"""
Rule = Literal["opt_out", "opt_in"]
_Chosen = dict[
    str, tuple[bool, Micros, str]
]  # by purpose: whether it is granted, since when, and who said so


class Choice(Noun, frozen=True):
    """One choice of a person."""

    purpose: Purpose
    granted: bool
    ts: Micros
    source: str


class ConsentBook:
    """The choices of the people of one shop.

    Args:
        path: The file; made at the first choice.
        rule: What holds for people who chose nothing: ``opt_out`` allows, ``opt_in`` does not.

    Raises:
        ShopError: The file was written by a newer version.

    Example:
        >>> import tempfile
        >>> book = ConsentBook(Path(tempfile.mkdtemp()) / "consent.db", "opt_out")
        >>> book.choose("u1", {"personalise"}, granted=False, ts=5, source="banner")
        >>> book.allows("u1", "personalise"), book.allows("u1", "analytics"), book.allows("u2", "personalise")
        (False, True, True)
    """

    def __init__(self, path: Path, rule: Rule) -> None:
        self._path, self.rule = path, rule
        self._lock = threading.RLock()
        self._mark: tuple[int, int] | None = None
        self._looked = 0.0
        self._key = b""
        self._state: dict[bytes, _Chosen] = {}
        self._refresh()

    # -- asking -------------------------------------------------------------------------------------------

    def allows(self, subject: str, purpose: Purpose) -> bool:
        """Whether a person's data may serve a purpose, by their newest choice."""
        return self._holds(self._chosen(subject), purpose)

    def allowed(self, subject: str) -> list[Purpose]:
        """All purposes that a person allows."""
        chosen = self._chosen(subject)
        return [purpose for purpose in PURPOSES if self._holds(chosen, purpose)]

    def _chosen(self, subject: str) -> _Chosen:
        self._look()
        return self._state.get(self.person(subject), {}) if self._state else {}

    def _holds(self, chosen: _Chosen, purpose: Purpose) -> bool:
        return chosen[purpose][0] if purpose in chosen else self.rule == "opt_out"

    @property
    def trivial(self) -> bool:
        """Whether everybody allows everything, as long as nobody chose otherwise."""
        self._look()
        return self.rule == "opt_out" and not self._state

    def history(self, subject: str) -> list[Choice]:
        """Every choice of a person, oldest first."""
        if not self._path.exists():
            return []
        with self._open() as db:
            rows = db.execute(
                "SELECT purpose, granted, ts, source FROM choices WHERE person = ? ORDER BY ts, number",
                (self.person(subject),),
            ).fetchall()
        return [Choice(purpose=p, granted=bool(g), ts=ts, source=source) for p, g, ts, source in rows]

    # -- choosing -----------------------------------------------------------------------------------------

    def choose(
        self, subject: str, purposes: Collection[Purpose], *, granted: bool, ts: Micros, source: str
    ) -> None:
        """Note a choice; it is on disk when this returns, and acts at once here and within a second elsewhere."""
        if not purposes:
            return
        with self._lock, self._open(create=True) as db:
            person = self.person(subject)
            db.execute("BEGIN IMMEDIATE")
            known = self._stamp() == self._mark  # nobody else wrote since, and nobody can until the commit
            db.executemany(
                "INSERT INTO choices (person, purpose, granted, ts, source) VALUES (?, ?, ?, ?, ?)",
                [(person, purpose, int(granted), ts, source) for purpose in sorted(purposes)],
            )
            db.execute("COMMIT")
            if not known:
                self._refresh()
                return
            chosen = dict(self._state.get(person, {}))
            chosen |= {p: (granted, ts, source) for p in purposes if p not in chosen or chosen[p][1] <= ts}
            self._state[person] = chosen
            self._mark = self._stamp()

    def state_of(
        self, subject: str, purposes: Collection[Purpose], *, ts: Micros, source: str, lifts: bool = False
    ) -> None:
        """Note what a person allowed in all at some time, where that is news: other than what holds, and later.

        Whoever speaks this way may speak for anybody, as a page's key does. So a no is taken, and a yes where the
        person never said no.

        Args:
            subject: The person.
            purposes: All that is allowed; the others are not.
            ts: When.
            source: Who says so.
            lifts: Whether a yes also ends a no of the same source: where nobody else can know the person's id.
        """
        chosen = self._chosen(subject)
        open_to_yes = {p for p in PURPOSES if p not in chosen or (lifts and chosen[p][2] == source)}
        late = {purpose for purpose, (_, since, _) in chosen.items() if since >= ts}
        for granted in (True, False):
            news = {p for p in PURPOSES if (p in purposes) == granted and self._holds(chosen, p) != granted}
            told = news & open_to_yes if granted else news
            self.choose(subject, told - late, granted=granted, ts=ts, source=source)

    def forget(self, subject: str) -> int:
        """Remove a person's choices for good; returns how many there were."""
        return self.forget_people([self.person(subject)])

    def forget_people(self, people: Collection[bytes]) -> int:
        """Remove the choices of some people, by who they are in the file; returns how many there were."""
        if not people or not self._path.exists():
            return 0
        with self._lock, self._open() as db:
            gone = db.executemany("DELETE FROM choices WHERE person = ?", [(one,) for one in people]).rowcount
            self._refresh()
        return int(gone)

    # -- the file -----------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _open(self, *, create: bool = False) -> Iterator[sqlite3.Connection]:
        new = not self._path.exists()
        try:
            with contextlib.closing(sqlite3.connect(self._path, isolation_level=None, timeout=10)) as db:
                if create and new:
                    os.chmod(self._path, 0o600)
                    db.executescript("BEGIN;" + _SCHEMA)
                    db.execute("INSERT INTO meta VALUES ('key', ?)", (secrets.token_bytes(32),))
                    db.execute("COMMIT")
                db.execute("PRAGMA synchronous = FULL")
                db.execute("PRAGMA secure_delete = ON")
                found = db.execute("PRAGMA user_version").fetchone()[0]
                if found > SCHEMA_VERSION:
                    raise ShopError(
                        "the choices of people were written by a newer version",
                        value=found,
                        hint="pip install --upgrade penchant",
                    )
                if not self._key:
                    self._key = db.execute("SELECT value FROM meta WHERE key = 'key'").fetchone()[0]
                yield db
        except sqlite3.Error as error:
            raise StorageError(
                f"the choices of people cannot be read or written ({self._path.name}): {error}",
                hint="nothing was changed; check the disk, or restore the file from a backup",
            ) from error

    def person(self, subject: str) -> bytes:
        """Who somebody is in the file; no bytes while there is none, for its key comes with it."""
        if not self._key:
            self._refresh()  # another process may just have made it
        return hmac.digest(self._key, subject.encode(), "sha256")[:16] if self._key else b""

    def _look(self) -> None:
        if time.monotonic() - self._looked >= _LOOK_EVERY:
            with self._lock:
                self._looked = time.monotonic()
                if self._stamp() != self._mark:
                    self._refresh()

    def _stamp(self) -> tuple[int, int] | None:
        try:
            stat = os.stat(self._path)
        except FileNotFoundError:
            return None
        return (stat.st_mtime_ns, stat.st_ino)

    def _refresh(self) -> None:
        with self._lock:
            mark = self._stamp()
            state: dict[bytes, _Chosen] = {}
            if mark is not None:
                with self._open() as db:
                    for person, purpose, granted, ts, source in db.execute(
                        "SELECT person, purpose, granted, ts, source FROM choices ORDER BY ts, number"
                    ):
                        state.setdefault(person, {})[purpose] = (bool(granted), ts, sys.intern(source))
            self._state, self._mark = state, mark
