"""Where people buy baskets, a leaderboard tells how well the next one is known."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penchant import Engine
from penchant.core import DAY
from penchant.surfaces._render import render

NOW = 1_750_000_000_000_000
PEOPLE, VISITS = 40, 10


def bought(per_visit):
    """Each person has four usual items, and tries one of twenty others at every visit."""
    draw = np.random.default_rng(0)
    for person in range(PEOPLE):
        usual = [f"usual{n}" for n in draw.choice(12, 4, replace=False)]
        for visit in range(VISITS):
            basket = [*draw.choice(usual, 3, replace=False), f"other{draw.integers(20)}"]
            for line, item in enumerate(basket[:per_visit]):
                yield {
                    "event_id": f"{person}-{visit}-{line}",
                    "user_id": f"u{person}",
                    "kind": "purchase",
                    "item_id": str(item),
                    "ts": NOW - (VISITS - visit) * 7 * DAY - person,
                }


def compared(folder, per_visit):
    pq.write_table(pa.Table.from_pylist(list(bought(per_visit))), folder / "events.parquet")
    with Engine.open(folder / "shop", clock=lambda: NOW) as engine:
        engine.init()
        engine.ingest(files=[str(folder / "events.parquet")])
        return engine.evaluate(models=["transitions"], share=0.2, html=str(folder / "report.html"))


def test_a_shop_of_baskets_is_measured_on_the_next_one(tmp_path):
    report = compared(tmp_path, per_visit=4)
    rows = {row.model: row for row in report.rows}
    assert {"habits", "frequency"} <= rows.keys(), "people come back, so the own history is always beside"
    assert report.baskets is not None
    assert "4.0 items each" in report.baskets
    for row in rows.values():
        assert {
            "recall@10",
            "NDCG@10",
            "recall@20",
            "repeat_recall@10",
            "new_recall@10",
        } <= row.baskets.keys()
    assert rows["habits"].baskets["repeat_recall@10"].value > 0.9
    assert rows["habits"].baskets["recall@10"].value > rows["popularity"].baskets["recall@10"].value
    assert rows["frequency"].baskets_difference == {}
    gap = rows["habits"].baskets_difference["recall@10"].value
    expected = rows["habits"].baskets["recall@10"].value - rows["frequency"].baskets["recall@10"].value
    assert gap == pytest.approx(expected)
    said = render(report)
    assert "Next baskets of" in said
    assert "against frequency" in said
    page = (tmp_path / "report.html").read_text()
    assert report.baskets in page
    assert "new recall@10" in page


def test_a_shop_of_single_items_has_no_baskets(tmp_path):
    report = compared(tmp_path, per_visit=1)
    assert report.baskets is None
    assert "Next basket" not in (tmp_path / "report.html").read_text()
    assert not any(row.baskets or row.baskets_difference for row in report.rows)
