"""Learn, choose, learn again from everything, and promote."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from penchant.core import Model, Progress, Run, Snapshot, leads
from penchant.engine import _training_requests as tr
from penchant.engine._content import CONTENT, with_content
from penchant.engine._gate import LEARNED, compare_with_serving, serving_model
from penchant.engine._index import with_index
from penchant.engine._interests import train_interests
from penchant.engine._model_settings import check_settings, pick_device
from penchant.engine._promotion import (
    CALIBRATION,
    RANK_CHANCE,
    SEEN_FOR,
    Pointer,
    read_pointer,
    write_pointer,
)
from penchant.engine._protocol import (
    Fitted,
    Outcome,
    chosen_kinds,
    report_of,
    run_folder,
    run_protocol,
    take_snapshot,
)
from penchant.engine._reporting import write_training_report
from penchant.engine._tags import train_tags
from penchant.engine._tidy import tidy
from penchant.engine._update import update
from penchant.evaluation import fit_calibration, target_ranks
from penchant.models import RankChance
from penchant.training import fit_model, save_artifact

if TYPE_CHECKING:
    from penchant.engine._shop import Shop

_COMPANION_KINDS = ("item_knn", "transitions")


def train(shop: Shop, request: tr.TrainRequest, progress: Progress) -> tr.TrainReport:
    """Fit and choose on a time split, then fit the winner again on everything and let it serve."""
    if request.update:
        return update(shop, request, progress)
    started = time.perf_counter()
    settings = shop.config.train
    kinds = chosen_kinds(request.models or settings.models)
    check_settings(shop, request.size)
    snapshot = with_content(shop, take_snapshot(shop, progress), progress)
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
    notes: list[str | None] = []
    facts = {
        "seen": outcome.seen,
        SEEN_FOR: outcome.halves.seen_for,
        "target": outcome.held_out.target,
        "seed": request.seed,
        "events": shop.store.status().events,
        LEARNED: snapshot.as_of,
        CONTENT: list(snapshot.catalog.vectors),
    }
    for kind in dict.fromkeys((outcome.best.kind, "popularity", *_COMPANION_KINDS)):
        fitted = next(f for f in outcome.fitted if f.kind == kind)
        if fitted.model is not None:
            artifacts[kind], note = _refit(shop, outcome, fitted, request, facts, progress)
            notes.append(note)
    tags = train_tags(shop, snapshot, request.seed, progress, request.device)
    if tags.artifact is not None:
        artifacts["tags"] = tags.artifact
    drawn = train_interests(shop, snapshot, request.seed, progress)
    if drawn.artifact is not None:
        artifacts["interests"] = drawn.artifact
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
        tidy(shop, settings.keep)
    report = tr.TrainReport(
        leaderboard=report_of(outcome),
        tags=tags.report,
        artifacts=artifacts,
        promoted=artifacts[outcome.best.kind] if serves else None,
        promoted_kind=outcome.best.kind if serves else None,
        gate=gate,
        notes=[note for note in (*notes, *tags.notes, *drawn.notes) if note],
        seconds=round(time.perf_counter() - started, 1),
    )
    if leads():
        write_training_report(shop, outcome, report, tags)
    return report


def _rank_chances(outcome: Outcome, model: Model) -> dict[str, Any]:
    """How likely what stands at a rank is to be next, for each question: as JSON."""
    halves = outcome.halves
    asked = {outcome.held_out.target: halves.few, **halves.others}
    ranks = {t: target_ranks(model, cases, seen=halves.seen_for[t]) for t, cases in asked.items()}
    laws = {t: RankChance.fit(rank_P, outcome.full.num_items) for t, rank_P in ranks.items()}
    return {target: msgspec.to_builtins(law) for target, law in laws.items()}


def _refit(
    shop: Shop,
    outcome: Outcome,
    fitted: Fitted,
    request: tr.TrainRequest,
    facts: dict[str, Any],
    progress: Progress,
) -> tuple[str, str | None]:
    """Fit once more, on everything, with the settings found; save it; returns the artifact id, and what to say."""
    assert fitted.model is not None
    assert fitted.evaluation is not None
    folder = run_folder(shop, outcome.full, fitted.kind, fitted.model.config, request.seed)
    fitted.runs.append(folder)
    if fitted.calibration is not None:
        found = {t: fit_calibration(fitted.model, cases) for t, cases in outcome.halves.others.items()}
        found[outcome.held_out.target] = fitted.calibration
        facts = {**facts, CALIBRATION: msgspec.to_builtins(found)}
    model = _fit_again(outcome.full, fitted.kind, fitted.model.config, request, folder, progress)
    indexed = with_index(model, outcome.full, request.seed)
    artifact = save_artifact(
        shop.artifacts,
        indexed.model,
        kind=fitted.kind,
        as_of=outcome.full.as_of,
        metrics=fitted.evaluation.metrics | indexed.metrics,
        facts=facts | indexed.facts | {RANK_CHANCE: _rank_chances(outcome, fitted.model)},
        parents=[],
        fingerprint=outcome.full.fingerprint,
        items=outcome.full.items,
    )
    return artifact.id, indexed.note


def _fit_again(
    snapshot: Snapshot, kind: str, config: Any, request: tr.TrainRequest, folder: Path, progress: Progress
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
        interests=artifacts.get("interests", old.interests),
    )
    write_pointer(shop.artifacts, pointer)
