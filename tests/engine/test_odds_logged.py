"""What the decision log says of an answer, and how requests name time and seed."""

import datetime as dt

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penchant import Engine
from penchant.core import PackedCandidates, micros
from penchant.core.errors import PenchantError

MOMENT = dt.datetime(2024, 6, 1, tzinfo=dt.UTC)


@pytest.fixture
def engine(tmp_path):
    with Engine.open(tmp_path / "shop") as made:
        made.init()
        rows = [(f"i{n}", n) for n in range(1, 9)]
        made.observe(
            events=[
                {"kind": "purchase", "user_id": f"u{m}", "item_id": item, "timestamp": MOMENT}
                for item, count in rows
                for m in range(count)
            ]
        )
        yield made


def test_the_row_of_the_log_says_what_the_policy_chose_from(engine):
    answer = engine.recommend(user_id="new", k=3, explore="off", now=MOMENT)
    assert answer.candidates is None  # the answer is for the shop's page
    engine.shop.store.flush()
    (row,) = engine.shop.store.decisions("new")
    assert row.recommendation_id == answer.recommendation_id
    assert row.ts == answer.ts == micros(MOMENT)
    assert sorted(row.candidates.item_ids) == [f"i{n}" for n in range(1, 9)]
    assert row.num_candidates == len(row.candidates.item_ids) == len(row.candidates.mean) == 8
    assert set(row.item_ids) <= set(row.candidates.item_ids)
    assert not row.explore
    assert row.explore_reason
    assert row.odds == [1.0, 1.0, 1.0]
    assert row.joint_odds == 1.0
    assert len(row.candidates_hash) == len(row.policy_hash) == 16


def test_another_candidate_set_has_another_hash(engine):
    one, two, three = (
        engine.recommend(user_id="new", k=1, allow=allow)
        for allow in (["i1", "i2"], ["i1", "i3"], ["i2", "i1"])
    )
    assert one.candidates_hash != two.candidates_hash
    assert one.candidates_hash == three.candidates_hash


def test_seed_is_another_each_time_unless_given(engine):
    assert len({engine.recommend(user_id="new").seed for _ in range(3)}) == 3
    one, two = (engine.recommend(user_id="new", seed=7) for _ in range(2))
    assert one.seed == two.seed == 7
    assert one.items == two.items


@pytest.mark.parametrize(
    "moment", [MOMENT, MOMENT.isoformat(), micros(MOMENT), MOMENT.replace(tzinfo=None)], ids=str
)
def test_a_live_event_names_its_time_as_files_do(engine, moment):
    told = engine.observe(events=[{"kind": "view", "user_id": "a", "item_id": "i1", "timestamp": moment}])
    assert told.results[0].status == "stored"
    assert engine.shop.store.history("a").ts.tolist() == [micros(MOMENT)]


def test_a_time_that_is_none_is_refused_with_its_event(engine):
    told = engine.observe(events=[{"kind": "view", "user_id": "a", "item_id": "i1", "timestamp": "soon"}])
    assert told.results[0].status == "refused"
    assert "datetime" in told.results[0].error


def rounds(engine, count, likes, start=0):
    for n in range(start, start + count):
        moment = MOMENT + dt.timedelta(hours=2 * n + 2)
        slate = engine.recommend(user_id=f"p{n % 7}", k=1, now=moment)
        told = {"user_id": f"p{n % 7}", "item_id": slate.item_ids[0], "timestamp": moment}
        told["recommendation_id"] = slate.recommendation_id
        events = [{**told, "kind": "impression"}]
        events += [{**told, "kind": "purchase"}] if slate.item_ids[0] == likes else []
        engine.observe(events=events)


def test_the_policy_learns_from_outcomes_and_again_after_a_restart(engine):
    assert engine.recommend(user_id="x", k=1, explore="off").item_ids == ["i8"]  # the most popular
    rounds(engine, 120, "i7")
    after = engine.recommend(user_id="x", k=8, explore="off", now=MOMENT + dt.timedelta(days=30))
    assert after.item_ids[0] == "i7"
    assert after.updates == 120
    path = engine.path
    engine.close()
    with Engine.open(path) as again:
        rebuilt = again.recommend(user_id="x", k=8, explore="off", now=MOMENT + dt.timedelta(days=30))
        assert rebuilt.updates == 120
        assert rebuilt.item_ids[0] == "i7"


def test_every_candidate_has_a_chance_and_refusals_are_named(engine):
    slate = engine.recommend(user_id="x", k=2, now=MOMENT)
    engine.shop.store.flush()
    (row,) = engine.shop.store.decisions("x")
    assert slate.explore
    assert sum(row.candidates.odds) == pytest.approx(1)
    assert min(row.candidates.odds) >= 0.02 / 8 - 1e-9
    assert slate.joint_odds == pytest.approx(slate.odds[0] * slate.odds[1])
    refused = engine.recommend(user_id="x", k=2, purpose="analytics")
    assert (refused.explore, refused.odds) == (False, [1.0, 1.0])
    assert "analytics" in refused.explore_reason


def test_an_erased_person_taught_nothing(engine):
    rounds(engine, 14, "i3")
    before = engine.recommend(user_id="x", k=1, now=MOMENT + dt.timedelta(days=30)).updates
    engine.erase_user(user_id="p1")
    after = engine.recommend(user_id="x", k=1, now=MOMENT + dt.timedelta(days=30)).updates
    assert (before, after) == (14, 12)


@pytest.mark.parametrize(("setting", "reason"), [("on = false", "shop.toml"), ("per_day = 0", "used up")])
def test_the_shop_can_refuse_to_explore(tmp_path, setting, reason):
    with Engine.open(tmp_path / "shop") as engine:
        engine.init()
    file = tmp_path / "shop" / "shop.toml"
    name = setting.split()[0]
    lines = file.read_text().replace("per_day = null\n", "").splitlines()
    at = lines.index("[explore]")
    lines = [line for n, line in enumerate(lines) if n <= at or not line.startswith(f"{name} =")]
    lines.insert(at + 1, setting)
    file.write_text("\n".join(lines))
    with Engine.open(tmp_path / "shop") as engine:
        engine.observe(events=[{"kind": "view", "user_id": "u", "item_id": item} for item in ("a", "b")])
        slate = engine.recommend(user_id="u", k=1)
        assert not slate.explore
        assert reason in slate.explore_reason


def with_settings(engine, **settings):
    """The same shop, opened again with other settings of exploring."""
    path = engine.path
    engine.close()
    lines = (path / "shop.toml").read_text().splitlines()
    at = lines.index("[explore]")
    lines = [line for n, line in enumerate(lines) if n <= at or line.split(" =")[0] not in settings]
    lines[at + 1 : at + 1] = [f"{name} = {value}" for name, value in settings.items()]
    (path / "shop.toml").write_text("\n".join(lines))
    return Engine.open(path)


def first_slot(engine, who="x"):
    engine.shop.store.flush()
    row = list(engine.shop.store.decisions(who))[-1]
    return dict(zip(row.candidates.item_ids, row.candidates.odds, strict=True))


def test_only_allowed_categories_are_explored(engine, tmp_path):
    paths = {1: "Grocery > Bread", 2: "Grocery", 3: "Groceries", 4: "Toys", 8: "Toys"}
    table = pa.table({"id": [f"i{n}" for n in range(1, 9)], "category": [paths.get(n) for n in range(1, 9)]})
    pq.write_table(table, tmp_path / "items.parquet")
    engine.catalog(files=[str(tmp_path / "items.parquet")])
    with with_settings(engine, categories='["Grocery"]') as limited:
        slate = limited.recommend(user_id="x", k=1, now=MOMENT)
        odds = first_slot(limited)
        assert {item for item, chance in odds.items() if chance > 0} == {"i1", "i2", "i8"}, "i8 is the best"
        assert sum(odds.values()) == pytest.approx(1)
        assert "limited" in slate.policy_id


def test_exploring_stops_when_it_would_cost_too_much_and_says_so(engine):
    with with_settings(engine, max_loss=0.05, fresh_share=0.0, method='"softmax"', scale=0.2) as careful:
        answers = [careful.recommend(user_id="x", k=1, now=MOMENT) for _ in range(60)]
        refused = [a for a in answers if not a.explore]
        assert 0 < len(refused) < 60
        assert all("may cost 5.00% of expected rewards" in a.explore_reason for a in refused)
        assert all(a.odds == [1.0] for a in refused)
        assert not answers[0].explore, "nothing is saved up yet"
        share = careful.serving.ranker.exploration._ledger.share
        path = careful.path
    with Engine.open(path) as again:
        again.recommend(user_id="y", explore="off")
        assert again.serving.ranker.exploration._ledger.share == pytest.approx(share, rel=1e-3), (
            "from the log"
        )


def test_slots_that_are_looked_at_less_and_late_rewards_are_taken_into_account(engine):
    rng = np.random.default_rng(2)
    with with_settings(engine, floor=1.0) as shop:  # the same items in either slot
        for n in range(600):
            moment = MOMENT + dt.timedelta(hours=3 * n)
            slate = shop.recommend(user_id=f"p{n}", k=2, now=moment)
            events = []
            for slot, item in enumerate(slate.item_ids):
                told = {"user_id": f"p{n}", "item_id": item, "recommendation_id": slate.recommendation_id}
                events.append({**told, "kind": "impression", "timestamp": moment})
                if rng.random() < (0.5, 0.1)[slot]:
                    late = dt.timedelta(minutes=90 if rng.random() < 0.5 else 10)
                    events.append({**told, "kind": "purchase", "timestamp": moment + late})
            shop.observe(events=events)
        exploration = shop.serving.ranker.exploration
    in_time = exploration._known.seen(0)
    assert in_time == pytest.approx(0.5, abs=0.08), "half of the rewards come after the hour"
    assert exploration._known.seen(1) / in_time == pytest.approx(0.2, abs=0.1), "a fifth of the attention"


def test_what_was_learned_fades_with_the_days(engine):
    def expected(shop, days):
        shop.observe(events=[{"kind": "view", "user_id": "z", "item_id": "i1", "recommendation_id": "none",
                              "timestamp": MOMENT + dt.timedelta(days=days)}])  # fmt: skip
        shop.recommend(user_id="x", k=1, explore="off", now=MOMENT)
        shop.shop.store.flush()
        row = list(shop.shop.store.decisions("x"))[-1]
        return dict(zip(row.candidates.item_ids, row.candidates.mean, strict=True))["i7"]

    before = expected(engine, 0)
    with with_settings(engine, half_life_days=10.0) as shop:
        rounds(shop, 60, "i7")
        learned, later, long_after = expected(shop, 6), expected(shop, 26), expected(shop, 400)
    assert learned > later > long_after
    assert long_after == pytest.approx(before, rel=0.02)


def test_logged_numbers_are_read_with_seven_digits():
    """As text would give them, number by number: the slow twin."""
    rng = np.random.default_rng(0)
    number_N = (rng.normal(size=20_000) * 10.0 ** rng.integers(-20, 20, 20_000)).astype("<f4")
    number_N[:6] = [0, 1, -1, np.inf, -np.inf, 0.1]
    packed = PackedCandidates(item_ids=[], mean=number_N.tobytes(), std=b"", score=b"")
    assert packed.unpack().mean == [float(f"{number:.7g}") for number in number_N]


def test_a_search_is_a_decision_too(engine):
    """A sorted list has odds of 1, its candidates and the hash of what it depended on."""
    found, other = (engine.search(query="i3", user_id="new", k=2, personal=weight) for weight in (0.3, 0))
    rows = {row.recommendation_id: row for row in engine.shop.store.decisions("new")}
    row = rows[found.recommendation_id]
    assert row.item_ids == [item.item_id for item in found.items]
    assert (row.policy_id, row.surface, row.joint_odds, row.explore) == ("search/1", "search", 1.0, False)
    assert row.odds == [1.0] * len(row.items)
    assert row.num_candidates == len(row.candidates.item_ids) >= len(row.items)
    assert len(row.candidates_hash) == len(row.policy_hash) == 16
    assert rows[other.recommendation_id].policy_hash != row.policy_hash


def test_what_came_from_a_sorted_list_is_plain_history(engine):
    from penchant.engine._facts import gather_facts

    def count(item):
        ranker = engine.serving.ranker
        facts = gather_facts(engine.shop, ranker.items, engine.shop.store.catalog(), vectors=True)
        return facts.feature_NF[ranker.items.number(item)].tolist()

    before = count("i1")
    drawn = engine.recommend(user_id="new", k=1).recommendation_id
    buy = {"kind": "purchase", "item_id": "i1", "timestamp": MOMENT}
    engine.observe(events=[{**buy, "user_id": f"a{n}", "recommendation_id": drawn} for n in range(5)])
    assert count("i1") == before  # what the policy learns as an outcome is not counted once more
    listed = engine.search(query="i1").recommendation_id
    engine.observe(events=[{**buy, "user_id": f"b{n}", "recommendation_id": listed} for n in range(5)])
    assert count("i1") != before


def test_the_answers_of_a_day_are_counted_over_a_restart_and_only_those_that_explored(engine):
    with with_settings(
        engine, per_day=2, max_loss=0.05, fresh_share=0.0, method='"softmax"', scale=0.2
    ) as shop:
        answers = [shop.recommend(user_id="x", k=1, now=MOMENT) for _ in range(60)]
        told = [a.explore_reason for a in answers if not a.explore]
        assert sum(a.explore for a in answers) == 2
        assert any("may cost" in why for why in told), "refused for what they cost: those are not counted"
        assert "the person's 2 exploring answers of the day are used up" in told[-1]
        path = shop.path
    with Engine.open(path) as again:
        assert "used up" in again.recommend(user_id="x", k=1, now=MOMENT).explore_reason
        others = [again.recommend(user_id="y", k=1, now=MOMENT + dt.timedelta(days=1)) for _ in range(40)]
        assert sum(a.explore for a in others) == 2


def test_new_items_have_their_share_until_they_have_lived_on_their_own(engine, tmp_path):
    ids = [f"i{n}" for n in range(1, 9)] + ["new"]
    pq.write_table(pa.table({"id": ids}), tmp_path / "items.parquet")
    engine.catalog(files=[str(tmp_path / "items.parquet")])
    with with_settings(engine, fresh_share=0.5, fresh_until=5, floor=0.0) as shop:
        for n in range(60):
            moment = MOMENT + dt.timedelta(hours=2 * n)
            slate = shop.recommend(user_id=f"p{n}", k=1, now=moment)
            outcomes = shop.serving.ranker.exploration.learner.shown_N[
                shop.serving.ranker.items.number("new")
            ]
            assert ("reserved0.5" in slate.policy_id) == (outcomes < 5)
            if outcomes < 5:
                assert first_slot(shop, f"p{n}")["new"] >= 0.5
            told = {"user_id": f"p{n}", "item_id": slate.item_ids[0], "timestamp": moment}
            told["recommendation_id"] = slate.recommendation_id
            shop.observe(events=[{**told, "kind": "impression"}])
        assert outcomes >= 5


def test_an_item_that_is_called_changed_is_learned_anew(engine, caplog):
    found = {}
    path = engine.path
    for every in (0, 20):
        settings = {"change_every": every} if every else {}
        shop = with_settings(engine if not every else Engine.open(path), **settings)
        with shop, caplog.at_level("INFO", "penchant.exploring"):
            if not every:
                rounds(shop, 60, "i7")
                rounds(shop, 60, "nothing", start=60)
            shop.recommend(user_id="x", k=1, explore="off", now=MOMENT + dt.timedelta(days=30))
            shop.shop.store.flush()
            row = list(shop.shop.store.decisions("x"))[-1]
            found[every] = dict(zip(row.candidates.item_ids, row.candidates.std, strict=True))["i7"]
    assert found[20] > found[0], "less is held to be known"
    assert "item i7 is not what it was" in caplog.text


def test_the_test_for_change_needs_a_learner_that_knows_items(engine):
    shop = with_settings(engine, change_every=100, learner='"linear"')
    with shop, pytest.raises(PenchantError, match="change_every tests items"):
        shop.recommend(user_id="x")
