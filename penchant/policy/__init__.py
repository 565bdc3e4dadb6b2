"""Candidates to a slate, with the odds it had."""

from penchant.policy._draw import Explorer, draw_slate, slate_odds
from penchant.policy._greedy import Greedy, Popularity
from penchant.policy._rules import Best, FastCB, Rule, Softmax, SquareCB, Thompson

__all__ = [
    "Best",
    "Explorer",
    "FastCB",
    "Greedy",
    "Popularity",
    "Rule",
    "Softmax",
    "SquareCB",
    "Thompson",
    "draw_slate",
    "slate_odds",
]
