"""What exploring earns and finds in a closed loop with known answers (KuaiRec), beside plain policies and peers.

    python bench/loop.py play DATA OUT.jsonl [--setting warm cold fresh] [--seeds 0 1 2 3 4] [--policies ...]
                              [--keep FOLDER]
    python bench/loop.py tell OUT.jsonl ... [--plots docs]

`play` appends one row a run to OUT and leaves out what stands there already. The policy `penchant` is a whole shop,
played through its public operations at the settings as shipped; `penchant method=greedy fresh_share=0` sets lines of
its `[explore]` table. A shop with a history is trained first (some minutes) and kept in FOLDER for the next run. Peers
write rows of the same form in environments of their own: peers/loop_vw.py and peers/loop_mabwiser.py. `tell` prints
the table, means over seeds with 95 % intervals, and draws the plots of docs/exploring.md.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import shutil
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from kuairec import World
from machine import describe
from rich.console import Console
from rich.table import Table
from rounds import Setting, play, popular_rates
from scipy.optimize import minimize
from scipy.special import betaln
from scipy.stats import t as student

from penchant import Engine

NOW = dt.datetime(2024, 6, 1, tzinfo=dt.UTC)
PLAIN = ("random", "popularity", "EB greedy", "EB + 1 sd", "EB Thompson")


class Even:
    """Shows any candidate with the same chance."""

    def __init__(self, setting: Setting) -> None:
        self.rng = np.random.default_rng(2000 + setting.seed)

    def choose(self, turn: int, user: int, item_A: np.ndarray) -> tuple[int, float]:
        return int(self.rng.integers(len(item_A))), 1 / len(item_A)

    def learn(self, turn: int, user: int, item: int, reward: bool) -> None: ...


class Popular(Even):
    """Shows what most people turned to before, and never learns."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.count_N = setting.count_N

    def choose(self, turn: int, user: int, item_A: np.ndarray) -> tuple[int, float | None]:
        return int(np.argmax(self.count_N[item_A] + 1e-9 * self.rng.random(len(item_A)))), None


class EmpiricalBayes(Even):
    """A Beta prior an item: its mean from popularity, its weight 30 outcomes, or 15 of an item without history.

    Without any history mean and weight are fitted to the outcomes so far, every 500 rounds (beta-binomial likelihood).
    """

    def __init__(self, setting: Setting, how: str) -> None:
        super().__init__(setting)
        self.how, self.cold = how, not setting.count_N.any()
        count_N = setting.count_N
        self.mean_N = np.full(len(count_N), 0.045)
        if not self.cold:
            self.mean_N = np.where(count_N > 0, popular_rates(np.maximum(count_N, 0)), 0.045).clip(0.002, 0.5)
        self.weight_N = np.where(count_N > 0, 30.0, 15.0)
        self.shown_N, self.liked_N = np.zeros(len(count_N)), np.zeros(len(count_N))

    def choose(self, turn: int, user: int, item_A: np.ndarray) -> tuple[int, float | None]:
        if self.cold and turn and turn % 500 == 0:
            self._fit()
        a_A = self.mean_N[item_A] * self.weight_N[item_A] + self.liked_N[item_A]
        n_A = self.weight_N[item_A] + self.shown_N[item_A]
        mean_A = a_A / n_A
        if self.how == "EB Thompson":
            value_A = self.rng.beta(a_A, n_A - a_A)
        else:
            value_A = mean_A + (self.how == "EB + 1 sd") * np.sqrt(mean_A * (1 - mean_A) / (n_A + 1))
        return int(np.argmax(value_A + 1e-9 * self.rng.random(len(item_A)))), None

    def learn(self, turn: int, user: int, item: int, reward: bool) -> None:
        self.shown_N[item] += 1
        self.liked_N[item] += reward

    def _fit(self) -> None:
        tried = self.shown_N > 0
        shown, liked = self.shown_N[tried], self.liked_N[tried]

        def loss(x: np.ndarray) -> float:
            mean, weight = 1 / (1 + np.exp(-x[0])), np.exp(x[1])
            a, b = mean * weight, (1 - mean) * weight
            return -float((betaln(a + liked, b + shown - liked) - betaln(a, b)).sum())

        found = minimize(loss, [-3.0, 2.5], method="Nelder-Mead", options={"maxiter": 200}).x
        self.mean_N[:] = 1 / (1 + np.exp(-found[0]))
        self.weight_N[:] = np.exp(np.clip(found[1], 0, 6))


class Shop:
    """A whole shop in the loop: recommend, then an impression and, one minute later, a purchase where it is liked."""

    def __init__(self, setting: Setting, policy: str, keep: Path | None) -> None:
        self.world, self.folder = setting.world, Path(tempfile.mkdtemp())
        made = (
            (keep or self.folder)
            / f"{setting.name}{setting.seed if setting.name == 'fresh' else ''}"
            / "shop"
        )
        if not made.exists():
            _make(made, setting)
        if made != self.folder / "shop":
            shutil.copytree(made, self.folder / "shop")
        _set(self.folder / "shop" / "shop.toml", policy.split()[1:])
        self.engine = Engine.open(self.folder / "shop")

    def choose(self, turn: int, user: int, item_A: np.ndarray) -> tuple[int, float]:
        ids = [self.world.items[n] for n in item_A]
        self.now = NOW + dt.timedelta(hours=2 * (turn + 1))
        self.slate = self.engine.recommend(user_id=self.world.users[user], k=1, allow=ids, now=self.now)
        return ids.index(self.slate.item_ids[0]), float(self.slate.odds[0])

    def learn(self, turn: int, user: int, item: int, reward: bool) -> None:
        event = {
            "user_id": self.world.users[user],
            "item_id": self.world.items[item],
            "recommendation_id": self.slate.recommendation_id,
        }
        events = [
            {**event, "event_id": f"i{turn}", "kind": "impression", "timestamp": self.now, "position": 1}
        ]
        if reward:
            later = self.now + dt.timedelta(minutes=1)
            events.append({**event, "event_id": f"p{turn}", "kind": "purchase", "timestamp": later})
        self.engine.observe(events=events)

    def close(self) -> None:
        self.engine.close()
        shutil.rmtree(self.folder)


def _make(folder: Path, setting: Setting) -> None:
    """A shop with its catalogue and, but for ``cold``, its history and a trained model."""
    world, place = setting.world, folder.parent
    place.mkdir(parents=True, exist_ok=True)
    labels = [[world.tags[p] for p in np.flatnonzero(world.tags_of[i])] for i in world.tags_of]
    table = pa.table({"id": list(world.tags_of), "labels": pa.array(labels, pa.list_(pa.string()))})
    pq.write_table(table, place / "items.parquet")
    with Engine.open(folder) as engine:
        engine.init()
        engine.catalog(files=[str(place / "items.parquet")])
        if setting.name == "cold":
            return
        fresh = {world.items[n] for n in np.flatnonzero(setting.fresh_N)}
        past = [(user, item) for user, item in world.history if item not in fresh]
        ago = [NOW - dt.timedelta(minutes=len(past) - n) for n in range(len(past))]
        events = {
            "event_id": [f"h{n}" for n in range(len(past))],
            "user_id": [user for user, _ in past],
            "kind": ["purchase"] * len(past),
            "item_id": [item for _, item in past],
            "timestamp": pa.array(ago, pa.timestamp("us", tz="UTC")),
        }
        pq.write_table(pa.table(events), place / "history.parquet")
        engine.ingest(files=[str(place / "history.parquet")])
        engine.train()


def _set(file: Path, lines: list[str]) -> None:
    """Write ``name=value`` words into the [explore] table."""
    names = {line.split("=")[0] for line in lines}
    kept = [line for line in file.read_text().splitlines() if line.split(" =")[0] not in names]
    at = kept.index("[explore]") + 1
    file.write_text("\n".join([*kept[:at], *(line.replace("=", " = ", 1) for line in lines), *kept[at:]]))


def run(world: World, name: str, seed: int, policy: str, rounds: int, keep: Path | None) -> dict[str, object]:
    setting = Setting(world, name, seed)
    if policy.startswith("penchant"):
        shop = Shop(setting, policy, keep)
        row = play(setting, shop, rounds)
        shop.close()
    else:
        made = {"random": Even, "popularity": Popular}
        row = play(
            setting, made[policy](setting) if policy in made else EmpiricalBayes(setting, policy), rounds
        )
    return {"policy": policy, **row}


def play_all(given: argparse.Namespace) -> None:
    world = World(given.data)
    print(describe())
    done = set()
    if given.out.exists():
        done = {(r["setting"], r["seed"], r["policy"], r["rounds"]) for r in _rows([given.out])}
    for name in given.setting:
        for policy in given.policies:
            for seed in given.seeds:
                if (name, seed, policy, given.rounds) not in done:
                    row = run(world, name, seed, policy, given.rounds, given.keep)
                    with given.out.open("a") as file:
                        file.write(json.dumps(row) + "\n")
                    print(
                        f"{name} {policy} seed {seed}: {row['reward']:.4f}, found {row['found']}", flush=True
                    )


# -- what is told ---------------------------------------------------------------------------------------------


def _rows(files: list[Path]) -> list[dict]:
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def _mean(values: list[float], digits: int) -> str:
    """Mean and half of the 95 % interval over seeds (Student's t); one seed has none."""
    if len(values) < 2:
        return f"{np.mean(values):.{digits}f}"
    half = student.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return f"{np.mean(values):.{digits}f} ± {half:.{digits}f}"


def tell(given: argparse.Namespace) -> None:
    groups: dict[tuple[str, int], dict[str, list[dict]]] = defaultdict(lambda: defaultdict(list))
    for row in _rows(given.files):
        groups[row["setting"], row["rounds"]][row["policy"]].append(row)
    for (name, rounds), policies in groups.items():
        table = Table(
            "policy", "seeds", "reward", "last half", "novel", "coverage", "found", "share of new", "weight",
            title=f"{name}, {rounds:,} rounds",
        )  # fmt: skip
        for policy, rows in sorted(policies.items(), key=lambda p: np.mean([r["reward"] for r in p[1]])):
            cells = [
                _mean([r[key] for r in rows], digits)
                for key, digits in (
                    ("reward", 4),
                    ("last_half", 4),
                    ("novel", 0),
                    ("coverage", 2),
                    ("found", 1),
                )
            ]
            share = _mean([r["fresh_share"] for r in rows], 2)
            weights = [r["weight"] for r in rows if r["weight"] is not None]
            table.add_row(policy, str(len(rows)), *cells, share, _mean(weights, 2) if weights else "")
        Console(width=170).print(table)
    if given.plots:
        plot(groups, given.plots)


def plot(groups: dict, folder: Path) -> None:
    """Rewards as the rounds go by, setting by setting; and what is found for what is paid."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams["svg.hashsalt"] = "penchant"
    settings = [key for key in groups if key[0] in ("warm", "cold", "fresh")]
    figure, axes = plt.subplots(1, len(settings), figsize=(4.4 * len(settings), 3.6), squeeze=False)
    titles = {"warm": "with a history", "cold": "without any history", "fresh": "30 % of the items are new"}
    for axis, key in zip(axes[0], settings, strict=True):
        for policy, rows in groups[key].items():
            if policy not in ("popularity", "EB greedy", "penchant") and not policy.startswith("VW"):
                continue
            curve = np.mean([r["curve"] for r in rows], axis=0)
            x = (np.arange(len(curve)) + 0.5) * key[1] / len(curve)
            smooth = np.convolve(np.pad(curve, 1, mode="edge"), np.ones(3) / 3, mode="valid")
            label = "VW, tuned" if policy.startswith("VW") else policy
            axis.plot(x, 1000 * smooth, label=label, lw=2.4 if policy == "penchant" else 1.3)
        axis.set_title(titles[key[0]])
        axis.set_xlabel("answers given")
        axis.grid(alpha=0.3)
        axis.set_ylim(bottom=0)
    axes[0, 0].set_ylabel("rewards per 1,000 answers")
    axes[0, 0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(folder / "exploring-earned.png", dpi=100)
    _plot_found(groups, folder, plt)


def _plot_found(groups: dict, folder: Path, plt) -> None:
    """Each policy a point: rewards against good new items found."""
    found = {key: policies for key, policies in groups.items() if key[0] == "fresh"}
    if not found:
        return
    figure, axis = plt.subplots(figsize=(6.4, 4))
    for policies in found.values():
        for policy, rows in policies.items():
            if policy in ("random", "EB + 1 sd"):  # far below; on top of EB greedy
                continue
            x, y = np.mean([r["found"] for r in rows]), 1000 * np.mean([r["reward"] for r in rows])
            ours = policy.startswith("penchant")
            axis.plot(
                x, y, "o" if ours else "s", color="C0" if ours else "C7", ms=9 if policy == "penchant" else 6
            )
            words = "VW, tuned" if policy.startswith("VW") else policy
            axis.annotate(words, (x, y), xytext=(7, 4), textcoords="offset points", fontsize=8)
    axis.set_xlabel(f"good new items found in {next(iter(found))[1]:,} answers")
    axis.set_ylabel("rewards per 1,000 answers")
    axis.margins(0.2, 0.15)
    axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(folder / "exploring-found.png", dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = parser.add_subparsers(required=True)
    one = parts.add_parser("play")
    one.add_argument("data", type=Path)
    one.add_argument("out", type=Path)
    one.add_argument("--setting", nargs="+", default=["warm", "cold", "fresh"])
    one.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    one.add_argument("--policies", nargs="+", default=[*PLAIN, "penchant"])
    one.add_argument("--rounds", type=int, default=10_000)
    one.add_argument("--keep", type=Path)
    one.set_defaults(run=play_all)
    two = parts.add_parser("tell")
    two.add_argument("files", type=Path, nargs="+")
    two.add_argument("--plots", type=Path)
    two.set_defaults(run=tell)
    given = parser.parse_args()
    given.run(given)


if __name__ == "__main__":
    main()
