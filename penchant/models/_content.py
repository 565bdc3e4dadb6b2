"""Content neighbours: items that say or show alike, and what an item that nobody has met yet owes to them.

Legend: N items, C content width, X columns of anything, K neighbours, J some items. Item numbers run from 1 to N.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, Any, ClassVar, Self

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta
from scipy import sparse

from penchant.core import Bools, Floats, Ints
from penchant.models._counts import arrays_of
from penchant.models._nearest import nearest
from penchant.models._neighbours import NeighbourModel

_NEIGHBOURS = 100  # kept of each item
_WIDTH = 0.2  # of the kernel: an item whose cosine is .2 lower speaks e times less for another
_LENDERS = 10  # known items that an unmet one borrows from
_LENDING = 0.1  # width of their kernel


class ContentConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a history fades for content neighbours; popularity plays no part."""

    decay: Annotated[float, Meta(gt=0, le=1)] | None = None
    prior: Annotated[float, Meta(ge=0)] = 0.0


@dataclass(frozen=True, eq=False)
class ContentNeighbours(NeighbourModel):
    """Score items whose content is near that of a history's items: ``M[i, j] = exp((cos(i, j) - 1) / .2)``.

    A kernel estimate over the contents of the history (Nadaraya 1964; Watson 1964), cut to the 100 nearest of each
    item that was asked for.
    """

    Config: ClassVar[type[msgspec.Struct]] = ContentConfig
    usual_decay: ClassVar[float] = 0.9
    config: ContentConfig

    @classmethod
    def of(cls, content_NC: Floats, item_J: Ints, among_M: Ints) -> Self:
        """Find the nearest of some items among others; no item is its own neighbour.

        Args:
            content_NC: (N + 1, C) as ``penchant.data.item_content`` gives it.
            item_J: Whose neighbours are looked for.
            among_M: Who may be one.
        """
        near_JK, cosine_JK = nearest(content_NC, item_J, among_M, _NEIGHBOURS + 1)
        weight_JK = _kernel(cosine_JK) * (near_JK != item_J[:, None])
        return cls.wrapped(_matrix(len(content_NC), item_J, near_JK, weight_JK))

    @classmethod
    def wrapped(cls, matrix: sparse.csr_array) -> Self:
        """Neighbours that are known already, (N + 1, N + 1)."""
        return cls.from_matrix(ContentConfig(), matrix, np.zeros(matrix.shape[0]))

    def fading(self, decay: float | None) -> Self:
        """The same with histories that fade otherwise; None leaves them as they are."""
        return self if decay in (None, self.config.decay) else self.with_decay(decay)


def _kernel(cosine_JK: Floats) -> npt.NDArray[np.float32]:
    weight_JK: npt.NDArray[np.float32] = np.exp((cosine_JK - 1) / _WIDTH, dtype=np.float32)
    return weight_JK


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
    """What contents say: neighbours of items that people have met, and a channel of its own for those nobody has.

    An unmet item is taken to be, in everything that was counted and learned, the weighted mean of the ten met items
    whose content is nearest; ``lend`` computes that, for scores as for vectors. Beside that the contents of a history
    speak for it themselves, by ``unmet``.
    """

    neighbours: ContentNeighbours  # between items that somebody has met; empty where they are not asked for
    unmet: ContentNeighbours  # between an unmet item and met ones
    lenders: sparse.csr_array  # (N + 1, N + 1)

    @classmethod
    def of(cls, content_NC: Floats, met_N: Bools) -> Self:
        """Find what unmet items have in common with others; ``with_neighbours`` does the same for met ones.

        Args:
            content_NC: (N + 1, C) as ``penchant.data.item_content`` gives it; zeros where nothing is known.
            met_N: (N + 1,) whom somebody has turned to.
        """
        nothing = sparse.csr_array((len(content_NC), len(content_NC)), dtype=np.float32)
        none = ContentNeighbours.wrapped(nothing)
        return cls(none, none, nothing).with_unmet(content_NC, np.flatnonzero(~met_N), met_N)

    def with_unmet(self, content_NC: Floats, item_J: Ints, met_N: Bools) -> Self:
        """The same with more items that nobody has met; only what concerns them is computed.

        Args:
            content_NC: (N + 1, C) or longer than what is known by now; zeros for items that cannot be read.
            item_J: Those items.
            met_N: (N + 1,) whom somebody has turned to: they may lend.
        """
        width, known_N = len(content_NC), np.asarray(content_NC.any(axis=1))
        item_J = item_J[known_N[item_J]]
        near_JK, cosine_JK = nearest(content_NC, item_J, np.flatnonzero(known_N & met_N), _NEIGHBOURS)
        fresh = _matrix(width, item_J, near_JK, _kernel(cosine_JK))
        matrix = widened(self.unmet.matrix, width).maximum(fresh).maximum(fresh.T)
        unmet = ContentNeighbours.wrapped(matrix.tocsr()).fading(self.unmet.config.decay)
        best_JK = np.argsort(-cosine_JK, axis=1, kind="stable")[:, :_LENDERS]
        near_JK = np.take_along_axis(near_JK, best_JK, axis=1)
        cosine_JK = np.take_along_axis(cosine_JK, best_JK, axis=1)
        share_JK = np.exp((cosine_JK - cosine_JK.max(axis=1, keepdims=True, initial=-1)) / _LENDING)
        share_JK /= share_JK.sum(axis=1, keepdims=True)
        more = _matrix(width, item_J, near_JK, share_JK)
        return replace(
            self,
            neighbours=self.neighbours.widened(width - 1),
            unmet=unmet,
            lenders=widened(self.lenders, width) + more,
        )

    def with_neighbours(self, content_NC: Floats, met_N: Bools) -> Self:
        """The same with the neighbours of all met items among each other: the one step that costs by their square."""
        item_J = np.flatnonzero(content_NC.any(axis=1) & met_N)
        found = ContentNeighbours.of(content_NC, item_J, item_J)
        return replace(self, neighbours=found.fading(self.unmet.config.decay))

    def fading(self, decay: float | None) -> Self:
        """The same with histories that fade otherwise; None leaves them as they are."""
        return replace(self, neighbours=self.neighbours.fading(decay), unmet=self.unmet.fading(decay))

    @cached_property
    def borrower_J(self) -> npt.NDArray[np.int64]:
        """Items that borrow: unmet, and with a content that can be compared."""
        return np.flatnonzero(np.diff(self.lenders.indptr))

    def lend(self, given_NX: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """What the borrowers get of something that items have, (N + 1, X): (J, X)."""
        lent_JX: npt.NDArray[np.float32] = self._lender_rows @ given_NX
        return lent_JX

    @cached_property
    def _lender_rows(self) -> sparse.csr_array:
        return self.lenders[self.borrower_J]

    def lent(self, own_NX: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Something that items have, (N + 1, X), with what borrowers get in the place of their own."""
        out_NX = own_NX.copy()
        out_NX[self.borrower_J] = self.lend(own_NX)
        return out_NX

    def recounted(self, met_N: Bools) -> Self:
        """The same when more items were met, (N + 1,): those stand on their own."""
        still = sparse.diags_array((~met_N).astype(np.float32), format="csr")
        met = sparse.diags_array(met_N.astype(np.float32), format="csr")
        links = self.unmet.matrix
        apart = (still @ links + met @ links @ still).tocsr()
        apart.eliminate_zeros()
        unmet = ContentNeighbours.wrapped(apart).fading(self.unmet.config.decay)
        borrowed = (still @ self.lenders).tocsr()
        borrowed.eliminate_zeros()
        return replace(self, unmet=unmet, lenders=borrowed)

    def arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """All of it, as named arrays."""
        parts = {"neighbours": self.neighbours.arrays(), "unmet": self.unmet.arrays()}
        parts["lending"] = {name: getattr(self.lenders, name) for name in ("indptr", "indices", "data")}
        return {f"{part}_{name}": array for part, arrays in parts.items() for name, array in arrays.items()}

    @classmethod
    def restore(cls, arrays: Mapping[str, np.ndarray[Any, Any]]) -> Self:
        """Rebuild from ``arrays()``."""
        neighbours, unmet = (
            ContentNeighbours.restore(ContentConfig(), arrays_of(arrays, start))
            for start in ("neighbours_", "unmet_")
        )
        width, lending = neighbours.num_items + 1, arrays_of(arrays, "lending_")
        data, indices, indptr = (lending[name] for name in ("data", "indices", "indptr"))
        return cls(neighbours, unmet, sparse.csr_array((data, indices, indptr), shape=(width, width)))


def widened(matrix: sparse.csr_array, width: int) -> sparse.csr_array:
    """A square matrix with empty rows and columns added at the end."""
    more = np.full(width + 1 - len(matrix.indptr), matrix.indptr[-1], matrix.indptr.dtype)
    return sparse.csr_array((matrix.data, matrix.indices, np.r_[matrix.indptr, more]), shape=(width, width))
