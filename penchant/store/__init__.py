"""What happened, at rest."""

from penchant.store._files import atomic_write

__all__ = ["atomic_write"]
