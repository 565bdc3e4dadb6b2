"""Between trainings: what the promoted model counted is counted again; what it learned by gradient stays.

A person's own new events need none of this: every answer reads their live history. This is for what others
did since, which the pairs, neighbours and popularity of a model do not know.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from penchant.core import Artifact, Model, Progress, Run, Snapshot, Vocabulary
from penchant.core.errors import ModelError
from penchant.engine import _training_requests as tr
from penchant.engine._promotion import Pointer, read_pointer, write_pointer
from penchant.engine._protocol import take_snapshot
from penchant.models import Sequence
from penchant.training import fit_model, load_artifact, read_artifact, save_artifact

if TYPE_CHECKING:
    from penchant.engine._shop import Shop

_WORTH = 0.001  # new events, as a share of those counted, that are worth a recount
RECOUNTED = "recounted"  # marks artifacts that were not trained, in their facts


def is_stale(shop: Shop) -> bool:
    """Whether enough has come in since the promoted model last counted to be worth counting again.

    Enough is one event in a thousand of those it counted; False when no model is promoted.
    """
    pointer = read_pointer(shop.artifacts)
    if pointer is None or pointer.promoted is None:
        return False
    artifact, stored = read_artifact(shop.artifacts, pointer.promoted), shop.store.status()
    if stored.last_ts is None or stored.last_ts < artifact.as_of:
        return False
    counted: int = artifact.facts.get("events", 0)
    return stored.events - counted >= max(1, _WORTH * counted)


def recount(shop: Shop, progress: Progress) -> tr.RecountReport:
    """Count everything stored, put the counts into a copy of the promoted model, and let that serve."""
    started = time.perf_counter()
    pointer = read_pointer(shop.artifacts) or Pointer()
    promoted = pointer.promoted
    if promoted is None:
        raise ModelError("no model serves yet", hint="train first: penchant train")
    loaded = load_artifact(shop.artifacts, promoted)
    snapshot = take_snapshot(shop, progress)
    model, items = counted_again(loaded.model, loaded.artifact.kind, loaded.items, snapshot, progress)
    artifact = save_artifact(
        shop.artifacts,
        model,
        kind=loaded.artifact.kind,
        as_of=snapshot.as_of,
        items=items,
        metrics=loaded.artifact.metrics,
        facts=loaded.artifact.facts | {RECOUNTED: True, "events": shop.store.status().events},
        parents=[promoted],
        fingerprint=snapshot.fingerprint,
    )
    pointer = read_pointer(shop.artifacts) or Pointer()
    if pointer.promoted != promoted:
        raise ModelError("another model was promoted meanwhile", hint="that one serves; count it again")
    # In place of the one it was counted from: `rollback` leads to the model before, not to older counts.
    write_pointer(shop.artifacts, msgspec.structs.replace(pointer, promoted=artifact.id))
    _drop_older_counts(shop, loaded.artifact)
    return tr.RecountReport(
        promoted=artifact.id,
        previous=promoted,
        kind=artifact.kind,
        as_of=artifact.as_of,
        events=snapshot.num_events,
        seconds=round(time.perf_counter() - started, 3),
    )


def _drop_older_counts(shop: Shop, before: Artifact) -> None:
    """Of a chain of recounts the trained model, the last and the one before stay: a server may be reading that."""
    if not before.facts.get(RECOUNTED):
        return
    for parent in before.parents:
        if read_artifact(shop.artifacts, parent).facts.get(RECOUNTED):
            shutil.rmtree(shop.artifacts / parent, ignore_errors=True)


def counted_again(
    model: Model, kind: str, items: Vocabulary, snapshot: Snapshot, progress: Progress
) -> tuple[Model, Vocabulary]:
    """The model with new counts, and its vocabulary: that of a network is fixed until it learns again."""
    if isinstance(model, Sequence):
        return model.recounted(in_vocabulary(snapshot, items)), items
    return fit_model(kind, snapshot, model.config, Run(progress=progress)), snapshot.items


def in_vocabulary(snapshot: Snapshot, items: Vocabulary) -> Snapshot:
    """The snapshot's events numbered by another vocabulary; what that lacks becomes 0, no item."""
    number_N = items.renumbering(snapshot.items)
    return replace(snapshot, items=items, item=number_N[snapshot.item].astype(snapshot.item.dtype))
