import sys
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from penchant.core import Run, Searcher, VectorIndex
from penchant.core.errors import ArtifactError, InputError
from penchant.data import sequence_batch
from penchant.models import ExactIndex, QuantizedIndex, _index, choose_index
from penchant.models._content import Content
from penchant.models._sequence import INDEX
from penchant.testing import IndexTests, markov_snapshot
from penchant.training import fit_model, load_artifact, save_artifact

pytest.importorskip("faiss")


class TestExactIndex(IndexTests):
    @classmethod
    def build(cls, vec_ND, bias_N=None):
        return ExactIndex(vec_ND, bias_N)


class TestQuantizedIndex(IndexTests):
    recall = 0.98

    @classmethod
    def build(cls, vec_ND, bias_N=None):
        return QuantizedIndex.build(vec_ND, bias_N)


@pytest.fixture(scope="module")
def made():
    """Vectors and interests in which nothing is alike: the hardest case for codes."""
    draw = np.random.default_rng(0)
    vec_ND = draw.normal(size=(30_001, 16)).astype(np.float32)
    vec_ND[0] = 0
    return vec_ND, draw.normal(size=(30, 1, 16)).astype(np.float32)


def slow_exact(monkeypatch):
    """Exact search as it is over a catalogue too large for a test."""
    search = _index.ExactIndex.search

    def slowly(self, *args):
        for _ in range(30):
            found = search(self, *args)
        return found

    monkeypatch.setattr(_index.ExactIndex, "search", slowly)


def test_the_faster_one_that_finds_enough_is_taken(made, monkeypatch):
    slow_exact(monkeypatch)
    index, report = choose_index(*made)
    assert isinstance(index, QuantizedIndex)
    assert report.kind == index.kind == "quantized"
    assert report.recall.value >= 0.98
    assert report.ms < report.exact_ms
    assert report.depth == index.depth


def test_biases_far_from_the_rest_do_not_spoil_the_codes(made):
    vec_ND, query_QRD = made
    bias_N = (0.5 * np.random.default_rng(1).standard_t(1.5, size=len(vec_ND))).astype(np.float32)
    allowed_N = np.arange(len(vec_ND)) > 0
    exact, shares = ExactIndex(vec_ND, bias_N), []
    index = QuantizedIndex.build(vec_ND, bias_N, depth=500)
    for query_RD in query_QRD:
        found, score_K = index.search(query_RD, 100, allowed_N)
        shares.append(np.isin(exact.search(query_RD, 100, allowed_N)[0], found).mean())
        np.testing.assert_allclose(score_K, exact.scores(found, query_RD))
    assert np.mean(shares) >= 0.98  # .64 where the furthest bias, 201, takes levels from the others
    grown = index.extended(vec_ND[1:3], np.array([500.0, 0.0], np.float32))
    assert len(vec_ND) in grown.search(query_QRD[0], 10, np.r_[allowed_N, True, True])[0]


def test_an_index_that_finds_too_little_never_serves(made, monkeypatch):
    slow_exact(monkeypatch)
    monkeypatch.setattr(_index, "RECALL", 1.01)
    index, report = choose_index(*made)
    assert isinstance(index, ExactIndex)
    assert (report.kind, report.depth, report.recall.value) == ("exact", 0, 1.0)
    assert "is no faster" in report.note


def test_an_index_that_is_slower_does_not_serve(made, monkeypatch):
    monkeypatch.setattr(_index, "_searched", lambda index, *_: ([np.arange(100)] * 30, 1.0))
    assert choose_index(*made)[1].kind == "exact"


def test_without_faiss_search_is_exact_and_says_so(made, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    index, report = choose_index(*made)
    assert isinstance(index, ExactIndex)
    assert "penchant[index]" in report.note


def test_an_index_is_measured_on_somebody(made):
    with pytest.raises(InputError, match="there are none"):
        choose_index(made[0], made[1][:0])


def test_codes_survive_storage_and_fit_their_vectors_alone(made):
    vec_ND, query_QRD = made
    index = QuantizedIndex.build(vec_ND)
    again = QuantizedIndex.load(vec_ND, index.stored(), index.depth)
    allowed_N = np.arange(len(vec_ND)) > 0
    for query_RD in query_QRD:
        for one, two in zip(*(i.search(query_RD, 20, allowed_N) for i in (index, again)), strict=True):
            np.testing.assert_array_equal(one, two)
    assert QuantizedIndex.build(vec_ND).stored().tobytes() == index.stored().tobytes()
    with pytest.raises(ArtifactError, match="other items"):
        QuantizedIndex.load(vec_ND[1:], index.stored(), 1000)
    with pytest.raises(ArtifactError, match="damaged"):
        QuantizedIndex.load(vec_ND, index.stored()[:100], 1000)


@pytest.fixture(scope="module")
def snapshot():
    return markov_snapshot(users=300, items=400, length=12)


@pytest.fixture(scope="module")
def model(snapshot):
    config = {
        "size": "tiny",
        "epochs": 3.0,
        "counts_weight": 1.0,
        "repeats_weight": 3.0,
        "neighbours_weight": 0.5,
    }
    return fit_model("sequence", snapshot, config, Run())


def best_by_scores(model, batch, allowed_N, limit):
    score_N = model.scores(batch)[0]
    item_N = np.flatnonzero(allowed_N)
    return _index.best_of(item_N, score_N[item_N], limit)


@pytest.mark.parametrize("settings", [{}, {"interests": 3}, {"counts": False}, {"trend_weight": 1.0}])
@pytest.mark.parametrize("share", [1.0, 0.3, 0.01])
def test_the_best_are_those_of_the_scores(snapshot, settings, share):
    """Candidates of the index and of the counts, blended exactly: nothing that scores higher is outside."""
    config = {
        "size": "tiny",
        "epochs": 2.0,
        "counts_weight": 2.0,
        "repeats_weight": 3.0,
        "neighbours_weight": 0.5,
    }
    model = fit_model("sequence", snapshot, {**config, **settings}, Run())
    assert isinstance(model, Searcher)
    assert isinstance(model.index, VectorIndex)
    allowed_N = np.random.default_rng(0).random(401) < share
    allowed_N[0] = False
    for row in range(0, 300, 20):
        batch = sequence_batch(snapshot, np.array([row]), 10)
        item_K, score_K = model.best(batch, allowed_N, 25)
        wanted_K, wanted_score_K = best_by_scores(model, batch, allowed_N, 25)
        assert item_K.tolist() == wanted_K.tolist()
        np.testing.assert_allclose(score_K, wanted_score_K, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("lending", [0.9, 1.0])
def test_what_content_lends_is_among_the_best_too(snapshot, model, lending):
    """Unmet items borrow their counts: they are candidates though nobody ever turned to them."""
    draw = np.random.default_rng(4)
    content_NC = draw.normal(size=(441, 8)).astype(np.float32)
    content_NC /= np.linalg.norm(content_NC, axis=1, keepdims=True)
    content_NC[0] = 0
    config = msgspec.structs.replace(
        model.config, lending=lending, content_weight=0.5, unmet_content_weight=0.7
    )
    met_N = np.arange(401) > 0
    said = replace(model, config=config, content=Content.of(content_NC[:401], met_N))
    indexed = replace(said, approximate=QuantizedIndex.build(said.item_ND, depth=100))
    wide = indexed.extended(content_NC)
    assert wide.index.kind == "quantized"
    allowed_N = np.arange(441) > 0
    newcomers = 0
    for row in range(0, 300, 20):
        batch = sequence_batch(snapshot, np.array([row]), 10)
        found, wanted = wide.best(batch, allowed_N, 60), best_by_scores(wide, batch, allowed_N, 60)
        assert found[0].tolist() == wanted[0].tolist()
        np.testing.assert_allclose(found[1], wanted[1], rtol=1e-5, atol=1e-5)
        newcomers += (found[0] > 400).sum()
    assert newcomers


def test_somebody_new_gets_what_is_popular(snapshot, model):
    nobody = sequence_batch(snapshot, np.array([0]), 10, end=snapshot.ptr[:1])
    for share in (1.0, 0.05):
        allowed_N = np.random.default_rng(1).random(401) < share
        allowed_N[0] = False
        found, wanted = model.best(nobody, allowed_N, 30), best_by_scores(model, nobody, allowed_N, 30)
        assert found[0].tolist() == wanted[0].tolist()
        assert found[1].tolist() == wanted[1].tolist()


def trending(model, draw):
    """Some items sell much more of late, some much less."""
    config = msgspec.structs.replace(model.config, trend_weight=1.0)
    return replace(model, config=config, trend_N=np.r_[0, 2 * draw.standard_normal(400)].astype(np.float32))


def test_a_trend_that_was_counted_anew_is_in_the_index(snapshot, model, tmp_path):
    """Codes of the old trend would keep what sells now from being a candidate at all."""
    draw = np.random.default_rng(5)
    old, new = trending(model, draw), trending(model, draw)
    indexed = replace(old, approximate=QuantizedIndex.build(old.item_ND, old.bias_N, depth=90))
    artifact = save_artifact(tmp_path, indexed, kind="sequence", as_of=0, items=snapshot.items)
    again = load_artifact(tmp_path, artifact.id).model
    allowed_N = np.arange(401) > 0
    for served in (again, again.with_counts_of(new), indexed.recounted(snapshot)):
        assert served.index.kind == "quantized"
        for row in range(0, 300, 30):
            batch = sequence_batch(snapshot, np.array([row]), 10)
            found, wanted = served.best(batch, allowed_N, 20), best_by_scores(served, batch, allowed_N, 20)
            assert found[0].tolist() == wanted[0].tolist()
    nobody = sequence_batch(snapshot, np.array([0]), 10, end=snapshot.ptr[:1])
    found, wanted = old.best(nobody, allowed_N, 30), best_by_scores(old, nobody, allowed_N, 30)
    assert found[0].tolist() == wanted[0].tolist()


def test_an_artifact_keeps_its_index_and_serves_without_faiss(snapshot, model, tmp_path, monkeypatch):
    indexed = replace(model, approximate=QuantizedIndex.build(model.item_ND, depth=350))
    assert INDEX in indexed.arrays()
    assert INDEX not in model.arrays()
    artifact = save_artifact(tmp_path, indexed, kind="sequence", as_of=0, items=snapshot.items)
    again = load_artifact(tmp_path, artifact.id).model
    assert again.index.kind == "quantized"
    assert again.index.depth == 350
    monkeypatch.setitem(sys.modules, "faiss", None)
    bare = load_artifact(tmp_path, artifact.id).model
    assert bare.index.kind == "exact"
    batch, allowed_N = sequence_batch(snapshot, np.array([0]), 10), np.arange(401) > 0
    assert bare.best(batch, allowed_N, 20)[0].tolist() == again.best(batch, allowed_N, 20)[0].tolist()


def test_best_of_all_scores_is_the_best_of_the_allowed_ones() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        size, limit = int(rng.integers(1, 6000)), int(rng.integers(1, 700))
        score_N = rng.integers(0, int(rng.integers(2, 2000)), size).astype(np.float32)  # many ties
        score_N[rng.random(size) < rng.random() * 0.2] = rng.choice([np.nan, np.inf, -np.inf])
        allowed_N = rng.random(size) < rng.random() ** 2
        allowed_K = np.flatnonzero(allowed_N & np.isfinite(score_N))
        plain_K, plain_score_K = _index.best_of(allowed_K, score_N[allowed_K], limit)
        item_K, score_K = _index.best_allowed(score_N, allowed_N, limit)
        np.testing.assert_array_equal(item_K, plain_K)
        np.testing.assert_array_equal(score_K, plain_score_K)
