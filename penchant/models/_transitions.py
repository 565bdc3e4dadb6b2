"""Counted transitions: what people turned to soon after an item."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Self

import msgspec
import numpy as np
from msgspec import Meta
from scipy import sparse

from penchant.core import Run, Snapshot
from penchant.models._counts import Positives, item_blocks, popularity_prior, positives, strongest
from penchant.models._neighbours import NeighbourModel
from penchant.models._readings import Readings

BLOCK_PAIRS = 8_000_000  # pairs counted at once: about 200 MB while they are summed


class TransitionsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How transitions are counted and how a history is weighed.

    ``window``: how many later events of the same person an event is paired with, each pair weighing
    1 / distance. ``shrink``: added to a row's sum, so that items seen rarely say less. ``decay``: weight of a
    history event for each newer one; None lets validation decide, 0.6 without. ``neighbours``: pairs kept
    per item. ``prior``: weight of popularity beside the evidence.
    ``readings``: how a history is read when asked for one kind of event, see ``Reading``; None lets validation
    decide where there are several kinds.
    """

    window: Annotated[int, Meta(ge=1, le=50)] = 5
    shrink: Annotated[float, Meta(ge=0)] = 1.0
    decay: Annotated[float, Meta(gt=0, le=1)] | None = None
    readings: Readings | None = None
    neighbours: Annotated[int, Meta(ge=1)] = 500
    prior: Annotated[float, Meta(ge=0)] = 0.001


@dataclass(frozen=True, eq=False)
class Transitions(NeighbourModel):
    """Score what followed the last items of a history, counted over everybody.

    ``M[i, j]`` is the sum of 1 / distance over all times somebody turned to j within ``window`` events
    after i, divided by the square root of the row's sum plus ``shrink``: halfway between counts (which
    favour items with many events) and shares (which trust items with few). Going back to the same item
    counts as well. Cost: one pass over the events per distance.
    """

    Config: ClassVar[type[msgspec.Struct]] = TransitionsConfig
    usual_decay: ClassVar[float] = 0.6
    config: TransitionsConfig

    @classmethod
    def fit(cls, snapshot: Snapshot, config: TransitionsConfig, run: Run) -> Self:
        """Count; same snapshot and config give the same bits. Memory does not grow with the events."""
        found = positives(snapshot)
        width = snapshot.num_items + 1
        counts = np.bincount(found.item, minlength=width)
        blocks = []
        for start, end in item_blocks(counts * config.window, BLOCK_PAIRS):
            block = _block(found, start, end, width, config)
            blocks.append(strongest(block, config.neighbours))
            run.progress("transitions", end, width, {})
        matrix = sparse.vstack(blocks, format="csr")
        model = cls.from_matrix(config, matrix, popularity_prior(found, snapshot.num_items))
        return model.settled(config.decay, run).by_kinds(run, snapshot, found)


def _block(found: Positives, start: int, end: int, width: int, config: TransitionsConfig) -> sparse.csr_array:
    """Count the rows of the items from ``start`` to ``end``: (end - start, N + 1), rows scaled."""
    source = np.flatnonzero((found.item >= start) & (found.item < end))
    rows, columns, weights = [], [], []
    for distance in range(1, config.window + 1):
        here = source[source < len(found.item) - distance]
        here = here[found.user[here] == found.user[here + distance]]
        rows.append(found.item[here] - start)
        columns.append(found.item[here + distance])
        weights.append(np.full(len(here), 1.0 / distance, np.float32))
    pairs = (np.concatenate(weights), (np.concatenate(rows), np.concatenate(columns)))
    block = sparse.coo_array(pairs, shape=(end - start, width)).tocsr()
    scale = 1.0 / np.sqrt(np.maximum(block.sum(axis=1) + config.shrink, 1e-12))
    block.data *= np.repeat(scale.astype(np.float32), np.diff(block.indptr))
    return block
