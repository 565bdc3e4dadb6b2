"""Shelves bring what their name says, under the same rules and with true odds."""

import pyarrow.parquet as pq
import pytest

from penchant import Engine
from penchant.core import DAY
from penchant.core.errors import InputError, NotFound

NOW = 1_750_000_000_000_000
BASKETS = [["tea", "cup"], ["tea", "cup"], ["tea", "milk"], ["rice", "beans"], ["rice", "beans", "milk"]]


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shelves")
    names = ["tea", "cup", "milk", "rice", "beans", "hat", "pin"]
    lines = ["id,title,price,sale_price,publish_time"]
    lines += [
        f"{name},{name},4.00 EUR,{'3.00 EUR' if name == 'hat' else ''},{'2025-06' if name == 'pin' else '2024-01'}-01"
        for name in names
    ]
    (folder / "items.csv").write_text("\n".join(lines))
    events = []
    for person, basket in enumerate(BASKETS):
        events += [
            {"kind": "purchase", "user_id": f"p{person}", "item_id": i, "ts": NOW - 20 * DAY, "value": 400}
            for i in basket
        ]
    events += [{"kind": "view", "user_id": f"v{n}", "item_id": "hat", "ts": NOW - DAY - n} for n in range(8)]
    events += [{"kind": "view", "user_id": f"v{n}", "item_id": "rice", "ts": NOW - DAY - n} for n in range(2)]
    with Engine.open(folder / "shop", clock=lambda: NOW) as engine:
        engine.init(currency="EUR")
        engine.catalog(files=[str(folder / "items.csv")])
        engine.observe(events=events)
        yield engine


def shelf(engine, name, **more):
    slate = engine.recommend(**{"user_id": "p0", "shelf": name, "explore": "off", **more})
    assert all(0 < odds <= 1 for odds in slate.odds)
    return slate.item_ids


def test_bought_together(engine):
    assert shelf(engine, "bought_together", items=["tea"]) == ["cup", "milk"]
    assert shelf(engine, "bought_together", items=["tea", "rice"], rules=["exclude id = cup"]) == [
        "beans",
        "milk",
    ]


def test_buy_again(engine):
    assert set(shelf(engine, "buy_again")) == {"tea", "cup"}
    assert shelf(engine, "buy_again", user_id="nobody") == []


def test_trending_is_above_its_usual(engine):
    assert shelf(engine, "trending")[0] == "hat"
    assert "beans" not in shelf(engine, "trending")


def test_on_sale_and_new(engine):
    assert shelf(engine, "on_sale") == ["hat"]
    assert shelf(engine, "new") == ["pin"]


def test_complete_the_cart(engine):
    engine.observe(events=[{"kind": "cart_add", "user_id": "c", "item_id": "rice", "ts": NOW - 1000}])
    assert shelf(engine, "complete_cart", user_id="c")[0] == "beans"
    assert "rice" not in shelf(engine, "complete_cart", user_id="c")
    assert shelf(engine, "complete_cart", user_id="c", items=["tea"])[0] == "cup"
    nothing = engine.recommend(user_id="empty", shelf="complete_cart")
    assert nothing.items == []
    assert nothing.note


def test_similar_needs_a_model_that_knows_companions(engine):
    assert shelf(engine, "similar", items=["tea"]) == []


@pytest.mark.parametrize("name", ["similar", "bought_together"])
def test_a_shelf_of_items_needs_them(engine, name):
    with pytest.raises(InputError, match="items"):
        shelf(engine, name)
    with pytest.raises(NotFound):
        shelf(engine, name, items=["nothing"])


def test_files_for_many_take_the_shelves_that_are_rules(engine, tmp_path):
    out = str(tmp_path / "out.parquet")
    engine.recommend(users="all", out=out, shelf="on_sale", k=3)
    assert set(pq.read_table(out)["item_id"].to_pylist()) == {"hat"}
    with pytest.raises(InputError, match="one person"):
        engine.recommend(users="all", out=out, shelf="trending")


def test_no_chance_is_claimed_for_scores_that_are_not_the_models(engine):
    slate = engine.recommend(user_id="p0", shelf="trending")
    assert all(item.probability is None for item in slate.items)
