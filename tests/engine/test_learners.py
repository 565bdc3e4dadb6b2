"""Learners that a shop asks for: what they see of people, and that they are the same after a restart and an erasure."""

import datetime as dt

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penchant import Engine
from penchant.core import DAY
from penchant.core.errors import InputError

NOW = 1_750_000_000_000_000
MOMENT = dt.datetime(2025, 6, 15, 16, tzinfo=dt.UTC)
KINDS = ("linear", "neural_linear", "bootstrap", "diag_linucb")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, walk):
    """A shop with a network and a map of interests."""
    folder = tmp_path_factory.mktemp("learners")
    pq.write_table(pa.Table.from_pylist(walk(range(12), 1)), folder / "events.parquet")
    rows = [{"id": f"i{n}", "labels": ["even" if n % 2 == 0 else "odd", f"third {n % 3}"]} for n in range(24)]
    pq.write_table(pa.Table.from_pylist(rows), folder / "items.parquet")
    with Engine.open(folder / "shop", clock=lambda: NOW) as engine:
        engine.init()
        engine.ingest(files=[str(folder / "events.parquet")])
        engine.catalog(files=[str(folder / "items.parquet")])
        engine.promote(artifact=engine.train(models=["sequence"], size="tiny").artifacts["sequence"])
    return folder / "shop"


def opened(trained, tmp_path, **settings):
    """A copy of the shop with other settings of exploring, months later."""
    import shutil

    path = tmp_path / "shop"
    if not path.exists():
        shutil.copytree(trained, path)
    lines = (path / "shop.toml").read_text().splitlines()
    at = lines.index("[explore]")
    lines = [line for n, line in enumerate(lines) if n <= at or line.split(" =")[0] not in settings]
    lines[at + 1 : at + 1] = [f"{name} = {value}" for name, value in settings.items()]
    (path / "shop.toml").write_text("\n".join(lines))
    return Engine.open(path, clock=lambda: NOW + 90 * DAY)


def rounds(engine, count, likes=("i7",), k=5):
    """People are shown some items and buy those that all like."""
    for n in range(count):
        moment = MOMENT + dt.timedelta(hours=2 * n)
        who = f"u{n % 6}"
        slate = engine.recommend(user_id=who, k=k, now=moment, seen="allow", seed=n)
        told = {"user_id": who, "recommendation_id": slate.recommendation_id, "timestamp": moment}
        events = [{**told, "kind": "impression", "item_id": item} for item in slate.item_ids]
        events += [{**told, "kind": "purchase", "item_id": i} for i in slate.item_ids if i in likes]
        engine.observe(events=events)


def row_of(engine, who="u9"):
    engine.recommend(
        user_id=who, k=5, seed=1, seen="allow", now=MOMENT + dt.timedelta(days=60), explore="off"
    )
    engine.shop.store.flush()
    return list(engine.shop.store.decisions(who))[-1]


@pytest.mark.parametrize("kind", KINDS)
def test_a_learner_serves_learns_and_is_the_same_after_a_restart(trained, tmp_path, kind):
    with opened(trained, tmp_path, learner=f'"{kind}"', method='"thompson"') as engine:
        before = row_of(engine)
        rounds(engine, 40)
        after = row_of(engine)
        assert after.policy_id.startswith(f"{kind}/1+")
        assert after.updates > before.updates
        sight = engine.serving.ranker.exploration.sight
        assert after.candidates.space == sight.space
        assert bool(after.candidates.seen) == bool(sight.space)
    with opened(trained, tmp_path) as again:
        rebuilt = row_of(again)
    assert rebuilt.updates == after.updates
    np.testing.assert_allclose(rebuilt.candidates.mean, after.candidates.mean, atol=2e-3)
    place = after.candidates.item_ids.index("i7")
    assert after.candidates.mean[place] > before.candidates.mean[place] + 0.03


@pytest.mark.parametrize("kind", ["neural_linear", "bootstrap", "diag_linucb"])
def test_an_erased_person_taught_a_learner_nothing(trained, tmp_path, kind):
    with opened(trained, tmp_path, learner=f'"{kind}"') as engine:
        rounds(engine, 12)
        before = row_of(engine).updates
        engine.erase_user(user_id="u1")
        assert row_of(engine).updates < before
        assert not list(engine.shop.store.decisions("u1"))


def test_the_log_says_with_what_the_person_was_seen(trained, tmp_path):
    with opened(trained, tmp_path, learner='"neural_linear"') as engine:
        slate = engine.recommend(user_id="u3", k=3, seen="allow")
        stranger = engine.recommend(user_id="stranger", k=3)
        engine.shop.store.flush()
        (row,) = engine.shop.store.decisions("u3")
        (unknown,) = engine.shop.store.decisions("stranger")
        width = engine.serving.ranker.model.item_ND.shape[1]
    assert np.linalg.norm(row.candidates.seen) == pytest.approx(1, abs=1e-5)
    assert len(row.candidates.seen) == width
    assert unknown.candidates.seen == []
    assert slate.explore
    assert stranger.explore
    assert sum(row.candidates.odds) == pytest.approx(1, abs=1e-5)


def test_another_network_takes_nothing_from_vectors_that_it_does_not_know(trained, tmp_path):
    with opened(trained, tmp_path, learner='"neural_linear"') as engine:
        rounds(engine, 20)
        exploration = engine.serving.ranker.exploration
        width = exploration.sight.width
        assert np.abs(exploration.learner.weight_F[-width:]).max() > 1e-3
        exploration.sight.space = "another"
        fresh = type(exploration)(
            exploration.settings,
            exploration.items,
            exploration.facts,
            sight=(exploration.kind, exploration.sight),
        )
        fresh.replay(engine.shop)
    assert fresh.learner.updates > 40
    assert (fresh.learner.weight_F[-width:] == 0).all()


@pytest.mark.parametrize("kind", ["neural_linear", "diag_linucb"])
def test_without_what_a_learner_needs_the_usual_one_serves_and_says_so(tmp_path, kind):
    with Engine.open(tmp_path / "shop") as engine:
        engine.init()
    with opened(None, tmp_path, learner=f'"{kind}"') as engine:
        engine.observe(events=[{"kind": "view", "user_id": "u", "item_id": item} for item in ("a", "b")])
        slate = engine.recommend(user_id="u", k=1, seen="allow")
    assert slate.policy_id.startswith("hybrid/1+")
    assert slate.explore_reason == f"on: ucb, hybrid: nothing is trained for {kind}"


def test_batches_are_drawn_by_the_learner_too(trained, tmp_path):
    with opened(trained, tmp_path, learner='"bootstrap"', method='"thompson"') as engine:
        out = tmp_path / "all.parquet"
        engine.recommend(users="all", k=3, seed=3, seen="allow", now=MOMENT, out=str(out))
        table = pq.read_table(out)
        assert all(name.startswith("bootstrap/1+voted/1+") for name in table["policy_id"].to_pylist())
        alone = engine.recommend(user_id="u4", k=3, seed=3, seen="allow", now=MOMENT)
        mine = [row["item_id"] for row in table.to_pylist() if row["user_id"] == "u4"]
    assert mine == alone.item_ids


@pytest.fixture(scope="module")
def logged(trained, tmp_path_factory):
    """The shop after 150 answers drawn evenly, of which five items alone were bought."""
    folder = tmp_path_factory.mktemp("logged")
    with opened(trained, folder, floor=1.0, fresh_share=0.0) as engine:
        rounds(engine, 150, [f"i{n}" for n in range(5)], k=1)
    with opened(None, folder) as engine:
        yield engine


@pytest.mark.parametrize("kind", KINDS)
def test_a_learner_can_be_replayed_on_the_log_of_another(logged, kind):
    uniform = logged.replay(policy="uniform", days=2)
    found = logged.replay(policy=f"{kind}/greedy+0.2", days=2)
    assert "watched the log" in " ".join(found.notes)
    by_rates, even = (report.estimates["DM"].value for report in (found, uniform))  # of all it would show
    assert by_rates > 1.3 * even, "it watched what is bought"
    assert found.value.low <= found.value.value <= found.value.high


def test_replaying_what_the_log_was_drawn_by_changes_nothing(logged):
    """An even draw is the same whatever a learner expects."""
    plain = logged.replay(policy="uniform", days=2)
    assert plain.value.value == pytest.approx(plain.logged.value, abs=0.08)
    for name in ("bootstrap/uniform", "neural_linear/uniform"):
        assert logged.replay(policy=name, days=2).value.value == pytest.approx(plain.value.value, abs=1e-9)


def test_a_learner_and_a_log_file_do_not_go_together(logged, tmp_path):
    (tmp_path / "log.csv").write_text("item_id,reward,odds\na,1,0.5\nb,0,0.5\n")
    with pytest.raises(InputError, match="does not show"):
        logged.replay(policy="linear/greedy", log=str(tmp_path / "log.csv"))
    with pytest.raises(InputError, match="no such policy"):
        logged.replay(policy="frog/greedy", days=2)
