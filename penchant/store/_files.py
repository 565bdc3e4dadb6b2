"""Files that are whole or not there at all, and errors of the disk in plain words."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sqlite3
import uuid
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from penchant.core.errors import PenchantError, StorageError

_LIBRARIES = ("lmdb", "deltalake", "_internal", "pyarrow", "psycopg", "redis")
_OS_ERROR = re.compile(r"os error (\d+)")
_HINTS = {
    errno.ENOSPC: ("the disk is full", "free some space and try again"),
    errno.EDQUOT: ("the disk quota is used up", "free some space and try again"),
    errno.EFBIG: ("a file would grow beyond the allowed size", "raise the file size limit and try again"),
    errno.EROFS: ("the disk is read-only", "make it writable and try again"),
    errno.EACCES: ("access was denied", "give this user the right to read and write the folder"),
    errno.EPERM: ("access was denied", "give this user the right to read and write the folder"),
    errno.EIO: ("the disk reported a read or write error", "check the disk, then try again"),
    errno.ENOENT: ("a file is missing", "restore the folder from a backup"),
}


def atomic_write(path: Path, content: bytes) -> None:
    """Write a whole file durably: readers see the old content or the new, never a part.

    Args:
        path: The file; its folder must exist.
        content: All bytes of the file.

    Raises:
        StorageError: the disk refused; the old file, if any, is untouched.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "a.json"
        >>> atomic_write(file, b"{}")
        >>> file.read_bytes()
        b'{}'
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    with guard(f"cannot write {path.name}", path, "the file is as it was before"):
        try:
            with open(temporary, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            fsync(path.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def sweep(folder: Path) -> None:
    """Delete what ``atomic_write`` left half written in a folder when its process was killed."""
    for leftover in folder.glob(".*.tmp"):
        leftover.unlink(missing_ok=True)


def fsync(path: Path) -> None:
    """Make a file, or the names in a folder, survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def folder_bytes(folder: Path) -> int:
    """Bytes on disk of all files under a folder (0 when there is none); sparse files count what they use."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(root, name)).st_blocks * 512
    return total


def _explain(error: BaseException) -> tuple[str, str]:
    """Say what the operating system meant, and the next step."""
    number = getattr(error, "errno", None)
    text = str(error)
    if number is None and (found := _OS_ERROR.search(text)):
        number = int(found.group(1))
    if number is None and "database or disk is full" in text:
        number = errno.ENOSPC
    if number is None and "readonly database" in text:
        number = errno.EROFS
    if number is None and "disk I/O error" in text:
        number = errno.EIO
    if number in _HINTS:
        return _HINTS[number]
    if isinstance(error, (sqlite3.DatabaseError, pa.ArrowInvalid)):
        return f"the file is damaged ({_short(text)})", "restore it from a backup"
    return _short(text), "check the disk and the folder, then try again"


def _short(text: str) -> str:
    line = text.strip().splitlines()[0] if text.strip() else "no reason given"
    return line if len(line) <= 200 else line[:197] + "..."


def is_storage_failure(error: BaseException) -> bool:
    """Tell whether an exception comes from the disk or from a storage library."""
    if isinstance(error, PenchantError):
        return False
    library = type(error).__module__.split(".")[0] in _LIBRARIES
    return isinstance(error, (OSError, sqlite3.Error, pa.ArrowException)) or library


def storage_error(error: BaseException, what: str, path: Path | None, safe: str) -> StorageError:
    """Translate a failure of the disk or a storage library."""
    reason, hint = _explain(error)
    where = f" ({path})" if path is not None else ""
    return StorageError(f"{what}{where}: {reason}; {safe}", hint=hint)


@contextlib.contextmanager
def guard(what: str, path: Path | None = None, safe: str = "nothing was changed") -> Iterator[None]:
    """Turn every failure of the disk inside the block into a ``StorageError``.

    Args:
        what: What was being done, as in ``cannot write the journal``.
        path: The file or folder concerned.
        safe: What the reader may rely on all the same.
    """
    try:
        yield
    except Exception as error:
        if not is_storage_failure(error):
            raise
        raise storage_error(error, what, path, safe) from error
