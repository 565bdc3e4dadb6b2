"""Vowpal Wabbit in the closed loop, in its own environment: one JSON row a run, on standard output.

    python loop_vw.py DATA SETTING SEEDS ROUNDS "VW OPTIONS"

Every item is an action with its id (namespace i), its tags (t) and, where there is a history, how popular it was (p)
and how well its tags suit the person (m); the person comes with id (u) and the tags held (s). The options say what is
crossed with what. The action is drawn from the chances VW states, and learned with them.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from kuairec import World
from rounds import Setting, play
from vowpalwabbit import pyvw


class Vowpal:
    """A contextual bandit with action-dependent features."""

    def __init__(self, setting: Setting, options: str) -> None:
        self.vw = pyvw.Workspace(f"--quiet --cb_explore_adf --random_seed {setting.seed} {options}")
        self.rng = np.random.default_rng(1000 + setting.seed)
        world, count_N = setting.world, setting.count_N
        known_N, log_N = count_N > 0, np.log1p(count_N)
        self.warm = setting.name != "cold"
        if self.warm:
            log_N = np.where(known_N, (log_N - log_N[known_N].mean()) / log_N[known_N].std(), 0.0)
        self.taste_UN = world.taste_UN
        self.item = []
        for n, tags_P in enumerate(world.tag_NP):
            line = f"|i i{n} |t " + " ".join(f"t{p}" for p in np.flatnonzero(tags_P))
            if self.warm:
                line += f" |p pop:{log_N[n]:.3f} square:{log_N[n] ** 2:.3f}" + ("" if known_N[n] else " new")
            self.item.append(line)
        self.user = [
            f"shared |u u{u} |s " + " ".join(f"h{p}" for p in np.flatnonzero(held_P))
            for u, held_P in enumerate(setting.held_UP)
        ]

    def _lines(self, user: int, item_A: np.ndarray) -> list[str]:
        if not self.warm:
            return [self.item[n] for n in item_A]
        taste_A = self.taste_UN[user, item_A]
        return [f"{self.item[n]} |m taste:{x:.3f}" for n, x in zip(item_A, taste_A, strict=True)]

    def choose(self, turn: int, user: int, item_A: np.ndarray) -> tuple[int, float]:
        lines = self._lines(user, item_A)
        p_A = np.array(self.vw.predict([self.user[user], *lines]))
        p_A /= p_A.sum()
        at = int(self.rng.choice(len(p_A), p=p_A))
        self.last = at, float(p_A[at]), lines
        return at, float(p_A[at])

    def learn(self, turn: int, user: int, item: int, reward: bool) -> None:
        at, odds, lines = self.last
        lines[at] = f"0:{-int(reward)}:{odds:.6f} {lines[at]}"
        self.vw.learn([self.user[user], *lines])


if __name__ == "__main__":
    data, name, seeds, rounds, options = sys.argv[1:6]
    world = World(Path(data))
    for seed in map(int, seeds.split(",")):
        setting = Setting(world, name, seed)
        row = play(setting, Vowpal(setting, options), int(rounds))
        print(json.dumps({"policy": f"VW {options}", **row}), flush=True)
