"""Candidates by what they could be worth at best: what is little known comes in, what is worth nothing goes."""

import datetime as dt

import numpy as np
import pytest

from penchant import Engine

TEN = {f"i{n:02}" for n in range(10)}
MOMENT = dt.datetime(2024, 6, 1, tzinfo=dt.UTC)


@pytest.fixture(params=["score", "bound"])
def shop(request, tmp_path):
    """Forty items, most popular first, ten candidates."""
    with Engine.open(tmp_path / "shop") as engine:
        engine.init()
    file = tmp_path / "shop" / "shop.toml"
    text = file.read_text().replace('retrieval = "score"', f'retrieval = "{request.param}"')
    text = text.replace("candidates = 500", "candidates = 10").replace(
        "fresh_share = 0.09", "fresh_share = 0.0"
    )
    assert "candidates = 10" in text
    file.write_text(text)
    with Engine.open(tmp_path / "shop") as engine:
        engine.observe(
            events=[
                {"kind": "view", "user_id": f"u{m}", "item_id": f"i{n:02}", "timestamp": MOMENT}
                for n in range(40)
                for m in range(40 - n)
            ]
        )
        yield engine, request.param


def serve(engine, count):
    """Nobody wants what is shown."""
    shown = []
    for n in range(count):
        moment = MOMENT + dt.timedelta(hours=2 * n + 2)
        slate = engine.recommend(user_id=f"p{n}", k=10, now=moment, seed=n)
        told = {"user_id": f"p{n}", "timestamp": moment, "recommendation_id": slate.recommendation_id}
        engine.observe(events=[{**told, "kind": "impression", "item_id": item} for item in slate.item_ids])
        shown += slate.item_ids
    return shown


def test_what_is_never_wanted_makes_room_for_what_nobody_knows(shop):
    engine, retrieval = shop
    shown = set(serve(engine, 40))
    if retrieval == "score":
        assert shown <= TEN, "the ten most popular are all there ever is"
    else:
        assert len(shown) > 14


def test_as_many_candidates_as_asked_for_and_their_odds_are_true(shop):
    engine, _ = shop
    serve(engine, 5)
    slate = engine.recommend(user_id="x", k=2, now=MOMENT + dt.timedelta(days=9))
    engine.shop.store.flush()
    (row,) = engine.shop.store.decisions("x")
    assert slate.num_candidates == len(row.candidates.item_ids) == 10
    assert sum(row.candidates.odds) == pytest.approx(1, abs=1e-6)
    assert row.candidates.item_ids == sorted(row.candidates.item_ids)


def test_without_exploring_the_score_alone_decides(shop):
    engine, _ = shop
    serve(engine, 20)
    engine.recommend(user_id="x", k=1, explore="off", now=MOMENT + dt.timedelta(days=30))
    engine.shop.store.flush()
    (row,) = engine.shop.store.decisions("x")
    assert set(row.candidates.item_ids) == TEN


def test_items_that_could_be_best_are_those_of_the_highest_bounds(shop):
    engine, _ = shop
    serve(engine, 20)
    exploration = engine.serving.ranker.exploration
    item_N = np.arange(1, 41)
    mean_N, std_N = exploration.learner.expect(
        "", item_N, exploration.sight.features(item_N, np.zeros(40), None), 2.0
    )
    exploration._could = None
    could_N = exploration.could_N(5)
    bound_N = mean_N + 2 * std_N
    assert could_N.sum() == 5
    assert not could_N[0]
    assert bound_N[could_N[1:]].min() >= bound_N[~could_N[1:]].max()
