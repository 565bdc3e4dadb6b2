"""Learn, choose, learn again from everything, and promote."""

from __future__ import annotations

import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from penchant.core import Model, Progress, Run, Snapshot, leads
from penchant.engine import _requests as rq
from penchant.engine._gate import LEARNED, compare_with_serving, serving_model
from penchant.engine._promotion import Pointer, read_pointer, write_pointer
from penchant.engine._protocol import (
    Fitted,
    Outcome,
    check_settings,
    chosen_kinds,
    pick_device,
    report_of,
    run_folder,
    run_protocol,
    take_snapshot,
)
from penchant.engine._reporting import write_training_report
from penchant.engine._tags import train_tags
from penchant.engine._update import update
from penchant.training import fit_model, list_artifacts, save_artifact

if TYPE_CHECKING:
    from penchant.engine._shop import Shop

_COMPANION_KINDS = ("item_knn", "transitions")
_ABANDONED = 7 * 86400  # seconds after which a run that was killed is not gone on with


def train(shop: Shop, request: rq.TrainRequest, progress: Progress) -> rq.TrainReport:
    """Fit and choose on a time split, then fit the winner again on everything and let it serve."""
    if request.update:
        return update(shop, request, progress)
    started = time.perf_counter()
    settings = shop.config.train
    kinds = chosen_kinds(request.models or settings.models)
    check_settings(shop, request.size)
    snapshot = take_snapshot(shop, progress)
    outcome = run_protocol(
        shop,
        snapshot,
        kinds,
        share=settings.holdout,
        seen=request.seen,
        seed=request.seed,
        size=request.size,
        device=request.device,
        by=(),
        progress=progress,
        asked=request.models,
    )
    artifacts: dict[str, str] = {}
    facts = {
        "seen": outcome.seen,
        "seed": request.seed,
        "events": shop.store.status().events,
        LEARNED: snapshot.as_of,
    }
    for kind in dict.fromkeys((outcome.best.kind, "popularity", *_COMPANION_KINDS)):
        fitted = next(f for f in outcome.fitted if f.kind == kind)
        if fitted.model is not None:
            artifacts[kind] = _refit(shop, outcome, fitted, request, facts, progress)
    tags = train_tags(shop, snapshot, request.seed, progress, request.device)
    if tags.artifact is not None:
        artifacts["tags"] = tags.artifact
    assert outcome.best.evaluation is not None
    gate, serving = None, serving_model(shop)
    if serving is not None:
        gate = compare_with_serving(
            serving, outcome.best.evaluation, outcome.train, outcome.held_out, outcome.seen, progress
        )
    serves = request.promote and not (gate is not None and gate.refused)
    if leads():
        if serves:
            _promote(shop, outcome.best.kind, artifacts)
        outcome.forget_runs()
        _tidy(shop, settings.keep)
    report = rq.TrainReport(
        leaderboard=report_of(outcome),
        tags=tags.report,
        artifacts=artifacts,
        promoted=artifacts[outcome.best.kind] if serves else None,
        promoted_kind=outcome.best.kind if serves else None,
        gate=gate,
        notes=[note for note in tags.notes if note],
        seconds=round(time.perf_counter() - started, 1),
    )
    if leads():
        write_training_report(shop, outcome, report, tags)
    return report


def _refit(
    shop: Shop,
    outcome: Outcome,
    fitted: Fitted,
    request: rq.TrainRequest,
    facts: dict[str, Any],
    progress: Progress,
) -> str:
    """Fit once more, on everything, with the settings found; save it; returns the artifact id."""
    assert fitted.model is not None
    assert fitted.evaluation is not None
    folder = run_folder(shop, outcome.full, fitted.kind, fitted.model.config, request.seed)
    fitted.runs.append(folder)
    model = _fit_again(outcome.full, fitted.kind, fitted.model.config, request, folder, progress)
    artifact = save_artifact(
        shop.artifacts,
        model,
        kind=fitted.kind,
        as_of=outcome.full.as_of,
        metrics=fitted.evaluation.metrics,
        facts=facts,
        parents=[],
        fingerprint=outcome.full.fingerprint,
        items=outcome.full.items,
    )
    return artifact.id


def _fit_again(
    snapshot: Snapshot, kind: str, config: Any, request: rq.TrainRequest, folder: Path, progress: Progress
) -> Model:
    run = Run(
        seed=request.seed,
        device=pick_device(request.device),
        checkpoints=folder,
        progress=progress,
    )
    return fit_model(kind, snapshot, config, run)


def _promote(shop: Shop, best: str, artifacts: dict[str, str]) -> None:
    """Point at the new models in one atomic write: a crash leaves the old set or the new."""
    old = read_pointer(shop.artifacts) or Pointer()
    new_id = artifacts[best]
    previous = tuple(i for i in (old.promoted, *old.previous) if i is not None and i != new_id)[:10]
    companions = next((artifacts[kind] for kind in _COMPANION_KINDS if kind in artifacts), None)
    pointer = msgspec.structs.replace(
        old,
        promoted=new_id,
        previous=previous,
        fallback=(artifacts["popularity"],) if "popularity" in artifacts else old.fallback,
        companions=companions or old.companions,
        tags=artifacts.get("tags", old.tags),
    )
    write_pointer(shop.artifacts, pointer)


def _tidy(shop: Shop, keep: int) -> None:
    """Drop runs that nobody goes on with, and all but the newest artifacts of each kind that nothing points at."""
    for folder in shop.runs.glob("*"):  # a run that goes on writes every few minutes
        with suppress(FileNotFoundError):  # another job was done with it
            if time.time() - folder.stat().st_mtime > _ABANDONED:
                shutil.rmtree(folder, ignore_errors=True)
    pointer = read_pointer(shop.artifacts) or Pointer()
    needed = {pointer.promoted, pointer.companions, pointer.tags, *pointer.previous[:1], *pointer.fallback}
    by_kind: dict[str, list[str]] = {}
    for artifact in list_artifacts(shop.artifacts):  # newest first
        by_kind.setdefault(artifact.kind, []).append(artifact.id)
    for ids in by_kind.values():
        for old in ids[keep:]:
            if old not in needed:
                shutil.rmtree(shop.artifacts / old, ignore_errors=True)
    there = tuple(i for i in pointer.previous if (shop.artifacts / i).is_dir())
    if there != pointer.previous:  # nobody can go back to what was dropped
        write_pointer(shop.artifacts, msgspec.structs.replace(pointer, previous=there))
