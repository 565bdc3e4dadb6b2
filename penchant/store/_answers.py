"""Batch answers: recommendations for many people, kept as the Parquet files in which they were delivered.

They belong to the decision log like single answers do; a file holds one row an item, the rows of a person
next to each other in order of rank.
"""

from __future__ import annotations

import itertools
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penchant.core import Reason, Slate, SlateItem
from penchant.core.errors import InputError
from penchant.store._files import fsync, guard

_NEEDED = {
    "user_id", "item_id", "score", "odds", "explored", "reason", "recommendation_id", "policy_id", "model_id",
    "surface", "ts", "seed", "degraded",
}  # fmt: skip


class BatchAnswers:
    """The folder of batch answers."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def files(self) -> list[Path]:
        """All files, oldest first."""
        return sorted(self._folder.glob("*.parquet"))

    def add(self, path: Path, ts: int) -> None:
        """Keep a copy of a finished file.

        Raises:
            InputError: it is no file of answers.
            StorageError: the disk refused; nothing was kept.
        """
        import pyarrow.parquet as pq

        with guard("the answers cannot be read", path):
            missing = sorted(_NEEDED - set(pq.ParquetFile(path).schema_arrow.names))
        if missing:
            raise InputError("batch answers lack columns", value=missing)
        final = self._folder / f"{ts:020d}-{uuid.uuid4().hex[:12]}.parquet"
        temporary = final.with_suffix(".tmp")
        with guard("the decision log cannot be written", self._folder):
            self._folder.mkdir(exist_ok=True)
            try:
                shutil.copyfile(path, temporary)
                fsync(temporary)
                os.replace(temporary, final)
                fsync(self._folder)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise

    def slates(self, subject: str | None) -> Iterator[Slate]:
        """The answers as slates, file by file."""
        import pyarrow.parquet as pq

        for path in self.files():
            with guard("the decision log cannot be read", path, "the other files are untouched"):
                file = pq.ParquetFile(path)
                rest: pa.Table | None = None
                for group in range(file.metadata.num_row_groups):
                    table = file.read_row_group(group)
                    if subject is not None:
                        table = table.filter(pc.equal(table["user_id"], subject))
                    table = table if rest is None else pa.concat_tables([rest, table])
                    starts = _starts(table)
                    if len(starts) > 1:
                        yield from _slates(table.slice(0, starts[-1]))
                    rest = table.slice(starts[-1]) if len(starts) else table
                if rest is not None and len(rest):
                    yield from _slates(rest)

    def shown(self, subject: str, since: int) -> list[tuple[int, list[str]]]:
        """When a person was shown which items, in files that were kept since a moment."""
        import pyarrow.parquet as pq

        found: list[tuple[int, list[str]]] = []
        for path in self.files():
            if int(path.name[:20]) < since:  # named by when it was kept, which is after its answers were made
                continue
            with guard("the decision log cannot be read", path, "the other files are untouched"):
                table = pq.read_table(
                    path, columns=["item_id", "ts"], filters=[("user_id", "==", subject)], use_threads=False
                )
            found += [(row["ts"], [row["item_id"]]) for row in table.to_pylist() if row["ts"] >= since]
        return found

    def remove(self, is_person: Callable[[str], bool]) -> int:
        """Rewrite the files without a person; returns how many rows went."""
        import pyarrow.parquet as pq

        removed = 0
        for leftover in self._folder.glob("*.tmp"):
            leftover.unlink()
        for path in self.files():
            table = pq.read_table(path, use_threads=False)
            mine = [user for user in table["user_id"].unique().to_pylist() if is_person(user)]
            if not mine:
                continue
            keep = ~pc.is_in(table["user_id"], value_set=pa.array(mine)).to_numpy()
            removed += int((~keep).sum())
            temporary = path.with_suffix(".tmp")
            pq.write_table(table.filter(pa.array(keep)), temporary, compression="zstd")
            fsync(temporary)
            os.replace(temporary, path)
            fsync(self._folder)
        return removed


def _starts(table: pa.Table) -> list[int]:
    """Rows at which another answer begins."""
    if len(table) == 0:
        return []
    ids = table["recommendation_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    users = table["user_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    return [
        int(i) for i in np.flatnonzero((np.diff(ids, prepend=-1) != 0) | (np.diff(users, prepend=-1) != 0))
    ]


def _slates(table: pa.Table) -> Iterator[Slate]:
    starts = [*_starts(table), len(table)]
    for start, end in itertools.pairwise(starts):
        rows = table.slice(start, end - start).to_pylist()
        first = rows[0]
        yield Slate(
            recommendation_id=first["recommendation_id"],
            ts=first["ts"],
            subject=first["user_id"],
            items=[
                SlateItem(
                    item_id=row["item_id"],
                    score=row["score"],
                    odds=row["odds"],
                    explored=row["explored"],
                    reasons=[Reason(text=row["reason"], kind="history")] if row["reason"] else [],
                    probability=row.get("probability"),
                )
                for row in rows
            ],
            policy_id=first["policy_id"],
            model_id=first["model_id"],
            seed=first["seed"],
            surface=first["surface"],
            degraded=first["degraded"],
        )
