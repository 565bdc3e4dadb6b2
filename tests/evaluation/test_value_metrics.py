"""Metrics in money, beside their slow twins."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from penchant.core import Catalog, rng
from penchant.data import time_split
from penchant.evaluation import rank_metrics, target_ranks
from penchant.testing import toy_snapshot


class Fixed:
    config = None

    def __init__(self, scores):
        self.score_BN = scores

    def scores(self, batch):
        return self.score_BN[: len(batch.item_BT)].copy()


@pytest.fixture
def asked():
    draw = rng(0, "value metrics")
    items = [f"i{n}" for n in range(30)]
    events = [(f"u{u:02d}", items[draw.integers(30)], day) for u in range(20) for day in range(8)]
    toy = toy_snapshot(events, items=items)
    table = toy.catalog.table
    price = pa.array(draw.integers(1, 1000, len(table)).astype(float))
    table = table.set_column(table.schema.get_field_index("price"), "price", price)
    _, cases = time_split(replace(toy, catalog=Catalog(table)), share=0.4)
    value = np.r_[0, price.to_numpy()[np.argsort([items.index(i) for i in table["id"].to_pylist()])]]
    return cases, value, Fixed(draw.normal(size=(20, 31)).astype(np.float32))


def test_value_found_and_its_discounted_gain(asked):
    cases, value, scorer = asked
    found = rank_metrics(scorer, cases, ks=(5,), seen="allow", groups=[])
    for c in range(len(cases)):
        order = 1 + np.argsort(-scorer.score_BN[c, 1:], kind="stable")
        targets = cases.relevant(c)
        top = [n for n in order[:5] if n in targets]
        assert found.per_case["value@5"][c] == pytest.approx(sum(value[n] for n in top))
        gain = sum(value[n] / np.log2(2 + place) for place, n in enumerate(order[:5]) if n in targets)
        best = sum(v / np.log2(2 + place) for place, v in enumerate(sorted(value[targets])[::-1][:5]))
        assert found.per_case["value_NDCG@5"][c] == pytest.approx(gain / best)
    assert found.metrics["value@5"].high > 1


def test_ranks_of_targets(asked):
    cases, _, scorer = asked
    expected = [
        1 + np.count_nonzero(scorer.score_BN[c, 1:] > scorer.score_BN[c, n])
        for c in range(len(cases))
        for n in cases.relevant(c)
    ]
    np.testing.assert_array_equal(target_ranks(scorer, cases, seen="allow"), expected)


def test_without_prices_nothing_is_said_of_value(asked):
    cases, _, scorer = asked
    bare = replace(cases.history, catalog=toy_snapshot([("u", "i0")], items=["i0"]).catalog)
    found = rank_metrics(scorer, replace(cases, history=bare), ks=(5,), seen="allow", groups=[])
    assert "value@5" not in found.metrics
