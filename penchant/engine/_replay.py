"""``replay``: what another policy would have earned, from what was logged."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from penchant.core import DAY, USER_KEY, Candidates, Floats, Ints, Policy, Progress, Query, Slate
from penchant.core.errors import InputError
from penchant.engine._answer_ids import is_drawn
from penchant.engine._apprentice import Apprentice
from penchant.engine._replay_files import file_cases
from penchant.engine._replay_requests import ReplayPart, ReplayReport, ReplayRequest
from penchant.evaluation import (
    Forest,
    Judgement,
    Replay,
    Table,
    counted_rates,
    folds_by_person,
    judge,
    render_decision_html,
)
from penchant.policy import Best, Explorer, FastCB, Learned, Softmax, SquareCB, Thompson
from penchant.store import atomic_write

if TYPE_CHECKING:
    from penchant.engine._serving import Serving
    from penchant.engine._shop import Shop

FEWEST = 50  # answers of a part that is reported
MOST_PARTS = 20
_RULES: dict[str, Any] = {
    "softmax": Softmax, "squarecb": SquareCB, "fastcb": FastCB, "thompson": Thompson, "ucb": Best,
}  # fmt: skip
_HINT = (
    "greedy, uniform, epsilon:0.1, softmax:0.1, ucb:1, thompson:1, squarecb:100 or fastcb:10, also with +FLOOR; "
    "on the shop's own log also LEARNER/ before it, such as neural_linear/thompson:1"
)
_WATCHED = "the learner watched the log: before each answer it knew what had become of those before"


@dataclass(frozen=True, eq=False)
class Cases:
    """Logged answers made ready: for the judge, and the columns that parts are made by."""

    replay: Replay
    columns: Mapping[str, npt.NDArray[Any]]
    log: str
    notes: list[str] = field(default_factory=list)


def policy_named(name: str) -> Policy:
    """A policy from its name: a rule, its one number, and a floor.

    Raises:
        InputError: There is no such policy, or its number cannot be read.

    Example:
        >>> policy_named("epsilon:0.1").id, policy_named("softmax:0.2+0.05").id
        ('greedy/1+0.1', 'softmax/1+0.05')
    """
    text, _, floor_text = name.partition("+")
    kind, _, number = text.partition(":")
    try:
        floor = float(floor_text) if floor_text else 0.0
        if not 0 <= floor <= 1:
            raise ValueError
        if kind == "greedy" and not number:
            return Explorer(Best(), floor)
        if kind == "uniform" and not number:
            return Explorer(Best(), 1.0)
        if kind == "epsilon" and 0 <= float(number) <= 1:
            return Explorer(Best(), float(number))
        if kind in _RULES:
            return Explorer(_RULES[kind](float(number)) if number else _RULES[kind](), floor)
    except ValueError:
        pass
    raise InputError("there is no such policy", value=name, hint=_HINT, path="$.policy")


def replay(shop: Shop, serving: Serving, request: ReplayRequest, progress: Progress) -> ReplayReport:
    """Estimate, judge, and write the page."""
    started = time.perf_counter()
    cases = (
        file_cases(request, policy_named)
        if request.log is not None
        else _shop_cases(shop, serving, request, progress)
    )
    judged = judge(cases.replay, level=request.level)
    who_C = cases.replay.who_C
    report = ReplayReport(
        policy=request.policy,
        log=cases.log,
        answers=len(cases.replay.reward_CK),
        slots=cases.replay.reward_CK.shape[1],
        people=None if who_C is None else len(np.unique(who_C)),
        estimator=judged.estimator,
        value=judged.value,
        logged=judged.logged,
        difference=judged.difference,
        estimates=judged.estimates,
        gates=judged.gates,
        verdict=judged.verdict,
        reason=judged.reason,
        parts=_parts(cases, request),
        notes=cases.notes,
        seconds=time.perf_counter() - started,
    )
    if request.html is not None:
        atomic_write(Path(request.html), replay_html(report).encode())
    return report


def _parts(cases: Cases, request: ReplayRequest) -> list[ReplayPart]:
    """The same judgement for parts of the answers; the small ones are left out."""
    parts = []
    for name in request.by:
        values, code_C, size = np.unique(cases.columns[name], return_inverse=True, return_counts=True)
        for place in np.argsort(-size, kind="stable")[:MOST_PARTS]:
            if size[place] < FEWEST:
                continue
            chosen = np.flatnonzero(code_C == place)
            found: Judgement = judge(cases.replay.take(chosen), level=request.level)
            parts.append(
                ReplayPart(
                    name=f"{name} = {values[place]}",
                    answers=int(size[place]),
                    value=found.value,
                    logged=found.logged,
                    difference=found.difference,
                    verdict=found.verdict,
                    reason=found.reason,
                )
            )
    return parts


# -- the shop's own log ------------------------------------------------------------------------------------


def _shop_cases(shop: Shop, serving: Serving, request: ReplayRequest, progress: Progress) -> Cases:
    kind, name = request.parted()
    policy = policy_named(name)
    slates, notes = _usable(shop, request)
    watches = None
    if kind is not None:
        watches = Apprentice(shop, serving.ranker, kind, slates)
        assert isinstance(policy, Explorer)
        policy = Learned(watches.kind, watches.learner, policy.rule, policy.floor, serving.ranker.items)
        notes.append(
            _WATCHED if watches.kind == kind else f"{_WATCHED}; nothing is trained for {kind}: hybrid"
        )
    reward = _outcomes(shop, slates, request)
    slots = max(len(slate.items) for slate in slates)
    shape = (len(slates), slots)
    reward_CK, logged_CK, target_CK = np.zeros(shape), np.ones(shape), np.ones(shape)
    for row, slate in enumerate(slates):
        logged_CK[row, : len(slate.items)] = slate.odds
        reward_CK[row, : len(slate.items)] = [
            reward.get((slate.recommendation_id, i), 0.0) for i in slate.item_ids
        ]
    who_C = np.unique([slate.subject for slate in slates], return_inverse=True)[1]
    rate = _Rates(slates, reward_CK, who_C, request.seed)
    predicted_CK, expected_CK = np.zeros(shape), np.zeros(shape)
    lost = 0.0
    for row, slate in enumerate(slates):
        progress("replaying the decision log", row + 1, len(slates), {})
        candidates, chosen_K, rate_SN = _as_the_policy_saw(slate, rate, row)
        if watches is not None:
            candidates = watches.sees(slate)
        target_CK[row, : len(chosen_K)] = policy.odds(candidates, candidates.item_N[chosen_K])
        first_KN = _slot_chances(policy, candidates, chosen_K, slate)
        k = len(chosen_K)
        predicted_CK[row, :k] = rate_SN[np.arange(k), chosen_K]
        expected_CK[row, :k] = (first_KN * rate_SN).sum(axis=1)
        lost += _lost(slate, first_KN[0], chosen_K)
    columns = _columns(shop, slates, request.by)
    prepared = Replay(reward_CK, logged_CK, target_CK, predicted_CK, expected_CK, who_C, lost / len(slates))
    return Cases(prepared, columns, "the shop's decision log", notes)


def _usable(shop: Shop, request: ReplayRequest) -> tuple[list[Slate], list[str]]:
    """Answers old enough that their outcomes are in, with their candidates; and how many were passed over.

    Raises:
        InputError: None is left.
    """
    bar = shop.clock() - int(request.days * DAY)
    found, young, bare, pinned = [], 0, 0, 0
    for slate in shop.store.decisions():
        if slate.ts > bar:
            young += 1
        elif not is_drawn(slate):
            continue
        elif slate.candidates is None or not slate.items:
            bare += 1
        elif any(item.pinned for item in slate.items):
            pinned += 1
        else:
            found.append(slate)
    notes = []
    if young:
        notes.append(
            f"{young:,} answers are younger than {request.days:g} days: their outcomes are not in yet"
        )
    if bare:
        notes.append(
            f"{bare:,} answers were logged without their candidates, or empty: nothing can be said of them"
        )
    if pinned:
        notes.append(f"{pinned:,} answers had slots that a rule gave away: they are left out")
    if len(found) < 2:
        raise InputError(
            "the decision log has no answers to replay",
            value="; ".join(notes) or "it is empty",
            hint="serve recommendations first, lower --days, or give --log FILE",
        )
    return found, notes


def _outcomes(shop: Shop, slates: list[Slate], request: ReplayRequest) -> dict[tuple[str, str], float]:
    """What shown items earned within the days allowed: (recommendation, item) -> reward."""
    made = {slate.recommendation_id: slate.ts for slate in slates}
    names = ["ts", "kind", "item_id", "value", "recommendation_id"]
    events = shop.store.scan(columns=names, since=min(made.values()))
    events = events.filter(
        pc.and_(pc.equal(events["kind"], request.outcome), pc.is_valid(events["recommendation_id"]))
    )
    found: dict[tuple[str, str], float] = {}
    for event in events.to_pylist():
        asked = made.get(event["recommendation_id"])
        if asked is None or not asked <= event["ts"] <= asked + request.days * DAY:
            continue
        key = (event["recommendation_id"], event["item_id"])
        found[key] = found.get(key, 0.0) + (event["value"] or 0.0) if request.money else 1.0
    return found


class _Rates:
    """The counted reward model over the items of the log, fitted on other people's answers."""

    def __init__(self, slates: list[Slate], reward_CK: Floats, who_C: Ints, seed: int) -> None:
        self.number = {i: n for n, i in enumerate(sorted({i for s in slates for i in s.item_ids}))}
        rows = [(r, k, self.number[i]) for r, s in enumerate(slates) for k, i in enumerate(s.item_ids)]
        row, place, item = np.array(rows).T
        self.fold_C = folds_by_person(who_C, seed=seed)
        size = (len(self.number) + 1, reward_CK.shape[1])  # one more item: never shown
        self.rate_FPA = counted_rates(item, place, reward_CK[row, place], self.fold_C[row], *size)

    def of(self, row: int, item_ids: list[str], slots: int) -> Floats:
        """Rates of some items in the first slots, for the person of an answer: (slots, N)."""
        numbers = [self.number.get(i, len(self.number)) for i in item_ids]
        return self.rate_FPA[self.fold_C[row], :slots][:, numbers]


def _as_the_policy_saw(slate: Slate, rate: _Rates, row: int) -> tuple[Candidates, Ints, Floats]:
    """The logged candidates, where among them the shown items are, and their rates in the slots."""
    assert slate.candidates is not None
    ids = slate.candidates.item_ids
    place = {item_id: at for at, item_id in enumerate(ids)}
    mean_N = np.asarray(slate.candidates.mean, np.float32)
    std_N = np.asarray(slate.candidates.std or [0.0] * len(ids), np.float32)
    candidates = Candidates(np.arange(1, len(ids) + 1), mean_N, std_N, slate.model_id)
    chosen_K = np.array([place[i] for i in slate.item_ids], np.int64)
    return candidates, chosen_K, rate.of(row, ids, len(chosen_K))


def _slot_chances(policy: Policy, candidates: Candidates, chosen_K: Ints, slate: Slate) -> Floats:
    """What the policy would show in each slot given the logged slots above: (K, N)."""
    out_KN = np.zeros((len(chosen_K), len(candidates.item_N)))
    mean_N = candidates.mean_N.copy()
    query = Query(slate.subject, slate.ts, 1, slate.surface)
    for slot, chosen in enumerate(chosen_K.tolist()):
        left = replace(candidates, mean_N=mean_N.copy())
        choice = policy.choose(left, query, np.random.default_rng(0))
        if choice.first_N is None:
            out_KN[slot, choice.index_K] = 1.0
        else:
            out_KN[slot] = choice.first_N
        mean_N[chosen] = -np.inf
    return out_KN


def _lost(slate: Slate, first_N: Floats, chosen_K: Ints) -> float:
    """Share of what the policy would put first that the logger never would."""
    assert slate.candidates is not None
    if slate.candidates.odds:
        return float(first_N[np.asarray(slate.candidates.odds) <= 0].sum())
    return 1.0 - float(first_N[chosen_K[0]])  # the log's best came for certain


def _columns(shop: Shop, slates: list[Slate], by: list[str]) -> dict[str, npt.NDArray[Any]]:
    """Values of the attributes asked for, one an answer.

    Raises:
        InputError: An attribute is not known.
    """
    found: dict[str, npt.NDArray[Any]] = {}
    users: pa.Table | None = None
    for name in by:
        if name == "surface":
            found[name] = np.array([slate.surface for slate in slates])
            continue
        users = shop.store.users() if users is None else users
        if name not in users.column_names:
            known = ["surface", *(n for n in users.column_names if n != USER_KEY)]
            raise InputError("there is no such attribute", value=name, hint=f"use {known}", path="$.by")
        of = dict(zip(users[USER_KEY].to_pylist(), users[name].to_pylist(), strict=True))
        found[name] = np.array([str(of.get(slate.subject, "unknown")) for slate in slates])
    return found


# -- the page ----------------------------------------------------------------------------------------------

_TONES = {"worth an A/B test": "good", "worse": "bad", "not enough support": "open"}


def replay_html(report: ReplayReport) -> str:
    """The report as a page."""
    rows = [[name, str(e), e.method] for name, e in report.estimates.items()]
    gates = [["met" if g.passed else "NOT met", g.name, g.says] for g in report.gates]
    parts: list[Table | Forest] = [
        Forest(
            "What the policy would have earned per answer, by every estimator; dotted: what was earned. "
            "Grey: leaning on the reward model, so their intervals are no evidence",
            report.estimates,
            report.logged.value,
            "earned",
            "reward per answer",
            ("DM", "Switch-DR", "DRos"),
        ),
        Table("What the log can carry", ("check", "of", "seen"), gates),
        Table("Estimates", ("estimator", "value and interval", "interval by"), rows),
    ]
    if report.parts:
        parts += [
            Forest(
                "Difference from what was earned, by part",
                {part.name: part.difference for part in report.parts},
                0.0,
                "no difference",
                "reward per answer, new minus logged",
            ),
            Table(
                "By part",
                ("part", "answers", "new", "logged", "difference", "verdict"),
                [
                    [p.name, f"{p.answers:,}", str(p.value), str(p.logged), p.difference.signed, p.verdict]
                    for p in report.parts
                ],
                f"Each interval holds for its part alone; of {len(report.parts)} some will stand out by chance.",
            ),
        ]
    people = "" if report.people is None else f" to {report.people:,} people"
    return render_decision_html(
        title=f"What {report.policy} would have earned",
        verdict=f"{report.verdict.capitalize()}: {report.reason}.",
        tone=_TONES[report.verdict],
        paragraphs=[
            f"{report.answers:,} answers of {report.slots} slots{people}, from {report.log}. "
            f"{report.estimator}: {report.value} per answer; earned: {report.logged}."
        ],
        parts=parts,
        notes=report.notes,
    )
