"""Exploring in a closed loop with known answers: the rounds, the settings and what is measured, for any policy.

Each round a random person comes, 60 random items are drawn, those the person has been shown are taken out, and at most
50 of them may be shown: one is, and the true answer is the reward. Only numpy is needed, so that peers can play the
same rounds in environments of their own: a seed gives everybody the same people, and the same items to choose from
as long as the same were shown before.

Letters: U people, N items, A candidates of a round, T rounds, P tags.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from kuairec import World

DRAWN, SHOWN = 60, 50
FOUND = 10  # rewards by which a new item counts as found
STRETCHES = 20  # of a curve


@dataclass(frozen=True, eq=False)
class Setting:
    """What a shop knows before the first round: ``warm``, ``cold`` (nothing) or ``fresh`` (nothing of some items)."""

    world: World
    name: str
    seed: int
    fresh_share: float = 0.3

    @property
    def fresh_N(self) -> np.ndarray:
        """Which items have no history, because it was erased."""
        fresh_N = np.zeros(len(self.world.items), bool)
        if self.name == "fresh":
            count = int(self.fresh_share * len(fresh_N))
            fresh_N[np.random.default_rng(self.seed).choice(len(fresh_N), size=count, replace=False)] = True
        return fresh_N

    @property
    def count_N(self) -> np.ndarray:
        """How often people turned to each item before."""
        if self.name == "cold":
            return np.zeros(len(self.world.items))
        return np.where(self.fresh_N, 0.0, self.world.popularity_N)

    @property
    def held_UP(self) -> np.ndarray:
        """Which tags people held before: (U, P)."""
        world, past_UP = self.world, np.zeros((len(self.world.users), self.world.tag_NP.shape[1]), bool)
        if self.name == "cold":
            return past_UP
        n_of = {item: n for n, item in enumerate(world.items)}
        fresh_N = self.fresh_N
        for user, item in world.past:
            n = n_of.get(item)
            if n is None or not fresh_N[n]:
                past_UP[user] |= world.tags_of[item] > 0
        return past_UP


class Chooser(Protocol):
    """A policy in the loop."""

    def choose(self, turn: int, user: int, item_A: np.ndarray) -> tuple[int, float | None]:
        """The place of the item to show among ``item_A``, and the chance it had; None where the policy states none."""
        ...

    def learn(self, turn: int, user: int, item: int, reward: bool) -> None:
        """What became of it."""
        ...


def play(setting: Setting, chooser: Chooser, rounds: int) -> dict[str, object]:
    """Play the rounds; the row says what was earned, what was new to people, and what became of new items."""
    world, fresh_N = setting.world, setting.fresh_N
    rng = np.random.default_rng(setting.seed)
    if setting.name == "fresh":  # the draw that made them new
        rng.choice(len(fresh_N), size=int(setting.fresh_share * len(fresh_N)), replace=False)
    held_UP, shown_UN = setting.held_UP, np.zeros(world.like_UN.shape, bool)
    tag_NP = world.tag_NP > 0
    item_T, reward_T, weight_T, novel_T = (np.zeros(rounds) for _ in range(4))
    began = time.process_time()
    for turn in range(rounds):
        user = int(rng.integers(len(world.users)))
        drawn_A = rng.choice(len(world.items), size=DRAWN, replace=False)
        item_A = drawn_A[~shown_UN[user, drawn_A]][:SHOWN]
        at, odds = chooser.choose(turn, user, item_A)
        item = int(item_A[at])
        reward = bool(world.like_UN[user, item])
        chooser.learn(turn, user, item, reward)
        shown_UN[user, item] = True
        item_T[turn], reward_T[turn], weight_T[turn] = (
            item,
            reward,
            1 / (len(item_A) * odds) if odds else np.nan,
        )
        if reward and (tag_NP[item] & ~held_UP[user]).any():
            novel_T[turn] = 1
            held_UP[user] |= tag_NP[item]
    item_T = item_T.astype(int)
    rewards_N = np.bincount(item_T, reward_T, len(world.items))
    estimate_T = weight_T * reward_T
    stated = not np.isnan(weight_T).any()
    return {
        "setting": setting.name,
        "seed": setting.seed,
        "rounds": rounds,
        "reward": float(reward_T.mean()),
        "last_half": float(reward_T[rounds // 2 :].mean()),
        "novel": 1000 * float(novel_T.mean()),
        "coverage": float((np.bincount(item_T, minlength=len(world.items)) > 0).mean()),
        "found": int((rewards_N[fresh_N] >= FOUND).sum()),
        "fresh_share": float(fresh_N[item_T].mean()),
        "fresh_reward": float(reward_T[fresh_N[item_T]].mean()) if fresh_N[item_T].any() else None,
        "weight": float(weight_T.mean()) if stated else None,
        "uniform": [float(estimate_T.mean()), float(1.96 * estimate_T.std() / np.sqrt(rounds))]
        if stated
        else None,
        "true_uniform": float(world.like_UN.mean()),
        "curve": [float(part.mean()) for part in np.array_split(reward_T, STRETCHES)],
        "fresh_curve": [float(part.mean()) for part in np.array_split(fresh_N[item_T], STRETCHES)],
        "found_curve": _found_curve(item_T, reward_T, fresh_N),
        "us_a_round": 1e6 * (time.process_time() - began) / rounds,
    }


def _found_curve(item_T: np.ndarray, reward_T: np.ndarray, fresh_N: np.ndarray) -> list[int]:
    """How many new items were found by the end of each stretch."""
    rewards_N, out = np.zeros(len(fresh_N)), []
    for part in np.array_split(np.arange(len(item_T)), STRETCHES):
        np.add.at(rewards_N, item_T[part], reward_T[part])
        out.append(int((rewards_N[fresh_N] >= FOUND).sum()))
    return out


def popular_rates(count_N: np.ndarray, mean: float = 0.045) -> np.ndarray:
    """Chances of a reward in proportion to popularity, of the given mean over the known items and at most one half."""
    known_N = count_N > 0
    return np.minimum(mean * count_N / count_N[known_N].mean(), 0.5)
