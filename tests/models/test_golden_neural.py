"""Golden bands of what learns by gradient, on a small real set: three months of 300 households."""

import pytest

from penchant.core import Run
from penchant.data import time_split
from penchant.evaluation import classification_metrics, rank_metrics
from penchant.models import TagsConfig, train_tags
from penchant.training import fit_model

pytest.importorskip("torch")


BLEND = {
    "counts_weight": 16.0,
    "neighbours_weight": 0.5,
    "counts_floor": 0.1,
    "repeats_weight": 100.0,
    "transitions_decay": 1.0,
    "neighbours_decay": 1.0,
}


def figures(kind, settings, split):
    train, cases = split
    model = fit_model(kind, train, settings, Run())
    found = rank_metrics(model, cases, ks=(10,), seen="allow", groups=[]).metrics
    return found["HR@10"].value, found["NDCG@10"].value


def test_sequence_with_counts(groceries):
    """Here the counts do the work. NDCG@10 .418; transitions alone have .338, habits alone .459."""
    split = time_split(groceries, share=0.2)
    hits, gain = figures("sequence", {"size": "tiny", "length": 50, "epochs": 1.0, **BLEND}, split)
    assert hits == pytest.approx(0.873, abs=0.02)
    assert gain == pytest.approx(0.418, abs=0.01)
    assert gain > figures("popularity", {}, split)[1] + 0.1


def test_network_alone(grocery_types):
    """Without counts, by types of product. Seeds 0 to 2 gave NDCG@10 .552, .550, .549; popularity has .536."""
    split = time_split(grocery_types, share=0.2)
    settings = {"size": "tiny", "length": 50, "epochs": 6.0, "counts": False}
    hits, gain = figures("sequence", settings, split)
    assert hits == pytest.approx(0.942, abs=0.02)
    assert gain == pytest.approx(0.551, abs=0.01)
    assert gain > figures("popularity", {}, split)[1] + 0.004


def test_tags(groceries):
    """Seeds 0 to 2 gave log loss .376, .370, .368, F1 micro .723, .734, .733 and F1 macro .543, .539, .550."""
    trained = train_tags(groceries, None, TagsConfig(epochs=20), Run())
    said = {"tags": trained.decision_PC, **trained.baseline_decisions}
    chances = {"tags": trained.probability_PC, **trained.baselines}
    found = {
        name: classification_metrics(
            chances[name], trained.label_PC, classes=list(trained.names), decision_PC=said[name]
        ).metrics
        for name in ("tags", "base rate", "base rate, from one half")
    }
    tags, base, half = ({m: e.value for m, e in metrics.items()} for metrics in found.values())
    assert tags["log_loss"] == pytest.approx(0.372, abs=0.02)
    assert tags["log_loss"] < base["log_loss"] - 0.05
    assert tags["F1 micro"] == pytest.approx(0.73, abs=0.03)
    assert tags["F1 micro"] > max(base["F1 micro"], half["F1 micro"]) + 0.03
    assert tags["F1 macro"] == pytest.approx(0.544, abs=0.04)
    assert tags["F1 macro"] > max(base["F1 macro"], half["F1 macro"]) + 0.05
    assert base["F1 macro"] > half["F1 macro"] + 0.1
    assert half["accuracy"] > base["accuracy"] + 0.3
