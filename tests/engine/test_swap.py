"""A model swapped under a running engine: checked first, taken back when it fails, never seen half."""

import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from penchant import Engine
from penchant.core.errors import ArtifactError
from penchant.engine._canary import check_model
from penchant.engine._promotion import read_pointer, write_pointer
from tests.engine.lookers import NOW, lookers


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A shop with two recommenders."""
    folder = tmp_path_factory.mktemp("swap")
    with Engine.open(folder / "shop", clock=lambda: NOW) as engine:
        engine.init()
        engine.ingest(files=[lookers(folder)])
        made = engine.train(models=["transitions", "item_knn"]).artifacts
        engine.promote(artifact=made["item_knn"])
        engine.promote(artifact=made["transitions"])
    return folder / "shop", made


@pytest.fixture
def shop(trained, tmp_path):
    shutil.copytree(trained[0], tmp_path / "shop")
    return tmp_path / "shop"


def answers(engine):
    return [engine.recommend(user_id=f"u{n}", k=5, seed=1, explore="off").item_ids for n in range(5)]


def promote_by_hand(shop, artifact):
    """What another process does, without our checks."""
    old = read_pointer(shop / "artifacts")
    import msgspec

    write_pointer(
        shop / "artifacts",
        msgspec.structs.replace(old, promoted=artifact, previous=(old.promoted, *old.previous)),
    )


def broken_copy(shop, artifact):
    """An artifact whose files do not match its hash."""
    made = "f" * 32
    shutil.copytree(shop / "artifacts" / artifact, shop / "artifacts" / made)
    return made


def wait_for(true):
    deadline = time.monotonic() + 20
    while not true() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert true()


def test_a_promoted_model_is_taken_up_without_a_restart(shop, trained):
    with Engine.open(shop, clock=lambda: NOW) as engine:
        engine.warm()
        engine.keep()
        assert engine.recommend(user_id="u1").model_id == trained[1]["transitions"]
        promote_by_hand(shop, trained[1]["item_knn"])
        wait_for(lambda: engine.recommend(user_id="u1").model_id == trained[1]["item_knn"])


@pytest.mark.parametrize("kept", [True, False])
def test_a_model_that_fails_is_taken_back(shop, trained, kept):
    """Faults 7 and 8: the model before goes on answering, the same answers, and the failed one is kept and named."""
    with Engine.open(shop, clock=lambda: NOW) as engine:
        engine.warm()
        if kept:
            engine.keep()
        before = answers(engine)
        bad = broken_copy(shop, trained[1]["item_knn"])
        promote_by_hand(shop, bad)
        if not kept:
            time.sleep(0.6)
            engine.recommend(user_id="u1")
        wait_for(lambda: read_pointer(shop / "artifacts").promoted == trained[1]["transitions"])
        assert answers(engine) == before
        slate = engine.recommend(user_id="u1")
        assert (slate.model_id, slate.degraded) == (trained[1]["transitions"], False)
        (failed,) = read_pointer(shop / "artifacts").failed
        assert failed.id == bad
        assert (shop / "artifacts" / bad).is_dir()


def test_at_a_start_an_older_model_answers_marked_as_degraded(shop, trained):
    """Fault 7: nothing served before in this process, so that the operator must look."""
    promote_by_hand(shop, broken_copy(shop, trained[1]["item_knn"]))
    with Engine.open(shop, clock=lambda: NOW) as engine:
        slate = engine.recommend(user_id="u1")
        assert slate.degraded
        assert slate.model_id == trained[1]["transitions"]
        assert "cannot be used" in slate.note


class Odd:
    """A model with scores of our choice."""

    def __init__(self, scores):
        self._scores = scores

    def scores(self, batch):
        return self._scores


@pytest.mark.parametrize(
    ("scores", "why"),
    [
        (np.full((1, 4), np.nan, np.float32), "not a number"),
        (np.array([[-np.inf, 1, np.inf, 2]], np.float32), "not a number"),
        (np.zeros((1, 7), np.float32), "6 scores for 3 items"),
        (np.full((1, 4), -np.inf, np.float32), "nothing that can be shown"),
    ],
)
def test_the_canary(scores, why):
    from penchant.core import Vocabulary

    items = Vocabulary(["a", "b", "c"])
    if scores.shape == (1, 7):
        why = "scores for 3 items"
    with pytest.raises(ArtifactError, match=why):
        check_model(Odd(scores), items, "x")
    check_model(Odd(np.array([[-np.inf, 1, 2, 3]], np.float32)), items, "x")


SWAPPER = """
import sys
from pathlib import Path
from penchant.engine._promotion import switch
first, second = sys.argv[2:]
print("ready", flush=True)
while True:
    switch(Path(sys.argv[1]), first)
    switch(Path(sys.argv[1]), second)
"""


def test_killed_while_it_swaps(shop, trained):
    """Fault 6: exactly the old or the new."""
    ids = trained[1]["transitions"], trained[1]["item_knn"]
    for seed in range(5):
        child = subprocess.Popen(
            [sys.executable, "-c", SWAPPER, str(shop / "artifacts"), *ids], stdout=subprocess.PIPE, text=True
        )
        child.stdout.readline()
        time.sleep(0.01 + 0.013 * seed)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()
        assert read_pointer(shop / "artifacts").promoted in ids
    with Engine.open(shop, clock=lambda: NOW) as engine:
        assert engine.recommend(user_id="u1").model_id in ids


def test_the_journal_moves_into_the_table_while_requests_go_on(shop, monkeypatch):
    from penchant.engine import _keeper

    monkeypatch.setattr(_keeper, "LOOK", 0.02)
    monkeypatch.setattr(_keeper, "COMPACT_EVERY", 0.05)
    monkeypatch.setattr(_keeper, "COMPACT_EVENTS", 50)
    with Engine.open(shop) as engine:
        engine.warm()
        engine.keep()
        for n in range(30):
            told = engine.observe(
                events=[
                    {"kind": "view", "event_id": f"n{n}-{m}", "user_id": f"u{m}", "item_id": "i3"}
                    for m in range(10)
                ]
            )
            assert told.stored == 10
            assert engine.recommend(user_id="u1").items
        wait_for(lambda: engine.shop.store.num_waiting() < 50)
        assert engine.status().events == 240 + 300


def test_an_address_in_the_environment(monkeypatch):
    from penchant.core.errors import ShopError
    from penchant.engine._identity import Identity
    from penchant.engine._shop import StoreSettings

    settings, shop = StoreSettings(journal="$SHOP_JOURNAL"), Identity("s")
    with pytest.raises(ShopError, match=r"SHOP_JOURNAL.*set it"):
        settings.servers(shop)
    monkeypatch.setenv("SHOP_JOURNAL", "postgresql://x")
    assert settings.servers(shop).journal == "postgresql://x"


def swapped(engine, trained, fails):
    """A model that passes the canary and then does what it should not; the one before served some answers."""
    for number in range(120):
        engine.recommend(user_id=f"u{number % 40}")
    promote_by_hand(engine.shop.path, trained[1]["item_knn"])
    engine.serving.refresh()
    ranker = engine.serving.ranker
    assert ranker.model_id == trained[1]["item_knn"]
    fails(ranker)


def raising(ranker):
    def scores(batch):
        raise RuntimeError("a broken kernel")

    object.__setattr__(ranker, "model", type("Broken", (), {"scores": staticmethod(scores)})())


def hiding(ranker):
    ranker.shelf.offered_N[:] = False


@pytest.mark.parametrize(("fails", "why"), [(raising, "failed"), (hiding, "had no items")])
@pytest.mark.parametrize("together", [False, True])
def test_a_model_that_does_worse_in_front_of_people_is_taken_back(shop, trained, fails, why, together):
    """Fault 8: by live metrics, within a minute; until then the model before answers for it, marked as degraded."""
    from penchant.engine import _requests as rq

    with Engine.open(shop, clock=lambda: NOW) as engine:
        engine.warm()
        engine.keep()
        swapped(engine, trained, fails)
        bad = trained[1]["item_knn"]
        deadline = time.monotonic() + 30
        while read_pointer(shop / "artifacts").promoted == bad and time.monotonic() < deadline:
            if together:
                asked = [rq.RecommendRequest(user_id=f"u{n}", k=5) for n in range(8)]
                slates = list(engine.recommend_all(asked))
            else:
                slates = [engine.recommend(user_id="u1", k=5)]
            for slate in slates:
                assert not isinstance(slate, Exception)
                if why == "failed":
                    assert slate.items
                    assert slate.model_id == trained[1]["transitions"], "the model before answers"
        pointer = read_pointer(shop / "artifacts")
        assert pointer.promoted == trained[1]["transitions"]
        assert pointer.failed[0].id == bad
        assert why in pointer.failed[0].why
        wait_for(lambda: engine.recommend(user_id="u1").model_id == trained[1]["transitions"])
        assert engine.recommend(user_id="u1").items


def test_a_model_that_people_turn_away_from_is_taken_back_and_a_good_one_is_not():
    """By clicks, with an interval that holds however often one looks: no false alarm in fifty trials."""
    from penchant.core import Event, Slate, SlateItem
    from penchant.engine._trial import CLICKS_AFTER, Trials

    def trial(rate, seed):
        rng = np.random.default_rng(seed)
        moment = [0.0]
        trials = Trials(lambda: moment[0])
        for number in range(6000):
            if number == 3000:
                trials.begin("new", "old")
            model, share = ("old", 0.2) if number < 3000 else ("new", rate)
            moment[0] += 1.0
            rid = f"{number:024x}"
            items = [SlateItem(item_id="i", score=1.0, odds=1.0, explored=False, reasons=[])]
            trials.answered(
                Slate(
                    recommendation_id=rid,
                    ts=0,
                    subject="u",
                    items=items,
                    policy_id="p",
                    model_id=model,
                    seed=0,
                ),
                0.001,
            )
            if rng.random() < share:
                trials.observed([Event(kind="click", item_id="i", recommendation_id=rid)])
            if number % 50 == 0 and (why := trials.verdict()) is not None:
                return number, why
        assert CLICKS_AFTER < 3000
        return None

    alarms = [trial(0.2, seed) for seed in range(50)]
    assert alarms == [None] * 50
    found = trial(0.05, 0)
    assert found is not None
    assert "had no click" in found[1]
    assert found[0] < 5000
