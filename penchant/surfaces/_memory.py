"""What keeps the process of a server small: called once, before the shop is opened."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec

import pyarrow as pa

# Options of glibc's mallopt: the heap is trimmed where so many bytes at its end are free; from so many bytes on a piece
# gets pages of its own, which go back when it is freed; threads share so many heaps.
_OPTIONS = {-1: 8 << 20, -3: 1 << 20, -8: 2}


def stay_small() -> None:
    """Let memory that was freed go back to the machine, and leave out what only notebooks need.

    Loading a model and counting events take memory for moments. Arrow's own pool and an allocator with an arena for
    each thread would keep it for the process, so that the largest moment became the size of the server.
    """
    pa.set_memory_pool(pa.system_memory_pool())
    with contextlib.suppress(OSError, AttributeError):  # another C library than glibc
        for option, value in _OPTIONS.items():
            ctypes.CDLL(None).mallopt(option, value)
    _leave_out_pandas()


def _leave_out_pandas() -> None:
    """Answer pyarrow's question for pandas with no, once and for all: 40 MB that nothing here uses.

    pyarrow imports it, where it is installed, at the first list that becomes an array. Whoever imports pandas after
    this gets it, ``to_pandas`` too.
    """
    if "pandas" not in sys.modules:
        sys.meta_path.insert(0, _NoPandas())
        try:
            pa.array([0])
        finally:
            del sys.meta_path[0]


class _NoPandas(MetaPathFinder):
    """Finds that pandas is not there."""

    def find_spec(self, name: str, *_: object) -> ModuleSpec | None:
        """Refuse pandas, leave all else to the others."""
        if name == "pandas":
            raise ModuleNotFoundError(name)
        return None
