"""The plans of a language model, kept in ``plans.db`` beside what they were made for.

A plan belongs to a set of interests, never to a person: whoever holds the set shares it. Names alone stand in it.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from penchant.core import Ints, iso
from penchant.core.errors import StorageError
from penchant.engine._planner import Spent
from penchant.models import Wording, recent_sets

if TYPE_CHECKING:
    from penchant.engine._planner import PlannerSettings

_NAME = "plans.db"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS plan (
    wording TEXT NOT NULL, model TEXT NOT NULL, held TEXT NOT NULL, planned TEXT NOT NULL, map TEXT NOT NULL,
    ts INTEGER NOT NULL, PRIMARY KEY (wording, model, held)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS weight (
    wording TEXT NOT NULL, model TEXT NOT NULL, weight REAL NOT NULL, PRIMARY KEY (wording, model)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS spent (
    day TEXT PRIMARY KEY, questions INTEGER NOT NULL, input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL,
    cost REAL NOT NULL) WITHOUT ROWID;
"""

Held = tuple[int, ...]


@dataclass(frozen=True)
class Suggestion:
    """What a language model would try on people who hold some interests, best first; when it was asked."""

    held: Held
    planned: tuple[int, ...]
    ts: int


@dataclass(frozen=True)
class Plans:
    """All plans for one map: what requests look up. ``weight``: their part in the chances of the next interest."""

    model: str = ""
    weight: float = 0.0
    named: int = 0
    suggestions: Mapping[Held, Suggestion] = field(default_factory=dict)

    def of(self, held_H: Ints) -> Suggestion | None:
        """The plan for the most of the interests that somebody took up last; None where there is none."""
        if not self.suggestions:
            return None
        for held in reversed(recent_sets(held_H, self.named)):
            if (found := self.suggestions.get(held)) is not None:
                return found
        return None


class PlanBook:
    """The plans of one shop.

    Args:
        shop: Its folder.
    """

    def __init__(self, shop: Path) -> None:
        self.path = shop / _NAME

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            with contextlib.closing(sqlite3.connect(self.path, timeout=10)) as db, db:
                db.execute("PRAGMA secure_delete=ON")
                db.executescript(_SCHEMA)
                yield db
        except sqlite3.Error as error:
            hint = "delete the file: `penchant plan` makes the plans again"
            raise StorageError(
                f"the plans cannot be used: {error}", value=str(self.path), hint=hint
            ) from error

    @property
    def stamp(self) -> tuple[int, int]:
        """Changes with every change of the book."""
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return 0, 0
        return found.st_mtime_ns, found.st_size

    def suggestions(self, wording: Wording, model: str) -> dict[Held, Suggestion]:
        """The plans of a model for a map."""
        if not self.path.exists():
            return {}
        number = {name: g for g, name in enumerate(wording.names)}
        with self._open() as db:
            asked = "SELECT held, planned, ts FROM plan WHERE wording = ? AND model = ?"
            rows = db.execute(asked, (wording.id, model)).fetchall()
        found = {}
        for held, planned, ts in rows:
            key, best = (
                tuple(number[name] for name in msgspec.json.decode(text)) for text in (held, planned)
            )
            found[key] = Suggestion(key, best, ts)
        return found

    def keep(
        self,
        wording: Wording,
        model: str,
        map_id: str,
        ts: int,
        found: Sequence[tuple[Held, Sequence[int]]],
        spent: Spent,
    ) -> None:
        """Keep some plans, and what the day has seen so far, in one commit."""
        rows = [
            (wording.id, model, self._names(wording, held), self._names(wording, planned), map_id, ts)
            for held, planned in found
        ]
        with self._open() as db:
            db.executemany("INSERT OR REPLACE INTO plan VALUES (?, ?, ?, ?, ?, ?)", rows)
            row = (_day(ts), spent.questions, spent.input_tokens, spent.output_tokens, spent.cost)
            db.execute("INSERT OR REPLACE INTO spent VALUES (?, ?, ?, ?, ?)", row)

    @staticmethod
    def _names(wording: Wording, numbers: Sequence[int]) -> str:
        return msgspec.json.encode([wording.names[g] for g in numbers]).decode()

    def expire(self, wording: Wording | None) -> int:
        """Drop the plans that were made for other interests than these (None: all); returns how many went."""
        kept = ("" if wording is None else wording.id,)
        with self._open() as db:
            db.execute("DELETE FROM weight WHERE wording != ?", kept)
            return db.execute("DELETE FROM plan WHERE wording != ?", kept).rowcount

    def forget(self, wording: Wording, sets: Sequence[Held]) -> int:
        """Drop the plans for some sets, of every model; returns how many went."""
        with self._open() as db:
            asked = "DELETE FROM plan WHERE wording = ? AND held = ?"
            return sum(db.execute(asked, (wording.id, self._names(wording, held))).rowcount for held in sets)

    def spent(self, ts: int) -> Spent:
        """What was asked on the day of a time."""
        with self._open() as db:
            row = db.execute(
                "SELECT questions, input_tokens, output_tokens, cost FROM spent WHERE day = ?", (_day(ts),)
            ).fetchone()
        return Spent() if row is None else Spent(**dict(zip(Spent.__struct_fields__, row, strict=True)))

    def weigh(self, wording: Wording, model: str, weight: float) -> None:
        """Note what the plans of a model are to count."""
        with self._open() as db:
            db.execute("INSERT OR REPLACE INTO weight VALUES (?, ?, ?)", (wording.id, model, weight))

    def weight(self, wording: Wording, model: str) -> float:
        """What the plans of a model are to count; 0 where nobody found that they help."""
        if not self.path.exists():
            return 0.0
        with self._open() as db:
            asked = "SELECT weight FROM weight WHERE wording = ? AND model = ?"
            row = db.execute(asked, (wording.id, model)).fetchone()
        return 0.0 if row is None else float(row[0])


def _day(ts: int) -> str:
    return iso(ts)[:10]


def load_plans(shop: Path, settings: PlannerSettings, names: Sequence[str]) -> Plans:
    """What requests look up for a map of these names: nothing where no language model is set."""
    if settings.llm == "off" or not names:
        return Plans()
    book, wording = PlanBook(shop), Wording(names, settings.plans)
    weight = book.weight(wording, settings.name) if settings.weight == "auto" else settings.weight
    return Plans(settings.name, weight, settings.named, book.suggestions(wording, settings.name))
