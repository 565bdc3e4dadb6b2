"""Live histories: the last events of everybody in LMDB, one environment a bucket, shared by processes.

Kept are the events that models read: of ``SEQUENCE_KINDS``, with an item. What was only shown takes nobody's place,
however much of it there is: its newest items lie beside the window. What was searched for is not kept here.

A cache: whatever is in doubt is thrown away and built again from table and journal. ``live/07`` is a symbolic
link to the environment of bucket 7; without the link the bucket is not built. Replacing the link swaps the
environment at once for every process, and an erasure deletes one bucket's file instead of freeing pages that
would keep the bytes. Each environment knows up to which journal row it is built.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import lmdb
import msgspec
import numpy as np
import pyarrow as pa

from penchant.core import (
    HISTORY_EVENTS,
    HISTORY_SHOWN,
    KIND_CODES,
    SEQUENCE_KINDS,
    TARGET_CODES,
    EventKind,
    History,
)
from penchant.core.errors import StorageError
from penchant.store._files import atomic_write, fsync
from penchant.store._hashing import Persons
from penchant.store._rows import Row, Stored
from penchant.store._sorting import runs

WINDOW = HISTORY_EVENTS
_SLACK = (
    WINDOW + WINDOW // 2
)  # a window may grow to this before its older third moves to `older`: rare, cheap writes
_SHOWN_SLACK = HISTORY_SHOWN + HISTORY_SHOWN // 2
_MAP_SIZE = 1 << 32  # address space of one bucket, not disk
_LOCK_BYTES = 17 * 4096  # what LMDB maps for 1024 readers
_POSITION = b"\x00seq"
FORM = "4"  # of the windows: what lies there in another form is built again
_CLEAN = f"clean {FORM}"


class Window(msgspec.Struct, array_like=True):
    """The newest events of one person as arrays, and whether older ones fell out."""

    ts: bytes
    kind: bytes
    value: bytes
    item: list[str | None]
    event_id: list[str]
    cut: bool = False


class Shown(msgspec.Struct, array_like=True):
    """The newest items that one person was shown, oldest first; may hold some more than are read."""

    ts: bytes
    item: list[str]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Window).decode
_decode_shown = msgspec.msgpack.Decoder(Shown).decode
_decode_older = msgspec.msgpack.Decoder(list[str]).decode
_SEQUENCE = frozenset(str(kind) for kind in SEQUENCE_KINDS)
_TARGETS = frozenset(TARGET_CODES)
_IMPRESSION = str(EventKind.IMPRESSION)
_NO_VALUE = np.float32(np.nan).tobytes()
_EMPTY = Window(b"", b"", b"", [], [])
_NOTHING_SHOWN = Shown(b"", [])


def _insert(window: Window, row: Row) -> Window | None:
    """The window with one more event in its place by time; None when it is older than a cut window."""
    if not window.ts or row.ts >= int.from_bytes(window.ts[-8:], "little", signed=True):
        return _put_last(window, row)
    ts = np.frombuffer(window.ts, np.int64)
    at = int(np.searchsorted(ts, row.ts, side="right"))
    if window.cut and at == 0:
        return None
    value = np.nan if row.value is None else row.value
    window.ts = window.ts[: 8 * at] + np.int64(row.ts).tobytes() + window.ts[8 * at :]
    window.kind = window.kind[:at] + bytes([KIND_CODES.get(row.kind, 0)]) + window.kind[at:]
    with np.errstate(over="ignore"):
        window.value = window.value[: 4 * at] + np.float32(value).tobytes() + window.value[4 * at :]
    window.item.insert(at, row.item_id)
    window.event_id.insert(at, row.event_id)
    return window


def _put_last(window: Window, row: Row) -> Window:
    """The usual case, without arrays: the event is the newest."""
    window.ts += row.ts.to_bytes(8, "little", signed=True)
    window.kind += bytes([KIND_CODES.get(row.kind, 0)])
    if row.value is None:
        window.value += _NO_VALUE
    else:
        with np.errstate(over="ignore"):
            window.value += np.float32(row.value).tobytes()
    window.item.append(row.item_id)
    window.event_id.append(row.event_id)
    return window


def _insert_shown(shown: Shown, row: Row) -> Shown:
    """What was shown, with one more in its place by time."""
    at = int(np.searchsorted(np.frombuffer(shown.ts, np.int64), row.ts, side="right"))
    assert row.item_id is not None
    item = [*shown.item[:at], row.item_id, *shown.item[at:]]
    moments = shown.ts[: 8 * at] + np.int64(row.ts).tobytes() + shown.ts[8 * at :]
    keep = HISTORY_SHOWN if len(item) >= _SHOWN_SLACK else len(item)
    return Shown(moments[-8 * keep :], item[-keep:])


def _turned_to(items: Iterable[str | None], kinds: Iterable[int]) -> set[str]:
    """The items of events by which a person turned to them; kinds beyond the items are not looked at."""
    pairs = zip(items, kinds, strict=False)
    return {item for item, kind in pairs if item is not None and kind in _TARGETS}


def _is_kept(kind: str, item_id: str | None) -> bool:
    return item_id is not None and kind in _SEQUENCE


def kept_in_histories(rows: pa.Table) -> pa.ChunkedArray:
    """Which rows (kind, item_id) are the events of histories: those that models read."""
    import pyarrow.compute as pc

    wanted = pc.is_in(rows["kind"], value_set=pa.array(sorted(_SEQUENCE)))
    return pc.and_(wanted, pc.is_valid(rows["item_id"]))


def shown_in_histories(rows: pa.Table) -> pa.ChunkedArray:
    """Which rows (kind, item_id) are what people were shown."""
    import pyarrow.compute as pc

    return pc.and_(pc.equal(rows["kind"], _IMPRESSION), pc.is_valid(rows["item_id"]))


def _shorten(window: Window) -> set[str]:
    """Cut a window to its newest events; returns the items of those that fell out."""
    drop = len(window.item) - WINDOW
    fallen = _turned_to(window.item[:drop], window.kind)
    window.ts, window.kind, window.value = window.ts[8 * drop :], window.kind[drop:], window.value[4 * drop :]
    window.item, window.event_id, window.cut = window.item[drop:], window.event_id[drop:], True
    return fallen


def empty_history(subject: str) -> History:
    """The history of somebody we know nothing of."""
    return _history(subject, _EMPTY, (), 0)


def _history(
    subject: str, window: Window, older: Iterable[str], limit: int, shown: Shown = _NOTHING_SHOWN
) -> History:
    item = window.item
    drop = max(len(item) - limit, 0)
    fallen = frozenset(older)
    if drop:
        fallen |= _turned_to(item[:drop], window.kind)
    return History(
        subject,
        np.frombuffer(window.ts, np.int64)[drop:],
        np.frombuffer(window.kind, np.uint8)[drop:],
        item[drop:] if drop else item,
        np.frombuffer(window.value, np.float32)[drop:],
        window.event_id[drop:] if drop else window.event_id,
        fallen,
        shown.item[-HISTORY_SHOWN:],
        np.frombuffer(shown.ts, np.int64)[-HISTORY_SHOWN:],
    )


def history_of(subject: str, rows: pa.Table, limit: int) -> History:
    """The history in rows of one person (ts, kind, item_id, value, event_id), ordered."""
    shown = rows.filter(shown_in_histories(rows))
    rows = rows.filter(kept_in_histories(rows))
    window = _window(_columns(rows), 0, len(rows))
    return _history(subject, window, (), limit, _newest_shown(shown, 0, len(shown)))


def _newest_shown(rows: pa.Table, start: int, end: int) -> Shown:
    """Of ordered impressions those of one person, the newest."""
    start = max(start, end - HISTORY_SHOWN)
    part = rows.slice(start, end - start)
    return Shown(part["ts"].to_numpy().astype(np.int64).tobytes(), part["item_id"].to_pylist())


def _columns(rows: pa.Table) -> tuple[Any, Any, Any, list[str | None], list[str]]:
    kinds = rows["kind"].to_pylist()
    kind = np.fromiter((KIND_CODES.get(k, 0) for k in kinds), np.uint8, count=len(kinds))
    value = (
        rows["value"].to_numpy(zero_copy_only=False)
        if isinstance(rows, pa.RecordBatch)
        else rows["value"].to_numpy()
    )
    with np.errstate(over="ignore"):
        value = np.asarray(value, np.float32)
    return rows["ts"].to_numpy(), kind, value, rows["item_id"].to_pylist(), rows["event_id"].to_pylist()


def _window(columns: tuple[Any, Any, Any, list[str | None], list[str]], start: int, end: int) -> Window:
    ts, kind, value, item, event_id = columns
    return Window(
        ts[start:end].astype(np.int64).tobytes(),
        kind[start:end].tobytes(),
        value[start:end].tobytes(),
        item[start:end],
        event_id[start:end],
    )


def take_in(
    get: Callable[[bytes], bytes | None], put: Callable[[bytes, bytes], Any], person: bytes, row: Row
) -> None:
    """Add one event to a person's history, which lies under ``keys_of`` the person."""
    raw = get(person)
    if not _is_kept(row.kind, row.item_id):
        if raw is None:
            put(person, _encode(_EMPTY))  # known, with nothing to read
        if row.kind == _IMPRESSION and row.item_id is not None:
            said = get(_shown_key(person))
            shown = _NOTHING_SHOWN if said is None else _decode_shown(said)
            put(_shown_key(person), _encode(_insert_shown(shown, row)))
        return
    window = _decode(raw) if raw is not None else msgspec.structs.replace(_EMPTY, item=[], event_id=[])
    grown = _insert(window, row)
    fallen: set[str] = set()
    if grown is None:
        fallen = _turned_to([row.item_id], [KIND_CODES.get(row.kind, 0)])
    else:
        if len(grown.item) >= _SLACK:
            fallen = _shorten(grown)
        put(person, _encode(grown))
    if fallen:
        older = set(_decode_older(get(_older_key(person)) or b"\x90"))
        if not fallen <= older:
            put(_older_key(person), _encode(sorted(older | fallen)))


def _older_key(person: bytes) -> bytes:
    """Where the items lie that fell out of a person's window."""
    return person + b"o"


def _shown_key(person: bytes) -> bytes:
    """Where the newest items lie that a person was shown."""
    return person + b"s"


def keys_of(person: bytes) -> tuple[bytes, bytes, bytes]:
    """Where all lies that is kept of a person."""
    return person, _older_key(person), _shown_key(person)


def read_history(
    get: Callable[[bytes], bytes | None], person: bytes, subject: str, limit: int
) -> History | None:
    """The history in what is kept under ``keys_of`` a person; None when it keeps too few events."""
    raw = get(person)
    if raw is None:
        return empty_history(subject)
    window = _decode(raw)
    if window.cut and limit > len(window.item):
        return None
    older = _decode_older(get(_older_key(person)) or b"\x90") if window.cut else ()
    said = get(_shown_key(person))
    return _history(subject, window, older, limit, _NOTHING_SHOWN if said is None else _decode_shown(said))


def entries_of(rows: pa.Table, persons: Persons) -> Iterator[tuple[bytes, bytes]]:
    """What is kept of the people in ordered rows (subject, ts, kind, item_id, value, event_id): keys and values."""
    import pyarrow.compute as pc

    everybody = pc.unique(rows["subject"])
    yield from _shown_entries(rows.filter(shown_in_histories(rows)), persons)
    rows = rows.filter(kept_in_histories(rows))
    subjects = rows["subject"].combine_chunks()
    for subject in everybody.filter(pc.invert(pc.is_in(everybody, value_set=subjects))).to_pylist():
        yield persons(subject), _encode(_EMPTY)
    columns = _columns(rows)
    for start, end in runs(subjects):
        person = persons(subjects[start].as_py())
        cut = max(start, end - WINDOW) if end - start >= _SLACK else start
        window = _window(columns, cut, end)
        if cut > start:
            window.cut = True
            older = _turned_to(columns[3][start:cut], columns[1][start:cut].tolist())
            if older:
                yield _older_key(person), _encode(sorted(older))
        yield person, _encode(window)


def _shown_entries(rows: pa.Table, persons: Persons) -> Iterator[tuple[bytes, bytes]]:
    subjects = rows["subject"].combine_chunks()
    for start, end in runs(subjects):
        yield _shown_key(persons(subjects[start].as_py())), _encode(_newest_shown(rows, start, end))


def _take_room(path: str) -> None:
    """Give an environment's lock file its room on the disk before LMDB maps it.

    LMDB only sets its length. On a full disk, touching a page without room behind it ends the process (SIGBUS).

    Raises:
        OSError: There is no room.
    """
    try:
        handle = os.open(f"{path}-lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        if error.errno in {errno.EROFS, errno.EACCES, errno.EPERM}:  # a reader on a disk that nobody writes
            return
        raise
    try:
        if os.fstat(handle).st_blocks * 512 < _LOCK_BYTES:
            os.posix_fallocate(handle, 0, _LOCK_BYTES)
    finally:
        os.close(handle)


class _Environment:
    """One LMDB file, opened once a process however many stores use it (LMDB forbids more)."""

    opened: dict[str, _Environment] = {}
    guard = threading.Lock()

    def __init__(self, path: str) -> None:
        self.path, self.users, self.writable = path, 0, False
        self.lock = threading.RLock()
        self.env: Any = None

    @classmethod
    def take(cls, path: Path, *, writable: bool) -> _Environment:
        """Open, or share what is open; upgraded to writing when asked for."""
        key = os.path.realpath(path)
        with cls.guard:
            shared = cls.opened.get(key)
            if shared is None:
                shared = cls.opened[key] = cls(key)
            try:
                with shared.lock:
                    shared._ensure(writable)
            except BaseException:
                if shared.users == 0:
                    del cls.opened[key]
                raise
            shared.users += 1
            return shared

    def _ensure(self, writable: bool) -> None:
        if self.env is not None and (self.writable or not writable):
            return
        if self.env is not None:
            self.env.close()
            self.env = None
        _take_room(self.path)
        self.env = lmdb.open(
            self.path, subdir=False, map_size=_MAP_SIZE, readonly=not writable, create=writable, sync=False,
            metasync=False, max_readers=1024, readahead=False,
        )  # fmt: skip
        self.writable = writable

    def give_back(self) -> None:
        """Close when nobody uses it any more."""
        with _Environment.guard, self.lock:
            self.users -= 1
            if self.users == 0 and self.env is not None:
                self.env.close()
                self.env = None
                _Environment.opened.pop(self.path, None)


class LiveHistories:
    """The environments of all buckets. The writer changes them; readers only look."""

    def __init__(self, folder: Path, persons: Persons, *, readonly: bool) -> None:
        self.folder, self.readonly, self._persons = folder, readonly, persons
        self._open: dict[int, tuple[str, _Environment]] = {}  # bucket -> (link target, environment)
        self._lock = threading.Lock()
        self._links = [str(folder / f"{bucket:02d}") for bucket in range(1000)]
        if not readonly:
            folder.mkdir(exist_ok=True)
            self._start()
        self._trusted = False
        self._distrusted: set[int] = set()  # could not be deleted, must not be read

    # A crash of the machine may tear LMDB (it does not sync); a crash of the process does not. So the writer
    # leaves the machine's boot id, and what an earlier boot left behind uncleanly is thrown away.

    def _start(self) -> None:
        if not self._boot_matches():
            for file in self.folder.iterdir():
                file.unlink(missing_ok=True)
        self._remove_unlinked()
        atomic_write(self.folder / "boot", _boot_id().encode())

    def _boot_matches(self) -> bool:
        try:
            return (self.folder / "boot").read_text() in {_boot_id(), _CLEAN}
        except FileNotFoundError:
            return False

    @property
    def trusted(self) -> bool:
        """Whether no crash of the machine stands between these files and us."""
        self._trusted = self._trusted or self._boot_matches()
        return self._trusted

    def _remove_unlinked(self) -> None:
        """Delete environments that no link names: left by a crash while one was built."""
        linked = {os.readlink(p) for p in self.folder.iterdir() if p.is_symlink()}
        for file in self.folder.iterdir():
            name = file.name.removesuffix("-lock")
            if ".mdb" in file.name and name not in linked:
                file.unlink(missing_ok=True)

    def _environment(self, bucket: int) -> _Environment | None:
        """The environment that the bucket's link names now; None when the bucket is not built."""
        if bucket in self._distrusted:
            return None
        known = self._open.get(bucket)
        if known is not None and not self.readonly:  # nobody but us replaces it
            return known[1]
        try:
            target = os.readlink(self._links[bucket])
        except FileNotFoundError:
            target = ""
        if known is not None and known[0] == target:
            return known[1]
        self._release(bucket)
        with self._lock:
            if not target:
                return None
            try:
                env = _Environment.take(self.folder / target, writable=not self.readonly)
            except (lmdb.Error, OSError):
                return None
            self._open[bucket] = (target, env)
            return env

    def _release(self, bucket: int) -> None:
        """Close our environment of a bucket; the next look finds what the link names by then."""
        with self._lock:
            known = self._open.pop(bucket, None)
            if known is not None:
                known[1].give_back()

    def is_built(self, bucket: int) -> bool:
        """Whether the bucket answers from LMDB."""
        return self.trusted and self._environment(bucket) is not None

    def get(self, bucket: int, subject: str, limit: int) -> History | None:
        """A person's history; None when this bucket cannot tell (not built, or too few events kept)."""
        if not self.trusted or (shared := self._environment(bucket)) is None:
            return None
        person = self._persons(subject)
        try:
            with shared.lock:
                if shared.env is None:
                    return None
                with shared.env.begin(buffers=True) as txn:
                    return read_history(txn.get, person, subject, limit)
        except (lmdb.Error, msgspec.DecodeError):
            return None

    def position(self, bucket: int) -> int:
        """The last journal row that the bucket's histories hold, -1 at first."""
        shared = self._environment(bucket)
        if shared is None:
            return -1
        with shared.lock, shared.env.begin() as txn:
            raw = txn.get(_POSITION)
            return int.from_bytes(raw, "little", signed=True) if raw else -1

    def apply(self, bucket: int, rows: Sequence[Stored]) -> None:
        """Add events in order of arrival; rows that are in already are passed over."""
        shared = self._environment(bucket)
        if shared is None or not rows:
            return
        with shared.lock, shared.env.begin(write=True) as txn:
            raw = txn.get(_POSITION)
            position = int.from_bytes(raw, "little", signed=True) if raw else -1
            for stored in rows:
                if stored.seq > position:
                    take_in(txn.get, txn.put, self._persons(stored.row.subject), stored.row)
            last = max(position, rows[-1].seq)
            txn.put(_POSITION, last.to_bytes(8, "little", signed=True))

    def build(self, bucket: int, rows: pa.Table, position: int) -> str:
        """Write a new environment of a bucket from its ordered rows; ``link`` puts it into use.

        Args:
            bucket: Its number.
            rows: subject, ts, kind, item_id, value, event_id of the whole bucket, ordered.
            position: The last journal row that is among them.

        Returns:
            The name of the new file, for ``link`` or ``discard``.
        """
        name = f"{bucket:02d}.{uuid.uuid4().hex[:12]}.mdb"
        try:
            _take_room(str(self.folder / name))
        except OSError:
            self.discard(name)
            raise
        env = lmdb.open(
            str(self.folder / name),
            subdir=False,
            map_size=_MAP_SIZE,
            sync=False,
            metasync=False,
            max_readers=1024,
        )
        try:
            with env.begin(write=True) as txn:
                for key, value in sorted(entries_of(rows, self._persons)):
                    txn.put(key, value, append=True)
                txn.put(_POSITION, position.to_bytes(8, "little", signed=True))
        except BaseException:
            env.close()
            self.discard(name)
            raise
        env.sync(True)
        env.close()
        return name

    def link(self, bucket: int, name: str, later: Sequence[Stored] = ()) -> None:
        """Put a built environment into use, with what was stored since, and delete the one before it."""
        old = self._target(bucket)
        temporary = self.folder / f"{name}.link"
        os.symlink(name, temporary)
        os.replace(temporary, self._links[bucket])
        self._release(bucket)
        if old:
            self.discard(old)
        self.apply(bucket, later)

    def _target(self, bucket: int) -> str | None:
        try:
            return os.readlink(self._links[bucket])
        except FileNotFoundError:
            return None

    def discard(self, name: str) -> None:
        """Delete an environment's files."""
        for file in (name, f"{name}-lock"):
            (self.folder / file).unlink(missing_ok=True)

    def invalidate(self, buckets: Iterable[int]) -> None:
        """Forget buckets durably: they are built again when next asked for."""
        for bucket in buckets:
            target = self._target(bucket)
            if target is not None:
                os.unlink(self._links[bucket])
                self.discard(target)
            self._release(bucket)
        fsync(self.folder)

    def drop(self, bucket: int) -> None:
        """Forget a bucket after a failure; when even that fails, stop reading it."""
        try:
            self.invalidate([bucket])
        except OSError:
            self._distrusted.add(bucket)

    def entries(self, bucket: int) -> int:
        """How many people a built bucket knows."""
        shared = self._environment(bucket)
        if shared is None:
            return 0
        with shared.lock, shared.env.begin() as txn:
            return sum(1 for key in txn.cursor().iternext(values=False) if len(key) == 16)

    def close(self) -> None:
        """Sync and close what is open; a clean end is remembered."""
        with self._lock:
            for _, shared in self._open.values():
                if not self.readonly:
                    with contextlib.suppress(lmdb.Error):
                        shared.env.sync(True)
                shared.give_back()
            self._open.clear()
        if not self.readonly:
            with contextlib.suppress(StorageError):
                atomic_write(self.folder / "boot", _CLEAN.encode())


def _boot_id() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        boot = "unknown"
    return f"{boot} {FORM}"
