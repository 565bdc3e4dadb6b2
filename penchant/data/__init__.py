"""Rows to arrays: what a shop sends becomes clean events, and clean events become snapshots and batches.

Names load on first use: the serving process takes ``sequence_batch`` from here and must not load Ibis,
DuckDB or pandas.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from penchant.data._batch import (
    LiveSequences,
    Sequences,
    Windows,
    is_target,
    live_sequences,
    model_value,
    sequence_batch,
    sequence_length,
    training_windows,
    window_batch,
)

if TYPE_CHECKING:
    from penchant.data._splits import Cases, before, leave_one_out, repeat_share, time_split

# public name -> private module, loaded on first use
_LAZY = {
    "Cases": "_splits",
    "before": "_splits",
    "leave_one_out": "_splits",
    "repeat_share": "_splits",
    "time_split": "_splits",
}

__all__ = [
    "Cases",
    "LiveSequences",
    "Sequences",
    "Windows",
    "before",
    "is_target",
    "leave_one_out",
    "live_sequences",
    "model_value",
    "repeat_share",
    "sequence_batch",
    "sequence_length",
    "time_split",
    "training_windows",
    "window_batch",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    globals()[name] = value
    return value
