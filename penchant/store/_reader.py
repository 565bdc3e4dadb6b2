"""Reading events: the table's files and the journal as one, guests as whom they turned out to be."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from penchant.core import NUM_BUCKETS, TABLE_SCHEMA, Cipher, bucket_of
from penchant.core.errors import InputError, StorageError
from penchant.store._identity import Identities, renamed
from penchant.store._journal import Journal
from penchant.store._parquet import empty_table, read_file
from penchant.store._rows import Stored, rows_to_table, unseal_table
from penchant.store._sorting import merge_buckets, sort_events
from penchant.store._table import EventTable

_ORDER_COLUMNS = ("subject", "ts", "seq")
_MAX = (1 << 63) - 1


class EventReader:
    """Reads the events of one store."""

    def __init__(
        self, journal: Journal, table: EventTable, identities: Identities, cipher: Cipher | None
    ) -> None:
        self._log, self._table, self._identities, self._cipher = journal, table, identities, cipher

    def scan(
        self,
        *,
        bucket: int | None = None,
        subject: str | None = None,
        columns: Sequence[str] | None = None,
        as_of: int | None = None,
        since: int | None = None,
        up_to: int | None = None,
    ) -> pa.Table:
        """Events with since <= ts < as_of and seq <= up_to, ordered by (subject, ts, seq); see ``Store.scan``."""
        wanted = list(TABLE_SCHEMA.names if columns is None else columns)
        unknown = [name for name in wanted if name not in TABLE_SCHEMA.names]
        if unknown:
            raise InputError("events have no such column", value=unknown, hint=f"use {TABLE_SCHEMA.names}")
        if bucket is not None and not 0 <= bucket < NUM_BUCKETS:
            raise InputError("there is no such bucket", value=bucket, hint=f"use 0 to {NUM_BUCKETS - 1}")
        needed = [name for name in TABLE_SCHEMA.names if name in {*wanted, *_ORDER_COLUMNS}]
        if subject is not None:
            return self.person(subject, needed, since=since, as_of=as_of).select(wanted)
        numbers = range(NUM_BUCKETS) if bucket is None else [bucket]
        key = (self._table.latest_version(), self._log.last_seq(), tuple(needed), since, up_to)

        def read(number: int) -> pa.Table:
            table = self.bucket(number, needed, since=since, as_of=as_of)
            return table if up_to is None else table.filter(pc.less_equal(table["seq"], up_to))

        parts = [
            sort_events(self._identities.joined(number, read, as_of=as_of, key=key)) for number in numbers
        ]
        return merge_buckets(parts).select(wanted)

    def person(
        self, subject: str, columns: Sequence[str], *, since: int | None = None, as_of: int | None = None
    ) -> pa.Table:
        """One person's events, ordered, with those of the guests they turned out to be."""
        linked = self._identities.linked(subject, as_of)
        parts = [
            self.bucket(bucket_of(name), columns, since=since, as_of=as_of, subject=name)
            for name in {subject, *linked}
        ]
        table = renamed(pa.concat_tables(parts), linked)
        return sort_events(table.filter(pc.equal(table["subject"], subject)))

    def arrived(self, after: int, up_to: int) -> list[Stored]:
        """Events of the journal with after < seq <= up_to, in the order of arrival."""
        return self._log.rows(None, after=after, up_to=up_to, cipher=self._cipher)

    def bucket(
        self,
        bucket: int,
        columns: Sequence[str],
        *,
        since: int | None = None,
        as_of: int | None = None,
        subject: str | None = None,
        up_to: int = _MAX,
    ) -> pa.Table:
        """One bucket, ordered: the journal is read first and rows that have moved on are passed over."""
        low, high = -_MAX - 1 if since is None else since, _MAX if as_of is None else as_of - 1
        live = self._log.rows(bucket, up_to=up_to, cipher=self._cipher)
        parts, done = self.files(bucket, columns, low, high, subject)
        live = [s for s in live if s.seq > done and (subject is None or s.row.subject == subject)]
        table = unseal_table(pa.concat_tables(parts), self._cipher) if parts else empty_table(columns)
        if live:
            table = pa.concat_tables([table, rows_to_table(live, columns)])
        if since is not None or as_of is not None:
            ts = table["ts"]
            table = table.filter(pc.and_(pc.greater_equal(ts, low), pc.less_equal(ts, high)))
        return sort_events(table)

    def files(
        self, bucket: int, columns: Sequence[str], low: int, high: int, subject: str | None
    ) -> tuple[list[pa.Table], int]:
        """Tables of the bucket's files, and up to where the journal is in them."""
        for _ in range(10):
            state = self._table.state()
            files = [f for f in state.files.get(bucket, ()) if f.max_ts >= low and f.min_ts <= high]
            try:
                tables = [read_file(self._table.folder, file, columns, subject) for file in files]
            except FileNotFoundError:
                if self._table.latest_version() == state.version:  # not replaced: really gone
                    missing = [f.path for f in files if not (self._table.folder / f.path).exists()]
                    raise StorageError(
                        "event files are missing", value=missing, hint="restore the folder from a backup"
                    ) from None
                continue
            return tables, state.journal_seq
        raise StorageError("the event table changes faster than it can be read", hint="try again")

    def people(self, bucket: int) -> int:
        """How many people have events in one bucket, as they were stored."""
        parts, _ = self.files(bucket, ["subject"], -_MAX - 1, _MAX, None)
        people = {stored.row.subject for stored in self._log.rows(bucket)}
        for part in parts:
            people.update(pc.unique(part["subject"]).to_pylist())
        return len(people)
