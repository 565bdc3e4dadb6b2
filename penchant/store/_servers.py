"""Where the parts of a shop lie: in its folder, or on servers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from penchant.store._database import Database
from penchant.store._hashing import Persons
from penchant.store._journal import open_file
from penchant.store._live import LiveHistories

if TYPE_CHECKING:
    from penchant.store._redis import RedisHistories


@dataclass(frozen=True)
class Servers:
    """Servers that keep a part of a shop instead of its folder; "" for none.

    Args:
        shop: By which id the shop is known there, one of its own in each server.
        journal: A PostgreSQL address, ``postgresql://...``: journal and decision log.
        live: A Redis or Valkey address, ``redis://...``: the live histories, a cache.
        alone: Let one process alone write the shop, although others could reach all of it.
        before: By which name the journal may be known since before shops had ids; "" for none.
    """

    shop: str = "shop"
    journal: str = ""
    live: str = ""
    alone: bool = False
    before: str = ""

    @property
    def shared(self) -> bool:
        """Whether several processes may write the shop: journal and histories are where all of them see both."""
        return bool(self.journal and self.live) and not self.alone

    def database(self, path: Path, *, readonly: bool) -> Database:
        """Open the journal's database of the shop at a path."""
        if not self.journal:
            return open_file(path / "journal.db", readonly=readonly)
        from penchant.store._postgres import Postgres

        return Postgres(self.journal, self.shop, readonly=readonly, shared=self.shared, before=self.before)

    def histories(self, path: Path, persons: Persons, *, readonly: bool) -> LiveHistories | RedisHistories:
        """Open the live histories of the shop at a path."""
        if not self.live:
            return LiveHistories(path / "live", persons, readonly=readonly)
        from penchant.store._redis import RedisHistories

        return RedisHistories(self.live, self.shop, persons, readonly=readonly, shared=self.shared)
