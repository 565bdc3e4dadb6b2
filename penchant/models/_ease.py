"""EASE: the linear item-to-item model in closed form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Self

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta
from scipy import linalg, sparse

from penchant.core import Run, Snapshot
from penchant.core.errors import ModelError
from penchant.models._counts import popularity_prior, positives, strongest, user_item_matrix
from penchant.models._neighbours import NeighbourModel
from penchant.models._readings import Readings

BLOCK_ROWS = 512


class EASEConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How strongly weights are held down, and how much of the catalogue takes part.

    ``reg``: the ridge penalty on the weights. ``max_items``: only so many items, those with the most people,
    are given weights; the others keep their place by popularity alone. Time grows with the cube and memory
    with its square: 8,000 items take some 7 s of one core and 600 MB. ``neighbours``: weights kept per
    item. ``decay``: weight of a history event for each newer one; None lets validation decide, 0.7 without.
    ``max_history``: most recent distinct items that count of one person. ``prior``: weight of popularity
    beside the evidence.
    ``readings``: how a history is read when asked for one kind of event, see ``Reading``; None lets validation
    decide where there are several kinds.
    """

    reg: Annotated[float, Meta(gt=0)] = 100.0
    max_items: Annotated[int, Meta(ge=2, le=40_000)] = 8_000
    neighbours: Annotated[int, Meta(ge=1)] = 200
    decay: Annotated[float, Meta(gt=0, le=1)] | None = None
    readings: Readings | None = None
    max_history: Annotated[int, Meta(ge=2)] = 300
    prior: Annotated[float, Meta(ge=0)] = 0.001


@dataclass(frozen=True, eq=False)
class EASE(NeighbourModel):
    """Score items by the least-squares weights of a history's items, none explaining itself.

    Steck 2019, "Embarrassingly shallow autoencoders for sparse data": ``P = (X'X + reg I)^-1``,
    ``M = -P / diag(P)`` with a zero diagonal. Weights may be negative: an item can speak against another.
    Having no diagonal, it cannot say that somebody will come back to the same item.
    """

    Config: ClassVar[type[msgspec.Struct]] = EASEConfig
    usual_decay: ClassVar[float] = 0.7
    config: EASEConfig

    @classmethod
    def fit(cls, snapshot: Snapshot, config: EASEConfig, run: Run) -> Self:
        """Solve; raises ``ModelError`` when the numbers break down (``reg`` far too small)."""
        found = positives(snapshot)
        width = snapshot.num_items + 1
        who = user_item_matrix(found, snapshot.num_users, snapshot.num_items, config.max_history)
        people_I = np.asarray(who.sum(axis=0)).ravel()
        # Stable order: among items with as many people the lower number takes part.
        chosen = np.argsort(-people_I, kind="stable")[: min(config.max_items, int((people_I > 0).sum()))]
        chosen = np.sort(chosen)
        run.progress("ease", 0, len(chosen), {})
        weights = _weights(_gram(who[:, chosen]), config.reg)
        blocks = []
        for start in range(0, len(chosen), BLOCK_ROWS):
            block = sparse.csr_array(weights[start : start + BLOCK_ROWS])
            blocks.append(strongest(block, config.neighbours))
            run.progress("ease", start + block.shape[0], len(chosen), {})
        matrix = sparse.csr_array((width, width), dtype=np.float32)
        if blocks:
            small = sparse.vstack(blocks, format="coo")
            places = (small.data, (chosen[small.coords[0]], chosen[small.coords[1]]))
            matrix = sparse.coo_array(places, shape=(width, width)).tocsr()
        model = cls.from_matrix(config, matrix, popularity_prior(found, snapshot.num_items))
        return model.settled(config.decay, run).by_kinds(run, snapshot, found)


def _gram(who: sparse.csr_array) -> npt.NDArray[np.float32]:
    """Count people of each pair of items: (I, I) float32, in Fortran order for LAPACK."""
    gram = np.empty((who.shape[1], who.shape[1]), np.float32, order="F")
    by_item = who.T.tocsr()
    for start in range(0, len(gram), BLOCK_ROWS):
        gram[:, start : start + BLOCK_ROWS] = (by_item[start : start + BLOCK_ROWS] @ who).toarray().T
    return gram


def _weights(gram: npt.NDArray[np.float32], reg: float) -> npt.NDArray[np.float32]:
    """Turn counts into weights in place: row i says what item i adds to each item."""
    if not len(gram):
        return gram
    np.fill_diagonal(gram, gram.diagonal() + np.float32(reg))
    factor, failed = linalg.lapack.spotrf(gram, lower=1, overwrite_a=1, clean=0)
    inverse, broken = linalg.lapack.spotri(factor, lower=1, overwrite_c=1)
    if failed or broken or not np.isfinite(inverse.diagonal()).all():
        raise ModelError(
            "the EASE equations cannot be solved", value=reg, hint="raise reg under [train.settings.ease]"
        )
    # LAPACK filled one triangle; the other is its mirror image.
    for start in range(0, len(inverse), BLOCK_ROWS):
        end = start + BLOCK_ROWS
        tile = np.tril(inverse[start:end, start:end])
        inverse[start:end, start:end] = tile + np.tril(tile, -1).T
        inverse[start:end, end:] = inverse[end:, start:end].T
    inverse /= -inverse.diagonal()
    np.fill_diagonal(inverse, 0)
    return inverse  # type: ignore[no-any-return]
