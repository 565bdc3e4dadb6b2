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


@pytest.mark.parametrize(
    ("settings", "hits", "gain", "tolerance"),
    [(BLEND, 0.866, 0.343, 0.015), ({"counts": False}, 0.692, 0.181, 0.03)],
    ids=["with counts", "network alone"],
)
def test_sequence(groceries, settings, hits, gain, tolerance):
    train, cases = time_split(groceries, share=0.2)
    model = fit_model("sequence", train, {"epochs": 2.0, "length": 50, **settings}, Run())
    found = rank_metrics(model, cases, ks=(10,), seen="allow", groups=[]).metrics
    assert found["HR@10"].value == pytest.approx(hits, abs=2 * tolerance)
    assert found["NDCG@10"].value == pytest.approx(gain, abs=tolerance)


def test_tags(groceries):
    trained = train_tags(groceries, None, TagsConfig(epochs=20), Run())
    said = {"tags": trained.decision_PC, **trained.baseline_decisions}
    tags, base = (
        classification_metrics(
            chance, trained.label_PC, classes=list(trained.names), decision_PC=said.get(name)
        ).metrics
        for name, chance in (("tags", trained.probability_PC), ("base rate", trained.baselines["base rate"]))
    )
    assert tags["F1 micro"].value == pytest.approx(0.723, abs=0.03)
    assert tags["F1 micro"].value > base["F1 micro"].value + 0.03
    assert tags["F1 macro"].value == pytest.approx(0.543, abs=0.05)
    assert tags["log_loss"].value < base["log_loss"].value - 0.05
