"""Habits: what the person turned to before, the oftener and the later the better."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Self

import msgspec
import numpy as np
from msgspec import Meta
from scipy import sparse

from penchant.core import Run, Snapshot
from penchant.models._counts import NeighbourModel, popularity_prior, positives


class HabitsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How habits are weighed.

    ``decay``: weight of a history event for each newer one, 1 = plain frequency; None lets validation decide,
    0.97 without. ``prior``: weight of popularity beside the own history.
    """

    decay: Annotated[float, Meta(gt=0, le=1)] | None = None
    prior: Annotated[float, Meta(ge=0)] = 0.001


@dataclass(frozen=True, eq=False)
class Habits(NeighbourModel):
    """Score each item by how often and how lately the person turned to it; popularity breaks the silence.

    The personal-frequency baseline of next-basket studies (Hu et al. 2020; Li et al. 2023, "A next basket
    recommendation reality check"): hard to beat where people buy the same again, of no use where answers may not
    repeat what was seen.

    Example:
        >>> from penchant.data import sequence_batch
        >>> from penchant.testing import toy_snapshot
        >>> toy = toy_snapshot([("u", "milk"), ("u", "rum"), ("u", "milk")])
        >>> model = Habits.fit(toy, HabitsConfig(decay=1.0, prior=0.0), Run())
        >>> model.scores(sequence_batch(toy, np.array([0]), 10)).tolist()
        [[-inf, 2.0, 1.0]]
    """

    Config: ClassVar[type[msgspec.Struct]] = HabitsConfig
    usual_decay: ClassVar[float] = 0.97
    config: HabitsConfig

    @classmethod
    def fit(cls, snapshot: Snapshot, config: HabitsConfig, run: Run) -> Self:
        """Nothing is learned but how fast a habit fades, and popularity."""
        itself = sparse.eye_array(snapshot.num_items + 1, format="csr", dtype=np.float32)
        model = cls.from_matrix(config, itself, popularity_prior(positives(snapshot), snapshot.num_items))
        return model.settled(config.decay, run)
