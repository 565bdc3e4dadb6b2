"""Content neighbours: items that say or show alike, and what an item that nobody has met yet owes to them.

Legend: N items, C content width, D vector width, K neighbours, J items without events. Item numbers run from 1 to N.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta
from scipy import sparse

from penchant.core import Bools, Floats, Ints
from penchant.models._counts import NeighbourModel

_NEIGHBOURS = 100  # kept of each item
_WIDTH = 0.2  # of the kernel: an item whose cosine is .2 lower speaks e times less for another
_LENDERS = 10  # known items that an unmet one borrows from
_LENDING = 0.1  # width of their kernel
_BLOCK_CELLS = 8_000_000  # similarities held at once: 32 MB of float32


class ContentConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a history fades for content neighbours; popularity plays no part."""

    decay: Annotated[float, Meta(gt=0, le=1)] | None = None
    prior: Annotated[float, Meta(ge=0)] = 0.0


@dataclass(frozen=True, eq=False)
class ContentNeighbours(NeighbourModel):
    """Score items whose content is near that of a history's items: ``M[i, j] = exp((cos(i, j) - 1) / .2)``.

    A kernel estimate over the contents of the history (Nadaraya 1964; Watson 1964), cut to the 100 nearest of each
    item. It knows items that nobody has met as well as any other.
    """

    Config: ClassVar[type[msgspec.Struct]] = ContentConfig
    usual_decay: ClassVar[float] = 0.8
    config: ContentConfig

    @classmethod
    def of(cls, content_NC: Floats) -> Self:
        """Find the neighbours of every item.

        Args:
            content_NC: (N + 1, C) as ``penchant.data.item_content`` gives it; zeros where nothing is known.
        """
        item_J = np.flatnonzero(content_NC.any(axis=1))
        near_JK, cosine_JK = _nearest(content_NC, item_J, item_J, _NEIGHBOURS + 1)
        weight_JK = np.exp((cosine_JK - 1) / _WIDTH) * (
            near_JK != item_J[:, None]
        )  # nobody is its own neighbour
        matrix = _matrix(len(content_NC), item_J, near_JK, weight_JK)
        return cls.from_matrix(ContentConfig(), matrix, np.zeros(len(content_NC)))


def lenders(content_NC: Floats, met_N: Bools) -> sparse.csr_array:
    """From whom an unmet item borrows: (N + 1, N + 1), rows of unmet items that sum to 1, all others empty.

    Args:
        content_NC: (N + 1, C) as ``penchant.data.item_content`` gives it; without content nobody borrows.
        met_N: (N + 1,) whom somebody has turned to.
    """
    known_N = content_NC.any(axis=1)
    item_J = np.flatnonzero(known_N & ~met_N)
    near_JK, cosine_JK = _nearest(content_NC, item_J, np.flatnonzero(known_N & met_N), _LENDERS)
    share_JK = np.exp((cosine_JK - cosine_JK.max(axis=1, keepdims=True, initial=-1)) / _LENDING)
    share_JK /= share_JK.sum(axis=1, keepdims=True)
    return _matrix(len(content_NC), item_J, near_JK, share_JK)


def _nearest(
    content_NC: Floats, item_J: Ints, among_M: Ints, count: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """The nearest of some items among others, and their cosines: (J, K) each, K at most ``count``."""
    count = min(count, len(among_M))
    near_JK = np.zeros((len(item_J), count), np.int64)
    cosine_JK = np.zeros((len(item_J), count), np.float32)
    among_MC = content_NC[among_M]
    step = max(1, _BLOCK_CELLS // max(1, len(among_M)))
    for start in range(0, len(item_J) if count else 0, step):
        cosine_BM = content_NC[item_J[start : start + step]] @ among_MC.T
        best_BK = np.argpartition(-cosine_BM, count - 1, axis=1)[:, :count]
        near_JK[start : start + step] = among_M[best_BK]
        cosine_JK[start : start + step] = np.take_along_axis(cosine_BM, best_BK, axis=1)
    return near_JK, cosine_JK


def _matrix(width: int, item_J: Ints, near_JK: Ints, weight_JK: Floats) -> sparse.csr_array:
    """Neighbours and their weights as (N + 1, N + 1), without the zeros."""
    row_P = np.repeat(item_J, near_JK.shape[1])
    matrix = sparse.csr_array(
        (weight_JK.ravel().astype(np.float32), (row_P, near_JK.ravel())), shape=(width, width)
    )
    matrix.eliminate_zeros()
    return matrix


@dataclass(frozen=True, eq=False)
class Content:
    """What contents say: neighbours of all items, and from whom those that nobody has met borrow.

    An unmet item is taken to be, in everything that was counted and learned, the weighted mean of the ten met items
    whose content is nearest; ``lend`` computes that, for scores as for vectors.
    """

    neighbours: ContentNeighbours
    lenders: sparse.csr_array  # (N + 1, N + 1)

    @classmethod
    def of(cls, content_NC: Floats, met_N: Bools) -> Self:
        """Find neighbours and lenders.

        Args:
            content_NC: (N + 1, C) as ``penchant.data.item_content`` gives it.
            met_N: (N + 1,) whom somebody has turned to.
        """
        return cls(ContentNeighbours.of(content_NC), lenders(content_NC, met_N))

    def lend(self, given_NX: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """What unmet items borrow of something that items have, (N + 1, X); zeros for all others."""
        lent_NX: npt.NDArray[np.float32] = self.lenders @ given_NX
        return lent_NX

    def lent(self, own_ND: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Vectors, (N + 1, D), with those of the borrowers put in the place of their own."""
        borrows_N = np.diff(self.lenders.indptr) > 0
        return np.where(borrows_N[:, None], self.lend(own_ND), own_ND)

    def extended(self, content_NC: Floats, met_N: Bools) -> Self:
        """The same with items added at the end; only their rows and columns are computed.

        Args:
            content_NC: (N + J + 1, C): known items, then the new ones; zeros for items that cannot be read any more.
            met_N: (N + J + 1,) whom somebody has turned to.
        """
        old, width = len(self.neighbours.popular), len(content_NC)
        new_J = old + np.flatnonzero(content_NC[old:].any(axis=1))
        near_JK, cosine_JK = _nearest(
            content_NC, new_J, np.flatnonzero(content_NC.any(axis=1)), _NEIGHBOURS + 1
        )
        weight_JK = np.exp((cosine_JK - 1) / _WIDTH) * (near_JK != new_J[:, None])
        fresh = _matrix(width, new_J, near_JK, weight_JK)
        matrix = widened(self.neighbours.matrix, width) + fresh.maximum(fresh.T)
        fade = self.neighbours.config
        neighbours = ContentNeighbours.from_matrix(fade, matrix.tocsr(), np.zeros(width))
        unmet_NC = content_NC * (met_N | (np.arange(width) >= old))[:, None]
        return type(self)(neighbours, widened(self.lenders, width) + lenders(unmet_NC, met_N))

    def recounted(self, met_N: Bools) -> Self:
        """The same when more items were met, (N + 1,): those no longer borrow."""
        still = sparse.diags_array((~met_N).astype(np.float32), format="csr") @ self.lenders
        return type(self)(self.neighbours, still.tocsr())

    def arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """All of it, as named arrays."""
        lending = {name: getattr(self.lenders, name) for name in ("indptr", "indices", "data")}
        return {**self.neighbours.arrays(), **{f"lending_{name}": array for name, array in lending.items()}}

    @classmethod
    def restore(cls, arrays: Mapping[str, np.ndarray[Any, Any]]) -> Self:
        """Rebuild from ``arrays()``."""
        neighbours = ContentNeighbours.restore(ContentConfig(), arrays)
        width = neighbours.num_items + 1
        data, indices, indptr = (arrays[f"lending_{name}"] for name in ("data", "indices", "indptr"))
        return cls(neighbours, sparse.csr_array((data, indices, indptr), shape=(width, width)))


def widened(matrix: sparse.csr_array, width: int) -> sparse.csr_array:
    """A square matrix with empty rows and columns added at the end."""
    more = np.full(width + 1 - len(matrix.indptr), matrix.indptr[-1], matrix.indptr.dtype)
    return sparse.csr_array((matrix.data, matrix.indices, np.r_[matrix.indptr, more]), shape=(width, width))
