"""Do probabilities come true: parameters that are found, sums, agreement of the quick way, honest intervals."""

import numpy as np
import pytest

from penchant.core import Run
from penchant.data import leave_one_out
from penchant.evaluation import Calibration, fit_calibration, rank_metrics
from penchant.evaluation._calibration import _bins, _error
from penchant.models import Transitions, TransitionsConfig
from penchant.testing import markov_snapshot


class Scaled:
    """Scores of another scorer, blown up or shrunk."""

    config = None

    def __init__(self, scorer, factor):
        self.scorer, self.factor = scorer, factor

    def scores(self, batch):
        return self.factor * self.scorer.scores(batch)


@pytest.fixture(scope="module")
def walk():
    snapshot = markov_snapshot(users=900, follow=0.6)
    train, choose = leave_one_out(snapshot, leave_out=2, target=2)
    _, asked = leave_one_out(snapshot, leave_out=2, target=1)
    return Transitions.fit(train, TransitionsConfig(decay=0.1), Run()), choose, asked


def test_what_is_promised_comes_true(walk):
    model, choose, asked = walk
    found = fit_calibration(model, choose)
    told = rank_metrics(model, asked, seen="allow", calibration=found).reliability
    assert told.ece.value < 0.08
    high = told.levels[-1]
    assert high.about == 0.5  # the next item of the ring is right six times in ten
    assert high.came.low <= high.said <= high.came.high
    loud = rank_metrics(
        model, asked, seen="allow", calibration=Calibration(scale=20 * found.scale, floor=0.0)
    )
    assert loud.reliability.ece.low > told.ece.high
    assert loud.reliability.log_loss.low > told.log_loss.high


def test_the_scale_of_scores_does_not_matter(walk):
    model, choose, asked = walk
    plain, loud = fit_calibration(model, choose), fit_calibration(Scaled(model, 50.0), choose)
    score_BN = model.scores(asked.batch(np.arange(5), 200))
    assert np.allclose(plain.probabilities(score_BN), loud.probabilities(50.0 * score_BN), atol=0.01)


class Evidence(Scaled):
    """Another scorer's scores as what multiplies, as habits count: e to their power."""

    def scores(self, batch):
        return np.exp(super().scores(batch))


def test_evidence_competes_by_its_logarithm(walk):
    """Scores that multiply get the chances of those that add up, and no item has it all or nothing."""
    model, choose, asked = walk
    plain, found = fit_calibration(model, choose), fit_calibration(Evidence(model, 3.0), choose)
    assert found.logs
    batch = asked.batch(np.arange(5), 200)
    chance_BN = found.probabilities(Evidence(model, 3.0).scores(batch))
    assert np.allclose(plain.probabilities(model.scores(batch)), chance_BN, atol=0.02)


def test_rows_sum_to_one_and_the_quick_way_agrees(walk):
    model, choose, asked = walk
    found = fit_calibration(model, choose)
    score_BN = model.scores(asked.batch(np.arange(7), 200))
    chance_BN = found.probabilities(score_BN)
    assert np.allclose(chance_BN.sum(axis=1), 1)
    assert (chance_BN[:, 0] == 0).all()
    item_K = np.array([1, 4, 30])
    for score_N, chance_N in zip(score_BN, chance_BN, strict=True):
        assert np.allclose(found.of_items(score_N, item_K), chance_N[item_K], rtol=1e-4)


def test_bins_promise_equally_many_hits():
    draw = np.random.default_rng(0)
    said = draw.beta(0.3, 4, 50_000)
    came = draw.random(50_000) < said
    bins = _bins(said, came)
    promised = np.array([b.said * b.count for b in bins])
    assert len(bins) == 10
    assert promised.max() / promised.min() < 1.1
    inside = [b.came.low <= b.said <= b.came.high for b in bins]
    assert sum(inside) >= 8


def test_the_error_of_honest_and_of_boasting_chances():
    draw = np.random.default_rng(1)
    said = draw.random(4000)
    came = draw.random(4000) < said
    people = np.arange(4000)
    assert _error(said, came, people, 0).value < 0.03
    boasting = _error(np.sqrt(said), came, people, 0)
    assert abs(boasting.value - np.mean(np.sqrt(said) - said)) < 0.03
    assert boasting.low > 0.1


def test_recall_by_popularity_adds_up(walk):
    model, _, asked = walk
    found = rank_metrics(model, asked, seen="allow")
    parts = [part["recall@10"] for part in found.by_popularity.values()]
    assert sum(p.n for p in parts) == len(asked)
    whole = sum(p.value * p.n for p in parts) / len(asked)
    assert whole == pytest.approx(found.metrics["recall@10"].value)
