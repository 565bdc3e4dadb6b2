"""What came in, in the order of its numbers: live events and logged slates as one sequence.

Where several processes write a shop, each learns from this sequence and from nothing else, so that all of them know
the same once they have read up to the same number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from operator import attrgetter

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from penchant.core import KINDS, NUM_BUCKETS, Event, Slate
from penchant.store._journal import Journal
from penchant.store._reader import EventReader

Entry = tuple[int, Event | Slate]
_TOLD = ("ts", "kind", "user_id", "anonymous_id", "item_id", "recommendation_id", "props")
_told = attrgetter(*_TOLD)


def read_news(
    journal: Journal, events: EventReader, decode: Callable[[bytes], Slate | None], after: int
) -> tuple[int, list[Entry]]:
    """Everything after a number, and up to which number that is. Events have what is learned from, and no more."""
    up_to = journal.marks().next_seq - 1
    if up_to <= after:
        return max(up_to, after), []
    rows = events.arrived(after, up_to)
    found: list[Entry] = [
        (stored.seq, event) for stored in rows if (event := _event(*_told(stored.row))) is not None
    ]
    if (
        journal.marks().compacted > after
    ):  # some may be in the table by now, and some were while the journal was read
        found = [entry for bucket in range(NUM_BUCKETS) for entry in _moved(events, bucket, after, up_to)]
    for number, body in journal.numbered_decisions(after, up_to):
        slate = decode(body)
        if slate is not None:
            found.append((number, slate))
    return up_to, sorted(found, key=lambda entry: entry[0])


def _event(
    ts: int,
    kind: str,
    user_id: str | None,
    anonymous_id: str | None,
    item_id: str | None,
    recommendation_id: str | None,
    props: str | None,
) -> Event | None:
    """An event with what is learned from; None where there is nothing, or it is of a kind of a newer version."""
    if item_id is None and props is None:
        return None
    if kind not in KINDS:
        return None
    return Event(
        kind=kind,  # type: ignore[arg-type]
        ts=ts,
        user_id=user_id,
        anonymous_id=anonymous_id,
        item_id=item_id,
        recommendation_id=recommendation_id,
        props=_props(props),
    )


def _props(text: str | None) -> dict[str, object] | None:
    found = msgspec.json.decode(text) if text else None
    return found if isinstance(found, dict) else None


def _moved(events: EventReader, bucket: int, after: int, up_to: int) -> Iterator[Entry]:
    """The events of one bucket, from table and journal, as they came in."""
    table: pa.Table = events.bucket(bucket, (*_TOLD, "seq"))
    table = table.filter(pc.and_(pc.greater(table["seq"], after), pc.less_equal(table["seq"], up_to)))
    columns = [table[name].to_pylist() for name in (*_TOLD, "seq")]
    for *told, seq in zip(*columns, strict=True):
        if (event := _event(*told)) is not None:
            yield seq, event
