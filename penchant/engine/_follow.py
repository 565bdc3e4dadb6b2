"""Learning where several processes serve one shop: each follows the shop's log, and nothing else.

What is learned is then the same everywhere that has read up to the same number: which outcomes came to which answers,
what people said they want, how often items were turned to. It begins where all agreed to begin, so that a process that
starts later knows what the others know.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from typing import TYPE_CHECKING

import msgspec
import pyarrow as pa

from penchant.core import Slate
from penchant.engine._stock import MOVING
from penchant.engine._worker import Worker, went_well

if TYPE_CHECKING:
    from penchant.engine._promotion import Pointer
    from penchant.engine._serving import Ranker, Serving
    from penchant.engine._shop import Shop

log = logging.getLogger("penchant.follow")
EVERY = 0.1  # seconds between looks at what other processes stored


def beginning(shop: Shop, pointer: Pointer | None, catalog: pa.Table) -> str:
    """What all processes that begin to learn in the same way call that: model, catalogue, settings, erasures."""
    fixed = catalog.drop_columns([name for name in MOVING if name in catalog.column_names]).combine_chunks()
    digest = hashlib.blake2b(digest_size=12)
    digest.update(
        msgspec.json.encode([pointer, shop.config.explore, shop.config.interests, shop.store.remade])
    )
    for batch in fixed.to_batches():
        digest.update(batch.serialize())
    return digest.hexdigest()


def take_up(serving: Serving, ranker: Ranker) -> int | None:
    """Let a ranker learn what has come in since it last did.

    Returns:
        None, or up to where the log was read when there was an event about an item that is not among the ranker's, and
        its counts are all that answers: it has to be made anew from there.
    """
    exploration = ranker.exploration
    with exploration.learning:
        up_to, entries = serving.shop.store.news(exploration.position)
        for number, entry in entries:
            if isinstance(entry, Slate):
                exploration.logged(entry)
            elif not serving.learn(ranker, [entry]):
                return up_to
            exploration.position = number
        exploration.position = up_to
    return None


class Follower(Worker):
    """A thread that takes up what other processes that share the shop stored, within a tenth of a second or so.

    Args:
        shop: The shop, open for writing and shared.
        serving: What learns.
    """

    def __init__(self, shop: Shop, serving: Serving) -> None:
        self._shop, self._serving = shop, serving
        self.wake = threading.Event()
        super().__init__("follower")

    def _run(self) -> None:
        while not self._stop.is_set():
            self.wake.wait(EVERY)
            self.wake.clear()
            if not went_well(log, self._follow):
                self._stop.wait(1.0)

    def _follow(self) -> None:
        self._shop.store.follow()
        self._serving.follow()
