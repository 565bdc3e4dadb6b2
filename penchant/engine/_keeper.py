"""What a server does beside answering: take up promotions and catalogues, and move the journal into the table."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from penchant.core.errors import PenchantError
from penchant.engine._serving import give_back_memory
from penchant.engine._worker import Worker, went_well

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

    Of several processes that share a shop one leads: it alone moves the journal, reads from Kafka and delivers
    webhooks. When it ends, another takes over within a second; when its machine is lost, within some ten.

    Args:
        shop: The shop, open for writing.
        serving: What answers; it stops looking by itself while a keeper does.
        chores: Begins what only one process should do beside that; each is closed when another leads.
    """

    def __init__(
        self, shop: Shop, serving: Serving, chores: Callable[[], Sequence[Worker]] = lambda: ()
    ) -> None:
        self._shop, self._serving, self._begin = shop, serving, chores
        self._chores: Sequence[Worker] | None = None  # None: another process leads
        self._lead()
        self._moved = self._looked = time.monotonic()
        serving.kept = True
        super().__init__("keeper")

    def _run(self) -> None:
        while not self._stop.wait(LOOK):
            went_well(log, self._look)

    def _look(self) -> None:
        self._lead()
        self._serving.refresh()
        self._serving.judge()
        if time.monotonic() - self._looked >= COMPACT_EVERY:
            self._looked = time.monotonic()
            self._compact()

    def _lead(self) -> None:
        """Do what the leading process does, from when this one is it."""
        store = self._shop.store
        try:
            leads = store.lead()
        except PenchantError:  # whoever reaches the journal's server leads
            leads = False
        if leads and self._chores is None:
            if store.shared:
                log.info("this process leads")
                store.mend()
            self._chores = self._begin()
        elif not leads:
            self._rest()

    def _rest(self) -> None:
        for chore in self._chores or ():
            chore.close()
        self._chores = None

    def _compact(self) -> None:
        if self._chores is None:
            return
        waiting = self._shop.store.num_waiting()
        due = waiting >= COMPACT_EVENTS or (waiting and time.monotonic() - self._moved >= COMPACT_AFTER)
        if due and not self._shop.store.readonly:
            self._shop.store.compact()
            give_back_memory()  # a server moves its journal every few minutes, for months
            self._moved = time.monotonic()

    def close(self) -> None:
        """End the thread after what it is doing."""
        super().close()
        self._rest()
        self._serving.kept = False
