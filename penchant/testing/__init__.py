"""Shipped for whoever writes plug-ins: conformance suites to subclass, toy snapshots, and a simulated shop."""

from penchant.testing._indexes import IndexTests
from penchant.testing._models import ModelTests
from penchant.testing._operations import OperationTests
from penchant.testing._policies import PolicyTests
from penchant.testing._server import running_server
from penchant.testing._simulator import Response, ShopSimulator, World
from penchant.testing._store import StoreTests
from penchant.testing._toys import (
    checkerboard_snapshot,
    markov_snapshot,
    snapshot_from_arrays,
    toy_snapshot,
    withheld_item,
)

__all__ = [
    "IndexTests",
    "ModelTests",
    "OperationTests",
    "PolicyTests",
    "Response",
    "ShopSimulator",
    "StoreTests",
    "World",
    "checkerboard_snapshot",
    "markov_snapshot",
    "running_server",
    "snapshot_from_arrays",
    "toy_snapshot",
    "withheld_item",
]
