"""Guests who turned out to be somebody: which device belongs to whom, and since when.

Events keep the person they came with. Whose a guest's event is in the end is worked out when it is read, from links
known strictly before the moment that is asked for, so that what becomes known later never changes an earlier
snapshot. An event of a linked guest belongs to the user who was last identified on that device before it, or, if
there was none yet, to the first one after it: what was looked at before signing in is joined, and so is what comes in
late.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from penchant.core import GUEST_PREFIX, HISTORY_SHOWN, NUM_BUCKETS, History, Identified, bucket_of
from penchant.store._hashing import Persons
from penchant.store._journal import Journal, LinkRow
from penchant.store._rows import Row
from penchant.store._sorting import runs

_EVER = 1 << 62
_COLUMNS = ("anonymous_id", "user_id", "ts")


class _Ids(msgspec.Struct, frozen=True):
    """The two ids of a link, as they lie in the journal."""

    anonymous_id: str
    user_id: str


_decode = msgspec.json.Decoder(_Ids).decode


def _moment(as_of: int | None) -> int:
    return _EVER if as_of is None else as_of


class Owners(NamedTuple):
    """Whose a device was, over time: from ``ts[n]`` on it was ``users[n]``'s."""

    ts: list[int]
    users: list[str]

    def at(self, ts: int) -> str:
        """Whose an event of that time is.

        Example:
            >>> told = Owners([10, 20], ["mum", "son"])
            >>> told.at(5), told.at(10), told.at(25)
            ('mum', 'mum', 'son')
        """
        return self.users[max(bisect.bisect_right(self.ts, ts) - 1, 0)]

    def of(self, ts: Any) -> pa.Array:
        """The same for a column of times, (n,) string."""
        place = np.maximum(np.searchsorted(np.array(self.ts, np.int64), ts, side="right") - 1, 0)
        return pa.array(self.users, pa.string()).take(pa.array(place))


def link_of(found: Identified, persons: Persons) -> LinkRow:
    """A link as the journal keeps it."""
    body = msgspec.json.encode(_Ids(found.anonymous_id, found.user_id))
    return persons(GUEST_PREFIX + found.anonymous_id), persons(found.user_id), found.ts, body


def without_erased(links: Iterable[LinkRow], tombstones: set[bytes]) -> list[LinkRow]:
    """The links of which nobody was erased."""
    return [link for link in links if link[0] not in tombstones and link[1] not in tombstones]


def told_by(row: Row) -> Identified | None:
    """What an event with both ids tells."""
    if row.user_id is None or row.anonymous_id is None:
        return None
    return Identified(anonymous_id=row.anonymous_id, user_id=row.user_id, ts=row.ts)


def told_by_all(table: pa.Table | pa.RecordBatch) -> list[Identified]:
    """What many events (anonymous_id, user_id, ts) tell: each pair once, with the time it was first seen."""
    table = pa.table({name: table[name] for name in _COLUMNS}).drop_null()
    if not table.num_rows:
        return []
    first = table.group_by(["anonymous_id", "user_id"]).aggregate([("ts", "min")])
    return [
        Identified(anonymous_id=row["anonymous_id"], user_id=row["user_id"], ts=row["ts_min"])
        for row in first.to_pylist()
    ]


class Identities:
    """The links of a journal."""

    def __init__(self, journal: Journal, persons: Persons) -> None:
        self._journal, self._persons = journal, persons
        self._moved: tuple[Any, dict[int, pa.Table]] = (None, {})

    def learn(self, told: Iterable[Identified], tombstones: set[bytes]) -> None:
        """Keep links durably; none of erased people."""
        links = (link_of(found, self._persons) for found in told)
        self._journal.insert_events((), without_erased(links, tombstones))

    def look_back(self, read: Callable[[int, Sequence[str]], pa.Table], tombstones: set[bytes]) -> None:
        """Find links in events that were stored before links were kept; ``read`` reads columns of a bucket."""
        for bucket in range(NUM_BUCKETS):
            rows = read(bucket, ["anonymous_id", "user_id", "subject", "ts", "seq"])
            self.learn(told_by_all(rows), tombstones)
        self._journal.set_number("linked", 1)

    def guests(self, subject: str) -> list[str]:
        """The devices on which a user was identified, as subjects; none for a guest."""
        if subject.startswith(GUEST_PREFIX):
            return []
        found = self._journal.links("person = ? ORDER BY guest", self._persons(subject))
        return [GUEST_PREFIX + _decode(body).anonymous_id for _, body in found]

    def linked(self, subject: str, as_of: int | None = None) -> dict[str, Owners]:
        """The guests that a user turned out to be by links of before ``as_of``, or a guest itself, with whose each was.

        Empty where nobody was identified.
        """
        who = "guest = ?"
        if not subject.startswith(GUEST_PREFIX):
            who = "guest IN (SELECT guest FROM links WHERE person = ?)"
        return self._owners(f"{who} AND ts < ?", self._persons(subject), _moment(as_of))

    def _owners(self, where: str, *values: Any) -> dict[str, Owners]:
        found: dict[str, Owners] = {}
        for ts, body in self._journal.links(f"{where} ORDER BY ts, person", *values):
            ids = _decode(body)
            owners = found.setdefault(GUEST_PREFIX + ids.anonymous_id, Owners([], []))
            owners.ts.append(ts)
            owners.users.append(ids.user_id)
        return found

    def history(self, subject: str, limit: int, own: Callable[[str, int], History]) -> History | None:
        """A user's history with what is theirs of the guests they were; ``own`` reads that of one subject.

        None where events of two of them have the same time: which of them came first, histories do not tell.
        """
        mine = own(subject, limit)
        if subject.startswith(GUEST_PREFIX) or not self._journal.has_links:
            return mine
        linked = self.linked(subject)
        theirs = [_only(own(guest, limit), owners, subject) for guest, owners in linked.items()]
        return _merged([*theirs, mine], limit) if theirs else mine

    def joined(
        self,
        bucket: int,
        read: Callable[[int], pa.Table],
        *,
        as_of: int | None,
        key: tuple[Any, ...],
    ) -> pa.Table:
        """The rows of one bucket of people: without those of its guests that are somebody's, with those of guests
        elsewhere that are its users'.

        The rows that move are gathered once for all buckets, in one pass over the buckets that hold linked guests,
        and kept for the calls that follow with the same ``key`` and links. They are what memory is needed for.

        Args:
            bucket: Which one.
            read: Reads the rows of a bucket as they were stored; they have subject, ts and seq.
            as_of: Only links of before this time count.
            key: What the rows depend on: state of the table and of the journal, columns, times.
        """
        count = self._journal.num_links(_moment(as_of))
        table = read(bucket)
        if count == 0:
            return table
        if self._moved[0] != (key, as_of, count):
            self._moved = ((key, as_of, count), self._gather(read, self._owners("ts < ?", _moment(as_of))))
        moved = self._moved[1]
        guests = moved.get(-1 - bucket)
        if guests is not None:
            gone = pc.is_in(table["subject"], value_set=guests["subject"].combine_chunks())
            table = table.filter(pc.invert(gone))
        return table if bucket not in moved else pa.concat_tables([table, moved[bucket]])

    def _gather(self, read: Callable[[int], pa.Table], linked: dict[str, Owners]) -> dict[int, pa.Table]:
        """Rows that move, by the bucket they move to; under ``-1 - bucket`` the guests that leave a bucket."""
        by_bucket: dict[int, list[str]] = {}
        for guest in linked:
            by_bucket.setdefault(bucket_of(guest), []).append(guest)
        parts: dict[int, list[pa.Table]] = {}
        found: dict[int, pa.Table] = {}
        for bucket, guests in by_bucket.items():
            found[-1 - bucket] = pa.table({"subject": pa.array(guests, pa.string())})
            rows = read(bucket)
            rows = rows.filter(pc.is_in(rows["subject"], value_set=pa.array(guests, pa.string())))
            rows = renamed(rows, linked)
            people = pc.unique(rows["subject"])
            for home in sorted({bucket_of(person) for person in people.to_pylist()}):
                here = pa.array([p for p in people.to_pylist() if bucket_of(p) == home], pa.string())
                theirs = rows.filter(pc.is_in(rows["subject"], value_set=here))
                parts.setdefault(home, []).append(_in_bucket(theirs, home))
        return {**found, **{home: pa.concat_tables(tables) for home, tables in parts.items()}}


def renamed(table: pa.Table, linked: dict[str, Owners]) -> pa.Table:
    """Rows (subject, ts, ...) with the subject of each linked guest's replaced by whose they are."""
    subjects = table["subject"].combine_chunks()
    ts = table["ts"].to_numpy()
    pieces = [_renamed_run(subjects, ts, linked, start, end) for start, end in runs(subjects)]
    column = pa.chunked_array(pieces, pa.string())
    at = table.schema.get_field_index("subject")
    return table.set_column(at, table.schema.field(at), column)


def _renamed_run(subjects: Any, ts: Any, linked: dict[str, Owners], start: int, end: int) -> pa.Array:
    owners = linked.get(subjects[start].as_py())
    return owners.of(ts[start:end]) if owners is not None else subjects.slice(start, end - start)


def _in_bucket(rows: pa.Table, bucket: int) -> pa.Table:
    at = rows.schema.get_field_index("bucket")
    if at < 0:
        return rows
    column = pa.array(np.full(len(rows), bucket, np.int32))
    return rows.set_column(at, rows.schema.field(at), column)


def _only(history: History, owners: Owners, user: str) -> History:
    """The part of a guest's history that is a user's."""
    if set(owners.users) == {user}:
        return history
    keep = [n for n, ts in enumerate(history.ts.tolist()) if owners.at(ts) == user]
    fallen = history.older_items if owners.users[0] == user else frozenset()
    shown = [n for n, ts in enumerate(history.shown_ts.tolist()) if owners.at(ts) == user]
    return _picked(history, keep, fallen, shown)


def _picked(history: History, keep: Sequence[int], fallen: frozenset[str], shown: Sequence[int]) -> History:
    """Some events of a history, and some of what was shown."""
    index = np.array(keep, np.int64)
    return replace(
        history,
        ts=history.ts[index],
        kind=history.kind[index],
        item=[history.item[n] for n in keep],
        value=history.value[index],
        event_id=[history.event_id[n] for n in keep],
        older_items=fallen,
        shown_item=[history.shown_item[n] for n in shown],
        shown_ts=history.shown_ts[np.array(shown, np.int64)],
    )


def _order(moments: Sequence[npt.NDArray[np.int64]]) -> list[int] | None:
    """How the moments of several parts, one after the other, come by time; None where two parts share one."""
    ts = np.concatenate(moments)
    place = np.argsort(ts, kind="stable")
    source = np.repeat(np.arange(len(moments)), [len(part) for part in moments])[place]
    if np.any((np.diff(ts[place]) == 0) & (np.diff(source) != 0)):
        return None
    return place.tolist()  # type: ignore[no-any-return]


def _merged(parts: Sequence[History], limit: int) -> History | None:
    """Several histories as one of the last's subject, oldest first, the newest ``limit`` events.

    None where two share a moment.
    """
    order = _order([part.ts for part in parts])
    shown = _order([part.shown_ts for part in parts])
    if order is None or shown is None:
        return None
    whole = History(
        parts[-1].subject,
        np.concatenate([part.ts for part in parts]),
        np.concatenate([part.kind for part in parts]),
        [item for part in parts for item in part.item],
        np.concatenate([part.value for part in parts]),
        [event for part in parts for event in part.event_id],
        frozenset().union(*(part.older_items for part in parts)),
        [item for part in parts for item in part.shown_item],
        np.concatenate([part.shown_ts for part in parts]),
    )
    drop = max(len(order) - limit, 0)
    fallen = _picked(whole, order[:drop], whole.older_items, ()).seen if drop else whole.older_items
    return _picked(whole, order[drop:], fallen, shown[-HISTORY_SHOWN:])
