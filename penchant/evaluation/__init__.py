"""Is it true: ranking and classification metrics, off-policy estimates and experiments, each with its interval."""

from penchant.evaluation._board import (
    BASELINES,
    Leaderboard,
    Row,
    leaderboard,
    paired_difference,
)
from penchant.evaluation._calibration import Calibration, Level, Reliability, fit_calibration
from penchant.evaluation._classification import Bin, Classification, classification_metrics
from penchant.evaluation._estimate import bootstrap_means, proportion
from penchant.evaluation._experiments import (
    Adjusted,
    Difference,
    arm_of,
    cuped,
    difference,
    mixture_half_width,
    sample_ratio,
    spending_boundaries,
    spent,
)
from penchant.evaluation._gates import SupportGate, effective_size, refusal, support_gates
from penchant.evaluation._intervals import Interval, anytime_factor, half_width, interval_of
from penchant.evaluation._judge import Judgement, Replay, Verdict, judge
from penchant.evaluation._metrics import Evaluation, RankProtocol, rank_metrics, validation_metric
from penchant.evaluation._ope import (
    Feedback,
    Terms,
    balanced_odds,
    dm,
    dr,
    dr_os,
    group_odds,
    ips,
    mips,
    off_cem,
    plain_estimators,
    sndr,
    snips,
    switch_dr,
)
from penchant.evaluation._page import Forest, Table, render_decision_html
from penchant.evaluation._report import render_report_html
from penchant.evaluation._reward_model import counted_rates, folds_by_person
from penchant.evaluation._slate_ope import cascade_dr, iips, rips, sips
from penchant.evaluation._slope import slope, tuned, tuned_estimators

__all__ = [
    "BASELINES",
    "Adjusted",
    "Bin",
    "Calibration",
    "Classification",
    "Difference",
    "Evaluation",
    "Feedback",
    "Forest",
    "Interval",
    "Judgement",
    "Leaderboard",
    "Level",
    "RankProtocol",
    "Reliability",
    "Replay",
    "Row",
    "SupportGate",
    "Table",
    "Terms",
    "Verdict",
    "anytime_factor",
    "arm_of",
    "balanced_odds",
    "bootstrap_means",
    "cascade_dr",
    "classification_metrics",
    "counted_rates",
    "cuped",
    "difference",
    "dm",
    "dr",
    "dr_os",
    "effective_size",
    "fit_calibration",
    "folds_by_person",
    "group_odds",
    "half_width",
    "iips",
    "interval_of",
    "ips",
    "judge",
    "leaderboard",
    "mips",
    "mixture_half_width",
    "off_cem",
    "paired_difference",
    "plain_estimators",
    "proportion",
    "rank_metrics",
    "refusal",
    "render_decision_html",
    "render_report_html",
    "rips",
    "sample_ratio",
    "sips",
    "slope",
    "sndr",
    "snips",
    "spending_boundaries",
    "spent",
    "support_gates",
    "switch_dr",
    "tuned",
    "tuned_estimators",
    "validation_metric",
]
