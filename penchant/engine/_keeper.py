"""What a server does beside answering: take up promotions and catalogues, and move the journal into the table."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from penchant.core.errors import PenchantError
from penchant.engine._worker import Worker

if TYPE_CHECKING:
    from penchant.engine._serving import Serving
    from penchant.engine._shop import Shop

log = logging.getLogger("penchant.keeper")

LOOK = 0.5  # seconds between looks at the promotion pointer and the catalogue
COMPACT_EVERY = 60.0  # seconds between looks at the journal
COMPACT_EVENTS = 20_000  # events in the journal from which it is moved at such a look
COMPACT_AFTER = 3600.0  # seconds after which any events are moved


class Keeper(Worker):
    """A thread beside a server's requests: none of them waits for a model to load or for the journal to move.

    Args:
        shop: The shop, open for writing.
        serving: What answers; it stops looking by itself while a keeper does.
    """

    def __init__(self, shop: Shop, serving: Serving) -> None:
        self._shop, self._serving = shop, serving
        self._moved = self._looked = time.monotonic()
        serving.kept = True
        super().__init__("keeper")

    def _run(self) -> None:
        while not self._stop.wait(LOOK):
            try:
                self._serving.refresh()
                if time.monotonic() - self._looked >= COMPACT_EVERY:
                    self._looked = time.monotonic()
                    self._compact()
            except PenchantError as error:
                log.error("%s: %s", type(error).__name__, error.message)
            except Exception as error:  # whatever it is, the next look comes; a message may quote a person
                log.error("unexpected %s", type(error).__name__)

    def _compact(self) -> None:
        waiting = self._shop.store.num_waiting()
        due = waiting >= COMPACT_EVENTS or (waiting and time.monotonic() - self._moved >= COMPACT_AFTER)
        if due and not self._shop.store.readonly:
            self._shop.store.compact()
            self._moved = time.monotonic()

    def close(self) -> None:
        """End the thread after what it is doing."""
        super().close()
        self._serving.kept = False
