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
    from penchant.data._features import (
        FeatureOptions,
        FeatureRecipe,
        add_features,
        behaviour,
        feature_recipe,
        item_categories,
        raw_features,
        with_features,
    )
    from penchant.data._snapshot import SnapshotOptions, drop_snapshots, make_snapshot, open_snapshot
    from penchant.data._splits import Cases, before, leave_one_out, repeat_share, time_split
    from penchant.data._transform import ColumnRule, FeatureTransform

# public name -> private module, loaded on first use
_LAZY = {
    "Cases": "_splits",
    "ColumnRule": "_transform",
    "FeatureOptions": "_features",
    "FeatureRecipe": "_features",
    "FeatureTransform": "_transform",
    "SnapshotOptions": "_snapshot",
    "add_features": "_features",
    "before": "_splits",
    "behaviour": "_features",
    "drop_snapshots": "_snapshot",
    "feature_recipe": "_features",
    "item_categories": "_features",
    "leave_one_out": "_splits",
    "make_snapshot": "_snapshot",
    "open_snapshot": "_snapshot",
    "raw_features": "_features",
    "repeat_share": "_splits",
    "time_split": "_splits",
    "with_features": "_features",
}

__all__ = [
    "Cases",
    "ColumnRule",
    "FeatureOptions",
    "FeatureRecipe",
    "FeatureTransform",
    "LiveSequences",
    "Sequences",
    "SnapshotOptions",
    "Windows",
    "add_features",
    "before",
    "behaviour",
    "drop_snapshots",
    "feature_recipe",
    "is_target",
    "item_categories",
    "leave_one_out",
    "live_sequences",
    "make_snapshot",
    "model_value",
    "open_snapshot",
    "raw_features",
    "repeat_share",
    "sequence_batch",
    "sequence_length",
    "time_split",
    "training_windows",
    "window_batch",
    "with_features",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    globals()[name] = value
    return value
