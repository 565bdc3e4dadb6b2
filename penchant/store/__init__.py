"""What happened, at rest: one folder a shop, with a Delta table, a SQLite journal and LMDB live histories.

Journal and histories may lie in PostgreSQL and Redis or Valkey instead."""

from penchant.store._erase import Erasure
from penchant.store._files import atomic_write, guard, sweep
from penchant.store._live import kept_in_histories, shown_in_histories
from penchant.store._open import open_store
from penchant.store._rows import Row, event_row
from penchant.store._servers import Servers
from penchant.store._store import ShopStore

__all__ = [
    "Erasure",
    "Row",
    "Servers",
    "ShopStore",
    "atomic_write",
    "event_row",
    "guard",
    "kept_in_histories",
    "open_store",
    "shown_in_histories",
    "sweep",
]
