"""What was learned and what serves: promote, roll back, status."""

from __future__ import annotations

from typing import TYPE_CHECKING

import penchant
from penchant.core.errors import ArtifactError, NotFound, PenchantError
from penchant.engine import _requests as rq
from penchant.engine._canary import check_model
from penchant.engine._promotion import Pointer, read_pointer, step_back, switch
from penchant.engine._protocol import NO_RANKERS
from penchant.engine._serving import Serving

if TYPE_CHECKING:
    from penchant.engine._shop import Shop


def check_artifact(shop: Shop, artifact_id: str) -> str:
    """Load an artifact, see that it can serve, and tell its kind.

    Raises:
        ArtifactError: Its files are damaged, it ranks nothing, or its scores are not numbers.
    """
    from penchant.training import load_artifact

    loaded = load_artifact(shop.artifacts, artifact_id)
    if loaded.artifact.kind in NO_RANKERS:
        raise ArtifactError(
            f"an artifact of the kind {loaded.artifact.kind} ranks no items",
            value=artifact_id,
            hint="promote a recommender",
        )
    check_model(loaded.model, loaded.items, artifact_id)
    return loaded.artifact.kind


def find_artifact(shop: Shop, beginning: str) -> str:
    """The one artifact id that begins like this.

    Raises:
        NotFound: None does, or several do.
    """
    from penchant.training import list_artifacts

    found = [a.id for a in list_artifacts(shop.artifacts) if a.id.startswith(beginning)]
    if len(found) != 1:
        what = "several artifacts begin" if found else "no artifact begins"
        raise NotFound(f"{what} like this", value=beginning, hint="see `penchant status` for the ids")
    return found[0]


def promote(shop: Shop, request: rq.PromoteRequest) -> rq.PromotionReport:
    """Check an artifact and let it serve."""
    artifact_id = find_artifact(shop, request.artifact)
    kind = check_artifact(shop, artifact_id)
    _, previous = switch(shop.artifacts, artifact_id)
    return rq.PromotionReport(promoted=artifact_id, kind=kind, previous=previous)


def rollback(shop: Shop, request: rq.RollbackRequest) -> rq.PromotionReport:
    """Return to the model that served before, if it can still be used."""
    pointer = read_pointer(shop.artifacts) or Pointer()
    kind = check_artifact(shop, pointer.previous[0]) if pointer.previous else ""
    new, previous = step_back(shop.artifacts)
    assert new.promoted is not None
    return rq.PromotionReport(promoted=new.promoted, kind=kind, previous=previous)


def status(shop: Shop, serving: Serving) -> rq.Status:
    """Count what is stored and tell what serves."""
    from penchant.training import list_artifacts

    shop.store.flush()
    stored = shop.store.status()
    pointer = read_pointer(shop.artifacts) or Pointer()
    failed = {one.id: one.why for one in pointer.failed}
    try:
        ranker = serving.ranker
        serves, degraded, note = ranker.model_id, ranker.degraded, ranker.note
    except PenchantError as error:
        serves, degraded, note = "", True, str(error)
    models = [
        rq.ModelStatus(
            id=a.id,
            kind=a.kind,
            as_of=a.as_of,
            promoted=a.id in (pointer.promoted, pointer.tags, pointer.interests),
            metrics=a.metrics,
            failed=failed.get(a.id),
        )
        for a in list_artifacts(shop.artifacts)
    ]
    return rq.Status(
        path=str(shop.path),
        name=shop.config.name,
        version=penchant.__version__,
        events=stored.events,
        journal_events=stored.journal_events,
        items=stored.items,
        first_ts=stored.first_ts,
        last_ts=stored.last_ts,
        decisions=stored.decisions,
        bytes=stored.bytes,
        models=models,
        serving=serves or None,
        degraded=degraded,
        note=note,
    )
