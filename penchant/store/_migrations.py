"""Journals of older versions, brought up to date when they are opened for writing."""

from __future__ import annotations

from penchant.store._journal import (
    EVENT_COLUMNS,
    SCHEMA_3,
    SCHEMA_VERSION,
    Journal,
    put_number,
)
from penchant.store._sums import decision_sum, event_sum


def bring_up_to_date(journal: Journal, schema: int) -> None:
    """Change a journal of an older version, one transaction a step."""
    if schema < 2:
        _add_sums(journal)
    if schema < SCHEMA_VERSION:
        _add_links(journal)


def _add_sums(journal: Journal) -> None:
    """From version 1, which had no checksums."""
    with journal.transaction("cannot bring the journal up to date") as db:
        db.execute("ALTER TABLE journal ADD COLUMN sum INTEGER")
        db.execute("ALTER TABLE decisions ADD COLUMN sum INTEGER")
        db.execute("CREATE TABLE damaged (seq INTEGER PRIMARY KEY, body BLOB)")
        columns = EVENT_COLUMNS.removesuffix(", sum")
        for row in db.execute(f"SELECT {columns} FROM journal").fetchall():
            db.execute("UPDATE journal SET sum = ? WHERE seq = ?", (event_sum(row), row[0]))
        for number, *row in db.execute(
            "SELECT number, recommendation_id, ts, person, body FROM decisions"
        ).fetchall():
            made = decision_sum((row[0], row[1], row[2], row[3]))
            db.execute("UPDATE decisions SET sum = ? WHERE number = ?", (made, number))
        put_number(db, "schema", 2)


def _add_links(journal: Journal) -> None:
    """From version 2, which did not join guests to users; the store looks for links in what is there."""
    with journal.transaction("cannot bring the journal up to date") as db:
        for statement in SCHEMA_3.split(";")[:-1]:
            db.execute(statement)
        put_number(db, "linked", 0)
        put_number(db, "schema", SCHEMA_VERSION)
