"""Scorers and cases made by hand."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from penchant.data import Cases
from penchant.testing import toy_snapshot


@dataclass(frozen=True)
class Fixed:
    """Scores the i-th case asked about with the i-th row, whatever the history says."""

    table: Any  # (C, N + 1)

    config: Any = None

    def scores(self, batch):
        """The row that each history's last item points to: histories are made so that it is its own case."""
        found = np.array(self.table, np.float32)[batch.user_BF[:, 0].astype(int)]
        found[:, 0] = -np.inf
        return found


def make_cases(histories, targets, num_items, attributes=None):
    """Case c is user c: ``histories[c]`` and ``targets[c]`` are item numbers."""
    items = [f"i{n:03d}" for n in range(1, num_items + 1)]
    rows = [
        (f"u{c:03d}", f"i{item:03d}", day)
        for c, items_c in enumerate(histories)
        for day, item in enumerate(items_c)
    ]
    # Somebody without events would have no row: an impression of nothing makes one.
    rows += [(f"u{c:03d}", None, 0, "search") for c, items_c in enumerate(histories) if not items_c]
    features = np.arange(len(histories), dtype=np.float32)[:, None]
    snapshot = toy_snapshot(rows, items=items, features=features, attributes=attributes)
    users = np.arange(len(histories))
    return Cases(
        history=snapshot,
        user_C=users,
        end_C=snapshot.ptr[users + 1],
        target_ptr=np.r_[0, np.cumsum([len(t) for t in targets])].astype(np.int64),
        target_item=np.array([i for t in targets for i in t], np.int32),
        name="by hand",
    )


@pytest.fixture(scope="session")
def fixed():
    return Fixed


@pytest.fixture(scope="session")
def cases_of():
    return make_cases
