"""Business rules and scenarios: they act before the draw, and the odds say what was done."""

import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from penchant import Engine
from penchant.core import DAY
from penchant.core.errors import InputError, NotFound, ShopError

NOW = 1_750_000_000_000_000  # a Sunday, 15:06 UTC
HOUR = DAY // 24
MOMENT = [NOW]


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rules")
    lines = ["id,title,brand,price,cost,availability,publish_time"]
    lines += [
        f"i{n},Item {n},{'Own' if n % 2 else 'Big'},{n + 1}.00 EUR,{0.5 * n}0 EUR,"
        f"{'out_of_stock' if n == 9 else 'in_stock'},2025-0{1 + n % 6}-01"
        for n in range(10)
    ]
    (folder / "items.csv").write_text("\n".join(lines))
    (folder / "users.csv").write_text("user_id,tier,age\nu1,gold,44\nu2,plain,20\n")
    with Engine.open(folder / "shop", clock=lambda: MOMENT[0]) as engine:
        engine.init(currency="EUR")
        engine.catalog(files=[str(folder / "items.csv")])
        engine.ingest(files=[str(folder / "users.csv")])
        engine.observe(
            events=[
                {"kind": "view", "user_id": f"p{p}", "item_id": f"i{n}", "ts": NOW - DAY - p * 1000 - n}
                for n in range(10)
                for p in range(20 - n)
            ]
        )
        yield engine


@pytest.fixture
def engine(shop):
    MOMENT[0] = NOW
    return shop


def ask(engine, *rules, user_id="u1", k=10, explore="off", **more):
    return engine.recommend(user_id=user_id, k=k, rules=list(rules), explore=explore, seed=1, **more)


def ids(slate):
    return [item.item_id for item in slate.items]


def test_without_rules_the_popular_come_first(engine):
    assert ids(ask(engine)) == [f"i{n}" for n in range(9)]


@pytest.mark.parametrize(
    ("rule", "first"),
    [
        ("only brand = Own", ["i1", "i3", "i5", "i7"]),
        ("exclude price <= 300", ["i3", "i4", "i5"]),
        ("boost 100 when brand = Own", ["i1", "i3", "i5", "i7"]),
        ("add 5 when id in [i7, i5]", ["i5", "i7", "i0"]),
        ("boost 0.001 when brand = Big", ["i1", "i3", "i5", "i7", "i0"]),
        ("bury id = i0", ["i1", "i2"]),
        ("only margin > 250", ["i4", "i5"]),
        ("only age_days < 20", ["i5"]),
        ("exclude user.tier = gold and brand = Big", ["i1", "i3"]),
        ("only user.age > 40 and brand = Own", ["i1", "i3"]),
        ("only weekday = 7 and hour = 15 and brand = Own", ["i1", "i3"]),
    ],
)
def test_a_rule_acts(engine, rule, first):
    assert ids(ask(engine, rule))[: len(first)] == first


def test_what_somebody_wants_no_more_is_not_pinned(engine):
    engine.observe(events=[{"kind": "not_interested", "user_id": "picky", "item_id": "i7"}])
    assert ids(ask(engine, "pin id = i7 at 1", user_id="picky", k=2)) == ["i0", "i1"]
    assert ids(ask(engine, "pin id = i7 at 1", user_id="u1", k=2)) == ["i7", "i0"]


def test_rules_tell_people_apart(engine):
    assert ids(ask(engine, "exclude user.tier = gold", user_id="u1")) == []
    assert len(ids(ask(engine, "exclude user.tier = gold", user_id="u2"))) == 9
    assert len(ids(ask(engine, "exclude user.tier = gold", user_id="u1", purpose="analytics"))) == 9


def test_what_is_buried_comes_when_nothing_else_is_left(engine):
    slate = ask(engine, "bury brand = Big", explore="auto")
    assert {int(i[1:]) % 2 for i in ids(slate)[:4]} == {1}
    assert len(ids(slate)) == 9
    assert all(0 < odds <= 1 for odds in slate.odds)


def test_a_pinned_slot_has_odds_of_one_and_says_so(engine):
    slate = ask(engine, "pin id = i7 at 1", "pin brand = Own at 3", k=4, explore="auto")
    assert ids(slate)[0] == "i7"
    assert ids(slate)[2] == "i1", "of the brand the one that is wanted most"
    assert [item.pinned for item in slate.items] == [True, False, True, False]
    assert [item.odds for item in slate.items if item.pinned] == [1.0, 1.0]
    assert slate.items[0].reasons[0].kind == "pinned"
    assert slate.joint_odds == pytest.approx(np.prod(slate.odds))
    assert slate.policy_id.startswith("hybrid/1")


@pytest.mark.parametrize("rule", ["pin id = i9 at 1", "pin id = i7 at 9", "pin id = i7 at 1 when hour < 3"])
def test_what_may_not_be_shown_is_not_pinned(engine, rule):
    assert ids(ask(engine, rule, k=3)) == ["i0", "i1", "i2"]


def test_pins_are_in_files_for_many_too(engine, tmp_path):
    users = tmp_path / "users.txt"
    users.write_text("u1\nu2\n")
    out = tmp_path / "out.parquet"
    engine.recommend(
        users=str(users),
        out=str(out),
        k=3,
        explore="off",
        rules=["pin id = i7 at 2", "exclude user.tier = gold"],
    )
    rows = pq.read_table(out).to_pylist()
    assert [(r["user_id"], r["rank"], r["item_id"]) for r in rows] == [
        ("u2", 1, "i0"),
        ("u2", 2, "i7"),
        ("u2", 3, "i1"),
    ]
    assert rows[1]["odds"] == 1


def test_exclude_bought_and_what_is_in_the_cart(engine):
    engine.observe(
        events=[
            {"kind": "purchase", "user_id": "buyer", "item_id": "i0", "ts": NOW - 3 * HOUR, "value": 1},
            {"kind": "cart_add", "user_id": "buyer", "item_id": "i0", "ts": NOW - 4 * HOUR},
            {"kind": "cart_add", "user_id": "buyer", "item_id": "i1", "ts": NOW - HOUR},
            {"kind": "view", "user_id": "buyer", "item_id": "i2", "ts": NOW - HOUR},
        ]
    )

    def left(rule):
        return ids(ask(engine, rule, user_id="buyer", seen="allow"))

    assert "i0" not in left("exclude bought")
    assert left("only in_cart") == ["i1"]
    assert set(left("only seen")) == {"i0", "i1", "i2"}
    assert set(left("only hours_since_seen < 2")) == {"i1", "i2"}
    assert left("only hours_since_bought > 2") == ["i0"]


def test_never_twice_in_a_day(engine):
    rule = "exclude hours_since_shown < 24"
    first = ids(ask(engine, rule, user_id="daily", k=3))
    second = ids(ask(engine, rule, user_id="daily", k=3))
    assert not set(first) & set(second)
    MOMENT[0] = NOW + DAY + HOUR
    assert ids(ask(engine, rule, user_id="daily", k=3)) == first


def test_odds_under_rules_are_the_frequencies(engine):
    count, odds = {}, {}
    for seed in range(400):
        slate = engine.recommend(
            user_id="odd", k=1, seed=seed, rules=["boost 1.4 when id = i3", "exclude id = i0"]
        )
        item = slate.items[0]
        count[item.item_id] = count.get(item.item_id, 0) + 1
        odds[item.item_id] = item.odds
    for item_id, p in odds.items():
        assert abs(count[item_id] / 400 - p) < 4 * np.sqrt(p * (1 - p) / 400) + 0.005, item_id
    assert "i0" not in count


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("boost", "breaks off"),
        ("boost 2000 when in_stock", "out of range"),
        ("pin id = i1 at 0", "slots are counted from 1"),
        ("exclude bougt", "did you mean bought"),
        ("promote i7", "character 1"),
        ("boost brand", "this is no number"),
        ("only user.shoe = 3", "user.tier"),
    ],
)
def test_a_wrong_rule_is_refused_in_words(engine, rule, words):
    with pytest.raises(InputError) as caught:
        ask(engine, rule)
    assert words in str(caught.value)
    assert caught.value.path == "$.rules[0]"


CONFIG = """
[scenarios.cart]
k = 2
filters = ["price <= 600"]
rules = ["exclude in_cart", "pin id = i4 at 1"]

[scenarios.diverse]
mmr = 0.3
shelf = "new"
"""


def test_a_scenario_says_it_all(shop, tmp_path):
    shutil.copytree(shop.path, tmp_path / "shop")
    with (tmp_path / "shop" / "shop.toml").open("a") as file:
        file.write(CONFIG)
    with Engine.open(tmp_path / "shop", readonly=False, clock=lambda: NOW) as engine:
        slate = engine.recommend(user_id="u1", scenario="cart", explore="off")
        assert ids(slate) == ["i4", "i0"]
        assert slate.surface == "cart"
        more = engine.recommend(
            user_id="u1", scenario="cart", k=9, rules=["exclude id = i0"], surface="drawer", explore="off"
        )
        assert ids(more) == ["i4", "i1", "i2", "i3", "i5"]
        assert more.surface == "drawer"
        with pytest.raises(
            InputError, match="map of interests"
        ):  # the dial arrives; it needs a trained model
            engine.recommend(user_id="u1", scenario="diverse")
        last = engine.recommend(user_id="u1", scenario="diverse", mmr=0, explore="off")
        assert ids(last) == ["i4", "i5"], "the scenario's shelf is that of new items"
        with pytest.raises(NotFound, match="cart"):
            engine.recommend(user_id="u1", scenario="home")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("[scenarios.a]\nrules = ['boost']\n", "breaks off"),
        ("[scenarios.a]\nfilters = ['price <']\n", "breaks off"),
        ("[scenarios.a]\nkk = 3\n", "kk"),
    ],
)
def test_a_mistake_in_a_scenario_is_found_at_the_start(tmp_path, config, words):
    with Engine.open(tmp_path / "shop") as engine:
        engine.init()
    with (tmp_path / "shop" / "shop.toml").open("a") as file:
        file.write(config)
    with Engine.open(tmp_path / "shop") as engine, pytest.raises(ShopError) as caught:
        engine.status()
    assert words in str(caught.value)
    assert "scenarios" in str(caught.value)


def test_answers_with_pinned_slots_are_not_replayed(engine, tmp_path):
    shutil.copytree(engine.path, tmp_path / "shop")
    with Engine.open(tmp_path / "shop", clock=lambda: NOW + 9 * DAY) as later:
        for number in range(3):
            later.recommend(user_id=f"r{number}", k=2, rules=["pin id = i3 at 1"], now="2025-06-15T12:00:00Z")
        for number in range(4):
            later.recommend(user_id=f"s{number}", k=2, now="2025-06-15T12:00:00Z")
        report = later.replay(policy="greedy", outcome="click")
        assert any("a rule gave away" in note for note in report.notes), report.notes
