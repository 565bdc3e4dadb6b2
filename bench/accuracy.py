"""The accuracy table: every public event log at hand, the baselines beside, with intervals.

Bring a folder with one folder a set (``datasets.py`` names them and their files); sets that are not there are passed
over. Logs with times are split by time and measured by ``penchant compare``; sets that have an order only are
measured leave-one-out, as papers do: learned from all but the last two events of everybody, chosen on the last but
one, asked for the last. Each part of the work is kept in the output folder, so that the command can be stopped and
given again.

    python bench/accuracy.py DATA OUT [--sets FOLDER ...] [--seeds N] [--quick]
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pyarrow.parquet as pq
from datasets import DATASETS, Dataset, Log
from scipy import stats

from penchant import Engine
from penchant.core import Estimate, Run
from penchant.data import leave_one_out, make_snapshot
from penchant.engine import CalibrationReport, LeaderboardReport, MetricRow
from penchant.evaluation import fit_calibration, leaderboard, rank_metrics, validation_metric
from penchant.training import fit_model

BASELINES = ("popularity", "recent_popularity", "item_knn", "transitions")
KINDS = (*BASELINES, "ease", "ials", "sequence")
MEASURE = "NDCG@10"
CHOOSING = 3000  # people who choose, at most
FORMS = {False: "ids alone", True: "with attributes"}


class Found(msgspec.Struct):
    """What one set gave in one form and one seed."""

    data: str
    form: str
    seed: int
    report: LeaderboardReport
    seconds: float
    made: str
    size: str = "auto"


def make_shop(log: Log, folder: Path, attributes: bool) -> None:
    """Ingest a log as a shop would."""
    source = folder.with_name(folder.name + "-files")
    source.mkdir(parents=True)
    pq.write_table(log.events, source / "events.parquet")
    with Engine.open(folder) as engine:
        engine.init()
        if attributes and log.items is not None:
            pq.write_table(log.items, source / "items.parquet")
            engine.catalog(files=[str(source / "items.parquet")])
        engine.ingest(files=[str(source / "events.parquet")])
    shutil.rmtree(source)


def by_time(shop: Path, kinds: list[str], size: str, seed: int) -> LeaderboardReport:
    """The product's own measurement."""
    with Engine.open(shop) as engine:
        if size != "auto":
            engine.shop.config.train.settings["sequence"] = {"size": size}
        return engine.compare(models=kinds, seed=seed)


def by_order(shop: Path, kinds: list[str], seed: int) -> LeaderboardReport:
    """Leave-one-out; items seen before are excluded."""
    with Engine.open(shop) as engine:
        last = engine.shop.store.last_ts()
        whole = make_snapshot(engine.shop.store, last + 1, engine.shop.snapshots)
    train, choose = leave_one_out(whole, leave_out=2, target=2, max_users=CHOOSING)
    _, asked = leave_one_out(whole, leave_out=2, target=1)
    judge = validation_metric(choose, measure=MEASURE)
    found, spent = {}, {}
    for kind in kinds:
        begun = time.perf_counter()
        model = fit_model(kind, train, {}, Run(seed=seed, validate=judge))
        spent[kind] = time.perf_counter() - begun
        calibration = fit_calibration(model, choose)
        found[kind] = rank_metrics(model, asked, name=kind, calibration=calibration)
        print(f"  {kind:<18} {found[kind].metrics[MEASURE]}  {spent[kind]:.0f} s", flush=True)
    board = leaderboard(found)
    rows = [
        MetricRow(
            model=row.name,
            metrics=row.evaluation.metrics,
            seconds=spent[row.name],
            difference=row.difference,
            by_length=row.evaluation.by_length,
            by_popularity=row.evaluation.by_popularity,
            calibration=CalibrationReport.of(row.evaluation.reliability),
        )
        for row in board.rows
    ]
    protocol = board.rows[0].evaluation.protocol
    return LeaderboardReport(
        protocol=protocol.text,
        users=protocol.people,
        items=protocol.items,
        seen="exclude",
        rows=rows,
        verdict=board.verdict,
    )


def measure(data: Dataset, source: Path, out: Path, attributes: bool, seed: int, kinds: list[str]) -> None:
    """Measure one set in one form, unless that is done."""
    target = out / f"{data.folder}-{'attributes' if attributes else 'ids'}-{seed}.json"
    if target.exists() or not source.is_dir():
        return
    print(f"== {data.name}, {FORMS[attributes]}, seed {seed}", flush=True)
    begun = time.perf_counter()
    log = data.read(source)
    if attributes and log.items is None:
        return
    shop = out / f"shop-{target.stem}"
    shutil.rmtree(shop, ignore_errors=True)
    shutil.rmtree(shop.with_name(shop.name + "-files"), ignore_errors=True)
    make_shop(log, shop, attributes)
    if data.protocol == "time split":
        report = by_time(shop, kinds, data.size, seed)
    else:
        report = by_order(shop, kinds, seed)
    shutil.rmtree(shop)
    spent = time.perf_counter() - begun
    found = Found(
        data.name, FORMS[attributes], seed, report, round(spent, 1), time.strftime("%Y-%m-%d"), data.size
    )
    target.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1))
    print(f"  {report.verdict}\n  {spent:.0f} s in all", flush=True)


def tables(out: Path) -> Iterator[str]:
    """The results in Markdown, in the order of ``DATASETS``."""
    order = {data.name: place for place, data in enumerate(DATASETS)}
    every = [msgspec.json.decode(path.read_bytes(), type=Found) for path in out.glob("*.json")]
    every.sort(key=lambda found: (order[found.data], found.form, found.seed))
    for found in (f for f in every if f.seed == 0):
        rows = [row for row in found.report.rows if row.metrics]
        yield f"\n### {found.data}, {found.form}\n"
        yield f"{found.made}. {found.report.protocol}\n"
        yield "| model | HR@10 | NDCG@10 | NDCG@10 minus transitions |\n|---|---|---|---|"
        for row in rows:
            gap = row.difference.get(MEASURE)
            told = "" if gap is None else _signed(gap)
            yield f"| {row.model} | {_short(row.metrics['HR@10'])} | {_short(row.metrics[MEASURE])} | {told} |"
        own = next(row for row in rows if row.model == "sequence")
        others = [row for row in rows if row.model in KINDS and row.model != "sequence"]
        yield "\n" + _parts("events before", own.by_length, max(others, key=_value).by_length, MEASURE)
        yield "\n" + _parts(
            "people before", own.by_popularity, max(others, key=_value).by_popularity, "recall@10"
        )
        if own.calibration is not None:
            told = "; ".join(
                f"{level.about:.1%}: {came.value:.1%} [{came.low:.1%}, {came.high:.1%}] of {level.count:,}"
                for level in own.calibration.levels
                for came in [level.came]
            )
            yield f"\nChances that came true: {told or 'too few'}. ECE {_short(own.calibration.ece)}."
    yield from _seeds(every)


def _seeds(every: list[Found]) -> Iterator[str]:
    """The spread over trainings: the mean, and where a further one would lie (95 % of the time)."""
    groups: dict[tuple[str, str], list[float]] = {}
    for found in every:
        own = next(row for row in found.report.rows if row.model == "sequence")
        groups.setdefault((found.data, found.form), []).append(own.metrics[MEASURE].value)
    yield "\n### Seeds\n\n| set | trainings | NDCG@10, mean [95 % of the mean] | lowest to highest |\n|---|--:|---|---|"
    for (data, form), values in groups.items():
        if len(values) > 1:
            half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
            mean = np.mean(values)
            yield (
                f"| {data}, {form} | {len(values)} | {mean:.4f} [{mean - half:.4f}, {mean + half:.4f}] "
                f"| {min(values):.4f} to {max(values):.4f} |"
            )


def _parts(
    title: str, own: dict[str, dict[str, Estimate]], other: dict[str, dict[str, Estimate]], measure: str
) -> str:
    """The sequence model and the best baseline in parts of the people."""
    names = list(own)
    people = [f"{name} ({own[name][measure].n:,})" for name in names]
    lines = [f"| {measure} by {title} | " + " | ".join(people) + " |", "|---" * (len(names) + 1) + "|"]
    for label, parts in (("sequence", own), ("best baseline", other)):
        lines.append(f"| {label} | " + " | ".join(_short(parts[name][measure]) for name in names) + " |")
    return "\n".join(lines)


def _value(row: MetricRow) -> float:
    return row.metrics[MEASURE].value


def _short(found: Estimate) -> str:
    return f"{found.value:.4f} [{found.low:.4f}, {found.high:.4f}]"


def _signed(found: Estimate) -> str:
    return f"{found.value:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"


def main() -> None:
    """Measure what is not there yet, then write all tables to OUT/tables.md."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--sets", nargs="*", help="folders of the sets to measure; else all that are there")
    parser.add_argument("--seeds", type=int, default=1, help="trainings of the sequence model in each form")
    parser.add_argument("--quick", action="store_true", help="leave EASE and iALS out")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    few = [*BASELINES, "sequence"]
    for data in DATASETS:
        if given.sets is not None and data.folder not in given.sets:
            continue
        source = given.data / data.folder
        for seed in range(given.seeds):
            first = seed == 0 and not given.quick
            measure(data, source, given.out, False, seed, list(KINDS) if first else few)
            measure(data, source, given.out, True, seed, few)
    text = "\n".join(tables(given.out)) + "\n"
    (given.out / "tables.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
