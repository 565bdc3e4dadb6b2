"""Which of the processes that share a shop's folder still live: each keeps a file of its own locked.

The kernel lets go of the lock when the process ends, however it does.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from pathlib import Path


class Presence:
    """That this process lives, until ``close``.

    Args:
        folder: Where the files of all of them lie; those of the dead are taken away.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> own = Presence(folder)
        >>> own.lives(own.name), own.lives("somebody")
        (True, False)
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self.name = folder, secrets.token_hex(6)
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.glob("*.lock"):
            if not self.lives(path.stem):
                path.unlink(missing_ok=True)
        self._handle: int | None = os.open(
            self._path(self.name), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        fcntl.flock(self._handle, fcntl.LOCK_EX)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.lock"

    def lives(self, name: str) -> bool:
        """Whether the process of this name does."""
        try:
            handle = os.open(self._path(name), os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(handle)
        return False

    def close(self) -> None:
        """End it; harmless when repeated."""
        if self._handle is not None:
            with contextlib.suppress(OSError):
                self._path(self.name).unlink()
            os.close(self._handle)
            self._handle = None
