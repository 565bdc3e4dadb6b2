"""Is it true: ranking and classification metrics with intervals, leaderboards and their report."""

from penchant.evaluation._board import (
    BASELINES,
    Leaderboard,
    Row,
    leaderboard,
    paired_difference,
)
from penchant.evaluation._classification import Bin, Classification, classification_metrics
from penchant.evaluation._estimate import bootstrap_means, proportion
from penchant.evaluation._metrics import Evaluation, RankProtocol, rank_metrics, validation_metric
from penchant.evaluation._report import render_report_html

__all__ = [
    "BASELINES",
    "Bin",
    "Classification",
    "Evaluation",
    "Leaderboard",
    "RankProtocol",
    "Row",
    "bootstrap_means",
    "classification_metrics",
    "leaderboard",
    "paired_difference",
    "proportion",
    "rank_metrics",
    "render_report_html",
    "validation_metric",
]
