"""Moving the journal into the table, exactly once, and keeping the table's files few."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pyarrow as pa

from penchant.core import Cipher
from penchant.core.errors import StorageError
from penchant.store._ids import write_run
from penchant.store._journal import Journal
from penchant.store._load import rewrite
from penchant.store._parquet import FILE_SCHEMA, BucketFiles, DataFile, read_file
from penchant.store._rows import Stored, rows_to_table, seal_table
from penchant.store._sorting import bucket_order, sort_events
from penchant.store._table import EventTable

_PAGE = 100_000  # journal rows in memory at a time
_MAX_FILES = 8  # small ones of one bucket, before they are merged
_SMALL = 250_000  # rows

Exclusive = Callable[[], AbstractContextManager[Any]]


def move_journal(
    journal: Journal,
    table: EventTable,
    cipher: Cipher | None,
    exclusive: Exclusive,
    changed: Callable[[], None],
    caught_up: Callable[[], bool],
) -> int:
    """Write all journal rows into the table with one commit, then delete them.

    The commit records up to which row the journal is in the table. Until the rows are deleted, readers pass
    over them by that number, so no event is ever seen twice or not at all. They stay while the live histories may lack
    some of them (``caught_up``).
    """
    with contextlib.suppress(StorageError):  # rows of an earlier move whose deletion failed
        done = table.state().journal_seq
        if journal.query("SELECT 1 FROM journal WHERE seq <= ? LIMIT 1", done) and caught_up():
            journal.delete_moved(done)
    with exclusive():
        last = journal.last_seq()
    if last <= table.state().journal_seq:
        return 0
    token = table.begin()
    files = BucketFiles(table.folder, token)
    try:
        moved = 0
        for page in _pages(journal, table.state().journal_seq, last, cipher):
            moved += len(page)
            rows = rows_to_table(page, FILE_SCHEMA.names)
            order, cuts = bucket_order(rows["subject"].combine_chunks(), rows["ts"].to_numpy())
            files.write(seal_table(rows, cipher), order, cuts)
        added = files.close()
        with exclusive():
            # Erasures wait for us, so the rows are the same as those read; their ids go into the index.
            run = write_run(table.ids_folder, *journal.pairs(up_to=last))
            table.commit(token, added, [], table.settled([run]), journal_seq=last)
            changed()
    except BaseException:
        files.abort()
        table.cancel(token)
        raise
    with contextlib.suppress(StorageError):  # the next move deletes them
        if caught_up():
            journal.delete_moved(last)
    return moved


def _pages(journal: Journal, after: int, last: int, cipher: Cipher | None) -> Iterator[list[Stored]]:
    while page := journal.rows(None, after=after, up_to=last, limit=_PAGE, cipher=cipher):
        yield page
        after = page[-1].seq


def merge_small_files(table: EventTable, exclusive: Exclusive, changed: Callable[[], None]) -> int:
    """Merge the small files of buckets that have many; returns how many files went."""
    small = [[file for file in files if file.rows <= _SMALL] for files in table.state().files.values()]
    crowded = [files for files in small if len(files) > _MAX_FILES]
    removed = [file for files in crowded for file in files]
    if not removed:
        return 0
    token = table.begin()
    added: list[DataFile] = []
    try:
        for files in crowded:
            parts = [read_file(table.folder, file, FILE_SCHEMA.names) for file in files]
            merged = sort_events(pa.concat_tables(parts))
            added += rewrite(table.folder, f"{token}-{files[0].bucket}", files[0].bucket, merged)
        with exclusive():
            table.commit(token, added, removed, table.ids.manifest.runs, data_change=False)
            changed()
    except BaseException:
        table.cancel(token)
        raise
    return len(removed)


def newest(journal: Journal, table: EventTable) -> int | None:
    """Time of the newest event in table and journal."""
    times = [file.max_ts for file in table.state().all_files()]
    found = journal.query("SELECT max(ts) FROM journal")[0][0]
    return max([*times, *([found] if found is not None else [])], default=None)


def oldest(journal: Journal, table: EventTable) -> int | None:
    """Time of the oldest event in table and journal."""
    times = [file.min_ts for file in table.state().all_files()]
    found = journal.query("SELECT min(ts) FROM journal")[0][0]
    return min([*times, *([found] if found is not None else [])], default=None)
