"""Off-policy estimators against hand-computed cases, truths of small worlds, and each other."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penchant.core import rng
from penchant.evaluation import (
    Feedback,
    Terms,
    balanced_odds,
    cascade_dr,
    counted_rates,
    dm,
    dr,
    dr_os,
    effective_size,
    folds_by_person,
    group_odds,
    iips,
    interval_of,
    ips,
    mips,
    off_cem,
    refusal,
    rips,
    sips,
    slope,
    sndr,
    snips,
    support_gates,
    switch_dr,
    tuned_estimators,
)

HAND = Feedback(
    reward_C=np.array([1.0, 0.0, 1.0, 0.0]),
    logged_C=np.array([0.5, 0.5, 0.25, 0.25]),
    target_C=np.array([0.25, 0.75, 0.5, 0.0]),
    predicted_C=np.array([0.6, 0.2, 0.8, 0.1]),
    expected_C=np.array([0.4, 0.3, 0.5, 0.2]),
)  # weights .5 1.5 2 0


def test_estimators_on_four_cases_by_hand():
    assert ips(HAND).value == pytest.approx((0.5 + 2) / 4)
    assert snips(HAND).value == pytest.approx(2.5 / 4.0)
    assert dm(HAND).value == pytest.approx(0.35)
    corrections = 0.5 * 0.4 + 1.5 * -0.2 + 2 * 0.2
    assert dr(HAND).value == pytest.approx(0.35 + corrections / 4)
    assert sndr(HAND).value == pytest.approx(0.35 + corrections / 4.0)
    assert switch_dr(HAND, 1.6).value == pytest.approx(0.35 + (0.5 * 0.4 - 1.5 * 0.2) / 4)
    shrunk = [3 * w / (w * w + 3) for w in (0.5, 1.5, 2.0)]
    assert dr_os(HAND, 3.0).value == pytest.approx(
        0.35 + (shrunk[0] * 0.4 - shrunk[1] * 0.2 + shrunk[2] * 0.2) / 4
    )
    assert dr_os(HAND, np.inf).value == dr(HAND).value
    assert switch_dr(HAND, np.inf).value == dr(HAND).value


def test_slates_by_hand():
    reward, weight = np.array([[1.0, 0.0, 1.0]]), np.array([[2.0, 0.5, 3.0]])
    assert sips(reward, weight).value == pytest.approx(3.0 * 2)
    assert iips(reward, weight).value == pytest.approx(2 + 3)
    assert rips(reward, weight).value == pytest.approx(2 + 3)
    predicted, expected = np.array([[0.5, 0.4, 0.3]]), np.array([[0.6, 0.5, 0.2]])
    by_hand = 2 * 0.5 + 0.6 + (1.0 * -0.4 + 2 * 0.5) + (3.0 * 0.7 + 1.0 * 0.2)
    assert cascade_dr(reward, weight, predicted, expected).value == pytest.approx(by_hand)


def world(seed, cases=400, actions=4, contexts=3):
    """A small world: true rewards by context and action, odds of a logger and of a policy under test."""
    draw = np.random.default_rng(seed)
    q = draw.random((contexts, actions))
    logger, target = (
        draw.dirichlet(np.full(actions, 2.0), contexts),
        draw.dirichlet(np.ones(actions), contexts),
    )
    logger = 0.8 * logger + 0.2 / actions
    x = draw.integers(contexts, size=cases)
    a = (draw.random(cases)[:, None] > logger[x].cumsum(axis=1)).sum(axis=1)
    r = (draw.random(cases) < q[x, a]).astype(float)
    guess = np.clip(q + draw.normal(0, 0.2, q.shape), 0, 1)  # a model that is wrong
    truth = float((target[x] * q[x]).sum(axis=1).mean())
    feedback = Feedback(r, logger[x, a], target[x, a], guess[x, a], (target[x] * guess[x]).sum(axis=1))
    return feedback, truth, (x, a, q, logger, target, guess)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_the_logging_policy_itself_is_worth_its_mean(seed):
    f, _, _ = world(seed)
    own = Feedback(f.reward_C, f.logged_C, f.logged_C, f.predicted_C, f.expected_C)
    assert ips(own).value == pytest.approx(f.reward_C.mean())
    assert snips(own).value == pytest.approx(f.reward_C.mean())
    assert effective_size(own.weight_C) == pytest.approx(len(f.reward_C))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.1, 5))
def test_influence_has_the_estimate_as_its_mean_and_rewards_scale_it(seed, scale):
    f, _, _ = world(seed, cases=60)
    for estimator in (ips, snips, dm, dr, sndr):
        terms = estimator(f)
        assert terms.influence_C.mean() == pytest.approx(terms.value)
    scaled = Feedback(f.reward_C * scale, f.logged_C, f.target_C)
    assert snips(scaled).value == pytest.approx(scale * snips(f).value)


def test_true_values_are_covered():
    hits = dict.fromkeys(("IPS", "SNIPS", "DR", "boot"), 0)
    runs = 300
    for seed in range(runs):
        f, truth, _ = world(seed)
        found = {"IPS": interval_of(ips(f)), "SNIPS": interval_of(snips(f)), "DR": interval_of(dr(f))}
        for name, e in found.items():
            hits[name] += e.low <= truth <= e.high
        if seed % 5 == 0:
            boot = interval_of(snips(f), method="bootstrap")
            hits["boot"] += boot.low <= truth <= boot.high
    for name in ("IPS", "SNIPS", "DR"):
        assert 0.91 <= hits[name] / runs <= 0.985, (name, hits[name])
    assert hits["boot"] / (runs / 5) >= 0.88


def test_a_person_s_cases_are_not_independent():
    draw = rng(0)
    who = np.repeat(np.arange(50), 20)
    psi = draw.normal(0, 1, 50)[who]  # every case of a person is the same
    terms = Terms(np.zeros(1000), psi)
    alone, people = interval_of(terms), interval_of(terms, who)
    assert (people.high - people.low) > 3.5 * (alone.high - alone.low)
    assert people.n == 50
    boot = interval_of(terms, who, method="bootstrap")
    assert boot.high - boot.low == pytest.approx(people.high - people.low, rel=0.15)


def test_wider_guarantees_are_wider():
    terms = Terms(np.zeros(500), rng(1).random(500))
    widths = [
        e.high - e.low
        for e in (
            interval_of(terms),
            interval_of(terms, method="anytime"),
            interval_of(terms, method="bernstein", span=1.0),
        )
    ]
    assert widths[0] < widths[1] < widths[2] * 1.5
    with pytest.raises(ValueError, match="span"):
        interval_of(terms, method="bernstein")


def test_anytime_intervals_hold_while_somebody_peeks():
    from penchant.evaluation import half_width

    missed = {"anytime": 0, "influence": 0}
    for seed in range(200):
        values = rng(seed, "peek").normal(0, 1, 1000)
        for method in missed:
            looks = [
                abs(values[:n].mean()) > half_width(values[:n], method=method, planned=1000)
                for n in range(50, 1001, 50)
            ]
            missed[method] += any(looks)
    assert missed["anytime"] / 200 <= 0.05
    assert missed["influence"] / 200 > 0.12


def test_embeddings_and_clusters():
    f, _, (x, a, _, logger, target, _) = world(3)
    same = np.arange(4)
    identity = mips(f, a, group_odds(logger[x], same), group_odds(target[x], same))
    assert identity.value == pytest.approx(ips(f).value)
    assert off_cem(f, a, logger[x], target[x]).value == pytest.approx(dr(f).value)
    one = np.zeros(4, int)  # one cluster: the logger's mean, whatever the policy under test
    pooled = mips(f, one[a], group_odds(logger[x], one), group_odds(target[x], one))
    assert pooled.value == pytest.approx(f.reward_C.mean())


def test_several_loggers_in_one_log():
    draw = rng(5)
    odds = np.array([[0.9, 0.1], [0.1, 0.9]])  # logger by action
    q = np.array([0.2, 0.6])
    logger = draw.integers(2, size=4000)
    action = (draw.random(4000) > odds[logger, 0]).astype(int)
    reward = (draw.random(4000) < q[action]).astype(float)
    mixed = balanced_odds(odds.T[action], logger)
    target = np.array([0.5, 0.5])
    balanced = interval_of(ips(Feedback(reward, mixed, target[action])))
    naive = interval_of(ips(Feedback(reward, odds[logger, action], target[action])))
    assert balanced.low <= 0.4 <= balanced.high
    assert (balanced.high - balanced.low) < 0.7 * (naive.high - naive.low)


def test_slope_prefers_narrow_ones_until_they_disagree():
    draw = rng(7)
    cases = 2000
    columns = [draw.normal(mean, spread, cases) for mean, spread in ((1.0, 8.0), (1.0, 1.0), (3.0, 0.1))]
    candidates = [Terms(np.zeros(cases), column) for column in columns]
    assert slope(candidates) == 1
    f, truth, _ = world(11, cases=2000)
    for terms in tuned_estimators(f).values():
        assert terms.value == pytest.approx(truth, abs=0.1)
    with pytest.raises(ValueError, match="nothing"):
        slope([])


def test_gates_refuse_what_a_log_cannot_say():
    fine = support_gates(np.ones(5000), unsupported=0.0, reward_C=np.ones(5000))
    assert refusal(fine) is None
    one_case = np.zeros(10_000)
    one_case[0], one_case[1] = 9000.0, 1000.0
    failed = {gate.name for gate in support_gates(one_case) if not gate.passed}
    assert {"effective sample size", "largest weight"} <= failed
    lost = support_gates(np.where(np.arange(5000) % 2, 1.2, 0.2))  # averages .7: odds or support are wrong
    assert [gate.name for gate in lost if not gate.passed] == ["mean weight"]
    assert "never shown" in (refusal(support_gates(np.ones(5000), unsupported=0.4)) or "")
    assert "earned anything" in (refusal(support_gates(np.ones(5000), reward_C=np.zeros(5000))) or "")


def test_people_stay_in_one_fold_and_rates_come_from_the_others():
    who = np.repeat(np.arange(30), 4)
    fold = folds_by_person(who)
    assert all(len(set(fold[who == u].tolist())) == 1 for u in range(30))
    assert np.bincount(fold).min() >= 36
    item = np.zeros(120, int)
    reward = (fold == 0).astype(float)
    rates = counted_rates(item, np.zeros(120, int), reward, fold, 2, 1)
    assert rates[0, 0, 0] == 0.0
    assert rates[1, 0, 0] > 0.3
    assert rates[1, 0, 1] == pytest.approx(reward[fold != 1].mean())  # never shown: held for average


def test_rates_trust_what_was_seen_often():
    draw = rng(9)
    truth = draw.uniform(0.02, 0.3, 20)
    item = draw.integers(20, size=20_000)
    place = draw.integers(3, size=20_000)
    reward = (draw.random(20_000) < truth[item] / (1 + place)).astype(float)
    rates = counted_rates(item, place, reward, np.zeros(20_000, int), 20, 3)[0]
    np.testing.assert_allclose(rates[0], truth, atol=0.06)
    assert rates[0].sum() > 2.5 * rates[2].sum()


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"reward_C": np.empty(0), "logged_C": np.empty(0), "target_C": np.empty(0)}, "at least one"),
        ({"reward_C": np.ones(2), "logged_C": np.ones(3), "target_C": np.ones(2)}, "3 cases"),
        ({"reward_C": np.ones(2), "logged_C": np.zeros(2), "target_C": np.ones(2)}, "logged odds"),
        ({"reward_C": np.ones(2), "logged_C": np.ones(2), "target_C": np.full(2, 1.5)}, "under test"),
    ],
)
def test_logs_that_cannot_be(columns, says):
    with pytest.raises(ValueError, match=says):
        Feedback(**columns)


def test_an_estimator_that_needs_a_model_says_so():
    with pytest.raises(ValueError, match="reward model"):
        dr(Feedback(np.ones(2), np.ones(2), np.ones(2)))
    with pytest.raises(ValueError, match="alike"):
        rips(np.ones((2, 3)), np.ones((2, 2)))
