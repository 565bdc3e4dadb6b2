"""Penchant, the interest engine for online shops.

Example:
    ``from penchant import Engine; Engine.open("shop").recommend(user_id="u1", k=10)``
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from penchant.engine import Engine

__version__ = "0.1.0"
__all__ = ["Engine", "__version__"]


def __getattr__(name: str) -> Any:
    """Load the engine on first use: ``import penchant`` stays instant."""
    if name == "Engine":
        from penchant.engine import Engine

        return Engine
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
