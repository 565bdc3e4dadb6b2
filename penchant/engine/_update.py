"""Between full trainings: the serving model goes on learning from what happened since."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from penchant.core import Artifact, Model, Progress, Run, Snapshot, Target, leads
from penchant.core.errors import ModelError
from penchant.data import Cases, is_target, time_split
from penchant.engine import _training_requests as tr
from penchant.engine._content import CONTENT, with_content
from penchant.engine._gate import LEARNED, compare_with_serving, learned_until
from penchant.engine._index import INDEX, with_index
from penchant.engine._model_settings import pick_device
from penchant.engine._promotion import Pointer, read_pointer, seen_rule, switch
from penchant.engine._protocol import take_snapshot
from penchant.engine._recount import RECOUNTED
from penchant.engine._tidy import tidy
from penchant.evaluation import rank_metrics
from penchant.training import load_artifact, read_artifact, save_artifact, update_model

if TYPE_CHECKING:
    from penchant.engine._shop import Shop

_TESTED = 0.3  # share of the new events on which the update is compared with the model as it was


def update(shop: Shop, request: tr.TrainRequest, progress: Progress) -> tr.TrainReport:
    """Learn on from the newest events; serve with it unless they say that it is worse than before.

    It is done twice: up to a moment, to be compared on what came after it, and then to the end.
    """
    started = time.perf_counter()
    pointer = read_pointer(shop.artifacts) or Pointer()
    if pointer.promoted is None:
        raise ModelError("no model serves that could go on learning", hint="train first: penchant train")
    loaded = load_artifact(shop.artifacts, pointer.promoted)
    learned = learned_until(loaded.artifact)
    snapshot = with_content(shop, take_snapshot(shop, progress), progress)
    target = shop.config.target
    seen = seen_rule(loaded.artifact.facts, target, "allow")
    train, cases = _newest(snapshot, learned, target)
    run = Run(seed=request.seed, device=pick_device(request.device), progress=progress)

    def updated(on: Snapshot) -> Model:
        return update_model(loaded.artifact.kind, loaded.model, loaded.items, on, learned, run)

    tried = updated(train)
    candidate = rank_metrics(tried, cases, seen=seen, groups=(), progress=progress)
    gate = compare_with_serving(loaded, candidate, train, cases, seen, progress, counted=tried)
    artifacts: dict[str, str] = {}
    promoted, note = None, None
    if not gate.refused:
        indexed = with_index(updated(snapshot), snapshot, request.seed)
        note = indexed.note
        facts = {k: v for k, v in loaded.artifact.facts.items() if k not in (RECOUNTED, INDEX)}
        artifact = save_artifact(
            shop.artifacts,
            indexed.model,
            kind=loaded.artifact.kind,
            as_of=snapshot.as_of,
            items=snapshot.items,
            metrics=candidate.metrics | indexed.metrics,
            facts=facts
            | indexed.facts
            | {
                "events": shop.store.status().events,
                LEARNED: snapshot.as_of,
                CONTENT: list(snapshot.catalog.vectors),
            },
            parents=[loaded.artifact.id],
            fingerprint=snapshot.fingerprint,
        )
        artifacts[artifact.kind] = artifact.id
        if request.promote:
            promoted = artifact.id
            if leads():
                _let_serve(shop, artifact.id, loaded.artifact)
    return tr.TrainReport(
        leaderboard=None,
        tags=None,
        artifacts=artifacts,
        promoted=promoted,
        promoted_kind=None if promoted is None else loaded.artifact.kind,
        gate=gate,
        notes=[note] if note else [],
        seconds=round(time.perf_counter() - started, 1),
    )


def _let_serve(shop: Shop, new: str, before: Artifact) -> None:
    """Promote the update and tidy up, unless something else was promoted while it learned.

    Raises:
        ModelError: What serves by now is neither the model that was updated nor a recount of it.
    """
    pointer = read_pointer(shop.artifacts) or Pointer()
    serving = pointer.promoted
    while serving is not None and serving != before.id:
        artifact = read_artifact(shop.artifacts, serving)
        serving = artifact.parents[0] if artifact.facts.get(RECOUNTED) else None
    if serving is None:
        raise ModelError(
            "another model was promoted meanwhile, and serves on",
            value=pointer.promoted,
            hint=f"to serve the update all the same: penchant promote {new}",
        )
    switch(shop.artifacts, new)
    tidy(shop, shop.config.train.keep)


def _newest(snapshot: Snapshot, learned: int, target: Target) -> tuple[Snapshot, Cases]:
    """Split what came since a moment: the last part of it is asked about.

    Raises:
        ModelError: Too little came.
    """
    ts = np.asarray(snapshot.ts)
    new = np.sort(ts[(ts >= learned) & is_target(snapshot.kind, snapshot.item, target)])
    if len(new) and new[0] < new[-1]:
        at = int(new[int((1 - _TESTED) * (len(new) - 1))])
        train, cases = time_split(snapshot, at=max(at, int(new[0]) + 1), target=target)
        if len(cases) >= 2:
            return train, cases
    raise ModelError(
        "too little happened since the serving model learned",
        value=f"{len(new)} events",
        hint="wait for more events; `penchant recount` takes in what there is",
    )
