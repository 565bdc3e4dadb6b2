"""The one door: operations on a shop, from which every surface is derived."""

from penchant.engine._engine import Engine
from penchant.engine._operation import OPERATIONS, Operation
from penchant.engine._requests import *  # noqa: F403
from penchant.engine._requests import __all__ as _requests_all

__all__ = ["OPERATIONS", "Engine", "Operation", *_requests_all]
