import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penchant.data import training_windows
from penchant.testing import markov_snapshot

pytest.importorskip("torch")
from penchant.training._batches import NegativeSampler, epoch_batches, step_seed


@given(batch=st.integers(1, 200), seed=st.integers(0, 5), epoch=st.integers(0, 3))
@settings(max_examples=20, deadline=None)
def test_every_window_is_in_exactly_one_batch(batch, seed, epoch):
    windows = training_windows(markov_snapshot(users=40, items=10), 6)
    batches = epoch_batches(windows, batch, seed, epoch)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(windows)))
    assert all(windows.length_W[index].sum() < batch + 2 * 6 for index in batches)


def test_epochs_and_seeds_differ_and_repeat():
    windows = training_windows(markov_snapshot(users=40, items=10), 6)
    order = {
        key: np.concatenate(epoch_batches(windows, 50, *key)).tolist() for key in [(0, 0), (0, 1), (1, 0)]
    }
    assert len({tuple(o) for o in order.values()}) == 3
    assert np.concatenate(epoch_batches(windows, 50, 0, 1)).tolist() == order[0, 1]
    assert len({step_seed(0, e, n, r) for e in range(3) for n in range(3) for r in range(2)}) == 18


def test_batches_are_alike_in_length():
    windows = training_windows(markov_snapshot(users=400, items=10, length=20), 20)
    batches = epoch_batches(windows, 100, 0, 0)
    real = windows.length_W.sum()
    padded = sum(len(index) * windows.length_W[index].max() for index in batches)
    assert real / padded > 0.9


def test_negatives_estimate_the_sum_over_the_catalogue():
    rng = np.random.default_rng(0)
    share = np.r_[0.0, rng.dirichlet(np.full(200, 0.3))]
    sampler = NegativeSampler(60, share, seed=0)
    weight = np.r_[0.0, share[1:] * np.exp(rng.normal(size=200))]  # large where items are popular
    estimates = []
    for number in range(400):
        drawn = sampler.draw(rng.choice(201, size=100, p=share), 0, number)
        assert len(np.unique(drawn.item_K)) == len(drawn.item_K)
        assert drawn.item_K.min() >= 1
        estimates.append((weight[drawn.item_K] / np.exp(drawn.log_chance_K)).sum())
    assert np.mean(estimates) == pytest.approx(weight.sum(), rel=0.05)


def test_negatives_depend_on_their_place_alone():
    sampler, target = NegativeSampler(20, np.r_[0.0, np.full(50, 0.02)], 3), np.arange(1, 30)
    first, again, other = (sampler.draw(target, 1, number) for number in (4, 4, 5))
    np.testing.assert_array_equal(first.item_K, again.item_K)
    assert first.item_K.tolist() != other.item_K.tolist()
