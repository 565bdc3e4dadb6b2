"""Experiments that are peeked at: false alarms, power, CUPED (E10), and a real A/B test.

    python bench/experiments.py [--ab ab_test.parquet] [--runs 2000]

Simulated people buy by a negative binomial law, as in shops: most nothing, a few a lot; what they bought before
tells of what they will. The optional file needs user_id, user_backet (control or test), event and transaction_value.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from machine import describe

from penchant.evaluation import cuped, difference, proportion, sample_ratio, spending_boundaries

PEOPLE, STEP = 2000, 100
LOOKS = range(STEP, PEOPLE + 1, STEP)
LINES = spending_boundaries([n / PEOPLE for n in LOOKS])


def outcomes(rng: np.random.Generator, effect: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Arm, outcome and the same before the experiment, of people in order of entry."""
    habit = rng.gamma(1.0, 1.0, PEOPLE)
    before = rng.poisson(3 * habit).astype(float)
    arm = rng.integers(2, size=PEOPLE)
    after = rng.poisson(3 * habit * (1 + effect * arm)).astype(float)
    return arm, after, before


def run(seed: int, effect: float) -> dict[str, tuple[bool, float]]:
    """Which monitors call a difference at some look, and after which share of the people."""
    rng = np.random.default_rng(seed)
    arm, after, before = outcomes(rng, effect)
    found: dict[str, tuple[bool, float]] = {}

    def note(name: str, called: bool, n: int) -> None:
        if called and name not in found:
            found[name] = (True, n / PEOPLE)

    for look, n in enumerate(LOOKS):
        t, c = (after[:n][arm[:n] == a] for a in (1, 0))
        adjusted = cuped(t, c, before[:n][arm[:n] == 1], before[:n][arm[:n] == 0])
        pairs = {"": (t, c), " + CUPED": (adjusted.treated_U, adjusted.control_U)}
        for extra, (treated, control) in pairs.items():
            note(
                "naive peeking" + extra,
                difference(treated, control, planned=PEOPLE, boundary=1.96).significant,
                n,
            )
            note("at any time" + extra, difference(treated, control, planned=PEOPLE).significant, n)
            line = float(LINES[look])
            note(
                "planned looks" + extra,
                difference(treated, control, planned=PEOPLE, boundary=line).significant,
                n,
            )
            if n == PEOPLE:
                note(
                    "one fixed test" + extra,
                    difference(treated, control, planned=PEOPLE, boundary=1.96).significant,
                    n,
                )
        sizes = [int((arm[:n] == a).sum()) for a in (0, 1)]
        note("sample ratio (p < .05)", sample_ratio(sizes, [0.5, 0.5]) < 0.05, n)
    return found


def table(runs: int, effect: float) -> dict[str, float]:
    print(f"\neffect {effect:+.0%}: {runs} experiments of {PEOPLE} people, looked at after every {STEP}")
    tally: dict[str, list[float]] = {}
    for seed in range(runs):
        for name, (_, share) in run(seed, effect).items():
            tally.setdefault(name, []).append(share)
    for name, shares in sorted(tally.items()):
        print(
            f"  {name:26} called {proportion(len(shares), runs)}   on average at {np.mean(shares):.0%} of the people"
        )
    return {name: len(shares) / runs for name, shares in tally.items()}


def variance() -> None:
    cuts = []
    for seed in range(20):
        arm, after, before = outcomes(np.random.default_rng(10_000 + seed), 0.0)
        found = cuped(*(x[arm == a] for x in (after, before) for a in (1, 0)))
        rho2 = np.corrcoef(after, before)[0, 1] ** 2
        real = 1 - np.concatenate([found.treated_U, found.control_U]).var() / after.var()
        cuts.append((real, rho2))
    cut, rho2 = np.mean(cuts, axis=0)
    worst = min(c - r for c, r in cuts)
    print(
        f"\nCUPED, 20 seeds: variance cut {cut:.3f}, squared correlation {rho2:.3f}, worst shortfall {-worst:.3f}"
    )


def real(path: Path) -> None:
    """The clickstream's own A/B test, as one look at the end of the plan."""
    import pandas as pd

    frame = pd.read_parquet(path)
    bucket = next(c for c in frame.columns if c.startswith("user_b"))
    people = frame.groupby("user_id").agg(
        arm=(bucket, "first"),
        paid=("event", lambda e: float((e == "payment_done").any())),
        money=("transaction_value", "sum"),
    )
    arms = ["control", "test"]
    people = people[people["arm"].isin(arms)]
    sizes = [int((people["arm"] == a).sum()) for a in arms]
    print(f"\nreal A/B test, arms {arms} of {sizes}: sample ratio p {sample_ratio(sizes, [0.5, 0.5]):.3f}")
    for name in ("paid", "money"):
        control, treated = (people[name][people["arm"] == a].to_numpy(float) for a in arms)
        for words, line in (
            ("at any time", None),
            ("planned, last look", float(spending_boundaries([0.5, 1.0])[-1])),
        ):
            gap = difference(treated, control, planned=sum(sizes), boundary=line)
            print(
                f"  {name:6} {words:20} {gap.estimate.signed}  relative {gap.relative and gap.relative.signed}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ab", type=Path)
    parser.add_argument("--runs", type=int, default=2000)
    given = parser.parse_args()
    print(describe())
    table(given.runs, 0.0)
    power = table(given.runs // 2, 0.135)
    for extra in ("", " + CUPED"):
        fixed = power["one fixed test" + extra]
        told = "; ".join(f"{n} {power[n + extra] / fixed:.0%}" for n in ("at any time", "planned looks"))
        print(f"power against the one fixed test{extra}: {told}")
    variance()
    if given.ab:
        real(given.ab)


if __name__ == "__main__":
    main()
