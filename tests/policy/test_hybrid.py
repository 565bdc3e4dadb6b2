"""The online learner: its updates are the moments of the true posterior, and no outcome reorders strangers."""

import numpy as np
import pytest
from scipy.stats import norm

from penchant.policy import Hybrid, Spread

NONE = np.zeros((6, 1), np.int64)
OLD = np.zeros(6, bool)


@pytest.mark.parametrize("reward", [True, False])
def test_one_outcome_gives_the_moments_of_the_posterior(reward):
    learner = Hybrid(np.array([0.4]), np.array([0.7]), NONE, OLD, Spread(item=0.5, person=0.3, taste=0.0))
    learner.learn("u", 2, np.array([1.5]), reward)
    grid = np.linspace(-5, 5, 4001)
    # What else stands under the probit is Gaussian, so it only widens it.
    for mean, sd, x, rest_mean, rest_var, got in [
        (0.4, 0.7, 1.5, 0.0, 0.5**2 + 0.3**2, (learner.weight_F[0], learner.cov_FF[0, 0])),
        (0.0, 0.5, 1.0, 0.6, (0.7 * 1.5) ** 2 + 0.3**2, (learner.item_N[2], learner.var_N[2])),
        (0.0, 0.3, 1.0, 0.6, (0.7 * 1.5) ** 2 + 0.5**2, tuple(learner.persons["u"].level)),
    ]:
        z = (rest_mean + x * grid) / np.sqrt(1 + rest_var)
        posterior = norm.pdf(grid, mean, sd) * norm.cdf(z if reward else -z)
        posterior /= posterior.sum()
        first = (grid * posterior).sum()
        assert got == pytest.approx((first, ((grid - first) ** 2 * posterior).sum()), abs=1e-5)


def test_the_order_of_others_does_not_change_with_an_outcome():
    """Items differ in how much is known of their features; that alone must not move them."""
    rng = np.random.default_rng(3)
    feature_NF = np.c_[np.ones(5), rng.normal(size=5), rng.normal(size=5) * 4]
    learner = Hybrid(np.array([-1.7, 0.4, 0.0]), np.array([1e-6, 1e-6, 0.3]), NONE, OLD)
    items = np.arange(1, 6)
    before, _ = learner.expect("u", items, feature_NF)
    assert np.argsort(-before).tolist() == np.argsort(-feature_NF[:, 1]).tolist()
    learner.learn("v", 1, np.array([1.0, 0.0, 0.0]), True)
    after, _ = learner.expect("u", items[1:], feature_NF[1:])
    assert np.argsort(-after).tolist() == np.argsort(-feature_NF[1:, 1]).tolist()


def test_tastes_are_personal_and_shared_by_items_of_a_label():
    label_NL = np.array([[0], [1], [1], [2], [2], [0]])
    learner = Hybrid(np.zeros(1), np.ones(1), label_NL, OLD)
    for _ in range(30):
        learner.learn("fan", 1, np.ones(1), True)
        learner.learn("fan", 3, np.ones(1), False)
        learner.learn("other", 1, np.ones(1), False)
        learner.learn("other", 3, np.ones(1), True)
    unseen = np.array([2, 4])
    fan, _ = learner.expect("fan", unseen, np.ones((2, 1)))
    other, _ = learner.expect("other", unseen, np.ones((2, 1)))
    assert fan[0] > fan[1]
    assert other[0] < other[1]
    assert learner.tastes("fan")[1][0] > 0 > learner.tastes("other")[1][0]
    assert learner.tastes("nobody") == {}
