"""What the laws are tested on: a real store for a few examples, an obvious one in memory for many."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pytest

from penchant.core import (
    CATALOG_SCHEMA,
    HISTORY_EVENTS,
    HISTORY_SHOWN,
    KIND_CODES,
    SEQUENCE_KINDS,
    TARGET_KINDS,
    Event,
    History,
    StoreStatus,
    bucket_of,
    subject_of,
)

COLUMNS = {
    "subject": pa.string(),
    "ts": pa.int64(),
    "kind": pa.string(),
    "item_id": pa.string(),
    "value": pa.float64(),
    "currency": pa.string(),
    "event_id": pa.string(),
}


@dataclass
class MemoryStore:
    """Events in a list; reads as ``Store`` promises, by sorting everything each time."""

    catalog_ids: Sequence[str] = ()
    user_table: pa.Table = field(default_factory=lambda: pa.table({"user_id": pa.array([], pa.string())}))
    num_buckets: int = 3
    events: list[tuple[str, int, Event]] = field(default_factory=list)

    def append(self, events: Sequence[Event]) -> list[str]:
        for event in events:
            self.events.append((subject_of(event.user_id, event.anonymous_id), len(self.events), event))
        return ["stored"] * len(events)

    def _sorted(self) -> list[tuple[str, int, Event]]:
        return sorted(self.events, key=lambda row: (row[0], row[2].ts, row[1]))

    def scan(self, *, bucket=None, columns=None, as_of=None, since=None) -> pa.Table:
        rows = [
            {"subject": subject, **{name: getattr(event, name) for name in COLUMNS if name != "subject"}}
            for subject, _, event in self._sorted()
            if bucket in {None, bucket_of(subject, self.num_buckets)} and (as_of is None or event.ts < as_of)
        ]
        table = pa.Table.from_pylist(rows, pa.schema(COLUMNS))
        return table.select(columns) if columns else table

    def history(self, subject: str, limit: int = HISTORY_EVENTS) -> History:
        mine = [event for owner, _, event in self._sorted() if owner == subject]
        rows = [event for event in mine if event.item_id and event.kind in SEQUENCE_KINDS]
        last = rows[-limit:]
        shown = [event for event in mine if event.item_id and event.kind == "impression"][-HISTORY_SHOWN:]
        return History(
            subject=subject,
            ts=np.array([event.ts for event in last], np.int64),
            kind=np.array([KIND_CODES[event.kind] for event in last], np.uint8),
            item=[event.item_id for event in last],
            value=np.array([np.nan if event.value is None else event.value for event in last], np.float32),
            event_id=[event.event_id or "" for event in last],
            older_items=frozenset(e.item_id for e in rows[:-limit] if e.item_id and e.kind in TARGET_KINDS),
            shown_item=[event.item_id for event in shown],
            shown_ts=np.array([event.ts for event in shown], np.int64),
        )

    def catalog(self) -> pa.Table:
        rows = [
            {"id": key, "category": f"Dept {number % 3} > Sub"}
            for number, key in enumerate(sorted(self.catalog_ids))
        ]
        return pa.Table.from_pylist(rows, CATALOG_SCHEMA)

    def users(self) -> pa.Table:
        return self.user_table

    def status(self) -> StoreStatus:
        return StoreStatus(len(self.events), len(self.events), None, 0, None, None, 0, 0, 0)


@pytest.fixture(scope="session")
def memory_store() -> Callable[..., MemoryStore]:
    return MemoryStore
