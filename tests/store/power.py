"""A disk that forgets what was not synced when the power goes: for SQLite a VFS, for other files ``os.fsync``.

``PowerCut`` is raised at a chosen durable step, at once after the folder has been copied as a machine would find it
after the cut: of each file what was last synced, or a random part of what was written since; of each folder the names
that were last synced, or those of the moment.
"""

import gc
import os
import random
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import apsw
import pytest

_SECTOR = 512


class PowerCut(BaseException):
    """The machine is off."""


class Machine:
    """What of a folder is durable, and when the power goes.

    Args:
        shop: The folder.
        after: How many durable steps (syncs, writes of the journal) until the power goes.
        rnd: What chance decides.
        honest: Whether syncs do what they promise; a machine whose disk lies must lose events.
    """

    def __init__(self, shop: Path, after: int, rnd: random.Random, *, honest: bool = True) -> None:
        self.shop, self.after, self.rnd, self.honest = shop, after, rnd, honest
        self.off = False
        self.failing_sync = False
        self.files: dict[int, bytes] = {}  # inode -> content at its last sync
        self.names: dict[Path, dict[str, int]] = {}  # folder -> names at its last sync
        self.pending: dict[str, dict[int, bytes]] = {}  # journal file -> sectors written since its last sync
        self.synced: dict[str, bytes] = {}  # journal file -> content at its last sync
        self.survived = shop.parent / "survived"

    def step(self) -> None:
        if self.off:
            raise PowerCut
        self.after -= 1
        if self.after <= 0:
            self.off = True
            self._cut()
            raise PowerCut

    # ---- files that are synced by os.fsync -------------------------------------------------------------

    def sync(self, handle: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{handle}"))
        if not path.is_relative_to(self.shop):
            return
        self.step()
        if not self.honest:
            return
        if path.is_dir():
            self.names[path] = {p.name: p.lstat().st_ino for p in path.iterdir()}
        else:
            self.files[os.fstat(handle).st_ino] = path.read_bytes()

    # ---- the cut -----------------------------------------------------------------------------------------

    def _cut(self) -> None:
        """Copy what the disk holds."""
        self.survived.mkdir()
        for root, folders, names in os.walk(self.shop):
            here = Path(root)
            to = self.survived / here.relative_to(self.shop)
            durable = self.names.get(here, {})
            for folder in list(folders):
                # A folder is made once and everything in it later: only whole ones are lost.
                if (
                    (here / folder).is_symlink()
                    or here == self.shop
                    or folder in durable
                    or self.rnd.random() < 0.5
                ):
                    (to / folder).mkdir(exist_ok=True)
                else:
                    folders.remove(folder)
            for name in names:
                self._keep(here / name, to / name, durable)
        boot = self.survived / "live" / "boot"
        if boot.exists():
            boot.write_text("the boot before the power went")

    def _keep(self, path: Path, to: Path, durable: dict[str, int]) -> None:
        if path.is_symlink():
            os.symlink(os.readlink(path), to)
            return
        key = str(path)
        if key in self.synced or key in self.pending:
            to.write_bytes(self._torn(key))
            return
        if path.name.startswith("journal.db"):  # its shared memory is made anew
            return
        inode = path.lstat().st_ino
        if durable.get(path.name) != inode and self.rnd.random() < 0.5:
            return  # the name was not synced
        written, kept = path.read_bytes(), self.files.get(inode)
        if kept is None:
            kept = b""
        if kept == written or self.rnd.random() < 0.3:
            to.write_bytes(written)
        else:
            to.write_bytes(
                kept if self.rnd.random() < 0.5 else written[: self.rnd.randrange(len(written) + 1)]
            )

    def _torn(self, key: str) -> bytes:
        """A journal file: what was synced, and of the sectors written since a random part."""
        content = bytearray(self.synced.get(key, b""))
        share = self.rnd.choice([0.0, 0.5, 1.0])
        for at, sector in sorted(self.pending.get(key, {}).items()):
            if self.rnd.random() < share:
                content.extend(bytes(max(0, at + len(sector) - len(content))))
                content[at : at + len(sector)] = sector
        return bytes(content)


class _File(apsw.VFSFile):
    def __init__(self, machine: Machine, vfs: str, filename: Any, flags: list[int]) -> None:
        super().__init__(vfs, filename, flags)
        self.machine = machine
        self.key = str(Path(filename.filename() if hasattr(filename, "filename") else filename))
        if self.key not in machine.synced and os.path.exists(self.key):
            machine.synced[self.key] = Path(self.key).read_bytes()

    def xWrite(self, data: bytes, offset: int) -> None:
        self.machine.step()
        super().xWrite(data, offset)
        waiting = self.machine.pending.setdefault(self.key, {})
        for start in range(0, len(data), _SECTOR):
            waiting[offset + start] = bytes(data[start : start + _SECTOR])

    def xTruncate(self, size: int) -> None:
        self.machine.step()
        super().xTruncate(size)
        self._settle()  # taken as durable: SQLite may not rely on the opposite, and the file has its new size

    def xSync(self, flags: int) -> None:
        self.machine.step()
        if self.machine.failing_sync:
            error = apsw.IOError("the disk is broken")
            error.extendedresult = apsw.SQLITE_IOERR_FSYNC
            raise error
        super().xSync(flags)
        if self.machine.honest:
            self._settle()

    def _settle(self) -> None:
        self.machine.synced[self.key] = Path(self.key).read_bytes()
        self.machine.pending.pop(self.key, None)


class _Disk(apsw.VFS):
    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.title = f"power{id(machine)}"
        super().__init__(self.title, base="", iVersion=1)

    def xOpen(self, name: Any, flags: list[int]) -> Any:
        if name is None or "journal.db" not in str(name.filename() if hasattr(name, "filename") else name):
            return super().xOpen(name, flags)
        return _File(self.machine, "", name, flags)


class _Connection:
    """An apsw connection with the words of ``sqlite3`` that the journal uses."""

    def __init__(self, path: str, vfs: str) -> None:
        name = path.partition("?")[0].removeprefix("file://")
        writes = "mode=ro" not in path
        flags = apsw.SQLITE_OPEN_READWRITE if writes else apsw.SQLITE_OPEN_READONLY
        self.real = apsw.Connection(name, flags=flags, vfs=vfs)
        self.real.set_busy_timeout(10_000)

    def execute(self, sql: str, values: Any = (), /) -> Any:
        with translated():
            before = self.real.total_changes()
            rows = list(self.real.execute(sql, tuple(values)))
            return _Rows(rows, self.real.total_changes() - before)

    def executemany(self, sql: str, rows: Any, /) -> None:
        with translated():
            self.real.executemany(sql, [tuple(row) for row in rows])

    def close(self) -> None:
        with suppress(BaseException):
            self.real.close(True)


class _Rows:
    def __init__(self, rows: list[Any], changed: int) -> None:
        self.rows, self.rowcount = rows, changed

    def fetchall(self) -> list[Any]:
        return self.rows

    def fetchone(self) -> Any:
        return self.rows[0] if self.rows else None


@contextmanager
def translated() -> Iterator[None]:
    try:
        yield
    except apsw.Error as error:
        made = sqlite3.OperationalError(str(error))
        made.sqlite_errorcode = getattr(error, "extendedresult", 0) & 0xFFFF
        made.sqlite_errorname = apsw.mapping_extended_result_codes.get(made.sqlite_errorcode, "")
        raise made from error


@contextmanager
def powered(machine: Machine, patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let stores opened in the block work on the machine's disk."""
    disk = _Disk(machine)
    real: Callable[[int], None] = os.fsync

    def connect(path: str, **_: Any) -> _Connection:
        with translated():
            return _Connection(path, disk.title)

    class Words:
        """The module ``sqlite3`` with another ``connect``."""

        Error, DatabaseError, Connection = sqlite3.Error, sqlite3.DatabaseError, sqlite3.Connection

    Words.connect = staticmethod(connect)  # type: ignore[attr-defined]

    def fsync(handle: int) -> None:
        machine.sync(handle)
        real(handle)

    with patch.context() as context:
        context.setattr("penchant.store._database.sqlite3", Words)
        context.setattr(os, "fsync", fsync)
        context.setattr(sys, "unraisablehook", lambda _: None)  # what is off cannot be closed in order
        context.setattr(threading, "excepthook", lambda _: None)
        with suppress(PowerCut):
            yield
        gc.collect()
    disk.unregister()
