"""Updates against full refits, week by week: what is lost, and what time it saves.

Bring a shop (``penchant init``, ``catalog``, ``ingest``). The model is fitted with validation some weeks before the
end; each week after that it is fitted anew on everything, updated from the week before, or only recounted, and all
three are asked about the people of the following week, over the full catalogue.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from penchant import Engine
from penchant.core import DAY, Run, iso
from penchant.data import make_snapshot, repeat_share, time_split
from penchant.evaluation import paired_difference, rank_metrics, validation_metric
from penchant.models import SequenceConfig
from penchant.training import fit_model, update_model

MEASURE = "NDCG@10"
WEEK = 7 * DAY


def timed(call: Any) -> tuple[Any, float]:
    """The result and the CPU seconds it took: other work on the machine disturbs them least."""
    begun = time.process_time()
    found = call()
    return found, time.process_time() - begun


def main() -> None:
    """Print one row a week, and the loss over all weeks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shop", type=Path)
    parser.add_argument("--weeks", type=int, default=4)
    parser.add_argument("--size", default="auto")
    parser.add_argument("--people", type=int, default=3000, help="asked each week, drawn at random")
    given = parser.parse_args()
    with Engine.open(given.shop) as engine:
        shop = engine.shop
        last = shop.store.last_ts()
        assert last is not None, "ingest events first"
        whole = make_snapshot(shop.store, last + 1, shop.snapshots)
    seen = "allow" if repeat_share(whole) > 0.2 else "exclude"
    first = whole.as_of - (given.weeks + 1) * WEEK

    def split(at: int) -> tuple[Any, Any]:
        return time_split(whole, at=at, horizon=WEEK, max_users=given.people)

    train, cases = split(first - WEEK)
    judge = validation_metric(cases, measure=MEASURE, seen=seen)
    config = fit_model("sequence", train, SequenceConfig(size=given.size), Run(validate=judge)).config
    console = Console(width=120)
    console.print(
        f"{whole.num_events:,} events, {whole.num_items:,} items, seen items: {seen}; settled with {config}"
    )
    since = first
    fresh = fit_model("sequence", split(first)[0], config, Run())
    chain = fresh
    table = Table(
        "week from", "people", "refit", "update", "recount", "update - refit", "refit cpu-s", "update cpu-s"
    )
    total = {"refit": 0.0, "update": 0.0, "recount": 0.0}
    seconds = {"refit": 0.0, "update": 0.0}
    for week in range(1, given.weeks + 1):
        at = first + week * WEEK
        train, cases = split(at)
        refit, refit_s = timed(lambda on=train: fit_model("sequence", on, config, Run()))
        before, moment = chain, since
        chain, update_s = timed(
            lambda on=train, old=before, then=moment: update_model("sequence", old, on.items, on, then, Run())
        )
        since = at
        models = {"refit": refit, "update": chain, "recount": fresh.recounted(train)}
        found = {name: rank_metrics(model, cases, seen=seen, groups=()) for name, model in models.items()}
        for name, evaluation in found.items():
            total[name] += evaluation.metrics[MEASURE].value
        seconds = {"refit": seconds["refit"] + refit_s, "update": seconds["update"] + update_s}
        gap = paired_difference(found["update"], found["refit"])[MEASURE]
        figures = [f"{evaluation.metrics[MEASURE].value:.4f}" for evaluation in found.values()]
        table.add_row(
            iso(at)[:10], f"{len(cases):,}", *figures, gap.signed, f"{refit_s:.1f}", f"{update_s:.1f}"
        )
    console.print(table)
    lost = {name: 1 - total[name] / total["refit"] for name in ("update", "recount")}
    words = ", ".join(f"{name} {share:+.2%}" for name, share in lost.items())
    console.print(f"lost of {MEASURE} against a full refit: {words}")
    console.print(f"time: an update takes {seconds['update'] / seconds['refit']:.1%} of a refit")
    console.print(msgspec.json.encode({"measure": MEASURE, "lost": lost, "seconds": seconds}).decode())


if __name__ == "__main__":
    main()
