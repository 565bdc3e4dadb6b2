"""How a store stands, in counts and sizes."""

from __future__ import annotations

from pathlib import Path

from penchant.core import StoreStatus
from penchant.store import _compact
from penchant.store._files import folder_bytes
from penchant.store._journal import Journal
from penchant.store._table import EventTable


def status_of(
    path: Path,
    journal: Journal,
    table: EventTable,
    *,
    subjects: int,
    items: int,
    users: int,
    built: int,
    lost: int,
) -> StoreStatus:
    """Count what there is.

    Args:
        path: The shop.
        journal: Its journal.
        table: Its event table.
        subjects: People with events.
        items: Items of the catalogue.
        users: People with attributes.
        built: Buckets whose live histories are built.
        lost: Decisions that could not be kept.
    """
    state = table.state()
    waiting = journal.num_events(after=state.journal_seq)
    links, seen = journal.stamp_of_links()
    return StoreStatus(
        events=state.rows + waiting,
        journal_events=waiting,
        subjects=subjects,
        items=items,
        first_ts=_compact.oldest(journal, table),
        last_ts=_compact.newest(journal, table),
        table_version=state.version,
        decisions=journal.query("SELECT count(*) FROM decisions")[0][0],
        bytes=folder_bytes(path),
        detail={
            "event_files": len(state.all_files()),
            "live_buckets": built,
            "erased_subjects": journal.query("SELECT count(*) FROM tombstones")[0][0],
            "users": users,
            "damaged_events": journal.num_damaged(),
            "decisions_lost": lost,
            "links": links,
            "links_seen": seen,
        },
    )
