"""Who calls, and the log of what operators did: one JSON line a call, no personal data."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

import msgspec

from penchant.core import Clock, iso
from penchant.engine._govern_requests import Access, AccessLogReport, AccessLogRequest
from penchant.engine._operation import Scope

_FILE = "access.log"
_BLOCK = 1 << 16
_lock = threading.Lock()


@dataclass(frozen=True)
class Caller:
    """Who called: the key's id and scopes, and the id of the request. At the machine itself there is no key."""

    key: str | None = None
    scopes: frozenset[Scope] | None = None  # None: everything
    request_id: str | None = None


CALLER: ContextVar[Caller] = ContextVar("caller", default=Caller())  # noqa: B039  frozen, so it may be shared


def log_access(shop: Path, clock: Clock, operation: str, outcome: str, seconds: float) -> None:
    """Add a line to the shop's access log; a full or read-only disk must not turn an answer into an error."""
    if not (shop / "shop.toml").exists():
        return
    caller = CALLER.get()
    line = Access(
        ts=iso(clock()),
        operation=operation,
        outcome=outcome,
        seconds=round(seconds, 4),
        key=caller.key,
        request_id=caller.request_id,
    )
    with _lock:
        try:
            descriptor = os.open(shop / _FILE, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        except OSError:
            return
        try:
            os.write(descriptor, msgspec.json.encode(line) + b"\n")
        except OSError:
            return
        finally:
            os.close(descriptor)


def read_access(shop: Path, request: AccessLogRequest) -> AccessLogReport:
    """The newest entries that were asked for; the file is read from its end."""
    entries: list[Access] = []
    since = None if request.since is None else iso(request.since)
    for line in _backwards(shop / _FILE):
        try:
            entry = msgspec.json.decode(line, type=Access)
        except msgspec.MsgspecError:
            continue  # cut off by a crash
        if since is not None and entry.ts < since:
            break
        if request.operation not in (None, entry.operation) or request.key not in (None, entry.key):
            continue
        entries.append(entry)
        if len(entries) == request.k:
            break
    return AccessLogReport(entries=entries)


def _backwards(path: Path) -> Iterator[bytes]:
    """The lines of a file, last one first."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        place, rest = file.seek(0, os.SEEK_END), b""
        while place:
            size = min(_BLOCK, place)
            place = file.seek(place - size)
            first, *lines = (file.read(size) + rest).split(b"\n")
            yield from (line for line in reversed(lines) if line)
            rest = first
        if rest:
            yield rest
