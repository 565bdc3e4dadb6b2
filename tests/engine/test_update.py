"""Learning on from what is new, and the gate that a new model has to pass."""

from dataclasses import replace

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penchant import Engine
from penchant.core.errors import InputError, ModelError
from penchant.data import time_split
from penchant.engine import _gate, _train, _update
from penchant.engine import _training_requests as tr
from penchant.engine._promotion import read_pointer
from penchant.engine._protocol import take_snapshot
from penchant.evaluation import rank_metrics
from penchant.surfaces._render import render
from penchant.training import fit_model, read_artifact

NOW = 1_750_000_000_000_000
LATEST = "zebra"  # only the newest events of `walk` know it


@pytest.fixture
def engine(tmp_path, walk):
    """A shop with a sequence model that serves."""
    pq.write_table(pa.Table.from_pylist(walk(range(12), 1)), tmp_path / "old.parquet")
    pq.write_table(pa.Table.from_pylist(walk(range(12, 20), 2)), tmp_path / "new.parquet")
    with Engine.open(tmp_path / "shop", clock=lambda: NOW) as engine:
        engine.init()
        engine.ingest(files=[str(tmp_path / "old.parquet")])
        artifact = engine.train(models=["sequence"], size="tiny").artifacts.get("sequence")
        if artifact is None:  # another kind was best here: fit it all the same
            pytest.fail("the sequence model is not the best on a ring of items")
        engine.promote(artifact=artifact)
        yield engine


@pytest.fixture
def fuller(engine, tmp_path):
    engine.ingest(files=[str(tmp_path / "new.parquet")])
    return engine


def test_an_update_learns_what_is_new_and_serves(fuller):
    old = read_pointer(fuller.shop.artifacts).promoted
    report = fuller.train(update=True)
    assert (report.leaderboard, report.tags, report.promoted_kind) == (None, None, "sequence")
    assert report.gate.against == old
    assert not report.gate.refused
    assert report.gate.difference.n > 50
    made = read_artifact(fuller.shop.artifacts, report.promoted)
    assert made.parents == [old]
    assert made.facts[_gate.LEARNED] == made.as_of == fuller.shop.store.last_ts() + 1
    assert read_pointer(fuller.shop.artifacts).previous[0] == old
    fuller.observe(events=[{"user_id": "guest", "kind": "view", "item_id": "i3"}])
    shown = [item.item_id for item in fuller.recommend(explore="off", user_id="guest", k=5).items]
    assert LATEST in shown, "an item that the first training did not know"
    assert "sequence serves now" in render(report)


def test_the_same_update_is_the_same_model(fuller):
    kept = fuller.train(update=True, promote=False)
    assert kept.promoted is None
    assert fuller.train(update=True, promote=False).artifacts == kept.artifacts


def test_an_update_goes_on_from_counts_that_were_brought_up_to_date(fuller):
    learned = read_artifact(fuller.shop.artifacts, read_pointer(fuller.shop.artifacts).promoted).as_of
    fuller.recount()
    counted = read_artifact(fuller.shop.artifacts, read_pointer(fuller.shop.artifacts).promoted)
    assert counted.as_of > learned
    assert counted.facts[_gate.LEARNED] == learned
    report = fuller.train(update=True)
    made = read_artifact(fuller.shop.artifacts, report.promoted)
    assert made.facts[_gate.LEARNED] > learned
    assert "recounted" not in made.facts


def test_an_update_needs_news_and_a_model(engine, tmp_path):
    with pytest.raises(ModelError, match="too little happened") as caught:
        engine.train(update=True)
    assert "recount" in caught.value.hint
    with Engine.open(tmp_path / "empty", clock=lambda: NOW) as fresh:
        fresh.init()
        with pytest.raises(ModelError, match="no model serves"):
            fresh.train(update=True)


@pytest.mark.parametrize("field", [{"models": ["ease"]}, {"size": "tiny"}, {"seen": "allow"}])
def test_an_update_chooses_nothing(engine, field):
    with pytest.raises(InputError, match="as it is"):
        engine.train(update=True, **field)


def test_a_worse_update_is_refused_and_changes_nothing(fuller, monkeypatch):
    def forget(kind, model, items, snapshot, since, run):
        return fit_model("popularity", snapshot, {}, run)

    monkeypatch.setattr(_update, "update_model", forget)
    before = read_pointer(fuller.shop.artifacts)
    report = fuller.train(update=True)
    assert report.gate.refused
    assert report.gate.difference.high < 0
    assert (report.artifacts, report.promoted) == ({}, None)
    assert read_pointer(fuller.shop.artifacts) == before
    assert "goes on serving" in render(report)


def test_an_update_does_not_undo_a_promotion_made_while_it_learned(fuller, monkeypatch):
    other = fuller.train(models=["transitions"], promote=False).artifacts["transitions"]
    learn = _update.update_model

    def meanwhile(*args):
        fuller.promote(artifact=other)
        return learn(*args)

    monkeypatch.setattr(_update, "update_model", meanwhile)
    with pytest.raises(ModelError, match="promoted meanwhile") as caught:
        fuller.train(update=True)
    assert "penchant promote" in caught.value.hint
    assert read_pointer(fuller.shop.artifacts).promoted == other


def test_a_recount_meanwhile_is_no_other_model(fuller, monkeypatch):
    learn = _update.update_model
    calls = []

    def meanwhile(*args):
        if not calls:
            calls.append(fuller.recount())
        return learn(*args)

    monkeypatch.setattr(_update, "update_model", meanwhile)
    report = fuller.train(update=True)
    assert read_pointer(fuller.shop.artifacts).promoted == report.promoted


def test_updates_do_not_pile_up(fuller, monkeypatch):
    """What nothing needs any more goes, as after a training."""
    tidied = []
    monkeypatch.setattr(_update, "tidy", lambda shop, keep: tidied.append(keep))
    fuller.train(update=True)
    assert tidied == [fuller.shop.config.train.keep]


def test_the_gate_counts_for_the_serving_model_only_where_it_must(fuller, monkeypatch):
    """Where both know the same items their counts are the same; a zebra that one does not know makes them differ."""
    counted = []
    count = _gate.counted_again
    monkeypatch.setattr(_gate, "counted_again", lambda *args: counted.append(1) or count(*args))
    fuller.train(update=True)
    assert counted == [1]
    whole = take_snapshot(fuller.shop, lambda *_: None)
    train, cases = time_split(whole, share=0.1)
    serving = _gate.serving_model(fuller.shop)
    measured = rank_metrics(serving.model, cases, seen="allow", groups=())
    serving = replace(serving, artifact=msgspec.structs.replace(serving.artifact, facts={_gate.LEARNED: 0}))
    args = (serving, measured, train, cases, "allow", lambda *_: None)
    shared = _gate.compare_with_serving(*args, counted=serving.model.recounted(train))
    assert counted == [1]
    assert shared == _gate.compare_with_serving(*args)
    assert counted == [1, 1]


def test_a_training_that_is_worse_is_kept_but_does_not_serve(fuller, monkeypatch):
    before = read_pointer(fuller.shop.artifacts).promoted
    gate = tr.Gate(against=before, says="worse", refused=True)
    monkeypatch.setattr(_train, "compare_with_serving", lambda *_: gate)
    report = fuller.train(models=["transitions"])
    assert report.promoted is None
    assert report.artifacts
    assert read_pointer(fuller.shop.artifacts).promoted == before
    best = next(iter(report.artifacts.values()))
    assert fuller.promote(artifact=best).promoted == best, "the shop's own word counts more"


def test_a_training_is_compared_with_what_serves(fuller):
    report = fuller.train(models=["transitions"])
    assert report.gate.difference.n > 10, "the new events came after all that the serving model has learned"
    again = fuller.train(models=["sequence"], size="tiny")
    if again.promoted_kind == "sequence":
        last = fuller.train(models=["transitions"])
        assert last.gate.difference is None
        assert "later than the split" in last.gate.says


def test_items_that_the_serving_model_does_not_know_come_last(fuller):
    whole = take_snapshot(fuller.shop, lambda *_: None)
    train, cases = time_split(whole, share=0.1)
    serving = fit_model("popularity", train, {}, _run())
    number_N = np.arange(whole.num_items + 1)
    number_N[whole.items.number(LATEST)] = 0
    score_BN = _gate._Renumbered(serving, number_N).scores(cases.batch(np.arange(3), 10))
    assert (score_BN[:, whole.items.number(LATEST)] == -np.inf).all()
    known = np.flatnonzero(number_N)
    assert np.array_equal(score_BN[:, known], serving.scores(cases.batch(np.arange(3), 10))[:, known])
    same = rank_metrics(_gate._Renumbered(serving, np.arange(whole.num_items + 1)), cases)
    assert same.metrics == rank_metrics(serving, cases).metrics


def _run():
    from penchant.core import Run

    return Run()
