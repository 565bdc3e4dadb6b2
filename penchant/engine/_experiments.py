"""Experiments on a shop: begin, deal arms, look, and stop; kept in ``experiments/`` as one small file each."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from penchant.core import DAY, KINDS, Estimate, Floats
from penchant.core.errors import InputError, NotFound, PenchantError, ShopError
from penchant.engine import _experiment_requests as xr
from penchant.engine._answer_ids import is_drawn
from penchant.engine._experiment_report import experiment_html, in_words
from penchant.engine._people import NOBODY
from penchant.evaluation import (
    Terms,
    arm_of,
    cuped,
    difference,
    interval_of,
    sample_ratio,
    spending_boundaries,
)
from penchant.store import atomic_write

if TYPE_CHECKING:
    from penchant.engine._shop import Shop

MISMATCH = 0.001  # p value below which arm sizes cannot be chance
DISCOVERED = 3  # successes from which an item counts as discovered
_STEP = 0.01  # share of the planned people between two looks that count as two
_WATCH_EVERY = 60.0  # seconds between two looks at the guardrails while people are assigned
_POWER = 7.85  # (1.96 + 0.84) squared: a two-sided test at 5 % with a chance of 80 %
_GUARDRAIL = re.compile(r"^\s*([a-z_]+:[a-z]+)\s*(<=|>=)\s*([+-]?[0-9.]+)\s*%\s*$")


@dataclass(frozen=True)
class Metric:
    """What counts per person: whether there was an event of a kind, how many, or their value together."""

    kind: str
    measure: str


def metric_of(text: str, path: str = "$.metric") -> Metric:
    """Read ``EVENT:any``, ``EVENT:count`` or ``EVENT:value``.

    Raises:
        InputError: It is none of them.
    """
    kind, _, measure = text.partition(":")
    if kind not in KINDS or measure not in ("any", "count", "value"):
        raise InputError(
            "this is not a metric", value=text, path=path, hint="write EVENT:any, EVENT:count or EVENT:value"
        )
    return Metric(kind, measure)


def guardrail_of(text: str) -> tuple[Metric, str, float]:
    """Read ``refund:count <= 10%``: the metric, the side, and the limit as a share of the control's mean.

    Raises:
        InputError: It cannot be read.
    """
    match = _GUARDRAIL.match(text)
    if match is None:
        hint = "write METRIC <= NUMBER% or METRIC >= -NUMBER%, such as: refund:count <= 10%"
        raise InputError("this is not a guardrail", value=text, hint=hint, path="$.guardrails")
    return metric_of(match[1], "$.guardrails"), match[2], float(match[3]) / 100


# -- at rest -----------------------------------------------------------------------------------------------


def _file(shop: Shop, name: str) -> Path:
    return shop.path / "experiments" / f"{name}.json"


def read_experiment(shop: Shop, name: str) -> xr.Experiment:
    """An experiment by name.

    Raises:
        NotFound: There is none; those that are there are named.
        ShopError: Its file is damaged.
    """
    if not re.fullmatch("[a-z0-9][a-z0-9_-]{0,63}", name) or not _file(shop, name).exists():
        known = sorted(path.stem for path in (shop.path / "experiments").glob("*.json"))
        hint = (
            f"there are: {', '.join(known)}" if known else "begin one with `penchant start-experiment NAME`"
        )
        raise NotFound("there is no such experiment", value=name, hint=hint)
    try:
        return msgspec.json.decode(_file(shop, name).read_bytes(), type=xr.Experiment)
    except msgspec.DecodeError as error:
        raise ShopError(
            f"the file of this experiment is damaged: {error}",
            value=str(_file(shop, name)),
            hint="restore it",
        ) from None


def _write(shop: Shop, experiment: xr.Experiment) -> xr.Experiment:
    _file(shop, experiment.name).parent.mkdir(exist_ok=True)
    body = msgspec.json.format(msgspec.json.encode(experiment), indent=1)
    atomic_write(_file(shop, experiment.name), body)
    return experiment


def start(shop: Shop, request: xr.StartExperimentRequest) -> xr.Experiment:
    """Begin.

    Raises:
        ShopError: The name was used before: results of two experiments must not be mixed.
        InputError: Metric or guardrails cannot be read, or nothing is known to plan with.
    """
    if _file(shop, request.name).exists():
        raise ShopError("this name was used before", value=request.name, hint="choose another name")
    metric = metric_of(request.metric)
    for text in request.guardrails:
        guardrail_of(text)
    now = shop.clock()
    arms = len(request.arms)
    shares = request.shares or [1 / arms] * arms
    return _write(
        shop,
        xr.Experiment(
            name=request.name,
            salt=f"{request.name}/{now}",
            arms=request.arms,
            shares=shares,
            metric=request.metric,
            guardrails=request.guardrails,
            days=request.days,
            exposed=request.exposed,
            divert=request.divert,
            monitor=request.monitor,
            people=request.people or _needed(shop, metric, request, shares, now),
            before=request.before,
            level=request.level,
            start_ts=now,
        ),
    )


def _needed(
    shop: Shop, metric: Metric, request: xr.StartExperimentRequest, shares: Sequence[float], now: int
) -> int:
    """People that a fixed test would need to find the effect with a chance of 80 %, from the days before.

    Raises:
        InputError: The past does not tell.
    """
    events = _events(shop, now - int(request.days * DAY), now)
    people = sorted(set(events["subject"].to_pylist()))
    outcome_U = _totals(events, metric, {who: n for n, who in enumerate(people)}, None, None)
    if len(people) < 20 or outcome_U.mean() <= 0:
        raise InputError(
            "the days before do not tell how many people this needs",
            value=f"{len(people)} people, mean {outcome_U.mean() if len(people) else 0:.4g}",
            path="$.people",
            hint="give --people",
        )
    shift = request.effect * float(outcome_U.mean())
    spread = float(outcome_U.var()) * (1 / shares[0] + 1 / min(shares[1:]))
    return max(20, int(np.ceil(_POWER * spread / shift**2)))


def assign(shop: Shop, request: xr.AssignRequest) -> xr.Assignment:
    """Tell an arm by hash; nothing is written."""
    experiment = read_experiment(shop, request.experiment)
    running = experiment.stop_ts is None
    arm = arm_of(request.subject, experiment.salt, experiment.shares) if running else 0
    items = list(request.items)
    if running and experiment.divert == "user+item":
        items = [item for item in items if item_arm(experiment, item) == arm]
    return xr.Assignment(
        experiment=experiment.name,
        subject=request.subject,
        arm=experiment.arms[arm],
        running=running,
        items=items,
    )


def item_arm(experiment: xr.Experiment, item_id: str) -> int:
    """The arm of an item where items have arms; dealt apart from people's."""
    return arm_of(item_id, experiment.salt + "/items", experiment.shares)


def stop(shop: Shop, name: str, why: str) -> xr.Experiment:
    """End; a second time changes nothing."""
    experiment = read_experiment(shop, name)
    if experiment.stop_ts is not None:
        return experiment
    return _write(shop, msgspec.structs.replace(experiment, stop_ts=shop.clock(), stopped=why))


class Watch:
    """Looks at the guardrails of running experiments while people are assigned, on a thread of its own."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self._looked: dict[str, float] = {}
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    def due(self, name: str) -> None:
        """Begin a look where the last one is a minute ago; the caller does not wait."""
        moment = time.monotonic()
        with self._lock:
            last = self._looked.get(name)
            if last is not None and moment - last < _WATCH_EVERY:
                return
            self._looked[name] = moment
            self._threads = [thread for thread in self._threads if thread.is_alive()]
            thread = threading.Thread(
                target=self._look, args=(name,), daemon=True, name="penchant-guardrails"
            )
            self._threads.append(thread)
        thread.start()

    def _look(self, name: str) -> None:
        try:
            experiment = read_experiment(self.shop, name)
            if experiment.stop_ts is None and experiment.guardrails:
                _stop_if_broken(
                    self.shop, experiment, _guardrails(experiment, _People.of(self.shop, experiment))
                )
        except (PenchantError, OSError):
            return  # the next look, or a report, says what is wrong

    def close(self) -> None:
        """Wait for looks that are under way."""
        for thread in self._threads:
            thread.join()


# -- what people did ---------------------------------------------------------------------------------------


def _events(shop: Shop, since: int, until: int) -> pa.Table:
    return shop.store.scan(columns=["subject", "ts", "kind", "item_id", "value"], since=since, as_of=until)


def _totals(
    events: pa.Table,
    metric: Metric,
    row_of: dict[str, int],
    from_U: npt.NDArray[np.int64] | None,
    until_U: npt.NDArray[np.int64] | None,
) -> Floats:
    """The metric of each person, over their own stretch of time: (U,)."""
    out_U = np.zeros(len(row_of))
    events = events.filter(pc.equal(events["kind"], metric.kind))
    if not len(events) or not row_of:
        return out_U
    who = np.array([row_of.get(subject, -1) for subject in events["subject"].to_pylist()], np.int64)
    ts = events["ts"].to_numpy()
    kept = who >= 0
    if from_U is not None and until_U is not None:
        kept &= (ts >= from_U[who]) & (ts < until_U[who])
    amount = (
        np.nan_to_num(events["value"].to_numpy().astype(np.float64)) if metric.measure == "value" else None
    )
    out_U += np.bincount(who[kept], None if amount is None else amount[kept], minlength=len(out_U))
    return np.minimum(out_U, 1.0) if metric.measure == "any" else out_U


@dataclass(frozen=True, eq=False)
class _People:
    """Whoever takes part: their arms, when they entered, and the events to measure them by."""

    row_of: dict[str, int]
    arm_U: npt.NDArray[np.int64]
    enter_U: npt.NDArray[np.int64]
    counts_U: npt.NDArray[np.bool_]  # their days are over
    events: pa.Table
    until: int

    @classmethod
    def of(cls, shop: Shop, experiment: xr.Experiment) -> _People:
        """Read the log up to now, or up to the stop."""
        until = experiment.stop_ts or shop.clock()
        events = _events(shop, experiment.start_ts - int(experiment.before * DAY), until)
        entered: dict[str, int] = {}
        if experiment.exposed == "slate":
            for slate in shop.store.decisions():
                if experiment.start_ts <= slate.ts < until and is_drawn(slate):
                    entered[slate.subject] = min(slate.ts, entered.get(slate.subject, slate.ts))
        else:
            new = events.filter(pc.greater_equal(events["ts"], experiment.start_ts))
            first = new.group_by("subject").aggregate([("ts", "min")])
            entered = dict(zip(first["subject"].to_pylist(), first["ts_min"].to_pylist(), strict=True))
        entered.pop(NOBODY, None)
        people = sorted(entered)
        enter_U = np.array([entered[who] for who in people], np.int64)
        return cls(
            row_of={who: n for n, who in enumerate(people)},
            arm_U=np.array([arm_of(who, experiment.salt, experiment.shares) for who in people], np.int64),
            enter_U=enter_U,
            counts_U=enter_U + int(experiment.days * DAY) <= until,
            events=events,
            until=until,
        )

    def outcome(self, experiment: xr.Experiment, metric: Metric) -> Floats:
        """The metric over each person's own days: (U,)."""
        return _totals(
            self.events, metric, self.row_of, self.enter_U, self.enter_U + int(experiment.days * DAY)
        )

    def before(self, experiment: xr.Experiment, metric: Metric) -> Floats:
        """The same before the start: (U,)."""
        start_U = np.full_like(self.enter_U, experiment.start_ts)
        return _totals(self.events, metric, self.row_of, start_U - int(experiment.before * DAY), start_U)


# -- a look ------------------------------------------------------------------------------------------------


def report(shop: Shop, request: xr.ReportExperimentRequest, *, readonly: bool) -> xr.ExperimentReport:
    """Look, stop what a guardrail or the plan says to stop, and tell."""
    experiment = read_experiment(shop, request.name)
    people = _People.of(shop, experiment)
    guardrails = _guardrails(experiment, people)
    if not readonly and experiment.stop_ts is None:
        experiment = _stop_if_broken(shop, experiment, guardrails)
        experiment = _looked(shop, experiment, people)
    found = _assemble(experiment, people, guardrails)
    if request.html is not None:
        atomic_write(Path(request.html), experiment_html(found).encode())
    return found


def _stop_if_broken(
    shop: Shop, experiment: xr.Experiment, guardrails: list[xr.GuardrailReport]
) -> xr.Experiment:
    broken = [f"{g.arm} broke the guardrail {g.guardrail} ({g.relative})" for g in guardrails if g.broken]
    return stop(shop, experiment.name, "; ".join(broken)) if broken else experiment


def _looked(shop: Shop, experiment: xr.Experiment, people: _People) -> xr.Experiment:
    """Note a planned look, and end with the plan."""
    if experiment.monitor != "planned" or experiment.stop_ts is not None:
        return experiment
    fraction = min(1.0, int(people.counts_U.sum()) / experiment.people)
    last = experiment.looks[-1].fraction if experiment.looks else 0.0
    if fraction - last < _STEP and not last < fraction == 1.0:
        return experiment
    looks = [*experiment.looks, xr.Look(ts=people.until, fraction=fraction)]
    experiment = msgspec.structs.replace(experiment, looks=looks)
    if fraction == 1.0:
        experiment = msgspec.structs.replace(
            experiment, stop_ts=people.until, stopped="the planned number of people is reached"
        )
    return _write(shop, experiment)


def _guardrails(experiment: xr.Experiment, people: _People) -> list[xr.GuardrailReport]:
    found = []
    for text in experiment.guardrails:
        metric, side, limit = guardrail_of(text)
        outcome_U = people.outcome(experiment, metric)
        for arm in range(1, len(experiment.arms)):
            treated, control = (outcome_U[people.counts_U & (people.arm_U == a)] for a in (arm, 0))
            relative: Estimate | None = None
            if len(treated) > 1 and len(control) > 1:
                relative = difference(
                    treated, control, planned=experiment.people, level=_level(experiment)
                ).relative
            broken = relative is not None and (
                relative.low > limit if side == "<=" else relative.high < limit
            )
            found.append(
                xr.GuardrailReport(guardrail=text, arm=experiment.arms[arm], relative=relative, broken=broken)
            )
    return found


def _level(experiment: xr.Experiment) -> float:
    """Of each comparison, so that all arms together keep the experiment's level (Bonferroni)."""
    return 1 - (1 - experiment.level) / (len(experiment.arms) - 1)


def _differences(experiment: xr.Experiment, people: _People, outcome_U: Floats) -> list[xr.ArmDifference]:
    before_U = people.before(experiment, metric_of(experiment.metric))
    boundary = None
    if experiment.monitor == "planned":
        fractions = [look.fraction for look in experiment.looks] or [_STEP]
        boundary = float(spending_boundaries(fractions, level=_level(experiment))[-1])
    found = []
    for arm in range(1, len(experiment.arms)):
        treated, control = (people.counts_U & (people.arm_U == a) for a in (arm, 0))
        if treated.sum() < 2 or control.sum() < 2:
            continue
        adjusted = cuped(outcome_U[treated], outcome_U[control], before_U[treated], before_U[control])
        gap = difference(
            adjusted.treated_U,
            adjusted.control_U,
            planned=experiment.people,
            boundary=boundary,
            base=float(outcome_U[control].mean()),
            level=_level(experiment),
        )
        word = "open" if not gap.significant else "better" if gap.estimate.value > 0 else "worse"
        found.append(
            xr.ArmDifference(
                arm=experiment.arms[arm],
                metric=experiment.metric,
                difference=gap.estimate,
                relative=gap.relative,
                variance_cut=adjusted.variance_cut,
                verdict=word,  # type: ignore[arg-type]
            )
        )
    return found


def _arms(experiment: xr.Experiment, people: _People, outcome_U: Floats) -> list[xr.ArmReport]:
    items = _discoveries(experiment, people) if experiment.divert == "user+item" else {}
    found = []
    for arm, name in enumerate(experiment.arms):
        mine_U = people.arm_U == arm
        values = outcome_U[mine_U & people.counts_U]
        mean = (
            interval_of(Terms(values, np.zeros_like(values)), level=experiment.level)
            if len(values) > 1
            else None
        )
        offered, discovered = items.get(arm, (None, None))
        found.append(
            xr.ArmReport(
                arm=name,
                entered=int(mine_U.sum()),
                people=len(values),
                mean=mean,
                items=offered,
                discovered=discovered,
            )
        )
    return found


def _discoveries(experiment: xr.Experiment, people: _People) -> dict[int, tuple[int, int]]:
    """By arm: its items that anybody of it met since the start, and those with enough successes."""
    metric = metric_of(experiment.metric)
    events = people.events.filter(pc.greater_equal(people.events["ts"], experiment.start_ts))
    met: dict[str, int] = {}
    for subject, kind, item in zip(
        *(events[n].to_pylist() for n in ("subject", "kind", "item_id")), strict=True
    ):
        row = people.row_of.get(subject)
        if item is None or row is None or people.arm_U[row] != item_arm(experiment, item):
            continue
        met[item] = met.get(item, 0) + (kind == metric.kind)
    found = dict.fromkeys(range(len(experiment.arms)), (0, 0))
    for item, count in met.items():
        arm = item_arm(experiment, item)
        offered, discovered = found[arm]
        found[arm] = (offered + 1, discovered + (count >= DISCOVERED))
    return found


def _assemble(
    experiment: xr.Experiment, people: _People, guardrails: list[xr.GuardrailReport]
) -> xr.ExperimentReport:
    outcome_U = people.outcome(experiment, metric_of(experiment.metric))
    differences = _differences(experiment, people, outcome_U)
    sizes = np.bincount(people.arm_U, minlength=len(experiment.arms)).tolist()
    ratio = sample_ratio(sizes, experiment.shares)
    counted = int(people.counts_U.sum())
    verdict, says = in_words(experiment, differences, guardrails, ratio < MISMATCH, sizes, counted)
    notes = []
    if people.counts_U.sum() < len(people.counts_U):
        waiting = len(people.counts_U) - counted
        notes.append(f"{waiting:,} people entered less than {experiment.days:g} days ago: they count later")
    return xr.ExperimentReport(
        name=experiment.name,
        status="running" if experiment.stop_ts is None else "stopped",
        verdict=verdict,
        says=says,
        metric=experiment.metric,
        arms=_arms(experiment, people, outcome_U),
        differences=differences,
        guardrails=guardrails,
        sample_ratio=ratio,
        planned=experiment.people,
        fraction=min(1.0, counted / experiment.people),
        monitor=experiment.monitor,
        start_ts=experiment.start_ts,
        stop_ts=experiment.stop_ts,
        notes=notes,
    )
