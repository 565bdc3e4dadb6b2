"""Attention is told from interest: what people did not look at says nothing against an item."""

import datetime as dt

import numpy as np
import pytest

from penchant import Engine
from penchant.engine._attention import BySlot, Cascade, Known

MOMENT = dt.datetime(2024, 6, 1, tzinfo=dt.UTC)
CHANCE = 0.3


def answers(draw, count, slots, look):
    """What became of slates of equally good items: which slots had a reward."""
    for _ in range(count):
        rewarded = set()
        for slot in range(slots):
            if not look(draw, slot, rewarded):
                continue
            if draw.random() < CHANCE:
                rewarded.add(slot)
        yield rewarded


def learned(looked, looks, slots=3, count=3000):
    for rewarded in answers(np.random.default_rng(0), count, slots, looks):
        for slot in range(slots):
            above = {other for other in rewarded if other != slot}
            looked.learned(slot, above, CHANCE, slot in rewarded)
    return looked


def leaves(go_on):
    """People read from the top, and go on after a reward with that chance."""
    gone = {}

    def look(draw, slot, rewarded):
        if slot == 0:
            gone["now"] = False
        elif slot - 1 in rewarded and draw.random() >= go_on:
            gone["now"] = True
        return not gone["now"]

    return look


@pytest.mark.parametrize("go_on", [0.0, 0.6, 1.0])
def test_the_chance_to_go_on_after_a_reward_is_found(go_on):
    looked = learned(Cascade(), leaves(go_on))
    assert looked.chance(2, {0}) == pytest.approx(go_on, abs=0.06)
    assert looked.chance(0, {2}) == looked.chance(1, {2}) == looked.chance(2, ()) == 1.0


def test_the_attention_of_slots_is_found():
    looked = learned(BySlot(), lambda draw, slot, rewarded: draw.random() < (1.0, 0.5, 0.2)[slot])
    assert [looked.chance(slot, ()) for slot in range(3)] == pytest.approx([1.0, 0.5, 0.2], abs=0.06)


def test_late_rewards_make_every_no_count_for_less():
    known = Known(BySlot())
    for n in range(2000):
        known.came(late=n % 4 == 0)
    assert known.seen(0) == pytest.approx(0.75, abs=0.02)


def test_below_a_reward_a_no_says_nothing_where_nobody_goes_on(tmp_path):
    """Everybody takes the first of two items that suits, each with a chance of one half."""
    with Engine.open(tmp_path / "shop") as engine:
        engine.init()
    file = tmp_path / "shop" / "shop.toml"
    file.write_text(file.read_text().replace('attention = "slots"', 'attention = "cascade"'))
    draw = np.random.default_rng(1)
    with Engine.open(tmp_path / "shop") as engine:
        engine.observe(events=[{"kind": "view", "user_id": "u", "item_id": i} for i in ("a", "b")])
        for n in range(250):
            moment = MOMENT + dt.timedelta(hours=3 * n)
            slate = engine.recommend(user_id=f"p{n}", k=2, now=moment, seen="allow")
            told = {"user_id": f"p{n}", "recommendation_id": slate.recommendation_id, "timestamp": moment}
            events = [{**told, "kind": "impression", "item_id": item} for item in slate.item_ids]
            bought = next((item for item in slate.item_ids if draw.random() < 0.5), None)
            events += [] if bought is None else [{**told, "kind": "purchase", "item_id": bought}]
            engine.observe(events=events)
        known = engine.serving.ranker.exploration._known
        assert known.seen(1, {0}) < 0.5 < 0.9 < known.seen(1)
        engine.recommend(user_id="x", k=2, now=MOMENT + dt.timedelta(days=90), explore="off")
        engine.shop.store.flush()
        (row,) = engine.shop.store.decisions("x")
    assert row.candidates.mean == pytest.approx([0.5, 0.5], abs=0.15)
