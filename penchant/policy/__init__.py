"""Candidates to a slate, with the odds it had."""

from penchant.policy._bootstrap import Bootstrap
from penchant.policy._change import Changes
from penchant.policy._clusters import Clusters
from penchant.policy._draw import Explorer, draw_slate, slate_odds
from penchant.policy._hybrid import Hybrid, Spread
from penchant.policy._learn import Learned, Learner, Voter, reach_of, sampled
from penchant.policy._offline import (
    LinearSoftmax,
    LoggedActions,
    OfflineConfig,
    Potec,
    policy_gradient,
    potec,
)
from penchant.policy._planned import Planned, Steer
from penchant.policy._rerank import DPP, MMR, Calibrated, Rerank
from penchant.policy._rules import Best, FastCB, Limited, Reserved, Rule, Softmax, SquareCB, Thompson, Voted

__all__ = [
    "DPP",
    "MMR",
    "Best",
    "Bootstrap",
    "Calibrated",
    "Changes",
    "Clusters",
    "Explorer",
    "FastCB",
    "Hybrid",
    "Learned",
    "Learner",
    "Limited",
    "LinearSoftmax",
    "LoggedActions",
    "OfflineConfig",
    "Planned",
    "Potec",
    "Rerank",
    "Reserved",
    "Rule",
    "Softmax",
    "Spread",
    "SquareCB",
    "Steer",
    "Thompson",
    "Voted",
    "Voter",
    "draw_slate",
    "policy_gradient",
    "potec",
    "reach_of",
    "sampled",
    "slate_odds",
]
