"""Habits: what the person turned to before, the oftener and the later the better, and the more it is come back to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Self

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta
from scipy import sparse

from penchant.core import Run, Snapshot
from penchant.models._counts import NeighbourModel, Positives, came_back, popularity_prior, positives

_DRAWN = 5  # usual events that every item is given, so that one return proves little


class HabitsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How habits are weighed.

    ``decay``: weight of a history event for each newer one, 1 = plain frequency; None lets validation decide,
    0.97 without. ``prior``: weight of popularity beside the own history.
    """

    decay: Annotated[float, Meta(gt=0, le=1)] | None = None
    prior: Annotated[float, Meta(ge=0)] = 0.001


@dataclass(frozen=True, eq=False)
class Habits(NeighbourModel):
    """Score each item by how often and how lately the person turned to it, and by how much people return to it.

    An item's returns are the share of its events that are not somebody's first, in units of the shop's own share and
    drawn to it where events are few: milk is bought again, a pan is not. Popularity breaks the silence. The own
    history alone is the personal-frequency baseline of next-basket studies (Hu et al. 2020; Li et al. 2023, "A next
    basket recommendation reality check"): hard to beat where people buy the same again, of no use where answers may
    not repeat what was seen.

    Example:
        >>> from penchant.data import sequence_batch
        >>> from penchant.testing import toy_snapshot
        >>> toy = toy_snapshot([("u", "milk"), ("u", "rum"), ("u", "milk")])
        >>> model = Habits.fit(toy, HabitsConfig(decay=1.0, prior=0.0), Run())
        >>> model.scores(sequence_batch(toy, np.array([0]), 10)).astype(float).round(2).tolist()
        [[-inf, 2.29, 0.83]]
    """

    Config: ClassVar[type[msgspec.Struct]] = HabitsConfig
    usual_decay: ClassVar[float] = 0.97
    config: HabitsConfig

    @classmethod
    def fit(cls, snapshot: Snapshot, config: HabitsConfig, run: Run) -> Self:
        """Learned are how much people return to each item, how fast a habit fades, and popularity."""
        found = positives(snapshot)
        itself = sparse.diags_array(returns(found, snapshot.num_items), format="csr", dtype=np.float32)
        model = cls.from_matrix(config, itself, popularity_prior(found, snapshot.num_items))
        return model.settled(config.decay, run)


def returns(found: Positives, num_items: int) -> npt.NDArray[np.float64]:
    """How much people come back to each item, (N + 1,); 1 = as much as is usual in the shop, or nobody ever does."""
    event_N = np.bincount(found.item, minlength=num_items + 1)
    _, ever_N = came_back(found, num_items + 1)
    again_N = event_N - ever_N
    usual = again_N.sum() / max(1, event_N.sum())
    if not usual:
        return np.ones(num_items + 1)
    share_N: npt.NDArray[np.float64] = (again_N / usual + _DRAWN) / (event_N + _DRAWN)
    return share_N
