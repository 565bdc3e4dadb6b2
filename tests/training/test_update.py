"""What a network begins with when it goes on learning."""

from dataclasses import replace

import numpy as np
import onnx
import pytest

from penchant.core import Run, Vocabulary
from penchant.core.errors import ModelError
from penchant.data import sequence_batch, training_windows, window_batch
from penchant.testing import markov_snapshot, toy_snapshot
from penchant.training import _export, fit_model, update_model
from penchant.training._export import with_weights
from penchant.training._sequence import grown_vectors

TINY = {"size": "tiny", "epochs": 1.0, "counts_weight": 1.0}


def test_known_items_keep_their_vectors_and_new_ones_take_after_their_like():
    paths = {"ale": "Drinks", "stout": "Drinks", "soap": "Bath", "towel": "Bath", "pen": "Office"}
    toy = toy_snapshot([("u", item) for item in ("ale", "soap", "stout", "towel", "pen")], categories=paths)
    old = Vocabulary(["soap", "ale"])
    item_ND = np.array([[0, 0], [1, 0], [0, 1]], np.float32)
    grown_ND = grown_vectors(item_ND, old, toy)
    found = {item: grown_ND[toy.items.number(item)].tolist() for item in paths}
    assert found == {
        "ale": [0, 1], "stout": [0, 1], "soap": [1, 0], "towel": [1, 0], "pen": [0.5, 0.5],
    }  # fmt: skip
    assert grown_ND[0].tolist() == [0, 0]
    assert np.array_equal(grown_vectors(grown_ND, toy.items, toy), grown_ND)


def test_only_new_events_are_asked_for():
    snapshot = markov_snapshot(users=30, items=8)
    moment = int(np.median(snapshot.ts))
    windows = training_windows(snapshot, 6)
    new = windows.since(snapshot, moment)
    asked = [
        b.target_BT[b.target_BT > 0]
        for b in (window_batch(snapshot, w, np.arange(len(w))) for w in (windows, new))
    ]
    row = np.repeat(np.arange(len(snapshot.ptr) - 1), np.diff(snapshot.ptr))
    first = snapshot.ptr[:-1][row] == np.arange(len(snapshot.ts))
    wanted = (snapshot.ts >= moment) & ~first
    assert 0 < len(asked[1]) == wanted.sum() < len(asked[0])
    assert sorted(asked[1].tolist()) == sorted(snapshot.item[wanted].tolist())


def test_an_update_moves_the_network_and_keeps_its_shape():
    snapshot = markov_snapshot(users=60, items=12)
    model = fit_model("sequence", snapshot, TINY, Run())
    moment = int(np.quantile(snapshot.ts, 0.8))
    updated = update_model("sequence", model, snapshot.items, snapshot, moment, Run())
    assert updated.config == model.config
    assert updated.item_ND.shape == model.item_ND.shape
    moved = np.abs(updated.item_ND - model.item_ND).max()
    assert 0 < moved < 1
    again = update_model("sequence", model, snapshot.items, snapshot, moment, Run())
    batch = sequence_batch(snapshot, np.arange(5), 10)
    assert np.array_equal(updated.scores(batch), again.scores(batch))
    with pytest.raises(ModelError, match="nobody turned to an item since"):
        update_model("sequence", model, snapshot.items, snapshot, int(snapshot.ts.max()) + 1, Run())


def test_a_network_that_only_learned_on_needs_no_new_graph(monkeypatch):
    """Drawing the graph costs more than a short training: its weights are written into the one that is there."""
    snapshot = markov_snapshot(users=60, items=12)
    model = fit_model("sequence", snapshot, TINY, Run())
    monkeypatch.setattr(_export, "_drawn", {})
    moment = int(np.quantile(snapshot.ts, 0.8))
    drawn_anew = update_model(
        "sequence", replace(model, encoder=np.zeros(0, np.uint8)), snapshot.items, snapshot, moment, Run()
    )
    monkeypatch.setattr(_export, "_drawn", {})
    monkeypatch.setattr(_export, "_draw", lambda *_: pytest.fail("the graph was drawn anew"))
    updated = update_model("sequence", model, snapshot.items, snapshot, moment, Run())
    assert updated.encoder.tobytes() == drawn_anew.encoder.tobytes() != model.encoder.tobytes()
    assert len(updated.encoder) == len(model.encoder)


def test_a_graph_of_another_shape_takes_no_weights():
    snapshot = markov_snapshot(users=20, items=6)
    model = fit_model("sequence", snapshot, TINY, Run())
    assert with_weights(model.encoder, model.weights).tobytes() == model.encoder.tobytes()
    narrow = {name: array[..., :1] for name, array in model.weights.items()}
    assert with_weights(model.encoder, narrow) is None
    fewer = dict(list(model.weights.items())[1:])
    assert with_weights(model.encoder, fewer) is None


def test_a_graph_that_computes_something_else_is_not_served(monkeypatch):
    """Equal names and shapes are not enough: heads of another network may be put together otherwise."""
    snapshot = markov_snapshot(users=60, items=12)
    model = fit_model("sequence", snapshot, TINY, Run())
    graph = onnx.load_from_string(model.encoder.tobytes())
    for node in graph.graph.node:
        if node.op_type == "Sigmoid":
            node.op_type = "Tanh"
    other = replace(model, encoder=np.frombuffer(graph.SerializeToString(), np.uint8))
    moment = int(np.quantile(snapshot.ts, 0.8))
    monkeypatch.setattr(_export, "_drawn", {})
    updated = update_model("sequence", other, snapshot.items, snapshot, moment, Run())
    again = update_model("sequence", model, snapshot.items, snapshot, moment, Run())
    assert updated.encoder.tobytes() == again.encoder.tobytes()


def test_counted_models_count_again():
    snapshot = markov_snapshot(users=20, items=6)
    model = fit_model("transitions", snapshot, {}, Run())
    updated = update_model("transitions", model, snapshot.items, snapshot, 0, Run())
    assert all(np.array_equal(a, updated.arrays()[name]) for name, a in model.arrays().items())


def test_what_the_shop_has_settled_of_the_blend_is_not_searched():
    """A setting that is given is kept; only what is left open is found."""
    snapshot = markov_snapshot(users=40, items=10)
    seen = []

    def validate(model):
        if hasattr(model.config, "repeats_weight"):
            seen.append(
                (model.config.repeats_weight, model.config.neighbours_weight, model.config.counts_floor)
            )
        return float(len(seen) % 7)

    given = {"size": "tiny", "epochs": 1.0, "repeats_weight": 5.0, "neighbours_weight": 3.0}
    model = fit_model("sequence", snapshot, given, Run(validate=validate))
    assert {pair[:2] for pair in seen} == {(5.0, 3.0)}
    assert len({pair[2] for pair in seen}) > 1
    assert (model.config.repeats_weight, model.config.neighbours_weight) == (5.0, 3.0)
    assert model.config.counts_weight is not None
