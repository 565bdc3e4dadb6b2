"""What likeness of names and plans of a language model add to the chance of the next new interest, on public logs.

Bring the folders (see datasets.py). A map is drawn from each log. Counts stop where the newest fifth of what was taken
up begins; half of its people choose settings and weights, the other half is measured: log loss, and how often the
next interest is among the first three. Likeness: none, spelling, an encoder. Plans: SmolLM2 (135 million parameters, in
this process), and three that were made up: one that knows how often interests follow one another in the whole log, the
measured part too (no model could know more from names), one that draws lots, and one that always names the least
likely. ``--people`` takes the log of so many people, as of a shop that has just begun.

    python bench/interests.py DATA --sets ml-100k --plans 120
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets import DATASETS, Log
from machine import describe

from penchant import Engine
from penchant.core import Floats, Ints, Snapshot
from penchant.data import make_snapshot
from penchant.evaluation import bootstrap_means
from penchant.models import (
    GGUF,
    SYSTEM,
    WEIGHTS,
    InterestMap,
    InterestsConfig,
    NextInterestTest,
    PlanRefusedError,
    Wording,
    choose_weight,
    fit_interests,
    interests_taken,
    load_encoder,
    recent_sets,
    spelled,
)

NAMED, MOST = 3, 5
Planner = Callable[[Ints], Sequence[int]]


def snapshot_of(log: Log, people: int | None, place: Path) -> Snapshot:
    """The log of some people, as a shop would see it."""
    events = log.events
    if people is not None:
        users = sorted(set(events["user_id"].to_pylist()))
        some = np.random.default_rng(0).permutation(users)[:people].tolist()
        events = events.filter(pc.is_in(events["user_id"], value_set=pa.array(some)))
    with Engine.open(place / "shop") as engine:
        engine.init()
        if log.items is not None:
            pq.write_table(log.items, place / "items.parquet")
            engine.catalog(files=[str(place / "items.parquet")])
        pq.write_table(events, place / "events.parquet")
        engine.ingest(files=[str(place / "events.parquet")])
        store = engine.shop.store
        return make_snapshot(store, store.last_ts() + 1, place / "snapshots")


def shown(differences: Floats, person: Ints) -> str:
    """A mean with its interval over people."""
    (found,) = bootstrap_means(np.asarray(differences, np.float64)[:, None], person)
    return f"{found.value:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"


def likeness(snapshot: Snapshot, config: InterestsConfig) -> InterestMap:
    """Maps whose names are compared in three ways, on the same people; gives the one that is spelled."""
    spelling = {"spelling": spelled}
    minilm = {"minilm": lambda names: load_encoder("minilm", "text").encode(list(names))}
    readers = {"none": {}, "spelling": spelling, "minilm": minilm, "the better": {**spelling, **minilm}}
    found: dict[str, tuple[InterestMap, NextInterestTest | None]] = {
        name: fit_interests(snapshot, config, 0, reader) for name, reader in readers.items()
    }
    drawn, plain = found["none"]
    print(f"{len(drawn.names)} interests by {drawn.by}: {'; '.join(drawn.names[:5])} ...")
    if plain is None:
        print("too few take up anything to measure")
        return drawn
    base, person = plain.base_log_loss_C, plain.person_C
    print(f"{len(person):,} cases of {len(np.unique(person)):,} people")
    print(f"base rate        log loss {base.mean():.4f}  in 3 {plain.base_among_3_C.mean():.4f}")
    for name, (own, test) in found.items():
        told = (
            f"tau {own.meta.tau:g}  log loss {test.log_loss_C.mean():.4f}  in 3 {test.among_3_C.mean():.4f}"
        )
        print(f"names: {name:<10} {told}", end="")
        if name != "none":
            print(f"  log loss {shown(test.log_loss_C - plain.log_loss_C, person)}", end="")
            print(f"  in 3 {shown(1.0 * test.among_3_C - plain.among_3_C, person)}", end="")
        print(flush=True)
    return found["spelling"][0]


def asked(drawn: InterestMap, held: Sequence[Ints], questions: int) -> tuple[Planner, str]:
    """SmolLM2's plans for the sets that most people held."""
    count = Counter(key for held_H in held for key in set(recent_sets(held_H, NAMED)))
    wording, model = Wording(drawn.names, MOST), GGUF("smollm2")
    plans: dict[tuple[int, ...], list[int]] = {}
    began, refused = time.perf_counter(), Counter[str]()
    for key, _ in count.most_common(questions):
        said = model.ask(SYSTEM, wording.question(key), wording.schema(key), 300)
        try:
            plans[key] = wording.read(said.text, key)[0]
        except PlanRefusedError as error:
            refused[str(error)] += 1
    took = (time.perf_counter() - began) / max(questions, 1)
    model.close()

    def planner(held_H: Ints) -> Sequence[int]:
        keys = (key for key in reversed(recent_sets(held_H, NAMED)) if key in plans)
        return plans.get(next(keys, ()), ())

    return planner, f"{len(plans)} plans, {took:.2f} s each, refused {dict(refused)}"


def planners(drawn: InterestMap, held: Sequence[Ints], questions: int) -> dict[str, Planner]:
    """SmolLM2 and those that are made up."""
    lots = np.random.default_rng(0)

    def best(chance_G: Floats, held_H: Ints) -> list[int]:
        order = [g for g in np.argsort(-chance_G, kind="stable").tolist() if g not in held_H]
        return order[:MOST]

    found: dict[str, Planner] = {}
    if questions:
        found["SmolLM2"], told = asked(drawn, held, questions)
        print(f"SmolLM2: {told}", flush=True)
    found["knows the log"] = lambda held_H: best(drawn.next_chances(held_H), held_H)
    found["lots"] = lambda held_H: best(lots.random(len(drawn.names)), held_H)
    found["least likely"] = lambda held_H: best(-drawn.next_chances(held_H), held_H)
    return found


def plans(drawn: InterestMap, snapshot: Snapshot, questions: int) -> None:
    """What each planner adds at the weight that is chosen, and at each that could be set by hand."""
    taken = interests_taken(snapshot, drawn.member_NL)
    for name, planner in planners(drawn, taken.held, questions).items():
        remembered: dict[bytes, Sequence[int]] = {}

        def plan(held_H: Ints, planner: Planner = planner, kept: dict = remembered) -> Sequence[int]:
            return kept.setdefault(held_H.tobytes(), planner(held_H))

        def gain(gain_C: Floats, person_C: Ints) -> float:
            return float(bootstrap_means(gain_C[:, None], person_C)[0].low)

        for weights in (WEIGHTS, *((weight,) for weight in WEIGHTS)):
            forced = len(weights) == 1
            test = choose_weight(drawn, taken, plan, (lambda *_: 1.0) if forced else gain, weights=weights)
            if test is None:
                print(f"plans: {name}: of too few people")
                break
            loss = shown(test.log_loss_C - test.plain_log_loss_C, test.person_C)
            among = shown(1.0 * test.among_3_C - test.plain_among_3_C, test.person_C)
            how = "set   " if forced else "chosen"
            print(f"plans: {name:<13} {how} {test.weight:<4g} log loss {loss}  in 3 {among}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--sets", nargs="+", default=["ml-100k", "uci-online-retail"])
    parser.add_argument("--people", type=int, nargs="+", default=None, help="also logs of so many people")
    parser.add_argument("--plans", type=int, default=100, help="questions to SmolLM2; 0: it is not asked")
    parser.add_argument("--most", type=int, default=64, help="interests at most")
    arguments = parser.parse_args()
    print(describe())
    for dataset in DATASETS:
        if dataset.folder not in arguments.sets:
            continue
        log = dataset.read(arguments.data / dataset.folder)
        for people in (None, *(arguments.people or ())):
            print(f"\n## {dataset.name}" + (f", {people} people" if people else ""))
            with tempfile.TemporaryDirectory() as place:
                snapshot = snapshot_of(log, people, Path(place))
                drawn = likeness(snapshot, InterestsConfig(most=arguments.most))
                plans(drawn, snapshot, arguments.plans)


if __name__ == "__main__":
    main()
