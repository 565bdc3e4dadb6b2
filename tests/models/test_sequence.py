import subprocess
import sys
from dataclasses import replace

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from penchant.core import CATALOG_SCHEMA, Catalog, Run, Vocabulary
from penchant.core.errors import ArtifactError
from penchant.data import item_labels, sequence_batch, time_split
from penchant.evaluation import validation_metric
from penchant.models import Sequence, SequenceConfig
from penchant.testing import (
    checkerboard_snapshot,
    markov_snapshot,
    snapshot_from_arrays,
    toy_snapshot,
    withheld_item,
)
from penchant.training import fit_model

torch = pytest.importorskip("torch")
from penchant.models._sequence import ENCODER  # noqa: E402
from penchant.models._sequence_loss import (  # noqa: E402
    fused_softmax_loss,
    sampled_softmax_loss,
    softmax_loss,
)
from penchant.training._export import encoder_graphs, encoder_weights  # noqa: E402

TINY = {"size": "tiny", "dropout": 0.0, "epochs": 25}


@pytest.fixture(scope="module")
def snapshot():
    return markov_snapshot(users=200, items=20)


@pytest.fixture(scope="module")
def model(snapshot):
    return fit_model("sequence", snapshot, TINY, Run(seed=3))


def batch_of(snapshot, rows=5, length=20):
    return sequence_batch(snapshot, np.arange(rows), length)


@pytest.mark.parametrize("interests", [1, 3])
def test_fused_loss_equals_the_obvious_one(interests):
    torch.manual_seed(0)
    mean = torch.randn(37, interests, 8, dtype=torch.float64, requires_grad=True)
    item = torch.randn(50, 8, dtype=torch.float64, requires_grad=True)
    target = torch.randint(50, (37,))
    slow = torch.autograd.grad(softmax_loss(mean, item, target), (mean, item))
    fast_value = fused_softmax_loss(mean, item, target)
    fast = torch.autograd.grad(fast_value, (mean, item))
    assert fast_value.item() == pytest.approx(softmax_loss(mean, item, target).item(), rel=1e-10)
    for a, b in zip(slow, fast, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


def test_sampled_loss_with_every_item_is_the_full_one():
    torch.manual_seed(0)
    mean, item = torch.randn(20, 1, 8), torch.randn(30, 8)
    target = torch.randint(30, (20,))
    everything = torch.arange(30)
    found = sampled_softmax_loss(mean, item[target], item, torch.zeros(30), target[:, None] == everything)
    assert found.item() == pytest.approx(softmax_loss(mean, item, target).item(), rel=1e-5)


def test_it_reads_order(snapshot, model):
    batch = batch_of(snapshot, 200)
    last = batch.item_BT[np.arange(200), batch.length_B - 1]
    best = model.scores(batch)[:, 1:].argmax(1) + 1
    assert (best == last % 20 + 1).mean() > 0.8


def test_it_reads_order_without_counts(snapshot):
    bare = fit_model("sequence", snapshot, {**TINY, "counts": False, "epochs": 30}, Run(seed=3))
    batch = batch_of(snapshot, 200)
    last = batch.item_BT[np.arange(200), batch.length_B - 1]
    assert ((bare.scores(batch)[:, 1:].argmax(1) + 1) == last % 20 + 1).mean() > 0.7


def test_same_seed_same_bits(snapshot, model):
    """Fitting again with the configuration that was found gives the same model, bit by bit."""
    again = fit_model("sequence", snapshot, model.config, Run(seed=3))
    assert again.config == model.config
    for name, array in model.arrays().items():
        np.testing.assert_array_equal(array, again.arrays()[name], err_msg=name)


def test_restore_gives_the_same_scores(snapshot, model):
    again = Sequence.restore(model.config, model.arrays())
    np.testing.assert_array_equal(again.scores(batch_of(snapshot)), model.scores(batch_of(snapshot)))


def test_padding_and_company_do_not_change_scores(snapshot, model):
    together = model.scores(batch_of(snapshot, 9))
    for row in range(9):
        alone = model.scores(sequence_batch(snapshot, np.array([row]), 20))
        np.testing.assert_allclose(alone[0, 1:], together[row, 1:], rtol=1e-4, atol=1e-4)


def test_a_long_history_is_cut_like_a_batch_made_short(model):
    long = markov_snapshot(users=4, items=20, length=40)
    wide = model.scores(sequence_batch(long, np.arange(4), 200))
    assert np.isfinite(wide[:, 1:]).all()
    mean_wide, _ = model.interests(sequence_batch(long, np.arange(4), 200))
    mean_short, _ = model.interests(sequence_batch(long, np.arange(4), 20))
    np.testing.assert_allclose(mean_wide, mean_short, rtol=1e-5, atol=1e-6)


def test_somebody_new_gets_finite_scores(snapshot, model):
    from penchant.core import History
    from penchant.data import live_sequences

    none = np.empty(0)
    new = History("x", none.astype(int), none.astype(np.uint8), [], none.astype(np.float32), [])
    batch = sequence_batch(live_sequences([new], snapshot.items, np.zeros((1, 0))), np.array([0]), 20)
    scores = model.scores(batch)
    assert np.isfinite(scores[0, 1:]).all()
    assert scores[0, 0] == -np.inf


def test_checkerboard():
    board = checkerboard_snapshot(users=80, items=12)
    model = fit_model("sequence", board, {"size": "tiny", "epochs": 60, "dropout": 0.1}, Run())
    batch = sequence_batch(board, np.arange(80), 20)
    scores = model.scores(batch)
    scores[np.arange(80)[:, None], batch.item_BT] = -np.inf
    hits = [int(scores[u].argmax()) == withheld_item(u, 12) for u in range(80)]
    assert np.mean(hits) == 1.0


def test_validation_decides_what_is_open(snapshot):
    calls = []

    def validate(scorer):
        calls.append(1)
        batch = batch_of(snapshot, 100)
        last = batch.item_BT[np.arange(100), batch.length_B - 1]
        scores = scorer.scores(batch)
        return float(np.mean([(scores[r] > scores[r, last[r] % 20 + 1]).sum() == 0 for r in range(100)]))

    config = {"size": "tiny", "dropout": 0.0, "patience": 2, "targets": 20_000}
    model = fit_model("sequence", snapshot, config, Run(validate=validate))
    assert model.config.epochs >= 1
    assert model.config.counts_weight is not None
    assert len(calls) > 3


@pytest.mark.parametrize("shape", [{"depth": 2, "heads": 2, "interests": 3}, {"length": 7}])
def test_the_exported_encoder_agrees_with_the_network(shape):
    from penchant.models._sequence_torch import SequenceTransformer

    torch.manual_seed(0)
    config = SequenceConfig(size="tiny", **shape)
    network = SequenceTransformer(config, 20).eval()
    graph = next(encoder_graphs(network, config, encoder_weights(network)))
    empty = fit_model("transitions", markov_snapshot(users=3, items=20), {}, Run())
    nothing = np.zeros(21)
    served = Sequence(config, graph, network.items().detach().numpy(), nothing, nothing, *[empty] * 4, {})
    people = markov_snapshot(users=9, items=20, length=30)
    for rows, length in [(1, 1), (1, 5), (9, 30), (4, config.build().length)]:
        batch = sequence_batch(people, np.arange(rows), length)
        with torch.inference_mode():
            expected = network.interests(served.cut(batch))
        for found, wanted in zip(served.interests(batch), expected, strict=True):
            np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-5, atol=1e-5)


def test_the_encoder_says_nothing_of_where_it_was_made(model):
    graph = model.encoder.tobytes()
    assert b"penchant" not in graph
    assert b".py" not in graph


def changed(model, **values):
    return Sequence.restore(msgspec.structs.replace(model.config, **values), model.arrays())


def test_the_own_history_counts_where_asked(snapshot, model):
    batch = batch_of(snapshot, 30)
    own = np.arange(30)[:, None], batch.item_BT
    plain, habits = (changed(model, repeats_weight=weight).scores(batch) for weight in (0.0, 100.0))
    assert (habits[own] > plain[own])[batch.mask_BT].all()
    habits[own] = plain[own]
    np.testing.assert_array_equal(habits, plain)


def test_reasons_weigh_the_own_history_as_the_score_does(model):
    habits = changed(model, repeats_weight=1000.0)
    history = np.array([3, 9, 3, 9, 3, 8])  # 9 follows 8 everywhere, yet this person comes back to 3
    by_item = habits.affinity(history, np.array([3]))[:, 0]
    assert history[by_item.argmax()] == 3
    assert by_item[4] > by_item[2] > by_item[0], "the newer, the more"


def test_without_counts_only_the_network_speaks(snapshot, model):
    batch = batch_of(snapshot)
    mean_BRD, _ = model.interests(batch)
    bare = changed(model, counts=False).scores(batch)
    np.testing.assert_allclose(bare[:, 1:], (mean_BRD[:, 0] @ model.item_ND.T)[:, 1:], rtol=1e-6)
    assert (model.scores(batch)[:, 1:] >= bare[:, 1:]).all()


@pytest.mark.parametrize(
    "broken", [{"item_ND": np.zeros((21, 5), np.float32)}, {"item_ND": np.zeros((9, 16), np.float32)}]
)
def test_arrays_that_do_not_fit_are_refused(model, broken):
    with pytest.raises(ArtifactError, match="do not fit"):
        Sequence.restore(model.config, {**model.arrays(), **broken})


def test_an_encoder_that_is_no_graph_is_refused(snapshot, model):
    broken = Sequence.restore(model.config, {**model.arrays(), ENCODER: np.arange(9, dtype=np.uint8)})
    with pytest.raises(ArtifactError, match="no usable ONNX graph"):
        broken.scores(batch_of(snapshot))


def test_related_and_affinity(model):
    related = model.related(np.array([1, 2]))
    assert related.shape == (2, 21)
    assert related[0, 2] > np.median(related[0, 1:])
    affinity = model.affinity(np.array([1, 0, 5]), np.array([2, 6]))
    assert affinity.shape == (3, 2)
    assert (affinity[1] == 0).all()
    assert affinity[0, 0] > affinity[2, 0]


def test_serving_needs_no_torch(tmp_path, snapshot, model):
    from penchant.training import save_artifact

    artifact = save_artifact(tmp_path, model, kind="sequence", as_of=0, items=snapshot.items)
    code = f"""
import sys, pathlib
import numpy as np
from penchant.core import History
from penchant.data import live_sequences, sequence_batch
from penchant.training import load_artifact
loaded = load_artifact(pathlib.Path({str(tmp_path)!r}), {artifact.id!r})
none = np.empty(0)
one = History("x", np.array([1]), np.array([11], np.uint8), ["i0003"], np.zeros(1, np.float32), ["e"])
batch = sequence_batch(live_sequences([one], loaded.items, np.zeros((1, 0))), np.array([0]), 20)
best = loaded.model.scores(batch)[0, 1:].argmax() + 1
assert loaded.items.id(int(best)) == "i0004", best
heavy = {{"torch", "ibis", "duckdb", "sklearn"}} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_size_is_one_dial():
    tiny, large = SequenceConfig(size="tiny").build(), SequenceConfig(size="large").build()
    assert (tiny.width, tiny.depth) < (large.width, large.depth)
    assert SequenceConfig(size="tiny", width=32).build().width == 32


def test_an_encoder_with_other_inputs_is_refused(snapshot, model):
    import onnx

    graph = onnx.load_from_string(model.encoder.tobytes())
    graph.graph.input[0].name = "item_BT"
    for node in graph.graph.node:
        node.input[:] = ["item_BT" if name == "vec_BTD" else name for name in node.input]
    older = np.frombuffer(graph.SerializeToString(), np.uint8)
    with pytest.raises(ArtifactError, match="another version") as caught:
        Sequence.restore(model.config, {**model.arrays(), ENCODER: older}).scores(batch_of(snapshot))
    assert caught.value.hint == "train again"


def labelled_snapshot():
    """Walks over 18 items; items 19 and 20 are in the catalogue alone, one of them labelled like what people take."""
    walks = markov_snapshot(users=200, items=18)
    ids = [f"i{n:04d}" for n in range(20)]
    items = Vocabulary(ids)
    catalog = pa.table(
        {
            "id": ids,
            "labels": pa.array([["soft"] if n in {*range(9), 18} else ["hard"] for n in range(20)]),
            "brand": pa.array([f"brand {n % 5}" for n in range(20)]),
        }
    )
    rest = {f.name: pa.nulls(20, f.type) for f in CATALOG_SCHEMA if f.name not in catalog.column_names}
    table = pa.table({**{n: catalog[n] for n in catalog.column_names}, **rest}).select(CATALOG_SCHEMA.names)
    keep = walks.item <= 9  # everybody stays with the soft ones
    row = np.repeat(np.arange(walks.num_users), np.diff(walks.ptr))[keep]
    made = snapshot_from_arrays(
        users=walks.users,
        items=items,
        row=row,
        item=walks.item[keep],
        kind=walks.kind[keep],
        ts=walks.ts[keep],
    )
    return replace(made, catalog=Catalog(table.cast(CATALOG_SCHEMA)))


def test_labels_speak_for_items_without_events():
    snapshot = labelled_snapshot()
    batch = batch_of(snapshot, 40)
    model = fit_model("sequence", snapshot, {**TINY, "counts": False}, Run(seed=1))
    score_BN = model.scores(batch)
    heard_B = batch.length_B > 0
    assert (score_BN[heard_B, 19] > score_BN[heard_B, 20]).mean() > 0.9
    plain = fit_model("sequence", snapshot, {**TINY, "counts": False, "attributes": False}, Run(seed=1))
    assert not np.array_equal(plain.scores(batch), score_BN)


def test_labels_are_folded_into_what_serves():
    from penchant.models._sequence_torch import SequenceTransformer

    snapshot, config = labelled_snapshot(), SequenceConfig(size="tiny")
    torch.manual_seed(0)
    network = SequenceTransformer(config, 20, item_labels(snapshot)).eval()
    assert network.label is not None
    folded = network.folded()
    torch.testing.assert_close(folded.items(), network.items())
    graph = next(encoder_graphs(folded, config, encoder_weights(folded)))
    empty = fit_model("transitions", snapshot, {}, Run())
    nothing = np.zeros(21)
    served = Sequence(config, graph, folded.items().detach().numpy(), nothing, nothing, *[empty] * 4, {})
    batch = batch_of(snapshot)
    with torch.inference_mode():
        expected = network.interests(batch)[0]
    np.testing.assert_allclose(served.interests(batch)[0], expected.numpy(), rtol=1e-5, atol=1e-5)


def test_what_people_turn_to_of_late_lifts_the_score(model, snapshot):
    trend_N = np.linspace(-1, 1, 21).astype(np.float32)
    risen = replace(model, trend_N=trend_N, config=msgspec.structs.replace(model.config, trend_weight=0.5))
    plain = replace(model, config=msgspec.structs.replace(model.config, trend_weight=0.0))
    batch = batch_of(snapshot)
    gain = risen.scores(batch)[:, 1:] - plain.scores(batch)[:, 1:]
    assert np.allclose(gain, 0.5 * trend_N[1:], atol=1e-5)
    again = Sequence.restore(risen.config, risen.arrays())
    assert np.array_equal(again.trend_N, trend_N)


def test_the_trend_is_found_where_it_tells():
    """Half of the items was in fashion in the first half of the time, the other half since."""
    draw = np.random.default_rng(0)
    rows = [
        (f"u{user}", f"i{10 * (day >= 30) + draw.integers(10)}", day)
        for user in range(150)
        for day in np.sort(draw.choice(60, 8, replace=False)).tolist()
    ]
    train, cases = time_split(toy_snapshot(rows), share=0.15)
    judge = validation_metric(cases, seen="allow")
    found = fit_model("sequence", train, TINY, Run(seed=3, validate=judge)).config
    assert found.trend_weight > 0
    assert found.trend_days <= 15
