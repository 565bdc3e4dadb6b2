"""An epoch of the same SASRec (width 64, 2 blocks, 2 heads, 50 events, full softmax), in our loop and in peers'.

Each side runs in a process and an environment of its own, in turns, one thread; a figure is the median of its turns.
Bring leave-one-out data as Parquet with the columns user, item (numbers from 1) and pos. ``--epochs`` also trains so
many epochs with ``--seeds`` seeds and compares validation scores; with peers that takes an hour or more.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from machine import busy, describe

from penchant.models import SequenceConfig, sequence_costs

SIDES = Path(__file__).parent / "peers"
TARGETS = {"rectools": 30.0, "recbole": 18.0}  # times our CPU seconds a target
PEAK = """
import time, torch
torch.set_num_threads(1)
def rate(precision):
    torch.set_float32_matmul_precision(precision)
    a, b = torch.randn(1536, 1536), torch.randn(1536, 1536)
    took = []
    for _ in range(9):
        start = time.process_time()
        a @ b
        took.append(time.process_time() - start)
    return 2 * 1536**3 / sorted(took)[4] / 1e9
print(rate("highest"), rate("medium"))
"""


def side(python: str, name: str, *words: str) -> dict[str, Any]:
    """Run one side; its last line is its report."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    if name == "penchant":
        environment["PYTHONPATH"] = os.pathsep.join(
            filter(None, (str(SIDES.parents[1]), os.environ.get("PYTHONPATH")))
        )
    done = subprocess.run(
        [python, "-W", "ignore", str(SIDES / f"train_{name}.py"), *words],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def peaks() -> tuple[float, float]:
    """GFLOP/s of a float32 product on one thread: by torch's default library, and by oneDNN."""
    done = subprocess.run(
        [sys.executable, "-c", PEAK],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    default, fast = (float(word) for word in done.stdout.split())
    return default, fast


def useful_gflop_per_second(us_per_target: float, items: int, mean_length: float) -> float:
    """Operations of the model itself, none for padding, over the time they took."""
    config = SequenceConfig(size="small", width=64, depth=2, heads=2, length=50, feedforward=172, loss="full")
    return sequence_costs(config, items, length=mean_length).flops_per_target / us_per_target / 1e3


def speed(pythons: dict[str, str], arguments: argparse.Namespace) -> None:
    """Turns of every side, medians and ratios."""
    turns: dict[str, list[dict[str, Any]]] = {name: [] for name in pythons}
    found_peaks = []
    for turn in range(arguments.repeats):
        found_peaks.append(peaks())
        for name, python in pythons.items():
            turns[name].append(side(python, name, arguments.data, "--steps", str(arguments.steps)))
            print(
                f"  turn {turn + 1}, {name}: {turns[name][-1]['us_per_target']:.1f} us a target", flush=True
            )
    default, fast = (statistics.median(peak) for peak in zip(*found_peaks, strict=True))
    middle = {
        name: statistics.median(turn["us_per_target"] for turn in found) for name, found in turns.items()
    }
    ours, sample = middle["penchant"], turns["penchant"][0]
    print(f"\n{'':10} us/target  epoch cpu-s  times ours  peak MB")
    for name, us in middle.items():
        memory = statistics.median(turn["peak_mb"] for turn in turns[name])
        print(f"{name:10} {us:9.1f} {us * sample['targets'] / 1e6:12.1f} {us / ours:11.1f} {memory:8.0f}")
    rate = useful_gflop_per_second(ours, int(sample["items"]), float(sample["mean_length"]))
    print(
        f"useful work {rate:.0f} GFLOP/s of one thread: {rate / fast:.0%} of the best float32 product "
        f"({fast:.0f}, oneDNN), {rate / default:.0%} of torch's own ({default:.0f})"
    )
    for name, target in TARGETS.items():
        if name in middle:
            ratio = middle[name] / ours
            print(
                busy()
                or f"target {target:.0f} x {name}: {'met' if ratio >= target else 'MISSED'} ({ratio:.1f})"
            )


def quality(pythons: dict[str, str], arguments: argparse.Namespace) -> None:
    """Validation scores of so many epochs, and the CPU seconds to the best of them."""
    print(f"\nNDCG@10 of {arguments.epochs} epochs, best of them and CPU seconds to it")
    for name, python in pythons.items():
        for seed in range(arguments.seeds):
            words = (arguments.data, "--epochs", str(arguments.epochs), "--seed", str(seed))
            curve = side(python, name, *words)["curve"]
            best = max(curve, key=lambda point: point["ndcg"])
            print(
                f"{name:10} seed {seed}: {best['ndcg']:.4f} after {best['cpu_seconds']:.0f} cpu-s", flush=True
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--rectools", help="python of an environment with bench/peers/rectools.txt installed")
    parser.add_argument("--recbole", help="python of an environment with bench/peers/recbole.txt installed")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6, help="timed steps of a peer in each turn")
    parser.add_argument("--epochs", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    print(describe())
    given = {"penchant": sys.executable, "rectools": arguments.rectools, "recbole": arguments.recbole}
    pythons = {name: python for name, python in given.items() if python}
    speed(pythons, arguments)
    if arguments.epochs:
        quality(pythons, arguments)


if __name__ == "__main__":
    main()
