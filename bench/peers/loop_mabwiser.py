"""mabwiser in the closed loop, in its own environment: one JSON row a run, on standard output.

    python loop_mabwiser.py DATA SETTING SEEDS ROUNDS POLICY VALUE [HISTORY]

POLICY is ``ts``, ``ucb``, ``epsilon`` or ``linucb``, VALUE its one setting (ts has none: 0). Items are arms. Where
there is a history, HISTORY outcomes of each known item at the rate that its popularity suggests are learned first:
mabwiser knows no priors. It states no chances either, so no policy can be judged by its log.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from kuairec import World
from mabwiser.mab import MAB, LearningPolicy
from rounds import Setting, play, popular_rates

POLICIES = {
    "ts": lambda _: LearningPolicy.ThompsonSampling(),
    "ucb": LearningPolicy.UCB1,
    "epsilon": LearningPolicy.EpsilonGreedy,
    "linucb": LearningPolicy.LinUCB,
}


class Mabwiser:
    """One arm an item; ``linucb`` sees the tags the person held, hashed into few columns."""

    def __init__(self, setting: Setting, policy: str, value: float, history: int) -> None:
        self.linear = policy == "linucb"
        arms = list(range(len(setting.world.items)))
        self.mab = MAB(arms, POLICIES[policy](value), seed=setting.seed)
        self.context_UF = np.c_[np.ones(len(setting.world.users)), setting.held_UP[:, :7]].astype(float)
        self.begun = False
        count_N = setting.count_N
        if history and count_N.any():
            known = np.flatnonzero(count_N)
            ones_N = np.round(history * popular_rates(count_N)[known]).astype(int)
            decisions = np.repeat(known, history)
            rewards = (np.tile(np.arange(history), len(known)) < np.repeat(ones_N, history)).astype(int)
            self._fit(decisions, rewards, np.zeros(len(decisions), int))

    def _fit(self, items: np.ndarray, rewards: np.ndarray, users: np.ndarray) -> None:
        fit = self.mab.partial_fit if self.begun else self.mab.fit
        fit(items, rewards, self.context_UF[users] if self.linear else None)
        self.begun = True

    def choose(self, turn: int, user: int, item_A: np.ndarray) -> tuple[int, float | None]:
        if not self.begun:
            return 0, None
        expected = self.mab.predict_expectations(self.context_UF[[user]] if self.linear else None)
        return int(np.argmax([expected[int(n)] for n in item_A])), None

    def learn(self, turn: int, user: int, item: int, reward: bool) -> None:
        self._fit(np.array([item]), np.array([int(reward)]), np.array([user]))


if __name__ == "__main__":
    data, name, seeds, rounds, policy, value, *history = sys.argv[1:]
    world = World(Path(data))
    for seed in map(int, seeds.split(",")):
        setting = Setting(world, name, seed)
        row = play(setting, Mabwiser(setting, policy, float(value), int(*history or (0,))), int(rounds))
        print(
            json.dumps({"policy": f"mabwiser {policy} {value} {' '.join(history)}".strip(), **row}),
            flush=True,
        )
