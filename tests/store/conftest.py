import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from penchant.store import ShopStore, open_store


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    return tmp_path / "shop"


@pytest.fixture
def store(shop: Path) -> Iterator[ShopStore]:
    with open_store(shop) as opened:
        yield opened


@pytest.fixture
def run_child():
    """Run code in another Python process; returns what it printed."""

    def run(code: str, *args: object, check: bool = True) -> str:
        command = [sys.executable, "-c", code, *map(str, args)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert not check or done.returncode == 0, done.stderr
        return done.stdout

    return run
