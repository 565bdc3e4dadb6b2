"""Availability acts at once, here and in other servers of the shop, and nothing is loaded anew for it."""

import time

import pyarrow as pa
import pytest

from penchant import Engine
from penchant.core.errors import InputError

NOW = 1_750_000_000_000_000


@pytest.fixture
def engine(tmp_path):
    lines = [
        "id,title,availability,price,cost",
        *(f"i{n},Item {n},in_stock,{n + 1}.00 EUR,1.00 EUR" for n in range(4)),
    ]
    (tmp_path / "items.csv").write_text("\n".join(lines))
    with Engine.open(tmp_path / "shop", clock=lambda: NOW) as engine:
        engine.init(currency="EUR")
        engine.catalog(files=[str(tmp_path / "items.csv")])
        yield engine


def shown(engine, **more):
    return {item.item_id for item in engine.recommend(user_id="u1", k=9, explore="off", **more).items}


def test_the_next_answer_knows(engine):
    assert shown(engine) == {"i0", "i1", "i2", "i3"}
    report = engine.stock(
        items=[
            {"item_id": "i1", "available_quantity": 0},
            {"item_id": "i2", "availability": "out_of_stock"},
            {"item_id": "i3", "price": 90},
            {"item_id": "nothing", "price": 1},
        ]
    )
    assert (report.changed, report.unknown) == (3, ["nothing"])
    assert shown(engine) == {"i0", "i3"}
    assert shown(engine, filters=["price = 90"]) == {"i3"}
    assert shown(engine, objective="value", filters=["margin < 0"]) == {"i3"}
    engine.stock(items=[{"item_id": "i1", "available_quantity": 7}])
    assert shown(engine) == {"i0", "i1", "i3"}
    assert engine.search(query="item 1").items[0].item_id == "i1"
    row = engine.shop.store.catalog().to_pylist()[1]
    assert (row["title"], row["price"], row["available_quantity"]) == ("Item 1", 200, 7)


def test_another_server_knows_within_seconds(engine):
    with Engine.open(engine.path, readonly=True, clock=lambda: NOW) as reader:
        assert "i1" in {item.item_id for item in reader.search(query="item").items}
        engine.stock(items=[{"item_id": "i1", "available_quantity": 0}])
        until = time.monotonic() + 5
        while "i1" in {item.item_id for item in reader.search(query="item").items}:
            assert time.monotonic() < until
            time.sleep(0.05)


def test_nothing_is_made_anew(engine, monkeypatch):
    shown(engine)
    engine.search(query="item")
    before = engine.serving.ranker
    engine.stock(items=[{"item_id": "i1", "available_quantity": 0}])
    after = engine.serving.ranker
    assert after is not before
    assert after.exploration is before.exploration
    assert after.shelf.search is before.shelf.search
    catalog = engine.shop.store.catalog()
    engine.shop.store.put_catalog(
        catalog.set_column(2, "title", pa.array(["Other"] * 4)).cast(catalog.schema)
    )
    assert engine.serving.ranker.shelf.titles[1] is not None
    engine.serving.refresh()
    assert engine.serving.ranker.shelf.titles[1] == "Other"
    assert engine.serving.ranker.exploration is not before.exploration


@pytest.mark.parametrize(
    "item", [{"price": -1}, {"available_quantity": -2}, {"availability": "maybe"}, {"is_admin": True}]
)
def test_what_cannot_be_is_refused(engine, item):
    with pytest.raises(InputError):
        engine.stock(items=[{"item_id": "i1", **item}])
