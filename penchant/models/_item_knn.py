"""Item neighbours: items that share their people, by shrunk cosine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Self

import msgspec
import numpy as np
from msgspec import Meta
from scipy import sparse

from penchant.core import Run, Snapshot
from penchant.models._counts import (
    came_back,
    item_blocks,
    popularity_prior,
    positives,
    strongest,
    user_item_matrix,
)
from penchant.models._neighbours import NeighbourModel
from penchant.models._readings import Readings

BLOCK_PAIRS = 2_000_000  # multiplications per block: what is made of them stays near the cache


class ItemKNNConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How neighbours are weighed.

    ``shrink``: added to the cosine's denominator, so that pairs seen with few people count less.
    ``neighbours``: pairs kept per item. ``decay``: weight of a history event for each newer one; None
    lets validation decide, 0.7 without. ``max_history``: most recent distinct items that count of one
    person. ``prior``: weight of popularity beside the evidence.
    ``readings``: how a history is read when asked for one kind of event, see ``Reading``; None lets validation
    decide where there are several kinds.
    """

    shrink: Annotated[float, Meta(ge=0)] = 10.0
    neighbours: Annotated[int, Meta(ge=1)] = 200
    decay: Annotated[float, Meta(gt=0, le=1)] | None = None
    readings: Readings | None = None
    max_history: Annotated[int, Meta(ge=2)] = 300
    prior: Annotated[float, Meta(ge=0)] = 0.001


@dataclass(frozen=True, eq=False)
class ItemKNN(NeighbourModel):
    """Score the neighbours of a history's items.

    ``M[i, j] = both / (sqrt(n_i * n_j) + shrink)`` over people, as in Sarwar et al. 2001, "Item-based
    collaborative filtering", with a shrinkage term. An item is as much its own neighbour as people came
    back to it: ``M[i, i]`` is the share of its people who did, shrunk alike.
    """

    Config: ClassVar[type[msgspec.Struct]] = ItemKNNConfig
    usual_decay: ClassVar[float] = 0.7
    config: ItemKNNConfig

    @classmethod
    def fit(cls, snapshot: Snapshot, config: ItemKNNConfig, run: Run) -> Self:
        """Count; same snapshot and config give the same bits. Memory is bounded by the block size."""
        found = positives(snapshot)
        width = snapshot.num_items + 1
        who = user_item_matrix(found, snapshot.num_users, snapshot.num_items, config.max_history)
        by_item = who.T.tocsr()
        norm_I, shrink = np.sqrt(np.diff(by_item.indptr)).astype(np.float32), np.float32(config.shrink)
        # Both over whole histories: a share of those whose last items name it could pass 1.
        again_I, ever_I = came_back(found, width)
        # Multiplications that a row costs: the lengths of the histories of the item's people.
        cost_I = by_item @ np.diff(who.indptr).astype(np.float64)
        blocks = []
        for start, end in item_blocks(cost_I, BLOCK_PAIRS):
            block = (by_item[start:end] @ who).tocsr()
            row = np.repeat(np.arange(start, end, dtype=np.int32), np.diff(block.indptr))
            block.data /= norm_I[row] * norm_I[block.indices] + shrink
            itself = np.flatnonzero(block.indices == row)
            block.data[itself] = again_I[row[itself]] / (ever_I[row[itself]] + config.shrink)
            block.eliminate_zeros()
            blocks.append(strongest(block, config.neighbours))
            run.progress("item_knn", end, width, {})
        matrix = sparse.vstack(blocks, format="csr")
        model = cls.from_matrix(config, matrix, popularity_prior(found, snapshot.num_items))
        return model.settled(config.decay, run).by_kinds(run, snapshot, found)
