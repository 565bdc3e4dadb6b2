"""Measure without learning anything that serves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from penchant.core import Artifact, Progress, leads
from penchant.engine import _training_requests as tr
from penchant.engine._content import with_content
from penchant.engine._model_settings import check_settings
from penchant.engine._promotion import read_promoted, seen_rule
from penchant.engine._protocol import DEFAULT_KINDS, chosen_kinds, report_of, run_protocol, take_snapshot
from penchant.engine._reporting import leaderboard_html
from penchant.store import atomic_write
from penchant.training import read_artifact

if TYPE_CHECKING:
    from penchant.engine._shop import Shop


def evaluate(shop: Shop, request: tr.EvaluateRequest, progress: Progress) -> tr.LeaderboardReport:
    """Measure the asked kinds, by default the promoted one, beside the baselines."""
    promoted = read_promoted(shop.artifacts, read_artifact, strict=not request.models)
    asked = list(request.models) or ["popularity" if promoted is None else promoted.kind]
    return _measure(shop, request, asked, promoted, progress)


def compare(shop: Shop, request: tr.CompareRequest, progress: Progress) -> tr.LeaderboardReport:
    """Measure several kinds, by default all, with differences paired by person."""
    return _measure(
        shop,
        request,
        list(request.models) or list(DEFAULT_KINDS),
        read_promoted(shop.artifacts, read_artifact),
        progress,
    )


def _measure(
    shop: Shop,
    request: tr.EvaluateRequest,
    asked: list[str],
    promoted: Artifact | None,
    progress: Progress,
) -> tr.LeaderboardReport:
    """Measure with the size and the rule on seen items that the promoted model was trained with."""
    seen = request.seen
    target = request.target or shop.config.target
    if promoted is not None and seen == shop.config.seen == "auto":
        seen = seen_rule(promoted.facts, target, "auto")
    size = "auto" if promoted is None else promoted.config.get("size", "auto")
    kinds = chosen_kinds(asked)
    check_settings(shop, size)
    outcome = run_protocol(
        shop,
        with_content(shop, take_snapshot(shop, progress), progress),
        kinds,
        share=request.share,
        seen=seen,
        seed=request.seed,
        size=size,
        device="auto",
        by=request.by,
        progress=progress,
        target=target,
    )
    if request.html is not None and leads():
        atomic_write(Path(request.html), leaderboard_html(shop, outcome).encode())
    outcome.forget_runs()
    return msgspec.structs.replace(report_of(outcome), by=list(request.by))
