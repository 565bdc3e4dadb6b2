"""The propensity core: every rule's odds are what it does."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penchant.core import Candidates, Query
from penchant.policy import (
    Best,
    Explorer,
    FastCB,
    Limited,
    Reserved,
    Softmax,
    SquareCB,
    Thompson,
    _draw,
    draw_slate,
    slate_odds,
)
from penchant.testing import PolicyTests

RULES = [Best(), Best(bonus=1.0), Softmax(1.0), SquareCB(1.0), FastCB(1.0), Thompson(), Thompson(0.3)]


def some(n, seed=0, spread=0.5):
    draw = np.random.default_rng(seed)
    mean_N = draw.normal(0, spread, n).astype(np.float32)
    std_N = (10 ** draw.uniform(-3, 0, n)).astype(np.float32)
    return Candidates(np.arange(1, n + 1), mean_N, std_N, "test")


class TestGreedyFloor(PolicyTests):
    make = staticmethod(lambda n: Explorer(Best(), floor=0.2))


class TestUpper(PolicyTests):
    make = staticmethod(lambda n: Explorer(Best(bonus=1.0)))


class TestSoftmax(PolicyTests):
    make = staticmethod(lambda n: Explorer(Softmax(1.0)))


class TestSquareCB(PolicyTests):
    make = staticmethod(lambda n: Explorer(SquareCB(1.0)))


class TestFastCB(PolicyTests):
    make = staticmethod(lambda n: Explorer(FastCB(1.0), floor=0.05))


class TestLimited(PolicyTests):
    make = staticmethod(lambda n: Explorer(Limited(Softmax(1.0), 0.1, np.arange(n) % 3 > 0)))


class TestThompson(PolicyTests):
    make = staticmethod(lambda n: Explorer(Thompson()))


@settings(max_examples=60, deadline=None)
@given(
    rule=st.sampled_from(RULES),
    n=st.integers(1, 40),
    seed=st.integers(0, 10_000),
    floor=st.sampled_from([0.0, 0.05, 1.0]),
    spread=st.sampled_from([0.0, 1e-6, 0.5, 50.0]),
)
def test_chances_of_every_slot_sum_to_one(rule, n, seed, floor, spread):
    candidates = some(n, seed, spread)
    choice = draw_slate(rule, candidates, n, floor, np.random.default_rng(seed))
    above = []
    for slot, number in enumerate(candidates.item_N[choice.index_K].tolist()):
        left = [i for i in candidates.item_N.tolist() if i not in above]
        each = [slate_odds(rule, candidates, np.array([*above, i]), floor)[slot] for i in left]
        assert sum(each) == pytest.approx(1, abs=1e-9)
        assert each[left.index(number)] == pytest.approx(choice.odds_K[slot], rel=1e-9)
        if floor:
            assert min(each) >= floor / len(left) - 1e-12
        above.append(number)
        if slot == 2:
            break


@pytest.mark.parametrize("rule", [Softmax(0.5), SquareCB(2.0), FastCB(2.0), Thompson()], ids=lambda r: r.id)
def test_whole_slates_come_as_often_as_their_joint_odds(rule):
    candidates, draws = some(5, 3), 8000
    seen = {}
    generator = np.random.default_rng(1)
    for _ in range(draws):
        choice = draw_slate(rule, candidates, 2, 0.1, generator)
        seen.setdefault(tuple(choice.index_K.tolist()), [float(np.prod(choice.odds_K)), 0])[1] += 1
    assert sum(odds for odds, _ in seen.values()) == pytest.approx(1, abs=0.02)
    for odds, count in seen.values():
        assert abs(count / draws - odds) <= 4.5 * np.sqrt(odds * (1 - odds) / draws)


@pytest.mark.parametrize("seed", range(6))
def test_thompson_agrees_with_drawn_gaussians(seed):
    candidates = some(200, seed, 0.1)
    p_N = draw_slate(Thompson(), candidates, 1, 0.0, np.random.default_rng(0)).first_N
    draws_RN = np.random.default_rng(seed).normal(candidates.mean_N, candidates.std_N, (20_000, 200))
    frequency_N = np.bincount(draws_RN.argmax(1), minlength=200) / 20_000
    assert np.abs(p_N - frequency_N).max() < 0.015


def test_thompson_of_the_last_slots_when_the_strong_are_placed():
    mean_N = np.r_[np.full(30, 5.0), [0.0, 0.0]].astype(np.float32)
    candidates = Candidates(np.arange(1, 33), mean_N, np.full(32, 0.1, np.float32), "test")
    odds_K = slate_odds(Thompson(), candidates, np.arange(1, 33), 0.0)
    assert odds_K[-2:].tolist() == pytest.approx([0.5, 1.0], abs=0.01)
    assert odds_K[0] == pytest.approx(1 / 30, abs=1e-3)


def test_small_gap_weighting_by_hand():
    chances = SquareCB(scale=10.0, power=0.5).begin(np.array([0.4, 0.3, 0.1]), np.zeros(3), 4)
    p_N = chances(np.ones(3, np.bool_))
    np.testing.assert_allclose(p_N[1:], [1 / (3 + 20 * 0.1), 1 / (3 + 20 * 0.3)])
    fast = FastCB(scale=10.0, power=0.5).begin(np.array([0.04, 0.03, 0.01]), np.zeros(3), 4)(np.ones(3, bool))
    np.testing.assert_allclose(fast[1:], [0.04 / (0.12 + 20 * 0.01), 0.04 / (0.12 + 20 * 0.03)])


def test_own_inverse_propensity_estimate_recovers_the_mean():
    """Law 3: rewards of a uniform policy, estimated from the log of an exploring one."""
    candidates = some(8, 5)
    reward_N = np.linspace(0, 1, 8)
    policy, generator, total = Explorer(Softmax(0.5), floor=0.2), np.random.default_rng(2), []
    for _ in range(6000):
        choice = policy.choose(candidates, Query("u", 0, k=1), generator)
        total.append(reward_N[choice.index_K[0]] / (8 * choice.odds_K[0]))
    error = np.std(total) / np.sqrt(len(total))
    assert abs(np.mean(total) - reward_N.mean()) < 4 * error


def test_nothing_may_be_shown():
    nobody = Candidates(np.array([1, 2]), np.float32([-np.inf, np.nan]), np.zeros(2, np.float32), "test")
    for rule in RULES:
        assert len(draw_slate(rule, nobody, 2, 0.1, np.random.default_rng(0)).index_K) == 0
        assert slate_odds(rule, nobody, np.array([1]), 0.1).tolist() == [0.0]


def test_bounds_that_are_equal_share_the_chance():
    """Else the order of the catalogue would decide what a shop without history tries."""
    mean_N, std_N, free_N = np.array([0.1, 0.1, 0.1, 0.0]), np.array([0.2, 0.2, 0.0, 0.0]), np.ones(4, bool)
    assert Best(bonus=1.0).begin(mean_N, std_N, 0)(free_N).tolist() == [0.5, 0.5, 0, 0]
    assert Best().begin(mean_N, std_N, 0)(free_N).tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize("rule", RULES, ids=lambda r: r.id)
def test_what_may_not_be_explored_comes_only_as_the_best(rule):
    candidates = some(8, 2)
    may_N = np.arange(8) % 2 == 0
    best = int(np.argmax(candidates.mean_N))
    first_N = draw_slate(Limited(rule, 0.1, may_N), candidates, 1, 0.0, np.random.default_rng(0)).first_N
    others_N = ~may_N & (np.arange(8) != best)
    assert first_N.sum() == pytest.approx(1)
    assert (first_N[others_N] == 0).all()
    assert (first_N[may_N] > 0).all()


def test_nothing_to_explore_is_greedy():
    candidates = some(8, 2)
    rule = Limited(Softmax(1.0), 0.1, np.zeros(8, bool))
    choice = draw_slate(rule, candidates, 8, 0.0, np.random.default_rng(0))
    assert choice.index_K.tolist() == np.argsort(-candidates.mean_N).tolist()
    assert choice.odds_K.tolist() == [1.0] * 8


def test_the_best_for_certain_are_those_that_slots_would_give():
    """The quick way for what is certain agrees with the slow one, ties, barred candidates and all."""
    draw = np.random.default_rng(0)
    for _ in range(50):
        mean_N = draw.integers(0, 6, size=20).astype(np.float32)
        mean_N[draw.random(20) < 0.2] = -np.inf
        candidates = Candidates(np.arange(1, 21), mean_N, np.ones(20, np.float32), "m")
        quick = draw_slate(Best(), candidates, 15, 0.0, draw)
        slow = draw_slate(Best(bonus=1e-12), candidates, 1, 0.0, draw)
        assert mean_N[quick.index_K[0]] == mean_N[slow.index_K[0]]
        free = [n for n in range(20) if np.isfinite(mean_N[n])]
        wanted = sorted(free, key=lambda n: (-mean_N[n], n))[:15]
        assert quick.index_K.tolist() == wanted
        assert quick.odds_K.tolist() == [1.0] * len(wanted)
        assert (
            slate_odds(Best(), candidates, candidates.item_N[quick.index_K], 0.0).tolist()
            == quick.odds_K.tolist()
        )
        assert np.flatnonzero(quick.first_N).tolist() == wanted[:1]


def test_chances_of_a_few_candidates_draw_the_same_slates_as_all_of_them(monkeypatch) -> None:
    """The fast path beside its slow twin, with ties, floors, shares kept and candidates that may not come."""
    rng, same = np.random.default_rng(1), 0
    for seed in range(600):
        size = int(rng.integers(1, 60))
        mean_N = rng.integers(0, int(rng.integers(2, 40)), size) / 10.0
        mean_N[rng.random(size) < 0.1 * (seed % 3 == 0)] = -np.inf
        std_N = rng.random(size) * (seed % 5 > 0)
        rule = Best(2.0 if seed % 4 else 0.0)
        if seed % 2:
            rule = Reserved(rule, 0.3, np.where(rng.random(size) < 0.3, rng.random(size), -np.inf))
        asked = (
            rule,
            Candidates(np.arange(size) + 1, mean_N, std_N, "m"),
            seed % 14 + 1,
            (0.0, 0.02, 0.3, 1.0)[seed % 4],
        )
        fast = draw_slate(*asked, np.random.default_rng(seed))
        with monkeypatch.context() as patch:
            patch.setattr(_draw, "Peaks", type("Nothing", (), {}))
            slow = draw_slate(*asked, np.random.default_rng(seed))
        for one, other in zip(
            (fast.index_K, fast.odds_K, fast.explored_K),
            (slow.index_K, slow.odds_K, slow.explored_K),
            strict=True,
        ):
            assert one.tolist() == other.tolist()
        same += len(fast.index_K)
    assert same > 1000
