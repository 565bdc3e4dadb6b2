"""One writer at a time, enforced by the kernel, so that a crash frees the shop by itself."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from penchant.core.errors import ShopBusy
from penchant.store._files import guard

_POLL = 0.05  # seconds


class WriterLock:
    """The right to write a shop, alone or ``shared`` with others, held until ``release`` or the end of the process."""

    def __init__(self, path: Path, wait: float, *, shared: bool = False) -> None:
        """Take the lock at ``path``; wait at most ``wait`` seconds, then raise ``ShopBusy``."""
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        with guard("cannot open the shop for writing", path):
            self._handle: int | None = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        deadline = time.monotonic() + wait
        while True:
            try:
                fcntl.flock(self._handle, kind | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() < deadline:
                    time.sleep(_POLL)
                    continue
                holder = os.pread(self._handle, 32, 0).decode("ascii", "replace").strip() or "unknown"
                self.release(free=False)
                raise ShopBusy(
                    f"another process is writing this shop (pid {holder})",
                    hint="wait until it has finished, or stop it, then try again",
                ) from None
        with guard("cannot take the writer lock", path):
            os.ftruncate(self._handle, 0)
            os.pwrite(self._handle, f"{os.getpid()}\n".encode(), 0)

    def release(self, *, free: bool = True) -> None:
        """Give the lock back; harmless when repeated."""
        if self._handle is not None:
            if free:
                fcntl.flock(self._handle, fcntl.LOCK_UN)
            os.close(self._handle)
            self._handle = None
