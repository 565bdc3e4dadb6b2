"""Candidates to a slate, with the odds it had."""

from penchant.policy._greedy import Greedy, Popularity

__all__ = ["Greedy", "Popularity"]
