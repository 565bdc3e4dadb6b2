"""People who ask at the same moment are answered together: one run of the network, and the same answers."""

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penchant import Engine
from penchant.core.errors import InputError, PenchantError
from penchant.engine import _requests as rq

NOW = 1_750_000_000_000_000


@pytest.fixture(scope="module")
def engine(tmp_path_factory, walk):
    folder = tmp_path_factory.mktemp("together")
    pq.write_table(pa.Table.from_pylist(walk(range(12), 1)), folder / "old.parquet")
    with Engine.open(folder / "shop", clock=lambda: NOW) as engine:
        engine.init()
        engine.ingest(files=[str(folder / "old.parquet")])
        engine.promote(artifact=engine.train(models=["sequence"], size="tiny").artifacts["sequence"])
        yield engine


def asked(number, **more):
    return rq.RecommendRequest(user_id=f"u{number}", k=5, seed=number, **more)


def test_together_they_get_what_each_alone_gets(engine):
    requests = [asked(number) for number in range(12)]
    requests += [asked(90), asked(3, filters=["id = i3"]), asked(4, explain=True), asked(5, explore="off")]
    alone = [engine.recommend(request) for request in requests]
    together = list(engine.recommend_all(requests))
    for one, other in zip(alone, together, strict=True):
        assert other.item_ids == one.item_ids
        np.testing.assert_allclose([i.score for i in other.items], [i.score for i in one.items], rtol=1e-4)
        np.testing.assert_allclose([i.odds for i in other.items], [i.odds for i in one.items], rtol=1e-4)
        assert [i.reasons for i in other.items] == [i.reasons for i in one.items]
        assert (other.seed, other.subject, other.cursor) == (one.seed, one.subject, one.cursor)
    assert len({slate.recommendation_id for slate in together}) == len(requests)


def test_all_are_scored_at_once_and_logged(engine, monkeypatch):
    ranker, batches = engine.serving.ranker, []
    real = type(ranker).scores

    def scores(self, histories, target):
        batches.append(len(histories))
        return real(self, histories, target)

    monkeypatch.setattr(type(ranker), "scores", scores)
    found = list(engine.recommend_all([asked(number) for number in range(6)]))
    assert batches == [6]
    logged = {slate.recommendation_id for slate in engine.shop.store.decisions()}
    assert {slate.recommendation_id for slate in found} <= logged


def test_what_is_wrong_with_one_is_told_to_that_one(engine, monkeypatch):
    requests = [asked(1), asked(2, filters=["price <"]), asked(3), asked(4, cursor="forged")]
    first, broken, third, forged = engine.recommend_all(requests)
    assert first.subject == "u1"
    assert third.subject == "u3"
    assert isinstance(broken, InputError)
    assert isinstance(forged, PenchantError)
    assert msgspec.to_builtins(third)["items"]
    guide = engine.serving.ranker.guide
    real = type(guide).forbid

    def forbid(self, subject, allowed_N):
        if subject == "u2":
            raise ZeroDivisionError
        real(self, subject, allowed_N)

    monkeypatch.setattr(type(guide), "forbid", forbid)
    first, odd, third = engine.recommend_all([asked(1), asked(2), asked(3)])
    assert isinstance(odd, ZeroDivisionError)
    assert (first.subject, third.subject) == ("u1", "u3")
