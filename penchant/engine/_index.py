"""How the items of a large catalogue are found: measured when a model is made, kept with it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np

from penchant.core import Estimate, Model, Snapshot, rng
from penchant.data import sequence_batch, sequence_length
from penchant.models import INDEX_ITEMS, ExactIndex, QuantizedIndex, Sequence, choose_index

RECALL, INDEX = "index recall@100", "index"  # what an artifact says of it: a metric, a fact
_PEOPLE = 200  # whose interests an index is measured on


@dataclass(frozen=True, eq=False)
class Indexed:
    """A model with the index that serves it, and what its artifact says of that."""

    model: Model
    metrics: dict[str, Estimate]
    facts: dict[str, Any]
    note: str | None


def with_index(model: Model, snapshot: Snapshot, seed: int) -> Indexed:
    """Choose the index of a model of vectors: measured on people of the snapshot, where its items are many.

    Args:
        model: In the numbers of the snapshot.
        snapshot: What it learned from.
        seed: Draws the people.
    """
    if not isinstance(model, Sequence) or snapshot.num_items < INDEX_ITEMS:
        return Indexed(model, {}, {}, None)
    with_history = np.flatnonzero(sequence_length(snapshot) > 0)
    people = np.sort(rng(seed, INDEX).permutation(with_history)[:_PEOPLE])
    mean_QRD, _ = model.interests(sequence_batch(snapshot, people, model.config.build().length))
    index, report = choose_index(model.item_ND, mean_QRD, model.bias_N)
    taken = index if isinstance(index, QuantizedIndex) else None
    facts = {INDEX: msgspec.to_builtins(report)}
    return Indexed(replace(model, approximate=taken), {RECALL: report.recall}, facts, report.note)


def index_note(model: Model, facts: dict[str, Any]) -> str | None:
    """What to say where an artifact's index cannot be used here."""
    report = facts.get(INDEX)
    if (
        report is None
        or report["kind"] == ExactIndex.kind
        or not isinstance(model, Sequence)
        or model.approximate
    ):
        return None
    return "every item is scored: the index of this model needs pip install 'penchant[index]'"
