"""The simulated shop does what it says it plants."""

import numpy as np
import pytest

from penchant.core import DAY
from penchant.testing import ShopSimulator, World


def clicks(shop, rounds, k, now):
    found = np.zeros(k)
    for _ in range(rounds):
        found += shop.respond(0, np.arange(k), now).clicked_K
    return found / rounds


def test_same_seed_same_shop():
    one, two = ShopSimulator(seed=3), ShopSimulator(seed=3)
    assert np.array_equal(one.chance_UN(one.start), two.chance_UN(two.start))
    assert one.history(20) == two.history(20)
    assert (
        one.respond(1, [1, 2, 3], one.start).clicked_K.tolist()
        == two.respond(1, [1, 2, 3], two.start).clicked_K.tolist()
    )
    other = ShopSimulator(seed=4)
    assert not np.array_equal(one.chance_UN(one.start), other.chance_UN(other.start))


def test_interests_pull_and_slots_below_are_looked_at_less():
    shop = ShopSimulator(World(base=0.0, pull=0.0, quality=0.0, position_bias=1.0))
    rate = clicks(shop, 6000, 4, shop.start)
    np.testing.assert_allclose(rate, 0.5 / np.arange(1, 5), atol=0.03)
    chance = ShopSimulator(seed=1)
    liked = chance.likes(chance.start)[:, chance.topic_N]
    assert chance.chance_UN(chance.start)[liked].mean() > 4 * chance.chance_UN(chance.start)[~liked].mean()


def test_a_cascade_stops_at_the_first_click():
    shop = ShopSimulator(World(base=0.0, pull=0.0, quality=0.0, cascade=True))
    for _ in range(200):
        response = shop.respond(0, [0, 1, 2, 3], shop.start)
        assert response.clicked_K.sum() <= 1
        assert (
            not response.examined_K[int(response.clicked_K.argmax()) + 1 :].any()
            or not response.clicked_K.any()
        )


def test_purchases_come_late_and_only_after_clicks():
    shop = ShopSimulator(World(base=3.0, purchase=0.5, delay=2.0 * DAY))
    waits, clicked = [], 0
    for _ in range(3000):
        response = shop.respond(0, [0], shop.start)
        clicked += int(response.clicked_K[0])
        assert response.clicked_K[0] or response.bought_after_K[0] == -1
        waits += [w for w in response.bought_after_K.tolist() if w >= 0]
    assert abs(len(waits) / clicked - 0.5) < 0.05
    assert np.mean(waits) == pytest.approx(2 * DAY, rel=0.1)


def test_interests_drift_once_and_seasons_return():
    shop = ShopSimulator(World(drift=1.0, drift_at=DAY))
    before, after = shop.likes(shop.start), shop.likes(shop.start + DAY)
    assert not (before & after).any()
    assert (after.sum(axis=1) == shop.world.interests).all()
    season = ShopSimulator(World(season=1.0))
    here = season.chance_UN(season.start)
    assert not np.allclose(here, season.chance_UN(season.start + 7 * DAY))
    np.testing.assert_allclose(here, season.chance_UN(season.start + 28 * DAY))


def test_histories_hide_some_interests():
    shop = ShopSimulator(World(users=30, hidden=0.5, interests=4), seed=2)
    assert (shop.shown_UP <= shop.likes(shop.start)).all()
    assert (shop.shown_UP.sum(axis=1) == 2).all()
    history = shop.history(2000)
    assert all(event.ts < shop.start for event in history)
    liked = [
        shop.shown_UP[int(e.user_id.split("-")[1]), shop.topic_N[int(e.item_id.split("-")[1])]]
        for e in history
    ]
    assert np.mean(liked) > 0.8
    assert shop.catalog().num_rows == shop.world.items


def test_people_must_like_some_topics():
    with pytest.raises(ValueError, match="at least one"):
        ShopSimulator(World(topics=3, interests=3))
