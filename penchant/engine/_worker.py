"""Threads that work beside a server's requests until they are told to end."""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable

from penchant.core.errors import PenchantError


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


def went_well(log: logging.Logger, step: Callable[[], None]) -> bool:
    """Take one step of a thread that goes on whatever happens; what went wrong is in the log, False says so."""
    try:
        step()
    except PenchantError as error:
        log.error("%s: %s", type(error).__name__, error.message)
    except Exception as error:  # its message may quote a person
        log.error("unexpected %s", type(error).__name__)
    else:
        return True
    return False
