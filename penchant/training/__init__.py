"""From a snapshot to a fitted model, and from a fitted model to an artifact on disk and back.

Names load on first use: the serving process takes ``load_artifact`` from here and must not load torch.
"""

from penchant.training._artifact import (
    Loaded,
    list_artifacts,
    load_artifact,
    read_artifact,
    save_artifact,
)
from penchant.training._fit import fit_model, update_model
from penchant.training._search import Search, TrialRecord, search_sequence

__all__ = [
    "Loaded",
    "Search",
    "TrialRecord",
    "fit_model",
    "list_artifacts",
    "load_artifact",
    "read_artifact",
    "save_artifact",
    "search_sequence",
    "update_model",
]
