"""``replay`` on the shop's own log and on files: it finds the truth where the log can tell, and refuses elsewhere."""

from __future__ import annotations

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from penchant import Engine
from penchant.core import DAY, Candidates, CandidateSet, Event, EventKind, Query, Slate, SlateItem, rng
from penchant.core.errors import InputError, NotFound
from penchant.engine import ReplayReport
from penchant.engine._replay import policy_named
from penchant.policy import Best, Explorer, Softmax
from penchant.surfaces import create_app
from penchant.surfaces._render import render
from penchant.testing import running_server

NOW = 1_750_000_000_000_000
ITEMS = 12
TRUTH = np.linspace(0.05, 0.6, ITEMS)  # chance of a purchase by item; the logger believes the opposite
BELIEF = (0.65 - TRUTH).astype(np.float32)


def log_slates(engine, policy, count, slots=1, seed=0):
    """Serve by a policy, with beliefs that are wrong, and let people buy by the truth."""
    draw = rng(seed, "serve")
    ids = [f"i{n}" for n in range(ITEMS)]
    candidates = Candidates(np.arange(1, ITEMS + 1), BELIEF, np.zeros(ITEMS, np.float32), "m")
    events = []
    for number in range(count):
        ts = NOW - 20 * DAY + number * 60_000_000
        subject = f"u{number % (count // 3)}"
        choice = policy.choose(candidates, Query(subject, ts, slots), draw)
        odds = [float(p) for p in choice.odds_K]
        first = [] if choice.first_N is None else choice.first_N.tolist()
        engine.shop.store.log_decision(
            Slate(
                recommendation_id=f"r{number}",
                ts=ts,
                subject=subject,
                items=[
                    SlateItem(item_id=ids[i], score=0.0, odds=p, explored=False)
                    for i, p in zip(choice.index_K.tolist(), odds, strict=True)
                ],
                policy_id="test",
                model_id="m",
                seed=0,
                surface="home" if number % 2 else "cart",
                candidates=CandidateSet(item_ids=ids, mean=BELIEF.tolist(), odds=first),
            )
        )
        for i in choice.index_K.tolist():
            if draw.random() < TRUTH[i]:
                events.append(
                    Event(
                        kind=EventKind.PURCHASE,
                        ts=ts + 1_000_000,
                        event_id=f"e{number}-{i}",
                        user_id=subject,
                        item_id=ids[i],
                        recommendation_id=f"r{number}",
                        value=100.0,
                    )
                )
    engine.shop.store.append(events)
    engine.shop.store.flush()


@pytest.fixture
def engine(tmp_path):
    with Engine.open(tmp_path / "shop", clock=lambda: NOW) as opened:
        opened.init()
        yield opened


def true_value(name):
    """What a policy earns per slate of one item."""
    candidates = Candidates(np.arange(1, ITEMS + 1), BELIEF, np.zeros(ITEMS, np.float32), "m")
    return float(policy_named(name).choose(candidates, Query("u", 0, 1), rng(0)).first_N @ TRUTH)


def test_a_better_and_a_worse_policy(engine, tmp_path):
    log_slates(engine, Explorer(Softmax(0.5), 0.2), 1500)
    page = tmp_path / "page.html"
    worse = engine.replay(policy="softmax:0.1+0.1", by=["surface"], html=str(page))
    assert worse.verdict == "worse"
    assert worse.estimator == "DR"
    assert worse.value.low <= true_value("softmax:0.1+0.1") <= worse.value.high
    assert {part.name for part in worse.parts} == {"surface = home", "surface = cart"}
    assert sum(part.answers for part in worse.parts) == worse.answers == 1500
    assert worse.people == 500
    assert msgspec.json.decode(msgspec.json.encode(worse), type=ReplayReport) == worse
    assert render(worse).startswith("softmax:0.1+0.1: worse")
    assert "Worse" in page.read_text()
    assert page.read_text().count("data:image/png") == 2
    better = engine.replay(policy="uniform")  # the logger believes the opposite of the truth
    assert better.verdict == "worth an A/B test"
    assert better.value.low <= TRUTH.mean() <= better.value.high
    money = engine.replay(policy="uniform", money=True)
    assert money.value.value == pytest.approx(100 * better.value.value, rel=0.05)


def test_a_log_without_chance_cannot_speak_for_others(engine):
    log_slates(engine, Explorer(Best()), 300)
    found = engine.replay(policy="uniform")
    assert found.verdict == "not enough support"
    assert "never shown" in found.reason
    same = engine.replay(policy="greedy")
    assert same.value.value == pytest.approx(same.logged.value)
    assert same.verdict == "not enough support"  # there is no difference to test
    assert "may as well be none" in same.reason


def test_slates_are_judged_by_cascade_dr(engine):
    log_slates(engine, Explorer(Softmax(0.5), 0.5), 1500, slots=2)
    found = engine.replay(policy="uniform")
    assert found.estimator == "Cascade-DR"
    assert found.slots == 2
    assert set(found.estimates) == {"SIPS", "IIPS", "RIPS", "Cascade-DR"}
    assert found.value.low <= 2 * TRUTH.mean() <= found.value.high
    width = {name: e.high - e.low for name, e in found.estimates.items()}
    assert width["Cascade-DR"] < width["SIPS"]


def test_young_and_bare_answers_are_left_out_and_counted(engine):
    with pytest.raises(InputError, match="no answers to replay"):
        engine.replay(policy="uniform")
    log_slates(engine, Explorer(Softmax(0.5), 0.2), 300)
    late = engine.replay(policy="uniform", days=19.9)
    assert late.answers < 300
    assert "outcomes are not in yet" in late.notes[0]
    with pytest.raises(InputError, match="no such attribute"):
        engine.replay(policy="uniform", by=["shoe_size"])


def file_log(path, cases=4000, seed=11):
    draw = rng(seed, "file")
    odds = np.array([[0.5, 0.3, 0.2], [0.2, 0.3, 0.5]])
    place = draw.integers(2, size=cases)
    item = (draw.random(cases)[:, None] > odds[place].cumsum(axis=1)).sum(axis=1)
    click = draw.random(cases) < np.array([0.1, 0.2, 0.4])[item]
    table = pa.table(
        {
            "item_id": item,
            "position": place + 1,
            "click": click.astype(int),
            "propensity_score": odds[place, item],
            "campaign": np.where(draw.random(cases) < 0.5, "men", "women"),
            "new": np.array([0.1, 0.1, 0.8])[item],
        }
    )
    pq.write_table(table, path) if path.suffix == ".parquet" else pyarrow.csv.write_csv(table, path)
    return table


@pytest.mark.parametrize("name", ["log.csv", "log.parquet"])
def test_a_file_of_another_system(engine, tmp_path, name):
    file_log(tmp_path / name)
    path = str(tmp_path / name)
    uniform = engine.replay(policy="uniform", log=path, by=["campaign"])
    assert uniform.value.low <= 0.7 / 3 <= uniform.value.high
    assert len(uniform.parts) == 2
    greedy = engine.replay(policy="greedy", log=path)
    assert greedy.verdict == "worth an A/B test"
    assert greedy.value.low <= 0.4 <= greedy.value.high
    men = engine.replay(policy="uniform", log=path, where=["campaign = men"])
    assert men.answers == uniform.parts[[p.name for p in uniform.parts].index("campaign = men")].answers
    own = engine.replay(policy="column:new", log=path)
    assert own.estimator == "SNIPS"
    assert own.value.low <= 0.35 <= own.value.high
    pyarrow.csv.write_csv(pa.table({"item_id": [0, 1, 2], "odds": [0.1, 0.1, 0.8]}), tmp_path / "odds.csv")
    given = engine.replay(policy="eighty", odds=str(tmp_path / "odds.csv"), log=path)
    assert given.estimates["SNIPS"].value == pytest.approx(own.value.value)
    pyarrow.csv.write_csv(pa.table({"item_id": [0, 9], "odds": [0.1, 0.9]}), tmp_path / "other.csv")
    lost = engine.replay(policy="other", odds=str(tmp_path / "other.csv"), log=path)
    assert "90.0% of what the new policy would show was never shown" in lost.reason


def test_several_loggers_are_balanced(engine, tmp_path):
    draw = rng(4)
    odds = np.array([[0.9, 0.1], [0.1, 0.9]])
    logger, cases = draw.integers(2, size=3000), 3000
    item = (draw.random(cases) > odds[logger, 0]).astype(int)
    table = pa.table(
        {
            "item_id": item,
            "reward": (draw.random(cases) < np.array([0.2, 0.6])[item]).astype(float),
            "odds": odds[logger, item],
            "logger": np.array(["a", "b"])[logger],
            "odds:a": odds[0, item],
            "odds:b": odds[1, item],
        }
    )
    pq.write_table(table, tmp_path / "both.parquet")
    pq.write_table(table.drop_columns(["odds:b"]), tmp_path / "one.parquet")
    both = engine.replay(policy="uniform", log=str(tmp_path / "both.parquet"))
    one = engine.replay(policy="uniform", log=str(tmp_path / "one.parquet"))
    width = [found.estimates["IPS"].high - found.estimates["IPS"].low for found in (both, one)]
    assert width[0] < 0.7 * width[1]
    assert both.value.low <= 0.4 <= both.value.high
    assert "balanced" in both.notes[0]
    assert "narrower" in one.notes[0]


def test_what_cannot_be_replayed_says_why(engine, tmp_path):
    table = file_log(tmp_path / "log.parquet", cases=50)
    good = str(tmp_path / "log.parquet")
    pq.write_table(table.drop_columns(["propensity_score"]), tmp_path / "no-odds.parquet")
    zero = table.set_column(3, "propensity_score", pa.array([0.0] * 50))
    pq.write_table(zero, tmp_path / "zero.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and nothing")
    pyarrow.csv.write_csv(pa.table({"item_id": [0], "odds": [0.4]}), tmp_path / "half.csv")
    with pytest.raises(InputError, match="lacks odds"):
        engine.replay(policy="uniform", log=str(tmp_path / "no-odds.parquet"))
    with pytest.raises(InputError, match="above 0"):
        engine.replay(policy="uniform", log=str(tmp_path / "zero.parquet"))
    with pytest.raises(InputError, match="cannot be read"):
        engine.replay(policy="uniform", log=str(tmp_path / "broken.parquet"))
    with pytest.raises(NotFound, match="no such file"):
        engine.replay(policy="uniform", log=str(tmp_path / "none.csv"))
    with pytest.raises(InputError, match="add up to 1"):
        engine.replay(policy="x", odds=str(tmp_path / "half.csv"), log=good)
    with pytest.raises(InputError, match="go with a log"):
        engine.replay(policy="uniform", where=["a = b"])
    with pytest.raises(InputError, match="no rows are left"):
        engine.replay(policy="uniform", log=good, where=["campaign = children"])
    for name in ("brave", "softmax:hot", "epsilon:2", "uniform:3", "greedy+7"):
        with pytest.raises(InputError, match="no such policy"):
            engine.replay(policy=name, log=good)


def test_what_was_really_served_can_be_replayed(tmp_path):
    """Through recommend and observe: the same policy shows no difference, one the log never saw is refused."""
    moment = [NOW]
    with Engine.open(tmp_path / "shop", clock=lambda: moment[0]) as engine:
        engine.init()
        engine.observe(
            events=[{"kind": "view", "user_id": f"u{n}", "item_id": f"i{n % 7}"} for n in range(50)]
        )
        for n in range(120):
            slate = engine.recommend(user_id=f"u{n}", k=3, explore="off")
            bought = {"kind": "purchase", "user_id": f"u{n}", "item_id": slate.items[n % 3].item_id}
            moment[0] += 1000
            engine.observe(events=[{**bought, "recommendation_id": slate.recommendation_id, "value": 100.0}])
        moment[0] += 8 * DAY
        same = engine.replay(policy="greedy")
        assert same.logged.value == pytest.approx(1.0)
        assert same.verdict == "not enough support"
        assert "shown the same" in same.reason
        assert "never shown" in engine.replay(policy="uniform").reason


def test_over_http_too(tmp_path):
    file_log(tmp_path / "log.csv")
    path = tmp_path / "shop"
    with Engine.open(path) as engine:
        engine.init()
        here = engine.replay(policy="uniform", log=str(tmp_path / "log.csv"))
    with running_server(create_app(Engine.open(path))) as url, Engine.connect(url, timeout=120) as remote:
        there = remote.replay(
            policy="uniform", log=str(tmp_path / "log.csv"), html=str(tmp_path / "page.html")
        )
        assert there.value == here.value
        assert there.gates == here.gates
        assert "uniform" in (tmp_path / "page.html").read_text()
        started = remote.start_experiment(name="remote", people=100)
        assert remote.assign(experiment="remote", user_id="u1").arm in started.arms
        assert remote.report_experiment(name="remote").verdict == "keep running"
        assert remote.stop_experiment(name="remote").stopped == "by hand"
