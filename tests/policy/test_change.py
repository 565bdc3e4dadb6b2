"""The test for change: how often it errs, and how soon it sees."""

import numpy as np
import pytest

from penchant.policy import Changes, Hybrid, Spread


def first_call(every, expected, rate, seed, outcomes):
    changes, draw = Changes(1, every), np.random.default_rng(seed)
    for n in range(outcomes):
        if changes.called(1, expected, bool(draw.random() < rate)):
            return n
    return None


@pytest.mark.parametrize("rate", [0.05, 0.3])
def test_false_alarms_come_no_sooner_than_allowed(rate):
    """On average over at least ``every`` outcomes; runs are cut at six times that, which only lowers the mean."""
    every = 300
    found = [first_call(every, rate, rate, seed, 6 * every) for seed in range(60)]
    mean = np.mean([6 * every if n is None else n for n in found])
    assert mean >= every


@pytest.mark.parametrize(("before", "after", "within"), [(0.1, 0.4, 60), (0.5, 0.1, 60), (0.05, 0.2, 120)])
def test_a_change_is_seen_soon(before, after, within):
    found = [first_call(1000, before, after, seed, 2000) for seed in range(20)]
    assert None not in found
    assert np.median(found) < within


def test_a_learner_that_is_told_of_a_change_follows_it():
    """An item that had been shown a thousand times loses its worth: without the test it is trusted for long."""
    draw = np.random.default_rng(4)
    wrong = {}
    for every in (None, 500):
        none = np.zeros((2, 0), np.int64)
        learner = Hybrid(np.array([-1.5]), np.array([0.01]), none, np.zeros(2, bool), Spread(item=1.0))
        changes = None if every is None else Changes(1, every)
        error = 0.0
        for n in range(2000):
            rate = 0.5 if n < 1000 else 0.05
            reward = bool(draw.random() < rate)
            expected = learner.learn(f"u{n}", 1, np.ones(1), reward)
            if changes is not None and changes.called(1, expected, reward):
                learner.reset(1)
            error += (expected - rate) ** 2 if n >= 1000 else 0.0
        wrong[every] = error / 1000
    assert wrong[500] < wrong[None] / 2


def test_every_item_is_tested_by_itself():
    changes = Changes(2, 50)
    for _ in range(200):
        assert not changes.called(1, 0.9, True)
        called = changes.called(2, 0.1, True)
        if called:
            break
    assert called
    assert changes.outcomes_N.tolist()[2] == 0
    assert changes.outcomes_N[1] > 0
