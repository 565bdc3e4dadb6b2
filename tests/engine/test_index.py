"""A large catalogue is served by the index that was measured when its model was made."""

import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penchant import Engine
from penchant.core import Estimate
from penchant.engine import _index, _serving
from penchant.engine._promotion import read_pointer
from penchant.models import ExactIndex, IndexReport, QuantizedIndex
from penchant.training import read_artifact

pytest.importorskip("faiss")
NOW = 1_750_000_000_000_000


def quantized(vec_ND, query_QRD, bias_N):
    assert query_QRD.shape[1:] == (1, vec_ND.shape[1])
    whole = Estimate(0.99, 0.98, 1.0, len(query_QRD), "normal")
    report = IndexReport("quantized", len(vec_ND) - 1, 15, whole, 0.1, 0.2, 0.0, 1, "measured")
    return QuantizedIndex.build(vec_ND, bias_N, depth=15), report


@pytest.fixture
def engine(tmp_path, walk, monkeypatch):
    """A shop of 20 items, which is many here, with a sequence model that serves through an index."""
    for module in (_index, _serving):
        monkeypatch.setattr(module, "INDEX_ITEMS", 10)
    monkeypatch.setattr(_index, "choose_index", quantized)
    pq.write_table(pa.Table.from_pylist(walk(range(12), 1)), tmp_path / "old.parquet")
    with Engine.open(tmp_path / "shop", clock=lambda: NOW) as engine:
        engine.init()
        engine.ingest(files=[str(tmp_path / "old.parquet")])
        engine.promote(artifact=engine.train(models=["sequence"], size="tiny").artifacts["sequence"])
        yield engine


def shown(engine, user, **asked):
    return [
        (item.item_id, round(item.score, 3))
        for item in engine.recommend(explore="off", user_id=user, k=4, **asked).items
    ]


def test_the_index_is_measured_kept_and_answers_as_exact_search_does(engine, monkeypatch):
    artifact = read_artifact(engine.shop.artifacts, read_pointer(engine.shop.artifacts).promoted)
    assert artifact.metrics[_index.RECALL].value == 0.99
    assert artifact.facts[_index.INDEX]["kind"] == "quantized"
    assert "items.faiss" in artifact.files
    assert engine.serving.ranker.searches
    asked = [{}, {"allow": ["i1", "i2", "i19"]}, {"deny": [f"i{n}" for n in range(15)]}]
    searched = [shown(engine, f"u{user}", **request) for user in range(5) for request in asked]
    searched += [shown(engine, "nobody")]
    monkeypatch.setattr(_serving, "INDEX_ITEMS", 1000)
    assert not engine.serving.ranker.searches
    scored = [shown(engine, f"u{user}", **request) for user in range(5) for request in asked]
    assert searched == [*scored, shown(engine, "nobody")]


def test_an_update_measures_its_index_anew(engine, walk, tmp_path):
    pq.write_table(pa.Table.from_pylist(walk(range(12, 20), 2)), tmp_path / "new.parquet")
    engine.ingest(files=[str(tmp_path / "new.parquet")])
    report = engine.train(update=True)
    assert report.notes == ["measured"]
    made = read_artifact(engine.shop.artifacts, report.artifacts["sequence"])
    assert "items.faiss" in made.files
    assert _index.RECALL in made.metrics
    recounted = read_artifact(engine.shop.artifacts, engine.recount().promoted)
    assert recounted.files["items.faiss"] == made.files["items.faiss"]


def test_without_faiss_the_answers_say_that_every_item_is_scored(engine, monkeypatch):
    before = shown(engine, "u1")
    monkeypatch.setitem(sys.modules, "faiss", None)
    engine.serving.forget()
    slate = engine.recommend(explore="off", user_id="u1", k=4)
    assert [(item.item_id, round(item.score, 3)) for item in slate.items] == before
    assert "penchant[index]" in slate.note
    assert isinstance(engine.serving.ranker.model.index, ExactIndex)


def test_a_small_catalogue_needs_no_index(engine, monkeypatch):
    monkeypatch.setattr(_index, "INDEX_ITEMS", 1000)
    report = engine.train(models=["sequence"], size="tiny")
    made = read_artifact(engine.shop.artifacts, report.artifacts["sequence"])
    assert _index.RECALL not in made.metrics
    assert "items.faiss" not in made.files
