"""Experiments from start to stop: arms, adjustment, guardrails that stop by themselves, and words."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from penchant import Engine
from penchant.core import DAY, Event, EventKind, rng
from penchant.core.errors import InputError, NotFound, ShopError
from penchant.engine import ExperimentReport
from penchant.engine._experiments import item_arm, read_experiment
from penchant.evaluation import arm_of
from penchant.surfaces._render import render

START = 1_750_000_000_000_000
PEOPLE = [f"p{n}" for n in range(600)]


def did(kind, event_id, ts, who):
    return Event(kind=kind, event_id=event_id, ts=ts, user_id=who, item_id="a", value=100.0)


class Shop:
    """A shop whose clock and people do as they are told."""

    def __init__(self, path):
        self.now = START
        self.engine = Engine.open(path, clock=lambda: self.now)
        self.engine.init()

    def live(self, name, chance_of, *, people=PEOPLE, seed=1, kind=EventKind.PURCHASE, wait=8):
        """Everybody views something, then buys with the chance of their arm; the days pass."""
        experiment = read_experiment(self.engine.shop, name)
        draw, events = rng(seed, kind.value), []
        for number, who in enumerate(people):
            ts = self.now + 1 + number
            events.append(
                Event(
                    kind=EventKind.VIEW, event_id=f"v{name}{seed}{kind}{who}", ts=ts, user_id=who, item_id="a"
                )
            )
            arm = experiment.arms[arm_of(who, experiment.salt, experiment.shares)]
            if draw.random() < chance_of[arm]:
                events.append(did(kind, f"b{name}{seed}{kind}{who}", ts + DAY, who))
        self.engine.shop.store.append(events)
        self.now += wait * DAY


@pytest.fixture
def shop(tmp_path):
    made = Shop(tmp_path / "shop")
    yield made
    made.engine.close()


def test_a_treatment_that_works_ships(shop, tmp_path):
    e = shop.engine
    started = e.start_experiment(name="works", exposed="event", people=600)
    assert started.start_ts == START
    assigned = e.assign(experiment="works", user_id="p1")
    assert assigned.arm == e.assign(experiment="works", user_id="p1").arm
    assert assigned.running
    empty = e.report_experiment(name="works")
    assert empty.verdict == "keep running"
    assert "too few" in empty.says
    shop.live("works", {"control": 0.2, "treatment": 0.5})
    page = tmp_path / "page.html"
    found = e.report_experiment(name="works", html=str(page))
    assert found.verdict == "ship"
    assert found.status == "stopped"  # the planned people are there
    assert sum(arm.people for arm in found.arms) == 600
    (gap,) = found.differences
    assert gap.verdict == "better"
    assert gap.difference.low <= 0.3 <= gap.difference.high
    assert msgspec.json.decode(msgspec.json.encode(found), type=ExperimentReport) == found
    assert render(found).startswith("works (stopped): ship")
    assert "Ship" in page.read_text()
    assert found.sample_ratio > 0.01
    again = e.report_experiment(name="works")
    assert again.differences == found.differences  # after the end nothing changes
    assert e.assign(experiment="works", user_id="p1").arm == "control"


def test_nothing_is_found_where_there_is_nothing(shop):
    e = shop.engine
    e.start_experiment(name="null", exposed="event", people=2000, monitor="always")
    shop.live("null", {"control": 0.3, "treatment": 0.3})
    found = e.report_experiment(name="null")
    assert found.verdict == "keep running"
    assert "1,400 of 2,000" in found.says
    assert found.fraction == pytest.approx(0.3)
    stopped = e.stop_experiment(name="null", why="season over")
    assert stopped.stopped == "season over"
    assert e.stop_experiment(name="null", why="again") == stopped
    assert e.report_experiment(name="null").verdict == "no difference found"


def test_a_guardrail_stops_by_itself(shop):
    e = shop.engine
    e.start_experiment(
        name="rail", exposed="event", people=600, guardrails=["refund:count <= 10%"], monitor="always"
    )
    shop.live("rail", {"control": 0.2, "treatment": 0.8}, kind=EventKind.REFUND)
    e.assign(experiment="rail", user_id="p1")  # nobody looks at a report
    e._watch.close()
    kept = read_experiment(e.shop, "rail")
    assert kept.stop_ts is not None
    assert "refund:count" in kept.stopped
    assert e.assign(experiment="rail", user_id="p1").running is False
    found = e.report_experiment(name="rail")
    assert found.verdict == "stopped"
    assert found.guardrails[0].broken


def test_only_people_whose_days_are_over_count(shop):
    e = shop.engine
    e.start_experiment(name="wait", exposed="event", people=600)
    shop.live("wait", {"control": 0.3, "treatment": 0.3}, wait=3)
    found = e.report_experiment(name="wait")
    assert sum(arm.entered for arm in found.arms) == 600
    assert sum(arm.people for arm in found.arms) == 0
    assert "count later" in found.notes[0]


def test_the_time_before_narrows_the_interval(shop):
    e = shop.engine
    draw = rng(8)
    habit = draw.gamma(1.0, 4.0, len(PEOPLE)).astype(int)
    past = [
        Event(
            kind=EventKind.PURCHASE,
            event_id=f"h{who}{n}",
            ts=START - (1 + n % 20) * DAY,
            user_id=who,
            item_id="a",
            value=1.0,
        )
        for who, count in zip(PEOPLE, habit.tolist(), strict=True)
        for n in range(count)
    ]
    e.shop.store.append(past)
    e.start_experiment(name="habit", metric="purchase:count", exposed="event", people=600)
    planned = e.start_experiment(name="planned", metric="purchase:count", exposed="event", effect=0.5)
    assert planned.people > 20
    events = []
    for number, (who, count) in enumerate(zip(PEOPLE, habit.tolist(), strict=True)):
        events.append(
            Event(kind=EventKind.VIEW, event_id=f"v{who}", ts=START + number + 1, user_id=who, item_id="a")
        )
        events += [
            Event(
                kind=EventKind.PURCHASE,
                event_id=f"n{who}{n}",
                ts=START + DAY + n,
                user_id=who,
                item_id="a",
                value=1.0,
            )
            for n in range(draw.poisson(count))
        ]
    e.shop.store.append(events)
    shop.now += 9 * DAY
    (gap,) = e.report_experiment(name="habit").differences
    assert gap.variance_cut > 0.6


def test_lost_people_are_noticed(shop):
    e = shop.engine
    started = e.start_experiment(name="lossy", exposed="event", people=600)
    kept = [p for n, p in enumerate(PEOPLE) if arm_of(p, started.salt, started.shares) == 0 or n % 2]
    shop.live("lossy", {"control": 0.2, "treatment": 0.9}, people=kept)
    found = e.report_experiment(name="lossy")
    assert found.verdict == "cannot be read"
    assert "loses people" in found.says


def test_items_have_arms_too(shop):
    e = shop.engine
    started = e.start_experiment(
        name="both", divert="user+item", exposed="event", people=100, metric="view:count"
    )
    items = [f"i{n}" for n in range(200)]
    mine = e.assign(experiment="both", user_id="p1", items=items)
    arm = started.arms.index(mine.arm)
    assert mine.items == [i for i in items if item_arm(started, i) == arm]
    assert 60 < len(mine.items) < 140
    shop.live("both", {"control": 0.0, "treatment": 0.0})  # all views are of item a
    found = e.report_experiment(name="both")
    owner = item_arm(started, "a")
    assert [arm.discovered for arm in found.arms] == [int(n == owner) for n in range(2)]


def test_slates_make_people_take_part(shop):
    e = shop.engine
    e.start_experiment(name="slates", people=100)
    e.observe(events=[{"kind": "view", "user_id": "p1", "item_id": "a"}])
    e.recommend(explore="off", user_id="p1", k=1)
    shop.now += DAY
    assert sum(arm.entered for arm in e.report_experiment(name="slates").arms) == 1


def test_planned_looks_are_kept_and_spend(shop):
    e = shop.engine
    e.start_experiment(name="looks", exposed="event", people=1000)
    for part in range(2):
        shop.live("looks", {"control": 0.3, "treatment": 0.3}, people=PEOPLE[300 * part : 300 * part + 300])
        e.report_experiment(name="looks")
        e.report_experiment(name="looks")  # nothing new: no further look
    looks = read_experiment(e.shop, "looks").looks
    assert [look.fraction for look in looks] == pytest.approx([0.3, 0.6])


def test_what_cannot_be_tested_says_why(shop):
    e = shop.engine
    for fields, says in (
        ({"metric": "joy:any"}, "not a metric"),
        ({"guardrails": ["refund:count > 3"]}, "not a guardrail"),
        ({"arms": ["a", "a"]}, "different names"),
        ({"shares": [0.5, 0.6]}, "one share an arm"),
        ({"people": None}, "do not tell"),
    ):
        with pytest.raises(InputError, match=says):
            e.start_experiment(**{"name": "x", "people": 100, **fields})
    e.start_experiment(name="x", people=100)
    with pytest.raises(ShopError, match="used before"):
        e.start_experiment(name="x", people=100)
    with pytest.raises(NotFound, match="no such experiment"):
        e.assign(experiment="../x", user_id="p")
    with pytest.raises(NotFound) as caught:
        e.report_experiment(name="y")
    assert "x" in caught.value.hint
    (e.shop.path / "experiments" / "x.json").write_text("{")
    with pytest.raises(ShopError, match="damaged"):
        e.report_experiment(name="x")


def test_arms_and_their_shares(shop):
    e = shop.engine
    e.start_experiment(
        name="three", arms=["now", "one", "two"], shares=[0.5, 0.25, 0.25], exposed="event", people=400
    )
    shop.live("three", {"now": 0.3, "one": 0.3, "two": 0.9})
    found = e.report_experiment(name="three")
    assert [d.arm for d in found.differences] == ["one", "two"]
    assert found.differences[1].verdict == "better"
    assert found.differences[0].difference.level == pytest.approx(0.975)
    assert np.argmax([arm.people for arm in found.arms]) == 0
