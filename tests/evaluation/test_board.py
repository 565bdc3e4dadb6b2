import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, log_loss, precision_recall_fscore_support

from penchant.core import Run
from penchant.core.errors import InputError
from penchant.data import leave_one_out
from penchant.evaluation import (
    _plots,
    classification_metrics,
    leaderboard,
    paired_difference,
    proportion,
    rank_metrics,
    render_report_html,
)
from penchant.testing import markov_snapshot
from penchant.training import fit_model

KINDS = ("popularity", "recent_popularity", "item_knn", "transitions")


@pytest.fixture(scope="module")
def evaluations():
    train, cases = leave_one_out(markov_snapshot(users=120, items=15))
    return {
        kind: rank_metrics(fit_model(kind, train, {}, Run()), cases, seen="allow").renamed(kind)
        for kind in KINDS
    }


def test_the_best_row_comes_first_and_differences_are_paired(evaluations):
    board = leaderboard(evaluations)
    assert board.rows[0].name == "transitions"
    assert board.rows[0].difference == {}
    gap = next(row for row in board.rows if row.name == "popularity").difference["NDCG@10"]
    values = [evaluations[k].metrics["NDCG@10"].value for k in ("popularity", "transitions")]
    assert gap.value == pytest.approx(values[0] - values[1])
    assert gap.high < 0
    assert "was not measured" in board.verdict


def test_the_verdict_is_honest_about_the_neural_row(evaluations):
    better = {**evaluations, "sequence": evaluations["transitions"].renamed("sequence")}
    assert "cannot be told apart" in leaderboard(better).verdict
    worse = {**evaluations, "sequence": evaluations["popularity"].renamed("sequence")}
    assert "does NOT beat" in leaderboard(worse).verdict
    swapped = {
        **evaluations,
        "sequence": evaluations["transitions"],
        "transitions": evaluations["popularity"],
    }
    assert "beats counted transitions" in leaderboard(swapped).verdict


def test_a_board_without_baselines_is_refused(evaluations):
    with pytest.raises(InputError, match="baselines"):
        leaderboard({"transitions": evaluations["transitions"]})


def test_other_cases_cannot_be_compared(evaluations):
    train, cases = leave_one_out(markov_snapshot(users=60, items=15, seed=1))
    other = rank_metrics(fit_model("popularity", train, {}, Run()), cases, seen="allow")
    with pytest.raises(InputError, match="same cases"):
        paired_difference(other, evaluations["popularity"])


def test_the_report_is_one_page_that_needs_nothing_else(evaluations):
    tags = classification_metrics(np.array([[0.9, 0.1], [0.4, 0.6]]), np.array([0, 1]), classes=["a", "b"])
    page = render_report_html(
        title="A <shop>",
        protocol="how it was done",
        board=leaderboard(evaluations),
        curves={"sequence": [{"epoch": 1.0, "loss": 2.0, "validation": 0.1}]},
        tags={"tags": tags, "base rate": tags},
        tag_source="interest_label",
    )
    assert "A &lt;shop&gt;" in page
    assert "http://" not in page
    assert "https://" not in page
    assert page.count("data:image/png;base64,") >= 3
    for label in ("popularity", "recent popularity", "item neighbours", "counted transitions"):
        assert label in page


def test_loss_and_validation_cannot_hide_each_other(monkeypatch):
    """Two epochs of which both fall: on one panel with two scales they were one line."""
    drawn = []
    monkeypatch.setattr(_plots, "_png", drawn.append)
    _plots.plot_curve([{"epoch": e, "loss": 10 - e, "validation": 0.3 - 0.1 * e} for e in (1.0, 2.0)])
    (figure,) = drawn
    figure.canvas.draw()
    upper, lower = (axes.get_position() for axes in figure.axes)
    assert lower.y1 < upper.y0
    assert [axes.get_ylabel() for axes in figure.axes] == ["training loss", "validation"]


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 4), st.integers(5, 40), st.integers(0, 10_000))
def test_single_label_figures_equal_scikit_learn(classes, people, seed):
    rng = np.random.default_rng(seed)
    probability = rng.dirichlet(np.ones(classes), people)
    truth = rng.integers(0, classes, people)
    found = classification_metrics(probability, truth, classes=[str(c) for c in range(classes)])
    said = probability.argmax(1)
    for average in ("micro", "macro"):
        p, r, f, _ = precision_recall_fscore_support(
            truth, said, average=average, labels=range(classes), zero_division=0
        )
        assert found.metrics[f"precision {average}"].value == pytest.approx(p)
        assert found.metrics[f"recall {average}"].value == pytest.approx(r)
        assert found.metrics[f"F1 {average}"].value == pytest.approx(f)
    assert found.metrics["accuracy"].value == pytest.approx(accuracy_score(truth, said))
    assert found.metrics["log_loss"].value == pytest.approx(
        log_loss(truth, probability, labels=range(classes))
    )


def test_several_labels_equal_scikit_learn():
    rng = np.random.default_rng(0)
    probability, truth = rng.random((50, 4)), rng.random((50, 4)) < 0.4
    found = classification_metrics(probability, truth, classes=list("abcd"))
    p, r, f, _ = precision_recall_fscore_support(truth, probability >= 0.5, average="macro", zero_division=0)
    assert found.metrics["precision macro"].value == pytest.approx(p)
    assert found.metrics["recall macro"].value == pytest.approx(r)
    assert found.metrics["F1 macro"].value == pytest.approx(f)
    assert found.metrics["exact"].value == pytest.approx(accuracy_score(truth, probability >= 0.5))


def test_calibration_of_a_forecaster_that_is_right_about_its_doubt():
    rng = np.random.default_rng(0)
    chance = rng.random((4000, 1))
    probability = np.hstack([chance, 1 - chance])
    truth = (rng.random(4000) >= chance[:, 0]).astype(int)
    honest = classification_metrics(probability, truth, classes=["a", "b"]).metrics["ECE"].value
    boastful = classification_metrics(np.round(probability), truth, classes=["a", "b"]).metrics["ECE"].value
    assert honest < 0.03
    assert boastful > 0.2


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="do not fit"):
        classification_metrics(np.ones((3, 2)), np.zeros((3, 3)), classes=["a", "b"])


def test_every_class_has_intervals_and_unknown_ones_say_so():
    probability = np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.7, 0.3, 0.0]])
    found = classification_metrics(probability, np.array([0, 1, 1]), classes=["a", "b", "never"])
    assert found.by_class["a"]["precision"].value == 0.5
    assert found.by_class["b"]["recall"].value == 0.5
    assert found.by_class["b"]["F1"].value == pytest.approx(2 / 3)
    assert found.by_class["b"]["share"].value == pytest.approx(2 / 3)
    unknown = found.by_class["never"]["recall"]
    assert (unknown.low, unknown.high, unknown.n) == (0, 1, 0)
    for estimates in (*found.by_class.values(), found.metrics):
        for name, estimate in estimates.items():
            assert estimate.low <= estimate.value <= estimate.high, name


def widths(found):
    figures = {name: e for name, e in found.metrics.items() if name != "log_loss"}
    for name, estimates in found.by_class.items():
        figures |= {f"{kind} of {name}": estimate for kind, estimate in estimates.items()}
    for name, estimate in figures.items():
        assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1, name
    return {name: estimate.high - estimate.low for name, estimate in figures.items()}


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 25), st.integers(2, 4), st.booleans(), st.integers(0, 10_000))
def test_few_or_unanimous_people_prove_nothing_for_certain(people, classes, single, seed):
    rng = np.random.default_rng(seed)
    truth = rng.random((people, classes)) < 0.3
    if single:
        truth = np.arange(classes) == rng.integers(0, classes, people)[:, None]
    for said in (truth, ~truth):  # right about everything, wrong about everything
        found = classification_metrics(
            np.where(said, 0.99, 0.01), truth.argmax(1) if single else truth, classes=list("abcd")[:classes]
        )
        assert min(widths(found).values()) > 0.01


def test_few_people_get_the_interval_of_a_share_of_so_many():
    truth = np.array([[True, False], [True, True], [False, True]])
    found = classification_metrics(np.where(truth, 0.9, 0.1), truth, classes=["a", "b"]).metrics
    for name in ("accuracy", "exact", "precision micro", "recall macro", "F1 micro", "F1 macro"):
        assert found[name] == proportion(3, 3), name


def test_a_rare_class_makes_macro_figures_uncertain():
    """A hundred people are told apart without a fault; only two of them bear the second tag."""
    truth = np.arange(100) >= 98
    found = classification_metrics(np.stack([~truth, truth], 1) * 0.98 + 0.01, truth * 1, classes=["a", "b"])
    assert found.metrics["F1 micro"] == proportion(100, 100)
    assert found.metrics["F1 macro"] == proportion(7, 7), "twice the harmonic mean of 98 and 2"
    assert found.by_class["b"]["F1"] == proportion(2, 2)


def test_bins_and_calibration_error_by_hand():
    """Four people with one class each: said 0.9 twice and 0.6 twice, right three times."""
    probability = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.4, 0.6]])
    found = classification_metrics(probability, np.array([0, 0, 0, 0]), classes=["a", "b"])
    assert [(round(b.said, 3), b.came.value, b.count) for b in found.bins] == [(0.6, 0.5, 2), (0.9, 1.0, 2)]
    assert found.metrics["ECE"].value == pytest.approx((0.1 * 2 + 0.1 * 2) / 4)


@pytest.mark.parametrize(
    ("probability", "labels"),
    [
        (np.full((2, 2), 0.5), np.array([0, 2])),
        (np.full((2, 2), 0.5), np.array([-1, 0])),
        (np.full((2, 2), np.nan), np.array([0, 1])),
        (np.full((2, 2), 1.5), np.array([0, 1])),
        (np.full((2, 3), 0.2), np.array([0, 1])),
        (np.empty((0, 2)), np.array([], int)),
    ],
)
def test_values_that_do_not_fit_are_refused(probability, labels):
    with pytest.raises(InputError):
        classification_metrics(probability, labels, classes=["a", "b"])


def test_a_handful_of_people_prove_nothing(fixed, cases_of):
    """Two people whom one scorer serves and the other does not: a bootstrap would call that certain."""
    made = cases_of([[1], [2]], [[20], [20]], 20)
    good, bad = np.tile(np.arange(21.0), (2, 1)), -np.tile(np.arange(21.0), (2, 1))
    served, missed = (rank_metrics(fixed(table), made, ks=(5, 10)) for table in (good, bad))
    gap = paired_difference(served, missed)["NDCG@10"]
    assert (gap.value, gap.n, gap.high) == (1.0, 2, 1.0)
    assert gap.low < 0
    board = leaderboard({**dict.fromkeys(KINDS, missed), "sequence": served})
    assert "cannot be told apart" in board.verdict
