from pathlib import Path

from penchant.core import Store
from penchant.store import open_store
from penchant.testing import StoreTests


class TestShopStore(StoreTests):
    def open(self, path: Path) -> Store:
        return open_store(path)
