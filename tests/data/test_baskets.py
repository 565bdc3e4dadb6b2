import numpy as np
import pytest

from penchant.core.errors import InputError
from penchant.data import basket_size, next_baskets, time_split
from penchant.testing import toy_snapshot

QUARTER = 1 / 96  # of an hour, in days
EVENTS = [
    ("u", "milk", 0),
    ("u", "tea", 0 + QUARTER),
    ("u", "milk", 9, "view"),
    ("u", "milk", 10),
    ("u", "rum", 10 + 3 * QUARTER),
    ("u", "rum", 10 + 3 * QUARTER),
    ("u", "tea", 10 + 9 * QUARTER),  # more than an hour later: another visit
    ("v", "tea", 0),
    ("v", "milk", 11, "view"),  # looked, bought nothing
]


def test_the_next_basket_is_what_is_bought_at_the_next_visit():
    snapshot = toy_snapshot(EVENTS)
    _, cases = time_split(snapshot, at=int(np.unique(snapshot.ts)[2]))
    assert len(cases) == 2
    found = next_baskets(snapshot, cases)
    assert found.user_C.tolist() == [0]
    assert [snapshot.items.id(int(n)) for n in found.relevant(0)] == ["milk", "rum"]
    assert found.end_C[0] == cases.end_C[0]
    assert "next basket" in found.name


def test_basket_size_counts_distinct_items_of_purchases():
    assert basket_size(toy_snapshot(EVENTS)) == pytest.approx((2 + 2 + 1 + 1) / 4)
    assert basket_size(toy_snapshot([("u", "a", 0, "view")])) == 0


def test_nobody_bought():
    snapshot = toy_snapshot([("u", "a", 0), ("u", "a", 5, "view")])
    _, cases = time_split(snapshot, at=int(snapshot.ts[1]))
    with pytest.raises(InputError, match="nobody bought"):
        next_baskets(snapshot, cases)
