"""Backup, restore and the drill that proves them.

A backup is a tar of what cannot be made again, taken while the shop serves, with a checksum of every file. The keys
of people (``vault.db``) go into a file of their own, so that destroying a key reaches every backup of the texts. A
restore replays the erasures that were noted since: nobody who was erased comes back.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import sqlite3
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import msgspec

import penchant
from penchant.core import Clock, Noun, Progress
from penchant.core.errors import ShopError, StorageError, UnreadableFile
from penchant.engine import _govern_requests as gr
from penchant.engine._shop import CONFIG, Shop, read_config
from penchant.store import Erasure

if TYPE_CHECKING:
    from penchant.engine._engine import Engine

FORMAT = 1
_MANIFEST, _JOURNAL, _VAULT = "manifest.json", "journal.db", "vault.db"
_NOT_KEPT = {  # made again at will, or not for others to have
    *("live", "snapshots", "runs", "reports", "jobs", "quarantine", "content"),
    *(_JOURNAL, _VAULT, ".lock", "keys.lock", "plans.db"),
    "shop.id",  # what is made from a backup is a shop of its own beside the one that it was taken of
}
_BLOCK = 1 << 20


class Manifest(Noun, frozen=True):
    """What a backup holds."""

    format: int
    version: str
    created: int
    events: int
    files: dict[str, tuple[int, str]]  # name -> bytes, SHA-256


class ErasureNote(Noun, frozen=True):
    """A line of the file that notes erasures."""

    erasure: Erasure
    consent: str  # who it was in the book of consents, hexadecimal


def note_erasure(shop: Shop, subject: str) -> None:
    """Write down whom to erase again after a restore, by salted hashes, before anything is removed."""
    erasure = msgspec.structs.replace(shop.store.erasure_of(subject), ts=shop.clock())
    line = msgspec.json.encode(ErasureNote(erasure=erasure, consent=shop.consent.person(subject).hex()))
    descriptor = os.open(shop.erasures, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "ab") as file:
        file.write(line + b"\n")
        file.flush()
        os.fsync(file.fileno())


# -- backup ---------------------------------------------------------------------------------------------


def backup(shop: Shop, request: gr.BackupRequest, progress: Progress) -> gr.BackupReport:
    """Write the backup, and where it is asked for the keys; each appears only when it is whole."""
    started = time.perf_counter()
    if shop.vault is not None and request.keys_out is not None:
        with _appearing(Path(request.keys_out)) as temporary:
            shop.vault.copy(temporary)
    shop.store.flush()
    with _appearing(Path(request.out)) as temporary:
        manifest = _write(shop, temporary, progress)
        size = temporary.stat().st_size
    return gr.BackupReport(
        out=request.out,
        keys_out=request.keys_out if shop.vault is not None else None,
        files=len(manifest.files),
        bytes=size,
        events=manifest.events,
        seconds=round(time.perf_counter() - started, 3),
    )


def _write(shop: Shop, to: Path, progress: Progress) -> Manifest:
    files: dict[str, tuple[int, str]] = {}
    with tarfile.open(to, "w", format=tarfile.PAX_FORMAT) as tar, tempfile.TemporaryDirectory() as folder:
        journal = Path(folder) / _JOURNAL
        with shop.store.still():
            shop.store.copy_journal(journal)
            events = shop.store.status().events
            paths = sorted(_kept(shop.path))
            for done, path in enumerate(paths):
                progress("backing up", done, len(paths), {})
                whole = _settled(path, Path(folder)) if path.suffix == ".db" else path
                _add(tar, whole, path.relative_to(shop.path).as_posix(), files)
        with contextlib.closing(
            sqlite3.connect(journal)
        ) as db:  # what came in between the two is in the copy
            events += (
                db.execute("SELECT count(*) FROM journal").fetchone()[0] - shop.store.status().journal_events
            )
        _add(tar, journal, _JOURNAL, files)
        manifest = Manifest(
            format=FORMAT, version=penchant.__version__, created=shop.clock(), events=events, files=files
        )
        last = Path(folder) / _MANIFEST
        last.write_bytes(msgspec.json.encode(manifest))
        tar.add(last, _MANIFEST)
        progress("backing up", len(paths), len(paths), {})
    return manifest


def _kept(shop: Path) -> Iterator[Path]:
    for top in shop.iterdir():
        if top.name in _NOT_KEPT or top.name.startswith((_JOURNAL, _VAULT)):
            continue
        for path in [top] if top.is_file() else top.rglob("*"):
            if path.is_file() and not path.name.endswith((".tmp", ".db-journal", ".db-wal", ".db-shm")):
                yield path


def _settled(path: Path, folder: Path) -> Path:
    """A copy of a small database as it is between two writes: its file may be half written at any moment."""
    copy = folder / path.name
    with (
        contextlib.closing(sqlite3.connect(path, timeout=10)) as db,
        contextlib.closing(sqlite3.connect(copy)) as other,
    ):
        db.backup(other)
    return copy


def _add(tar: tarfile.TarFile, path: Path, name: str, files: dict[str, tuple[int, str]]) -> None:
    """Add a file as it is now, and note its checksum."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return  # a log that was turned over
    with file:
        size = os.fstat(file.fileno()).st_size
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode, entry.mtime = size, 0o600, int(os.fstat(file.fileno()).st_mtime)
        reading = _Hashing(file)
        tar.addfile(entry, reading)  # type: ignore[arg-type]  # it reads, that is all
    files[name] = (size, reading.digest.hexdigest())


class _Hashing:
    """Reads a file and hashes what was read."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def read(self, size: int) -> bytes:
        """The next bytes."""
        block: bytes = self._file.read(size)
        self.digest.update(block)
        return block


@contextlib.contextmanager
def _appearing(path: Path) -> Iterator[Path]:
    """A file to write beside ``path``, moved there when it is whole and on disk."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o600)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


# -- restore --------------------------------------------------------------------------------------------


def restore(path: Path, request: gr.RestoreRequest, clock: Clock, progress: Progress) -> gr.RestoreReport:
    """Make a shop from a backup in a folder that is none yet, and erase again whom the notes name.

    Raises:
        ShopError: The folder holds files, or the backup is of a newer version, or the keys are missing.
        UnreadableFile: The file is no backup, or damaged.
    """
    started = time.perf_counter()
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ShopError(
            "this folder holds other files",
            value=str(path),
            hint="restore into a new folder, then exchange them",
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{path.name}.restoring-", dir=path.parent))
    try:
        manifest = _unpack(Path(request.file), staging, progress)
        if read_config(staging).privacy.encrypt:
            if request.keys is None:
                raise ShopError("this shop is sealed: its keys are needed too", hint="give --keys FILE")
            shutil.copyfile(request.keys, staging / _VAULT)
            os.chmod(staging / _VAULT, 0o600)
        notes = _notes(request.erasures, staging)
        shop = Shop.open(staging, clock=clock)
        try:
            erased = shop.store.erase_again([note.erasure for note in notes])
            shop.consent.forget_people([bytes.fromhex(note.consent) for note in notes])
            events = shop.store.status().events
        finally:
            shop.close()
        if path.exists():
            path.rmdir()
        os.replace(staging, path)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    return gr.RestoreReport(
        path=str(path),
        made_ts=manifest.created,
        events=events,
        events_erased=manifest.events - events,
        erased=erased,
        seconds=round(time.perf_counter() - started, 3),
    )


def _unpack(file: Path, to: Path, progress: Progress) -> Manifest:
    """Take a backup apart; nothing lands outside the folder, and every byte is what was written."""
    found: dict[str, tuple[int, str]] = {}
    manifest: Manifest | None = None
    try:
        with tarfile.open(file, "r:") as tar:
            for entry in tar:
                progress("restoring", len(found), None, {})
                place = PurePosixPath(entry.name)
                if not entry.isreg() or place.is_absolute() or ".." in place.parts:
                    raise _no_backup(file, f"it holds {entry.name[:100]!r}, which no backup does")
                source = tar.extractfile(entry)
                assert source is not None
                if entry.name == _MANIFEST:
                    manifest = msgspec.json.decode(source.read(), type=Manifest)
                    continue
                target = to / place
                target.parent.mkdir(parents=True, exist_ok=True)
                found[entry.name] = _copy(source, target)
    except (tarfile.TarError, OSError, EOFError, msgspec.MsgspecError) as error:
        raise _no_backup(file, type(error).__name__) from None
    if manifest is None:
        raise _no_backup(file, "its end is missing")
    if manifest.format > FORMAT:
        raise ShopError(
            "this backup was made by a newer version", value=manifest.version, hint="upgrade penchant"
        )
    wrong = sorted(
        name for name in manifest.files.keys() | found.keys() if manifest.files.get(name) != found.get(name)
    )
    if wrong or CONFIG not in found or _JOURNAL not in found:
        raise _no_backup(file, f"damaged or missing: {', '.join(wrong[:5]) or 'the shop itself'}")
    return manifest


def _copy(source: Any, target: Path) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    with target.open("wb") as file:
        os.chmod(target, 0o600)
        while block := source.read(_BLOCK):
            digest.update(block)
            size += len(block)
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    return size, digest.hexdigest()


def _no_backup(file: Path, why: str) -> UnreadableFile:
    return UnreadableFile(
        f"this is no backup that can be used: {why}",
        value=str(file),
        hint="take another one; see `penchant drill`",
    )


def _notes(given: str | None, staging: Path) -> list[ErasureNote]:
    """The erasures that were noted, in the backup and in the file given."""
    notes = []
    for path in [staging / "erasures.log", *([Path(given)] if given else [])]:
        try:
            lines = path.read_bytes().splitlines()
        except FileNotFoundError:
            continue
        for number, line in enumerate(lines, start=1):
            try:
                notes.append(msgspec.json.decode(line, type=ErasureNote))
            except msgspec.MsgspecError:
                raise UnreadableFile(
                    "a line of the noted erasures cannot be read", value=str(path), path=f"line {number}",
                    hint="mend it, or erase that person by hand after the restore",
                ) from None  # fmt: skip
    return notes


# -- the drill ------------------------------------------------------------------------------------------


def drill(engine: Engine, request: gr.DrillRequest, progress: Progress) -> gr.DrillReport:
    """Restore a backup into a folder that is thrown away, and ask the restored shop what it is for.

    Raises:
        UnreadableFile: The backup cannot be used.
        StorageError: What was restored is not what was backed up.
    """
    from penchant.engine._engine import Engine as AnyEngine

    shop = engine.shop
    with tempfile.TemporaryDirectory(prefix="penchant-drill-") as folder:
        made = None
        file, keys = request.file, request.keys
        if file is None:
            file, keys = f"{folder}/backup.tar", f"{folder}/keys"
            made = backup(shop, gr.BackupRequest(out=file, keys_out=keys), progress)
        notes = str(shop.erasures) if shop.erasures.exists() else None
        wanted = gr.RestoreRequest(file=file, keys=keys if shop.vault is not None else None, erasures=notes)
        restored = restore(Path(folder) / "shop", wanted, engine.clock, progress)
        started = time.perf_counter()
        with AnyEngine.open(Path(folder) / "shop", clock=engine.clock) as other:
            answer = other.recommend(user_id="drill", explore="off")
            events = sum(
                other.shop.store.scan(bucket=bucket, columns=["ts"]).num_rows
                for bucket in range(other.shop.store.num_buckets)
            )
        if events != restored.events:
            raise StorageError(
                "the restored shop does not hold the events it counts",
                value=events,
                hint="take another backup",
            )
        return gr.DrillReport(
            events=events,
            erased=restored.erased,
            model_id=answer.model_id,
            bytes=Path(file).stat().st_size,
            backup_seconds=None if made is None else made.seconds,
            restore_seconds=restored.seconds,
            first_answer_seconds=round(time.perf_counter() - started, 3),
        )
