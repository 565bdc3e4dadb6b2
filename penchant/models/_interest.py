"""The seam between neural models and the one training loop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from penchant.core import SequenceBatch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Negatives:
    """Items drawn to stand for the catalogue in one step, each once, with their chance of being drawn."""

    item_K: npt.NDArray[np.int64]
    log_chance_K: npt.NDArray[np.float32]


class InterestModel(Protocol):
    """A torch module that turns histories into R interest vectors and items into vectors.

    Letters: B histories, R interests, D width, N items. The score of an item is the largest of its dot
    products with the R interests, plus whatever bias the served model adds.
    """

    config: msgspec.Struct

    def loss(self, batch: SequenceBatch, negatives: Negatives | None = None) -> Tensor:
        """Mean loss over the real targets of the batch, (); all items compete when there are no negatives."""
        ...

    def interests(self, batch: SequenceBatch) -> tuple[Tensor, Tensor]:
        """What each person wants after their last event: mean (B, R, D) and spread (B, R), 0 = sure."""
        ...

    def items(self) -> Tensor:
        """Vectors of all items, (N + 1, D); row 0 belongs to no item."""
        ...

    def __getattr__(self, name: str) -> Any:
        """Everything else a ``torch.nn.Module`` has."""
        ...
