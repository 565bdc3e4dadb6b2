"""Habits: what the facts are, that their weights are learned, and that none of it looks ahead."""

import numpy as np
import pytest

from penchant.core import DAY, HISTORY_EVENTS, Run
from penchant.data import VISIT, before, sequence_batch
from penchant.models import Habits, HabitsConfig
from penchant.models._counts import positives
from penchant.models._habits import _USUAL, item_facts, pair_facts
from penchant.testing import ModelTests, toy_snapshot
from penchant.training import fit_model


class TestHabits(ModelTests):
    kind = "habits"
    companions = False


def shop(people=60, visits=12, seed=0):
    """Everybody has two staples in every basket, and tries something."""
    rng = np.random.default_rng(seed)
    events = []
    for person in range(people):
        for visit in range(visits):
            day = visit * 7 + person / 24
            basket = [f"staple{person % 5}", f"staple{5 + person % 3}", f"tried{rng.integers(40)}"]
            events += [(f"u{person}", item, day) for item in basket]
    return toy_snapshot(events)


def slow_facts(batch, row):
    """The facts of one history, event by event, in plain Python."""
    second = np.expm1(batch.gap_BT[row].astype(np.float64))
    events = [t for t in range(batch.item_BT.shape[1]) if batch.mask_BT[row, t]]
    found = {}
    for item in sorted({int(batch.item_BT[row, t]) for t in events}):
        mine = [t for t in events if batch.item_BT[row, t] == item]
        visits = {sum(second[s] >= VISIT / 1e6 for s in range(1, t + 1)) for t in mine}
        days = [sum(second[t + 1 : len(second)]) * 1e6 / DAY for t in mine]
        newer = [sum(s > t for s in events) for t in mine]
        found[item] = (
            np.log(len(visits)),
            np.log(sum(0.5 ** (d / 14) for d in days) + 1e-3),
            np.log(sum(0.97**n for n in newer) + 1e-3),
        )
    return found


def test_pair_facts_equal_their_slow_twin():
    snapshot = shop(people=7)
    batch = sequence_batch(snapshot, np.arange(7), 30)
    row_P, item_P, fact_PF = pair_facts(batch)
    for row in range(7):
        expected = slow_facts(batch, row)
        mine = row_P == row
        assert item_P[mine].tolist() == list(expected)
        np.testing.assert_allclose(fact_PF[mine], list(expected.values()), rtol=1e-6, atol=1e-6)


def test_the_facts_of_an_item_end_at_the_moment():
    snapshot = shop()
    moment = int(np.median(snapshot.ts))
    whole = item_facts(positives(snapshot), snapshot.num_items, moment)
    cut = item_facts(positives(before(snapshot, moment)), snapshot.num_items, moment)
    np.testing.assert_array_equal(whole, cut)
    assert (whole != item_facts(positives(snapshot), snapshot.num_items, snapshot.as_of)).any()


def test_the_weights_are_learned_from_what_came_back():
    snapshot = shop()
    model = Habits.fit(snapshot, HabitsConfig(), Run())
    assert model.weights != _USUAL
    score_BN = model.scores(sequence_batch(snapshot, np.arange(60), HISTORY_EVENTS))
    for person in range(60):
        row = snapshot.users.number(f"u{person}") - 1
        first = set(np.argsort(-score_BN[row])[:2].tolist())
        assert first == {snapshot.items.number(f"staple{n}") for n in (person % 5, 5 + person % 3)}
    # The constant makes scores chances: staples come back, what was tried once does not.
    staple = score_BN[0, snapshot.items.number("staple0")]
    assert 0.3 < staple < 3
    assert np.sort(score_BN[0])[-3] < 0.3


def test_settled_weights_are_used_as_they_are():
    model = Habits.fit(shop(), HabitsConfig(), Run())
    again = Habits.fit(shop(seed=1), model.config, Run())
    assert again.weights == model.weights
    restored = Habits.restore(HabitsConfig(), model.arrays())
    assert restored.weights == model.weights


@pytest.mark.parametrize(
    "events",
    [
        [("u", "a"), ("u", "b")],  # nobody returns
        [("u", "a", 5), ("u", "a", 5), ("v", "a", 5)],  # all at one moment
        [(f"u{n}", item, n) for n in range(20) for item in ("a", "a")],  # one visit each
    ],
)
def test_where_there_is_nothing_to_learn_from_the_usual_weights_serve(events):
    model = fit_model("habits", toy_snapshot(events), {}, Run())
    assert model.weights == _USUAL


def test_habits_know_what_people_come_back_to():
    """Milk is bought again by those who bought it, a pan is not: at equal counts milk comes first."""
    events = [(f"u{n}", item) for n in range(12) for item in ("milk", "milk", "milk", "pan")]
    toy = toy_snapshot([*events, ("v", "milk"), ("v", "pan")])
    model = fit_model("habits", toy, {"weights": _USUAL, "prior": 0.0}, Run())
    milk, pan = (toy.items.number(item) for item in ("milk", "pan"))
    score_N = model.scores(sequence_batch(toy, np.array([toy.num_users - 1]), 10))[0]
    assert score_N[milk] > 2 * score_N[pan] > 0
    never = fit_model("habits", toy_snapshot([("u", "a"), ("u", "b")]), {"prior": 0.0}, Run())
    assert never.lift_N.tolist() == [1.0, 1.0, 1.0], "where nobody returns, returns tell nothing"


def test_the_newer_event_of_an_item_speaks_louder():
    model = Habits.fit(shop(), HabitsConfig(), Run())
    by_event = model.affinity(np.array([2, 1, 2, 0]), np.array([2]))[:, 0]
    assert by_event[2] > by_event[0] > by_event[1] == by_event[3] == 0
