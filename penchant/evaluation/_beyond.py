"""Beyond accuracy: how much of the shelf is shown, how rare it is, and how much of it is the usual few.

Letters: B cases in a block, C cases, K list length, I items (N + 1, number 0 unused).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from penchant.core import Estimate, Ints, Snapshot
from penchant.data import is_target
from penchant.evaluation._estimate import LEVEL, z_of

HEAD = 100  # the most popular 1 / HEAD of the items are the usual few


@dataclass(frozen=True, eq=False)
class Shelf:
    """The items as history knows them: how many people turned to each."""

    people_I: npt.NDArray[np.int64]
    bits_I: npt.NDArray[np.float64]  # self-information, -log2 of the share of people; 1 added to both counts
    usual_I: npt.NDArray[np.bool_]  # the most popular hundredth, at least one item

    @property
    def num_items(self) -> int:
        """N."""
        return len(self.people_I) - 1

    @classmethod
    def of(cls, history: Snapshot) -> Shelf:
        """Count people per item in a snapshot."""
        wanted = np.flatnonzero(is_target(history.kind, history.item))
        width = history.num_items + 1
        row = np.searchsorted(history.ptr, wanted, side="right") - 1
        key = np.unique(row * width + history.item[wanted])
        people_I = np.bincount(key % width, minlength=width)
        people = len(np.unique(key // width))
        usual_I = np.zeros(width, np.bool_)
        head = max(1, history.num_items // HEAD)
        usual_I[1 + np.argsort(-people_I[1:], kind="stable")[:head]] = True
        return cls(people_I, -np.log2((people_I + 1) / (people + 1)), usual_I)

    def describe(self, top_BK: Ints, ks: Sequence[int]) -> dict[str, npt.NDArray[np.float64]]:
        """Novelty (mean bits) and share of slots held by the usual few, of each list; 0 for an empty one."""
        found = {}
        for k in ks:
            shown_BK = top_BK[:, :k] > 0
            slots_B = np.maximum(shown_BK.sum(axis=1), 1)
            found[f"novelty@{k}"] = (self.bits_I[top_BK[:, :k]] * shown_BK).sum(axis=1) / slots_B
            found[f"popularity_share@{k}"] = (self.usual_I[top_BK[:, :k]] & shown_BK).sum(axis=1) / slots_B
        return found


def coverage(top_CK: Ints, user_C: Ints, num_items: int) -> Estimate:
    """Share of the catalogue shown to anybody, with a jackknife interval over people.

    Coverage is not a mean: a bootstrap draws only 63 % of the people and so covers less each time. Leaving
    out one person at a time loses exactly the items shown to nobody else, which gives a variance that is
    never too small on average (Efron and Stein 1981). It is the coverage for so many people: more people
    cover more, so compare it only between scorers on the same cases.

    Example:
        >>> str(coverage(np.array([[1, 2], [2, 3]]), np.array([0, 1]), 10))
        '0.3000 [0.3000, 0.3000]'
    """
    _, who_C = np.unique(user_C, return_inverse=True)
    num_users, width = int(who_C.max()) + 1, num_items + 1
    shown = top_CK > 0
    key = np.sort((who_C[:, None] * width + top_CK)[shown])
    key = key[np.diff(key, prepend=-1) > 0]  # the same to the same person counts once
    item, who = key % width, key // width
    people_I = np.bincount(item, minlength=width)
    alone_U = np.bincount(who[people_I[item] == 1], minlength=num_users)
    spread = np.sqrt((num_users - 1) / num_users * float(((alone_U - alone_U.mean()) ** 2).sum()))
    value = float(np.count_nonzero(people_I)) / num_items
    half = z_of(LEVEL) * spread / num_items
    return Estimate(
        value=value,
        low=max(0.0, value - half),
        high=min(1.0, value + half),
        n=num_users,
        method="jackknife",
        level=LEVEL,
    )
