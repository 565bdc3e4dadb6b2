"""Models side by side: paired differences, and an honest sentence about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from penchant.core import Estimate
from penchant.core.errors import InputError
from penchant.evaluation._estimate import UNBOUNDED, bootstrap_means, cautious
from penchant.evaluation._metrics import Evaluation

BASELINES = ("popularity", "recent_popularity", "item_knn", "transitions")
NEURAL = "sequence"


@dataclass(frozen=True, eq=False)
class Row:
    """One model: its figures, and its difference from the reference row, paired by person."""

    name: str
    evaluation: Evaluation
    difference: dict[str, Estimate]


@dataclass(frozen=True, eq=False)
class Leaderboard:
    """Rows measured under one protocol, best first, and what they say about the neural one."""

    rows: list[Row]
    measure: str
    reference: str
    verdict: str


def paired_difference(first: Evaluation, second: Evaluation, *, seed: int = 0) -> dict[str, Estimate]:
    """First minus second for every metric that exists per case, with bootstrap intervals over people.

    Raises:
        InputError: They were not measured on the same cases under the same rule.
    """
    if first.protocol.fingerprint != second.protocol.fingerprint:
        raise InputError("only figures of the same cases under the same rule can be compared")
    gaps = {n: first.per_case[n] - second.per_case[n] for n in first.per_case if n in second.per_case}
    names = [name for name, gap_C in gaps.items() if not np.isnan(gap_C).any()]
    gap_CV = np.stack([gaps[name] for name in names], axis=1)
    found = dict(zip(names, bootstrap_means(gap_CV, first.user_C, seed=seed), strict=True))
    for name in gaps.keys() - found.keys():  # figures that only some of the cases have
        asked = np.flatnonzero(~np.isnan(gaps[name]))
        if len(asked):
            found[name] = bootstrap_means(gaps[name][asked, None], first.user_C[asked], seed=seed)[0]
    return {name: gap if name.startswith(UNBOUNDED) else cautious(gap) for name, gap in found.items()}


def leaderboard(
    evaluations: Mapping[str, Evaluation], *, reference: str = "transitions", measure: str = "NDCG@10"
) -> Leaderboard:
    """Order evaluations by a measure and compare each with a reference row.

    Raises:
        InputError: A baseline is missing: popularity, recent popularity, item-kNN and counted transitions
            belong on every leaderboard.
    """
    missing = [name for name in BASELINES if name not in evaluations]
    if missing:
        raise InputError("a leaderboard without its baselines says little", value=", ".join(missing))
    base = evaluations[reference]
    rows = [
        Row(name, found, {} if name == reference else paired_difference(found, base))
        for name, found in evaluations.items()
    ]
    rows.sort(key=lambda row: -row.evaluation.metrics[measure].value)
    return Leaderboard(rows, measure, reference, _verdict(rows, reference, measure))


def _verdict(rows: list[Row], reference: str, measure: str) -> str:
    best = rows[0]
    lead = f"Best by {measure}: {best.name} with {best.evaluation.metrics[measure]}."
    neural = next((row for row in rows if row.name == NEURAL), None)
    if neural is None:
        return f"{lead} The sequence model was not measured."
    said = [_compared(neural.difference[measure], f"counted {reference}")]
    rival = next(row for row in rows if row.name != NEURAL)
    if rival.name != reference:
        gap = paired_difference(neural.evaluation, rival.evaluation)[measure]
        said.append(_compared(gap, f"{rival.name}, the best of the others"))
    return " ".join([lead, *said])


def _compared(gap: Estimate, other: str) -> str:
    if gap.low > 0:
        return f"The sequence model beats {other}: {gap.signed}."
    if gap.high < 0:
        return f"The sequence model does NOT beat {other}; it is behind: {gap.signed}."
    return f"The sequence model and {other} cannot be told apart: {gap.signed}."
