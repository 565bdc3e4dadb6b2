"""The event table (Delta Lake) and its id index, changed together by one commit that a crash cannot split.

A change is prepared in files that nothing refers to, announced in ``ids/pending.json``, made visible by one
Delta commit that carries the same token, and then published in ``ids/manifest.json``. Opening a shop looks
whether the announced token is in the Delta log: if so the publication is finished, else the files go.
"""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from penchant.core import EVENT_SCHEMA, TABLE_SCHEMA, Cipher
from penchant.core.errors import StorageError
from penchant.store._files import atomic_write, fsync, guard
from penchant.store._hashing import hash_contents, hash_texts
from penchant.store._ids import IdIndex, Manifest, Run, merge_runs, settle, sorted_pairs, write_run
from penchant.store._parquet import DataFile, read_file
from penchant.store._rows import unseal_table

JOURNAL = "penchant-journal"  # the Delta application transaction: how far the journal is in the table
_CONFIGURATION: dict[str, str | None] = {
    "delta.dataSkippingStatsColumns": "ts",  # no ids in the log's statistics
    "delta.deletedFileRetentionDuration": "interval 0 hours",
}


class Pending(msgspec.Struct, frozen=True):
    """A change under way: its token, the index once it is committed, and the files it replaces."""

    token: str
    manifest: Manifest | None = None
    removed: list[str] = []


@dataclass(frozen=True)
class TableState:
    """What the table consists of at one version."""

    version: int = -1  # -1: nothing was ever written
    journal_seq: int = -1  # journal rows up to here are in the table
    files: dict[int, list[DataFile]] = field(default_factory=dict)  # bucket -> files

    @property
    def rows(self) -> int:
        """Events in the table."""
        return sum(file.rows for file in self.all_files())

    def all_files(self) -> list[DataFile]:
        """Every file, bucket by bucket."""
        return [file for bucket in sorted(self.files) for file in self.files[bucket]]


class EventTable:
    """The Delta table under ``events/`` and the id index under ``ids/``."""

    def __init__(self, shop: Path, *, readonly: bool, cipher: Cipher | None) -> None:
        self._cipher = cipher
        self.announce: Callable[[int], None] = lambda version: None  # told of a version before it is made
        self.folder, self.ids_folder = shop / "events", shop / "ids"
        self.ids = IdIndex(self.ids_folder)
        self._delta: Any = None
        self._state = TableState()
        if not readonly:
            self.folder.mkdir(exist_ok=True)
            self.ids_folder.mkdir(exist_ok=True)

    # ---- reading -------------------------------------------------------------------------------------

    def latest_version(self) -> int:
        """The newest version in the Delta log by its file names, -1 without a table."""
        try:
            names = os.listdir(self.folder / "_delta_log")
        except FileNotFoundError:
            return -1
        numbers = [int(n[:20]) for n in names if n.endswith(".json") and n[:20].isdigit() and len(n) == 25]
        return max(numbers, default=-1)

    def state(self) -> TableState:
        """The files of the newest version; cheap while nothing changed."""
        version = self.latest_version()
        if version != self._state.version:
            with guard(
                "the log of the event table cannot be read", self.folder / "_delta_log", "no file was changed"
            ):
                self._state = self._read_state()
        return self._state

    def _read_state(self) -> TableState:
        import pyarrow as pa
        from deltalake import DeltaTable

        self._delta = delta = DeltaTable(str(self.folder))
        actions = pa.table(delta.get_add_actions(flatten=True))
        files: dict[int, list[DataFile]] = {}
        for row in actions.to_pylist():
            bucket = int(row["partition.bucket"])
            low, high = row.get("min.ts"), row.get("max.ts")
            file = DataFile(bucket, row["path"], row["num_records"], low, high, row["size_bytes"])
            files.setdefault(bucket, []).append(file)
        for listed in files.values():
            listed.sort(key=lambda f: f.path)
        journal_seq = delta.transaction_version(JOURNAL)
        return TableState(delta.version(), -1 if journal_seq is None else journal_seq, files)

    # ---- changing ------------------------------------------------------------------------------------

    def begin(self) -> str:
        """Announce a change; returns the token that its files must carry in their names."""
        self._settle_pending()
        token = uuid.uuid4().hex
        self._announce(Pending(token))
        return token

    def _announce(self, pending: Pending) -> None:
        atomic_write(self.ids_folder / "pending.json", msgspec.json.encode(pending))

    def commit(
        self,
        token: str,
        added: Sequence[DataFile],
        removed: Sequence[DataFile],
        runs: Sequence[Run],
        *,
        journal_seq: int | None = None,
        data_change: bool = True,
    ) -> int:
        """Make a prepared change visible at once; returns the new version of the table.

        Args:
            token: From ``begin``.
            added: New files, durable already.
            removed: Files to drop; they are deleted from the disk too.
            runs: The whole id index after the change.
            journal_seq: The journal is in the table up to here; None when the change does not move it.
            data_change: False when the rows stay the same and only their files change.
        """
        self._create()
        version = self.state().version + 1
        pending = Pending(token, Manifest(version, list(runs)), [file.path for file in removed])
        self._announce(pending)
        self.announce(version)
        with guard("cannot write the log of the event table", self.folder / "_delta_log"):
            try:
                self._write_log(token, added, removed, journal_seq, data_change)
            except Exception:
                if not self._is_committed(pending):
                    self.announce(self.latest_version())
                    raise  # a failure after the commit (such as of a checkpoint) does not undo it
            self.ids.use(Manifest(version, list(runs)))
        # The change is committed: a failure from here on is mended by the next change or by opening the shop.
        with contextlib.suppress(OSError, StorageError):
            self._sync_log(version)
            self._finish(pending)
        return version

    def _create(self) -> None:
        if self.latest_version() >= 0:
            return
        import pyarrow as pa
        from deltalake import DeltaTable

        with guard("cannot create the event table", self.folder):
            schema = pa.schema(TABLE_SCHEMA)
            DeltaTable.create(
                str(self.folder), schema, partition_by=["bucket"], name="events", configuration=_CONFIGURATION
            )
            self._sync_log(0)
        self._publish(Manifest(0, []))

    def _write_log(
        self,
        token: str,
        added: Sequence[DataFile],
        removed: Sequence[DataFile],
        journal_seq: int | None,
        change: bool,
    ) -> None:
        from deltalake import CommitProperties, PostCommitHookProperties, Transaction
        from deltalake.transaction import RemoveAction

        now = time.time_ns() // 1_000_000
        actions: list[Any] = [_add_action(file, now, change) for file in added]
        actions += [RemoveAction(f.path, change, now, f.size, {"bucket": str(f.bucket)}) for f in removed]
        moved = [Transaction(JOURNAL, journal_seq)] if journal_seq is not None else None
        self._delta.create_write_transaction(
            actions,
            "append",
            self._delta.schema(),
            partition_by=["bucket"],
            commit_properties=CommitProperties(
                custom_metadata={"penchant": token}, app_transactions=moved, max_commit_retries=0
            ),
            post_commithook_properties=PostCommitHookProperties(create_checkpoint=True),
        )

    def _sync_log(self, version: int) -> None:
        fsync(self._log_file(version))
        fsync(self.folder / "_delta_log")
        fsync(self.folder)

    def _log_file(self, version: int) -> Path:
        return self.folder / "_delta_log" / f"{version:020d}.json"

    def _is_committed(self, pending: Pending) -> bool:
        if pending.manifest is None:
            return False
        try:
            return pending.token.encode() in self._log_file(pending.manifest.version).read_bytes()
        except FileNotFoundError:
            return False

    def _publish(self, manifest: Manifest) -> None:
        atomic_write(self.ids_folder / "manifest.json", msgspec.json.encode(manifest))
        self.ids.use(manifest)

    def _finish(self, pending: Pending) -> None:
        """Publish the index of a committed change and delete what the change replaced."""
        assert pending.manifest is not None
        self.ids.use(pending.manifest)
        atomic_write(self.ids_folder / "manifest.json", msgspec.json.encode(pending.manifest))
        self.remove_files(pending.removed)
        (self.ids_folder / "pending.json").unlink(missing_ok=True)
        self.ids.sweep(pending.manifest.runs)

    def remove_files(self, paths: Iterable[str]) -> None:
        """Delete data files from the disk."""
        folders = set()
        for path in paths:
            (self.folder / path).unlink(missing_ok=True)
            folders.add((self.folder / path).parent)
        for folder in folders:
            fsync(folder)

    def cancel(self, token: str) -> None:
        """Give up a change that was announced; its files go, unless it was committed after all."""
        with contextlib.suppress(OSError, StorageError):
            pending = self._read_pending()
            if pending is not None and pending.token == token and self._is_committed(pending):
                self._finish(pending)
                return
            self._discard(token)

    def _discard(self, token: str) -> None:
        for file in [
            *self.folder.glob(f"bucket=*/{token}*.parquet"),
            *self.folder.glob(f".refused-{token}*"),
        ]:
            file.unlink(missing_ok=True)
        (self.ids_folder / "pending.json").unlink(missing_ok=True)
        self.ids.sweep(self.ids.manifest.runs)

    # ---- repairing -----------------------------------------------------------------------------------

    def _settle_pending(self) -> None:
        """Finish or undo the change that was under way when its process stopped."""
        pending = self._read_pending()
        if pending is None:
            return
        if self._is_committed(pending):
            self._finish(pending)
        else:
            self._discard(pending.token)

    def refresh(self) -> int:
        """Take up what another process changed; returns up to which version the index of ids goes."""
        self.ids.follow()
        return self.ids.manifest.version

    def recover(self) -> bool:
        """Finish or undo what a crash interrupted; True when the index had to be rebuilt from the table."""
        with guard("cannot repair the event table", self.folder):
            readable = self.ids.read()
            self._settle_pending()
            latest = self.latest_version()
            if latest == -1:
                self._publish(Manifest(-1, []))
            elif not (readable and self.ids.manifest.version == latest):
                self._rebuild_index()
                return True
            self.ids.sweep(self.ids.manifest.runs)
            return False

    def _read_pending(self) -> Pending | None:
        path = self.ids_folder / "pending.json"
        try:
            return msgspec.json.decode(path.read_bytes(), type=Pending)
        except FileNotFoundError:
            return None
        except msgspec.DecodeError:  # cannot happen by a crash: written atomically
            path.unlink()
            return None

    def _rebuild_index(self) -> None:
        """Hash every event of the table again, and delete data files that no version names."""
        state = self.state()
        self._sweep_data(state)
        runs: list[Run] = []
        made: list[Run] = []
        for file in state.all_files():
            table = unseal_table(read_file(self.folder, file, EVENT_SCHEMA.names), self._cipher)
            for batch in table.combine_chunks().to_batches(max_chunksize=1 << 19):
                ids = hash_texts(batch.column(0))
                run = write_run(self.ids_folder, *sorted_pairs(ids, hash_contents(batch)))
                runs, made = settle(self.ids_folder, [*runs, run], [*made, run])
        self._publish(Manifest(state.version, runs))
        (self.ids_folder / "pending.json").unlink(missing_ok=True)
        self.ids.sweep(runs)

    def _sweep_data(self, state: TableState) -> None:
        known = {file.path for file in state.all_files()}
        found = {str(p.relative_to(self.folder)) for p in self.folder.glob("bucket=*/*.parquet")}
        self.remove_files(found - known)

    def settled(self, more: Sequence[Run]) -> list[Run]:
        """The index's runs with these added, merged where they are many; for the next commit."""
        return settle(self.ids_folder, [*self.ids.manifest.runs, *more], more)[0]

    def forget_ids(self, event_ids: Sequence[str]) -> list[Run]:
        """Write the index anew without these events; returns its runs for the next commit."""
        import pyarrow as pa

        gone = np.unique(hash_texts(pa.array(event_ids, pa.string())))
        runs = self.ids.manifest.runs
        return [merge_runs(self.ids_folder, runs, without=gone)] if runs and len(gone) else list(runs)


def _add_action(file: DataFile, now: int, change: bool) -> Any:
    from deltalake.transaction import AddAction

    stats = {
        "numRecords": file.rows,
        "minValues": {"ts": file.min_ts},
        "maxValues": {"ts": file.max_ts},
        "nullCount": {"ts": 0},
    }
    return AddAction(
        file.path, file.size, {"bucket": str(file.bucket)}, now, change, msgspec.json.encode(stats).decode()
    )
