"""The bulk road: batches to sorted Parquet files, deduplicated, with memory bounded by one group of rows."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from penchant.core import DAY, EVENT_SCHEMA, Cipher, Identified
from penchant.store._hashing import U64, Persons, hash_contents, hash_texts
from penchant.store._identity import told_by_all
from penchant.store._ids import Run, merge_runs, probe, settle, sorted_pairs, write_run
from penchant.store._parquet import FILE_SCHEMA, BucketFiles, DataFile, read_file
from penchant.store._rows import conform, seal_table, unseal_table
from penchant.store._sorting import bucket_order

GROUP_ROWS = 500_000
GROUP_BYTES = 128 << 20
ACCEPT, ALREADY, DUPLICATE, CONFLICT = range(4)
REFUSED_SCHEMA = EVENT_SCHEMA
for _field in (
    pa.field("source", pa.string()),
    pa.field("row", pa.int64()),
    pa.field("reason", pa.string()),
    pa.field("detail", pa.string()),
):
    REFUSED_SCHEMA = REFUSED_SCHEMA.append(_field)
_DETAILS = {
    DUPLICATE: ("duplicate", "the same event came earlier in this source"),
    CONFLICT: ("conflict", "another event with this event_id was stored first"),
}


@dataclass
class Known:
    """Ids that came before a load: the published runs, and those in the journal (ascending)."""

    runs: list[Run]
    journal: tuple[U64, U64]


@dataclass
class Counts:
    """What became of the rows."""

    accepted: int = 0
    already: int = 0
    erased: int = 0
    late: int = 0
    reasons: dict[str, int] = field(default_factory=dict)


class RefusedRows:
    """Refused rows, kept on disk so that a source full of duplicates does not fill the memory."""

    def __init__(self, folder: Path, token: str, source: str) -> None:
        self._path, self._source = folder / f".refused-{token}.arrow", source
        self._file: Any = None
        self._table: pa.Table | None = None

    def add(self, batch: pa.RecordBatch, verdict: npt.NDArray[np.uint8]) -> None:
        """Keep the rows whose verdict is a refusal, with the reason."""
        rows = np.flatnonzero(verdict >= DUPLICATE)
        if len(rows) == 0:
            return
        picked = batch.take(pa.array(rows))
        columns = [picked.column(name) for name in EVENT_SCHEMA.names]
        columns += [pa.repeat(self._source, len(rows)), picked.column("row")]
        which = pa.array(verdict[rows] - DUPLICATE)
        for words in zip(*(_DETAILS[code] for code in (DUPLICATE, CONFLICT)), strict=True):
            columns.append(pa.array(words, pa.string()).take(which))
        if self._file is None:
            self._file = pa.ipc.new_file(str(self._path), REFUSED_SCHEMA)
        self._file.write_batch(pa.record_batch(columns, schema=REFUSED_SCHEMA))

    def table(self) -> pa.Table:
        """All refused rows, mapped from a file that has no name any more; no row may be added after."""
        if self._table is None:
            self._table = REFUSED_SCHEMA.empty_table()
            if self._file is not None:
                self._file.close()
                with pa.memory_map(str(self._path)) as mapped:
                    self._table = pa.ipc.open_file(mapped).read_all()
                self._path.unlink()
        return self._table

    def discard(self) -> None:
        """Delete the file."""
        with contextlib.suppress(Exception):
            if self._file is not None:
                self._file.close()
        self._path.unlink(missing_ok=True)


class Loader:
    """One bulk load under way. ``add`` every batch, then ``finish``; ``abort`` leaves nothing behind.

    Args:
        folder: The folder of the event table.
        ids_folder: The folder of the id index.
        token: The announced token of the change.
        source: The name of what is loaded, for refused rows.
        known: Ids stored before.
        persons: Names people for the comparison with ``tombstones``.
        tombstones: Erased persons, whose events are dropped.
        reserve: Hands out that many numbers of arrival, returns the first.
        newest: Time of the newest event stored before; None when there is none.
        cipher: Seals free text, if given.
    """

    def __init__(
        self,
        folder: Path,
        ids_folder: Path,
        token: str,
        source: str,
        *,
        known: Known,
        persons: Persons,
        tombstones: set[bytes],
        reserve: Callable[[int], int],
        newest: int | None,
        cipher: Cipher | None,
    ) -> None:
        self._folder, self._ids_folder = folder, ids_folder
        self._known, self._persons, self._tombstones = known, persons, tombstones
        self._reserve, self._newest, self._cipher = reserve, newest, cipher
        self._files = BucketFiles(folder, token)
        self._pending: list[pa.RecordBatch] = []
        self._rows = self._bytes = 0
        self.accepted_runs: list[Run] = []  # ids of this load that are new
        self._repeated_runs: list[Run] = []  # ids of this load that were stored before
        self.refused = RefusedRows(folder, token, source)
        self.counts = Counts()
        self._told: dict[tuple[str, str], int] = {}

    def add(self, batch: pa.RecordBatch) -> None:
        """Take a batch (EVENT_SCHEMA and ``row``); rows are worked off in groups."""
        batch = conform(batch)
        for start in range(0, batch.num_rows, GROUP_ROWS):
            part = batch.slice(start, GROUP_ROWS)
            if self._pending and self._rows + part.num_rows > GROUP_ROWS:
                self._work()
            self._pending.append(part)
            self._rows += part.num_rows
            self._bytes += part.nbytes
            if self._rows >= GROUP_ROWS or self._bytes >= GROUP_BYTES:
                self._work()

    def finish(self) -> list[DataFile]:
        """Work off the rest; returns the new files, durable and not yet visible."""
        self._work()
        return self._files.close()

    def abort(self) -> None:
        """Close what is open; unfinished files go, finished ones are the caller's (``EventTable.cancel``)."""
        self._files.abort()
        self.refused.discard()

    def _work(self) -> None:
        if not self._rows:
            return
        table = pa.Table.from_batches(self._pending).combine_chunks()
        self._pending, self._rows, self._bytes = [], 0, 0
        for batch in table.to_batches():  # one, but for more than 2 GB of text
            self._work_group(batch)

    def _work_group(self, batch: pa.RecordBatch) -> None:
        batch = self._without_erased(batch)
        if batch.num_rows == 0:
            return
        for found in told_by_all(batch):
            pair = (found.anonymous_id, found.user_id)
            self._told[pair] = min(found.ts, self._told.get(pair, found.ts))
        ids, contents = hash_texts(batch.column(0)), hash_contents(batch)
        verdict = self._judge(ids, contents)
        self.refused.add(batch, verdict)
        self.counts.already += int(np.count_nonzero(verdict == ALREADY))
        for code, (reason, _) in _DETAILS.items():
            number = int(np.count_nonzero(verdict == code))
            self.counts.reasons[reason] = self.counts.reasons.get(reason, 0) + number
        self.remember(ids, contents, verdict)
        accepted = np.flatnonzero(verdict == ACCEPT)
        if len(accepted):
            self._write(batch if len(accepted) == batch.num_rows else batch.take(pa.array(accepted)))

    def _without_erased(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        if not self._tombstones:
            return batch
        subjects = batch.column("subject").dictionary_encode()
        erased = [self._persons(s) in self._tombstones for s in subjects.dictionary.to_pylist()]
        if not any(erased):
            return batch
        keep = ~np.array(erased)[subjects.indices.to_numpy()]
        self.counts.erased += int(np.count_nonzero(~keep))
        return batch.filter(pa.array(keep))

    def told(self) -> list[Identified]:
        """Guests who turned out to be somebody, by the events of this load; each pair once, at its earliest."""
        return [
            Identified(anonymous_id=guest, user_id=user, ts=ts) for (guest, user), ts in self._told.items()
        ]

    def remember(self, ids: U64, contents: U64, verdict: npt.NDArray[np.uint8]) -> None:
        """Keep the ids of judged rows, for the rows that follow and for the index."""
        self._repeated_runs = self._with_run(self._repeated_runs, ids, contents, verdict == ALREADY)
        self.accepted_runs = self._with_run(self.accepted_runs, ids, contents, verdict == ACCEPT)

    def _with_run(self, runs: list[Run], ids: U64, contents: U64, which: npt.NDArray[np.bool_]) -> list[Run]:
        if not which.any():
            return runs
        run = write_run(self._ids_folder, *sorted_pairs(ids[which], contents[which]))
        return settle(self._ids_folder, [*runs, run], [*runs, run])[0]

    def _judge(self, ids: U64, contents: U64) -> npt.NDArray[np.uint8]:
        """What becomes of every row: the first event of an id wins, in the table, the journal and here."""
        order = np.argsort(ids, kind="stable")
        is_first = np.ones(len(ids), bool)
        is_first[1:] = np.diff(ids[order]) != 0
        unique = ids[order][is_first]
        of_unique = np.cumsum(is_first) - 1  # (n,) in sorted order: which unique id a row has
        reference = contents[order][is_first]
        stored, earlier = np.zeros(len(unique), bool), np.zeros(len(unique), bool)
        for hits, found in self._lookups(self._known.runs, unique, self._known.journal):
            stored[hits], reference[hits] = True, found
        for hits, found in self._lookups(self.accepted_runs, unique):
            earlier[hits], reference[hits] = True, found
        for hits, _ in self._lookups(self._repeated_runs, unique):
            earlier[hits] = True
        matches = contents[order] == reference[of_unique]
        # Among the rows that say the same, the first of this source is the one that counts.
        counting = np.flatnonzero(matches)
        leads = np.zeros(len(ids), bool)
        leads[counting[np.diff(of_unique[counting], prepend=-1) != 0]] = True
        leads &= ~earlier[of_unique]
        sorted_verdict = np.where(matches, DUPLICATE, CONFLICT).astype(np.uint8)
        sorted_verdict[leads] = np.where(stored[of_unique[leads]], ALREADY, ACCEPT)
        verdict = np.empty_like(sorted_verdict)
        verdict[order] = sorted_verdict
        return verdict

    def _lookups(self, runs: list[Run], unique: U64, pairs: tuple[U64, U64] | None = None) -> Any:
        for run in runs:
            yield probe(self._ids_folder, run, unique)
        if pairs is not None and len(pairs[0]):
            keys, values = pairs
            at = np.minimum(np.searchsorted(keys, unique), len(keys) - 1)
            hits = np.flatnonzero(keys[at] == unique)
            yield hits, values[at[hits]]

    def _write(self, batch: pa.RecordBatch) -> None:
        first = self._reserve(batch.num_rows)
        ts = batch.column("ts").to_numpy()
        self.counts.accepted += batch.num_rows
        if self._newest is not None:
            self.counts.late += int(np.count_nonzero(ts < self._newest - DAY))
        seq = pa.array(np.arange(first, first + batch.num_rows, dtype=np.int64))
        columns = [seq if name == "seq" else batch.column(name) for name in FILE_SCHEMA.names]
        table = seal_table(pa.table(columns, schema=FILE_SCHEMA), self._cipher)
        order, cuts = bucket_order(batch.column("subject"), ts)
        self._files.write(table, order, cuts)

    def overlap(self, hashes: U64) -> U64:
        """Which of these ascending id hashes this load holds as new events."""
        hits = [
            hashes[found] for run in self.accepted_runs for found in [probe(self._ids_folder, run, hashes)[0]]
        ]
        return np.unique(np.concatenate(hits)) if hits else np.empty(0, np.uint64)

    def withdraw(
        self, files: list[DataFile], hashes: U64, journal: tuple[U64, U64], token: str
    ) -> list[DataFile]:
        """Take events out of the finished files that were appended while this load ran: they came first.

        Same content counts as already stored, other content is refused (its row in the source is not known
        any more). Returns the files that stand for the load now.
        """
        result = []
        for number, file in enumerate(files):
            table = read_file(self._folder, file, FILE_SCHEMA.names).combine_chunks()
            batch = table.to_batches()[0]
            ids = hash_texts(batch.column(0))
            gone = np.isin(ids, hashes)
            if not gone.any():
                result.append(file)
                continue
            self._count_withdrawn(batch.filter(pa.array(gone)), journal)
            (self._folder / file.path).unlink()
            kept = batch.filter(pa.array(~gone))
            if kept.num_rows:
                result += rewrite(
                    self._folder, f"{token}-{number}", file.bucket, pa.Table.from_batches([kept])
                )
        self.accepted_runs = [merge_runs(self._ids_folder, self.accepted_runs, without=hashes)]
        return result

    def _count_withdrawn(self, batch: pa.RecordBatch, journal: tuple[U64, U64]) -> None:
        keys, values = journal
        table = unseal_table(pa.Table.from_batches([batch.select(EVENT_SCHEMA.names)]), self._cipher)
        plain = table.combine_chunks().to_batches()[0]
        same = values[np.searchsorted(keys, hash_texts(batch.column(0)))] == hash_contents(plain)
        row = pa.nulls(batch.num_rows, pa.int64())
        verdict = np.where(same, ALREADY, CONFLICT).astype(np.uint8)
        self.refused.add(plain.append_column(pa.field("row", pa.int64()), row), verdict)
        self.counts.accepted -= batch.num_rows
        self.counts.already += int(np.count_nonzero(same))
        conflicts = int(np.count_nonzero(~same))
        self.counts.reasons["conflict"] = self.counts.reasons.get("conflict", 0) + conflicts
        if self._newest is not None:
            late = pc.sum(pc.less(batch.column("ts"), self._newest - DAY)).as_py()
            self.counts.late -= int(late or 0)


def rewrite(folder: Path, token: str, bucket: int, table: pa.Table) -> list[DataFile]:
    """Write rows of one bucket (FILE_SCHEMA, already ordered) to one new file."""
    files = BucketFiles(folder, token)
    try:
        order = np.arange(len(table))
        for start in range(0, len(table), GROUP_ROWS):
            part = table.slice(start, GROUP_ROWS).combine_chunks()
            files.write(part, order[: len(part)], [(bucket, 0, len(part))])
        return files.close()
    except BaseException:
        files.abort()
        raise
