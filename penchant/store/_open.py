"""The door of the store."""

from __future__ import annotations

from pathlib import Path

from penchant.core import Cipher, Clock, now
from penchant.core.errors import ShopError
from penchant.store._files import guard
from penchant.store._servers import Servers
from penchant.store._store import ShopStore


def open_store(
    path: Path,
    *,
    readonly: bool = False,
    clock: Clock = now,
    cipher: Cipher | None = None,
    wait: float = 10.0,
    servers: Servers | None = None,
) -> ShopStore:
    """Open the store of a shop; a writer makes what is missing and repairs what a crash left behind.

    Args:
        path: The shop's folder.
        readonly: Only read, beside at most one writer.
        clock: Where the time of an erasure comes from.
        cipher: Seals the free text of events (query, text, props) and logged decisions; None to seal nothing.
        wait: Seconds to wait for another writer.
        servers: Where the journal and the live histories lie, if not in the folder.

    Raises:
        ShopBusy: another process writes this shop.
        ShopError: there is no shop, or a newer version wrote it.
        StorageError: a file is damaged or the disk refuses.

    Example:
        >>> import tempfile
        >>> from penchant.core import Event
        >>> with open_store(Path(tempfile.mkdtemp())) as store:
        ...     store.append([Event(kind="view", event_id="e1", ts=5, user_id="u1", item_id="shoe")])
        ...     store.history("u1").item
        ['stored']
        ['shoe']
    """
    path = Path(path)
    servers = servers or Servers()
    if readonly and not servers.journal and not (path / "journal.db").exists():
        raise ShopError(
            "there is no shop in this folder", value=str(path), hint="make one with `penchant init`"
        )
    if not readonly:
        with guard("the shop folder cannot be used", path):
            path.mkdir(parents=True, exist_ok=True)
    return ShopStore(path, readonly=readonly, clock=clock, cipher=cipher, wait=wait, servers=servers)
