"""One honest protocol for every number on a leaderboard, shared by train, evaluate and compare.

All models learn from events before one moment. People who turned to items after it are the cases; half of
them (by a seeded draw) may be used to choose: when to stop, how to blend, which model to promote. The other
half took no part in any choice, and the leaderboard is measured on it.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from penchant.core import Model, Progress, Run, Scorer, SeenRule, Snapshot, Target, iso, leads, rng
from penchant.core.errors import InputError, MissingExtra, ModelError, StorageError
from penchant.data import (
    Cases,
    SnapshotOptions,
    basket_size,
    bot_subjects,
    is_target,
    later_cases,
    make_snapshot,
    next_baskets,
    repeat_share,
    target_kinds,
    time_split,
)
from penchant.engine import _training_requests as tr
from penchant.engine._model_settings import model_config, pick_device
from penchant.engine._people import unwilling
from penchant.evaluation import (
    Calibration,
    Evaluation,
    Leaderboard,
    fit_calibration,
    leaderboard,
    paired_difference,
    rank_metrics,
    validation_metric,
)
from penchant.models import model_kinds
from penchant.training import fit_model

if TYPE_CHECKING:
    from penchant.engine._shop import Shop

BASELINES = ("popularity", "recent_popularity", "item_knn", "transitions")
NO_RANKERS = frozenset({"tags", "interests"})  # kinds of artifact that are no recommenders
DEFAULT_KINDS = (*BASELINES, "ease", "ials", "sequence")
FREQUENCY = "frequency"
HABITS = (FREQUENCY, "habits")
MEASURE = "NDCG@10"
# People who choose: enough to tell epochs apart; fewer over a large catalogue, whose every item is scored.
_CHOICE_CASES, _FEWEST_CASES, _CHOICE_CELLS = 3000, 400, 40_000_000
_BASKET = 2.0  # items bought at one visit on average that make a shop one of baskets
_BASKET_KS = (10, 20)
_FEWEST_OTHERS = 20  # people from whom something can be learned about a further question
_SNAPSHOT_TRIES = 3
_REPEATS = 0.2  # a shop where more than this share of events repeats an earlier item is one of habits


@dataclass(eq=False)
class Fitted:
    """One model after its fit, with its figures on both halves of the cases."""

    kind: str
    model: Model | None
    choice: float  # the measure on the half that chooses
    evaluation: Evaluation | None  # on the half that did not
    seconds: float
    note: str | None = None
    calibration: Calibration | None = None  # found on the half that chooses
    baskets: Evaluation | None = None  # on the next baskets of those who did not choose
    curve: list[dict[str, float]] = field(default_factory=list)
    runs: list[Path] = field(default_factory=list)  # where its fits kept their state


@dataclass(eq=False)
class Outcome:
    """What a run of the protocol found."""

    full: Snapshot
    train: Snapshot
    halves: Halves
    held_out: Cases
    seen: SeenRule
    fitted: list[Fitted]
    board: Leaderboard
    baskets: Cases | None = None

    @property
    def best(self) -> Fitted:
        """The model with the highest measure on the half of the cases that chooses."""
        usable = [f for f in self.fitted if f.model is not None]
        return max(usable, key=lambda f: f.choice)

    def forget_runs(self) -> None:
        """Delete the state of these fits: called when all is done, so that a killed run goes on where it was."""
        for fitted in self.fitted:
            for folder in fitted.runs if leads() else ():
                shutil.rmtree(folder, ignore_errors=True)


def take_snapshot(shop: Shop, progress: Progress) -> Snapshot:
    """Everything stored of people who allow it, as of just after the last event: the same data, the same snapshot.

    Raises:
        ModelError: There are no events.
    """
    for left in reversed(range(_SNAPSHOT_TRIES)):
        last = shop.store.last_ts()
        if last is None:
            raise ModelError(
                "there is nothing to learn from yet", hint="ingest events first: penchant ingest FILE"
            )
        data = shop.config.data
        bots = bot_subjects(shop.store, data) if data.leave_out_bots else ()
        settings = SnapshotOptions(exclude=tuple(sorted({*bots, *unwilling(shop)})))
        try:
            return make_snapshot(shop.store, last + 1, shop.snapshots, settings=settings, progress=progress)
        except StorageError as error:
            # An erasure deletes what is made of everybody's events, half made too: made anew it lacks the erased.
            if not left or not isinstance(error.__cause__, FileNotFoundError):
                raise
    raise AssertionError("the last try returns or raises")


def chosen_kinds(asked: Sequence[str]) -> list[str]:
    """Model kinds to fit, baselines always among them.

    Raises:
        InputError: A kind does not exist.
    """
    known = model_kinds()
    for kind in asked:
        if kind not in known or kind in NO_RANKERS:
            ranking = ", ".join(k for k in known if k not in NO_RANKERS)
            raise InputError("no such model kind", value=kind, hint=f"kinds: {ranking}", path="$.models")
    return list(dict.fromkeys((*BASELINES, *(asked or DEFAULT_KINDS))))


def split_cases(
    snapshot: Snapshot, share: float, *, seed: int, target: Target = "any"
) -> tuple[Snapshot, Cases]:
    """Split by time, where there is enough to learn from and to ask about. The doctor asks the same.

    Raises:
        ModelError: No event turns to an item, or nobody has events on both sides of any moment.
        InputError: All events have the same time.
    """
    if not is_target(snapshot.kind, snapshot.item).any():
        raise ModelError(
            "no event turns to an item: there is nothing to learn from",
            hint="ingest views, cart additions, purchases or reviews with their item_id",
        )
    if not is_target(snapshot.kind, snapshot.item, target).any():
        raise ModelError(
            "no event is of the kind that is asked about",
            value=target,
            hint="ask about another with target, here or in shop.toml; any = whatever people turn to",
        )
    train, cases = time_split(snapshot, share=share, seed=seed, target=target)
    if len(cases) < 2:
        raise ModelError(
            "too few people have events on both sides of a moment in time",
            value=len(cases),
            hint="wait for more events; popularity answers meanwhile",
        )
    return train, cases


@dataclass(frozen=True, eq=False)
class Halves:
    """The earlier events, and two halves of the people who turned to items after them."""

    train: Snapshot
    chosen: Cases  # they may be used to choose
    held_out: Cases  # they may not
    few: Cases  # as many of those who choose as tell settings apart
    seen: SeenRule  # decided: exclude or allow
    seen_for: dict[Target, SeenRule]  # the same for everything that the models can be asked about
    measure: Callable[[Scorer], float]  # on the few
    others: dict[Target, Cases]  # of further questions, to those who choose

    @property
    def measures(self) -> dict[Target, Callable[[Scorer], float]]:
        """A measure for each further question."""
        return {
            target: validation_metric(cases, measure=MEASURE, seen=self.seen_for[target])
            for target, cases in self.others.items()
        }


def split_people(
    shop: Shop,
    snapshot: Snapshot,
    *,
    share: float,
    seen: SeenRule,
    seed: int,
    target: Target | None = None,
) -> Halves:
    """Split by time, draw the halves, and decide whether answers may repeat what people had.

    ``target`` None means: ask what the shop says.

    Raises:
        ModelError: No event turns to an item, or nobody has events on both sides of any moment.
    """
    target = target or shop.config.target
    train, cases = split_cases(snapshot, share, seed=seed, target=target)
    rules = _seen_rules(train, target, seen if seen != "auto" else shop.config.seen)
    order = rng(seed, "halves").permutation(len(cases))
    half = np.sort(order[: len(cases) // 2])
    chosen, held_out = cases.take(half), cases.take(np.sort(order[len(cases) // 2 :]))
    enough = max(_FEWEST_CASES, min(_CHOICE_CASES, _CHOICE_CELLS // snapshot.num_items))
    few = chosen.take(np.sort(rng(seed, "choice").permutation(len(chosen))[:enough]))
    measure = validation_metric(few, measure=MEASURE, seen=rules[target])
    others = _other_cases(snapshot, train, held_out, [t for t in rules if t != target], seed)
    return Halves(train, chosen, held_out, few, rules[target], rules, measure, others)


def run_protocol(
    shop: Shop,
    snapshot: Snapshot,
    kinds: Sequence[str],
    *,
    share: float,
    seen: SeenRule,
    seed: int,
    size: str,
    device: str,
    by: Sequence[str],
    progress: Progress,
    asked: Sequence[str] = (),
    target: Target | None = None,
) -> Outcome:
    """Split by time, fit every kind on the earlier part, choose on one half of the cases, measure on the other.

    Raises:
        ModelError: No event turns to an item, or nobody has events on both sides of any moment.
        InputError: ``by`` names an unknown user attribute, or there is no such device.
        MissingExtra: A kind in ``asked`` cannot be fitted with what is installed; others are left out, with a note.
    """
    device = pick_device(device)  # what cannot be is said before anything is fitted
    halves = split_people(shop, snapshot, share=share, seen=seen, seed=seed, target=target)
    train, held_out, rule = halves.train, halves.held_out, halves.seen
    unknown = [name for name in by if name not in held_out.groups]
    if unknown:
        raise InputError(
            "no such user attribute to report by",
            value=unknown[0],
            hint=f"attributes that make groups: {', '.join(held_out.groups) or 'none are stored'}",
            path="$.by",
        )
    if rule == "allow":  # where people come back to what they had, that alone is a strong baseline
        kinds = list(dict.fromkeys((*kinds, *HABITS)))
    run = Run(
        seed=seed,
        device=device,
        validate=halves.measure,
        target=held_out.target,
        others=halves.measures,
    )
    fitted: list[Fitted] = []
    for kind in kinds:
        progress(f"fitting {kind}", len(fitted), len(kinds), {})
        fitted.append(
            _fit(
                shop,
                kind,
                halves,
                run,
                by,
                size=size,
                progress=progress,
                asked=kind in asked,
            )
        )
    baskets = _baskets(snapshot, train, held_out)
    for one in fitted:
        if baskets is not None and one.model is not None:
            one.baskets = rank_metrics(
                one.model, baskets, ks=_BASKET_KS, seen=rule, groups=(), repeats=rule == "allow"
            )
    rows = {f.kind: f.evaluation for f in fitted if f.evaluation is not None}
    board = leaderboard(rows, measure=MEASURE)
    outcome = Outcome(snapshot, train, halves, held_out, rule, fitted, board, baskets)
    outcome.board = replace(board, verdict=board.verdict + _preference(outcome))
    return outcome


def _baskets(snapshot: Snapshot, train: Snapshot, held_out: Cases) -> Cases | None:
    """The next baskets of those who did not choose; None in a shop where people do not buy baskets."""
    if basket_size(train) < _BASKET:
        return None
    try:
        return next_baskets(snapshot, held_out)
    except InputError:  # they looked, and bought nothing
        return None


def _seen_rules(train: Snapshot, target: Target, seen: SeenRule) -> dict[Target, SeenRule]:
    """May answers repeat what the person turned to before? For each question, as the shop says or its data do."""
    asked: list[Target] = list(dict.fromkeys((target, "any", *target_kinds(train))))
    if seen != "auto":
        return dict.fromkeys(asked, seen)
    return {t: "allow" if repeat_share(train, target=t) > _REPEATS else "exclude" for t in asked}


def _other_cases(
    snapshot: Snapshot, train: Snapshot, held_out: Cases, targets: Sequence[Target], seed: int
) -> dict[Target, Cases]:
    """Each further question, to people who are not held out; none where too few can be asked."""
    found: dict[Target, Cases] = {}
    for target in targets:
        if not is_target(snapshot.kind, snapshot.item, target)[np.asarray(snapshot.ts) >= train.as_of].any():
            continue
        cases = later_cases(snapshot, train, target=target)
        free = np.flatnonzero(~np.isin(cases.user_C, held_out.user_C))
        few = np.sort(rng(seed, f"choice of {target}").permutation(free)[:_FEWEST_CASES])
        if len(few) >= _FEWEST_OTHERS:
            found[target] = cases.take(few)
    return found


def _preference(outcome: Outcome) -> str:
    """A sentence for where those who choose and those who are measured disagree; else nothing."""
    best = outcome.best
    first = next(f for f in outcome.fitted if f.kind == outcome.board.rows[0].name)
    assert best.evaluation is not None
    assert first.evaluation is not None
    if best.evaluation.metrics[MEASURE].value >= first.evaluation.metrics[MEASURE].value:
        return ""
    return (
        f" The half of the people that chooses preferred {best.kind}: {MEASURE} {best.choice:.4f} there, against "
        f"{first.choice:.4f} of {first.kind}; training promotes what that half prefers."
    )


def _fit(
    shop: Shop,
    kind: str,
    halves: Halves,
    run: Run,
    by: Sequence[str],
    *,
    size: str,
    progress: Progress,
    asked: bool,
) -> Fitted:
    started = time.perf_counter()
    curve: list[dict[str, float]] = []

    def listen(task: str, done: int, total: int | None, figures: Any) -> None:
        if figures:
            curve.append({"done": float(done), **figures})
        progress(task, done, total, figures)

    config = model_config(shop, kind, size)
    asks = halves.seen if run.target == "any" else f"{halves.seen} {run.target}"
    folder = run_folder(shop, halves.train, kind, config, run.seed, validated=asks)
    try:
        model = fit_model(kind, halves.train, config, replace(run, checkpoints=folder, progress=listen))
        choice = halves.measure(model)
    except (MissingExtra, ModelError) as error:
        if asked and isinstance(error, MissingExtra):
            raise
        return Fitted(
            kind,
            None,
            float("-inf"),
            None,
            time.perf_counter() - started,
            note=f"left out: {error}",
            runs=[folder],
        )
    calibration = fit_calibration(model, halves.few)
    evaluation = rank_metrics(
        model,
        halves.held_out,
        seen=halves.seen,
        groups=by or None,
        calibration=calibration,
        progress=progress,
    )
    seconds = time.perf_counter() - started
    return Fitted(
        kind, model, choice, evaluation, seconds, calibration=calibration, curve=curve, runs=[folder]
    )


def run_folder(
    shop: Shop, snapshot: Snapshot, kind: str, config: msgspec.Struct, seed: int, *, validated: str = ""
) -> Path:
    """Where an unfinished fit keeps its state: the same data, settings, seed and validation find it again."""
    import hashlib

    key = msgspec.json.encode([snapshot.fingerprint, kind, msgspec.to_builtins(config), seed, validated])
    return shop.runs / hashlib.sha256(key).hexdigest()[:20]


def report_of(outcome: Outcome) -> tr.LeaderboardReport:
    """The leaderboard as a response."""
    board = outcome.board
    by_kind = {f.kind: f for f in outcome.fitted}
    frequency = by_kind[FREQUENCY].baskets if FREQUENCY in by_kind else None
    rows = []
    for row in board.rows:
        fitted = by_kind[row.name]
        rows.append(
            tr.MetricRow(
                model=row.name,
                metrics=row.evaluation.metrics,
                seconds=round(fitted.seconds, 2),
                note=fitted.note,
                difference=row.difference,
                by_group=row.evaluation.by_group,
                by_length=row.evaluation.by_length,
                baskets={} if fitted.baskets is None else fitted.baskets.metrics,
                baskets_difference={}
                if frequency is None or fitted.baskets is None or fitted.kind == FREQUENCY
                else paired_difference(fitted.baskets, frequency),
                by_popularity=row.evaluation.by_popularity,
                calibration=tr.CalibrationReport.of(row.evaluation.reliability),
            )
        )
    rows += [
        tr.MetricRow(model=f.kind, metrics={}, seconds=round(f.seconds, 2), note=f.note)
        for f in outcome.fitted
        if f.evaluation is None
    ]
    return tr.LeaderboardReport(
        protocol=protocol_words(outcome),
        users=_measured(outcome),
        items=outcome.train.num_items,
        seen=outcome.seen,
        rows=rows,
        verdict=board.verdict,
        baskets=basket_words(outcome),
    )


def basket_words(outcome: Outcome) -> str | None:
    """What the figures on baskets are measured on."""
    measured = next((f.baskets for f in outcome.fitted if f.baskets is not None), None)
    if outcome.baskets is None or measured is None:
        return None
    size = len(outcome.baskets.target_item) / len(outcome.baskets)
    words = f"Next baskets of {measured.protocol.people:,} people, {size:.1f} items each"
    again = measured.metrics.get("repeat_share")
    return words if again is None else f"{words}, {again.value:.0%} of a basket bought before"


def protocol_words(outcome: Outcome) -> str:
    """What was done, in one paragraph that goes above every table."""
    seen = "items a person had before are excluded" if outcome.seen == "exclude" else "repeats are allowed"
    return (
        f"Time split at {iso(outcome.train.as_of)}{_question(outcome)}: every model learned from earlier events only. "
        f"{len(outcome.halves.chosen):,} people chose (stopping, blending, which model to promote), "
        f"{_measured(outcome):,} others are measured here. Full ranking over {outcome.train.num_items:,} items, "
        f"{seen}, equal scores count as a random order."
    )


def _question(outcome: Outcome) -> str:
    target = outcome.held_out.target
    return "" if target == "any" else f", asked for the next {target}"


def _measured(outcome: Outcome) -> int:
    """People whom the figures are about: those held out, but who asked only for items that are left out."""
    return outcome.board.rows[0].evaluation.protocol.people
