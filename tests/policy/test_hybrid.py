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


@pytest.mark.parametrize("seen", [0.05, 0.4, 1.0])
def test_a_no_that_was_hardly_seen_says_little(seen):
    learner = Hybrid(np.array([0.4]), np.array([0.7]), NONE, OLD, Spread(item=1e-9, person=1e-9, taste=0.0))
    chance = learner.learn("u", 2, np.array([1.0]), False, seen)
    grid = np.linspace(-5, 5, 4001)
    prior = norm.pdf(grid, 0.4, 0.7)
    posterior = prior * (1 - seen * norm.cdf(grid))
    posterior /= posterior.sum()
    assert chance == pytest.approx((prior * norm.cdf(grid)).sum() / prior.sum(), abs=1e-6)
    first = (grid * posterior).sum()
    assert learner.weight_F[0] == pytest.approx(first, abs=1e-5)
    assert learner.cov_FF[0, 0] == pytest.approx(((grid - first) ** 2 * posterior).sum(), abs=1e-5)


def test_what_was_learned_fades_to_the_prior_and_no_further():
    def taught():
        made = Hybrid(np.array([-1.0]), np.array([0.5]), np.array([[0], [1], [2]]), np.zeros(3, bool))
        for _ in range(10):
            made.learn("u", 1, np.ones(1), True)
        return made

    one, gone, twice = taught(), taught(), taught()
    one.forget(0.25)
    twice.forget(0.5)
    twice.expect("u", np.array([1]), np.ones((1, 1)))  # a person is brought up to date when next looked at
    twice.forget(0.5)
    both = [h.expect("u", np.array([1, 2]), np.ones((2, 1))) for h in (one, twice)]
    np.testing.assert_allclose(both[0], both[1], rtol=1e-12)
    gone.forget(1e-9)
    fresh = Hybrid(np.array([-1.0]), np.array([0.5]), np.array([[0], [1], [2]]), np.zeros(3, bool))
    for of in ("u", "stranger"):
        np.testing.assert_allclose(
            gone.expect(of, np.array([1, 2]), np.ones((2, 1))),
            fresh.expect(of, np.array([1, 2]), np.ones((2, 1))),
            rtol=1e-6,
        )
    assert (
        taught().expect("u", np.array([1]), np.ones((1, 1)))[0]
        > both[0][0][0]
        > fresh.expect("u", np.array([1]), np.ones((1, 1)))[0]
    )


def test_a_changed_world_is_followed_by_a_policy_that_forgets():
    """Two items change places after 400 days: with a half-life of 20 days the new best is found within 60."""
    rng = np.random.default_rng(5)
    days = {}
    for keep in (1.0, 0.5 ** (1 / 20)):
        learner, one = Hybrid(np.array([0.0]), np.array([0.5]), NONE, OLD), np.ones(1)
        for day in range(1000):
            rates = (0.6, 0.2) if day < 400 else (0.2, 0.6)
            for item, rate in zip((1, 2), rates, strict=True):
                learner.learn(f"u{day}", item, one, bool(rng.random() < rate))
            learner.forget(keep)
            mean_N, _ = learner.expect("x", np.array([1, 2]), np.ones((2, 1)))
            if day >= 400 and mean_N[1] > mean_N[0]:
                break
        days[keep] = day - 400
    assert days[0.5 ** (1 / 20)] < 60 < days[1.0]
