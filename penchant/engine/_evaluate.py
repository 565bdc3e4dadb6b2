"""Measure without learning anything that serves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from penchant.core import Progress
from penchant.engine import _requests as rq
from penchant.engine._promotion import read_pointer
from penchant.engine._protocol import DEFAULT_KINDS, chosen_kinds, report_of, run_protocol, take_snapshot
from penchant.engine._reporting import leaderboard_html
from penchant.store import atomic_write

if TYPE_CHECKING:
    from penchant.engine._shop import Shop


def evaluate(shop: Shop, request: rq.EvaluateRequest, progress: Progress) -> rq.LeaderboardReport:
    """Measure the asked kinds, by default the promoted one, beside the baselines."""
    asked = list(request.models) or _promoted_kind(shop)
    return _measure(shop, request, asked, progress)


def compare(shop: Shop, request: rq.CompareRequest, progress: Progress) -> rq.LeaderboardReport:
    """Measure several kinds, by default all, with differences paired by person."""
    return _measure(shop, request, list(request.models) or list(DEFAULT_KINDS), progress)


def _measure(
    shop: Shop, request: rq.EvaluateRequest, asked: list[str], progress: Progress
) -> rq.LeaderboardReport:
    outcome = run_protocol(
        shop,
        take_snapshot(shop, progress),
        chosen_kinds(asked),
        share=request.share,
        seen=request.seen,
        seed=request.seed,
        size="auto",
        device="auto",
        by=request.by,
        progress=progress,
    )
    if request.html is not None:
        atomic_write(Path(request.html), leaderboard_html(shop, outcome).encode())
    return report_of(outcome)


def _promoted_kind(shop: Shop) -> list[str]:
    from penchant.training import read_artifact

    pointer = read_pointer(shop.artifacts)
    if pointer is None or pointer.promoted is None:
        return ["popularity"]
    return [read_artifact(shop.artifacts, pointer.promoted).kind]
