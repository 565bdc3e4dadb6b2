"""Threads that work beside a server's requests until they are told to end."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod


class Worker(ABC):
    """A thread that runs ``_run`` from the moment it is made.

    Args:
        name: Of the thread.
    """

    def __init__(self, name: str) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"penchant-{name}", daemon=True)
        self._thread.start()

    @abstractmethod
    def _run(self) -> None:
        """Work until ``_stop`` is set."""

    def close(self) -> None:
        """End the thread after what it is doing."""
        self._stop.set()
        self._thread.join()
