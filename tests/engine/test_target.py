"""One shop, several questions: train on one, ask about any, from everywhere."""

import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penchant import Engine
from penchant.core import DAY, Run, no_progress
from penchant.core.errors import InputError, ModelError, PenchantError
from penchant.engine._promotion import read_promoted
from penchant.engine._protocol import take_snapshot
from penchant.training import fit_model, read_artifact, save_artifact

NOW = 1_750_000_000_000_000


def rows():
    """People look at ten things in turn and buy others: what they bought never was among what they looked at."""
    for user in range(80):
        for day in range(12):
            yield {
                "user_id": f"u{user}",
                "kind": "view",
                "item_id": f"look{(user + day) % 10}",
                "ts": NOW - (13 - day) * DAY,
            }
            if day % 3 == 2:
                yield {
                    "user_id": f"u{user}",
                    "kind": "purchase",
                    "item_id": f"own{(user + day) % 4}",
                    "ts": NOW - (13 - day) * DAY,
                }


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("target")
    table = [{**row, "event_id": str(n), "ts": row["ts"] + n} for n, row in enumerate(rows())]
    pq.write_table(pa.Table.from_pylist(table), folder / "e.parquet")
    with Engine.open(folder / "shop", clock=lambda: NOW) as engine:
        engine.init()
        engine.ingest(files=[str(folder / "e.parquet")])
        engine.train(models=["transitions"], seen="allow")
        yield engine


def answers(engine, target):
    return {i.item_id for i in engine.recommend(user_id="u3", k=4, target=target, explore="off").items}


def test_what_is_recommended_is_what_was_asked_for(shop):
    pointed = shop.status()
    popular = next(model.id for model in pointed.models if model.kind == "popularity")
    shop.promote(artifact=popular)
    assert {i[:3] for i in answers(shop, "purchase")} == {"own"}
    assert {i[:3] for i in answers(shop, "view")} == {"loo"}
    shop.rollback()


def test_many_people_are_asked_the_same(shop, tmp_path):
    found = {}
    for target in ("purchase", "view"):
        out = tmp_path / f"{target}.parquet"
        shop.recommend(users="all", target=target, k=2, out=str(out))
        found[target] = set(pq.read_table(out)["item_id"].to_pylist())
    assert found["purchase"] != found["view"]


def test_figures_are_of_what_was_asked_for(shop):
    bought = shop.evaluate(target="purchase", share=0.3, seen="allow")
    whole = shop.evaluate(share=0.3, seen="allow")
    assert "asked for the next purchase" in bought.protocol
    assert "asked for" not in whole.protocol
    best = {row.model: row.metrics["NDCG@10"].value for row in bought.rows}
    assert best["popularity"] > 0.5  # of four items that are ever bought


def test_chances_are_of_what_was_asked_for(shop):
    """Each question has a calibration of its own."""
    found = {
        target: shop.recommend(user_id="u3", k=4, target=target, explore="off").items
        for target in ("any", "purchase", "view")
    }
    chances = {target: [item.probability for item in items] for target, items in found.items()}
    assert all(0 < chance < 1 for row in chances.values() for chance in row)
    assert chances["purchase"] != chances["view"]
    facts = read_promoted(shop.shop.artifacts, read_artifact).facts
    assert set(facts["calibration"]) == set(facts["rank_chance"]) == {"any", "purchase", "view"}


def test_what_never_happens_is_refused(shop):
    with pytest.raises(ModelError, match=r"asked about.*wishlist"):
        shop.evaluate(target="wishlist")
    with pytest.raises(PenchantError, match="target"):
        shop.recommend(user_id="u3", target="refund")


def test_the_shop_names_its_question(shop, tmp_path):
    copied = shutil.copytree(shop.path, tmp_path / "copy", symlinks=True)
    config = copied / "shop.toml"
    text = config.read_text()
    config.write_text(text.replace('target = "any"', 'target = "purchase"'))
    with Engine.open(copied, clock=lambda: NOW) as engine:
        assert answers(engine, None) == answers(shop, "purchase") != answers(shop, "view")
    config.write_text(text.replace('target = "any"', 'target = "refund"'))
    with pytest.raises(PenchantError, match="target"), Engine.open(copied) as engine:
        engine.status()


def test_the_rule_on_repeats_follows_the_question(tmp_path):
    """Nobody buys what they bought, but everybody what they looked at: purchases may repeat, looks may not."""
    table = [
        {
            "event_id": f"{u}-{k}-{d}",
            "user_id": f"u{u}",
            "kind": k,
            "item_id": f"i{(u * 7 + d) % 50}",
            "ts": NOW - (30 - 2 * d - n) * DAY,
        }
        for u in range(60)
        for d in range(12)
        for n, k in enumerate(("view", "purchase"))
        if k == "view" or d % 4 == 0
    ]
    pq.write_table(pa.Table.from_pylist(table), tmp_path / "e.parquet")
    with Engine.open(tmp_path / "shop", clock=lambda: NOW) as engine:
        engine.init()
        engine.ingest(files=[str(tmp_path / "e.parquet")])
        engine.train(models=["transitions"])
        had = {f"i{(3 * 7 + d) % 50}" for d in range(12)}
        assert had.isdisjoint(answers(engine, "view"))
        assert not had.isdisjoint(
            {i.item_id for i in engine.recommend(user_id="u3", k=40, target="purchase").items}
        )


def test_what_was_shown_counts_at_once(shop, tmp_path):
    """One answer and many: both read the impressions that came in since, where the model does."""
    copied = shutil.copytree(shop.path, tmp_path / "copy", symlinks=True)
    with Engine.open(copied, clock=lambda: NOW) as engine:
        snapshot = take_snapshot(engine.shop, no_progress)
        reading = {"any": {"decay": 0.9, "kinds": {"impression": 100.0}}}
        model = fit_model("frequency", snapshot, {"readings": reading}, Run())
        saved = {
            "kind": "frequency",
            "as_of": snapshot.as_of,
            "items": snapshot.items,
            "facts": {"events": 10**9},
        }
        engine.promote(artifact=save_artifact(engine.shop.artifacts, model, **saved).id)
        ask = {"k": 1, "explore": "off", "seen": "allow"}
        before = engine.recommend(user_id="u3", **ask).items[0]
        item = next(f"look{n}" for n in range(10) if f"look{n}" != before.item_id)
        shown = {"kind": "impression", "user_id": "u3", "item_id": item, "event_id": "shown"}
        engine.observe(events=[shown])
        after = engine.recommend(user_id="u3", **ask).items[0]
        engine.recommend(users="all", out=str(tmp_path / "many.parquet"), **ask)
    assert (after.item_id, after.item_id == before.item_id) == (item, False)
    many = {row["user_id"]: row for row in pq.read_table(tmp_path / "many.parquet").to_pylist()}
    assert (many["u3"]["item_id"], many["u3"]["score"]) == (item, after.score)
    assert "shown" not in after.reasons[0].text


def test_value_ranks_by_chance_times_price_less_cost(shop, tmp_path):
    with pytest.raises(InputError, match="needs prices"):
        shop.recommend(user_id="u3", objective="value")
    copied = shutil.copytree(shop.path, tmp_path / "copy", symlinks=True)
    prices = {f"own{n}": 10 + 1000 * (n == 2) for n in range(4)} | {f"look{n}": 10 for n in range(10)}
    rows = [{"id": i, "price": f"{price}.00 USD"} for i, price in prices.items()]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "catalog.parquet")
    out = tmp_path / "many.parquet"
    with Engine.open(copied, clock=lambda: NOW) as engine:
        engine.catalog(files=[str(tmp_path / "catalog.parquet")])
        plain = engine.recommend(user_id="u3", target="purchase", k=14)
        dear = engine.recommend(user_id="u3", target="purchase", k=14, objective="value")
        assert {i.item_id for i in plain.items} == {i.item_id for i in dear.items}
        assert dear.items[0].item_id == "own2"
        engine.recommend(users="all", target="purchase", k=1, objective="value", out=str(out))
        board = engine.evaluate(target="purchase", share=0.3, seen="allow")
        assert plain.explore
    assert dear.policy_id == "value/1+greedy/1"
    assert all(item.odds == 1 and not item.explored for item in dear.items)
    assert (dear.explore, dear.joint_odds) == (False, 1)
    assert "value" in dear.explore_reason
    many = pq.read_table(out)
    assert set(many["item_id"].to_pylist()) == {"own2"}
    assert set(many["odds"].to_pylist()) == {1.0}
    assert set(many["policy_id"].to_pylist()) == {"value/1+greedy/1"}
    assert all("value@10" in row.metrics for row in board.rows if row.metrics)
