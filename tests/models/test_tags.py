"""The interest classifier: what it learns, what it refuses, and that its fast path equals torch."""

from __future__ import annotations

import subprocess
import sys

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penchant.core import INTEREST_LABEL, Run, rng
from penchant.core.errors import InputError, Interrupted, MissingExtra, ModelError
from penchant.models import Tags, TagsConfig, fit_tags, labels_from_users
from penchant.models import _tags_network as network
from penchant.models._tags_fit import _validation_rows, refit_tags
from penchant.models._tags_labels import as_labels

FAST = TagsConfig(epochs=30, hidden=(16,))


def planted(num: int = 300, seed: int = 0, noise: float = 0.05) -> tuple[pa.Table, list[str]]:
    """Three tags, each known by the count that is largest; some labels are wrong."""
    draw = rng(seed, "planted")
    counts = draw.poisson(6.0, size=(num, 3)).astype(float)
    label = np.where(draw.random(num) < noise, draw.integers(3, size=num), counts.argmax(axis=1))
    table = pa.table({"browse": counts[:, 0], "buy": counts[:, 1], "review": counts[:, 2]})
    return table, [("fashion", "food", "technology")[code] for code in label]


def planted_several(num: int = 400) -> tuple[pa.Table, list[list[str]]]:
    """Any number of tags, each with its own feature."""
    draw = rng(1, "planted several")
    x = draw.standard_normal((num, 3))
    tags = [[name for name, own in zip("abc", row, strict=True) if own > 0.3] for row in x]
    return pa.table({f"f{column}": x[:, column] for column in range(3)}), tags


@pytest.fixture(scope="module")
def tags() -> Tags:
    table, labels = planted()
    return fit_tags(table, labels, FAST, Run(seed=3))


@pytest.fixture(scope="module")
def several() -> Tags:
    table, labels = planted_several()
    return fit_tags(table, labels, FAST, Run(seed=3))


def test_one_tag_each_is_learned_well_above_the_base_rate(tags: Tags) -> None:
    table, labels = planted(seed=9)
    probability = tags.predict(table)
    assert probability.shape == (300, 3)
    assert probability.dtype == np.float32
    np.testing.assert_allclose(probability.sum(axis=1), 1, rtol=1e-5)
    truth = np.array([tags.names.index(label) for label in labels])
    assert tags.softmax
    assert (probability.argmax(axis=1) == truth).mean() > 0.8 > tags.base_rate_C.max() + 0.3
    np.testing.assert_array_equal(tags.decide(probability).argmax(axis=1), probability.argmax(axis=1))


def test_several_tags_each_are_learned(several: Tags) -> None:
    table, labels = planted_several()
    probability = several.predict(table)
    truth = as_labels(labels).y_RC > 0
    assert not several.softmax
    assert (several.decide(probability) == truth).mean() > 0.9
    assert (probability.sum(axis=1) > 1.2).any()  # not a distribution over tags


@pytest.mark.parametrize("optimiser", ["adam", "sgd"])
def test_both_optimisers_learn(optimiser: str) -> None:
    table, labels = planted(200)
    losses: list[float] = []
    config = msgspec.structs.replace(FAST, optimiser=optimiser)
    run = Run(progress=lambda task, done, total, figures: losses.append(figures["validation"]))
    fit_tags(table, labels, config, run)
    assert min(losses) < 0.8 * losses[0] or min(losses) < 0.6


@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize("hidden", [(), (8,), (8, 4)])
def test_numpy_equals_torch(hidden: tuple[int, ...], direct: bool) -> None:
    torch = pytest.importorskip("torch")
    from penchant.models import _tags_torch

    draw = rng(0, "agreement")
    first = network.initial_weights(5, hidden, direct, np.zeros(3), 0)
    weights = {name: draw.standard_normal(array.shape).astype(np.float32) for name, array in first.items()}
    x = draw.standard_normal((50, 5)).astype(np.float32)
    slow = _tags_torch.logits({n: torch.from_numpy(w) for n, w in weights.items()}, torch.from_numpy(x))
    for softmax in (True, False):
        ours = network.probabilities(network.logits(weights, x), np.array([1.0, 0.0]), softmax)
        theirs = torch.softmax(slow, 1) if softmax else torch.sigmoid(slow)
        np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-6)


def test_same_seed_same_bits_other_seed_other_bits() -> None:
    table, labels = planted(120)
    first, again, other = (fit_tags(table, labels, FAST, Run(seed=seed)) for seed in (5, 5, 6))
    for name, array in first.arrays().items():
        np.testing.assert_array_equal(array, again.arrays()[name], err_msg=name)
    assert any((array != other.weights[name]).any() for name, array in first.weights.items())


@pytest.mark.parametrize("fitted", ["tags", "several"])
def test_restore_gives_the_same_answers(fitted: str, request: pytest.FixtureRequest) -> None:
    model: Tags = request.getfixturevalue(fitted)
    table, _ = planted(20) if fitted == "tags" else planted_several(20)
    arrays = {name: array.copy() for name, array in model.arrays().items()}
    assert all(array.dtype.kind in "fu" for array in arrays.values())  # nothing that would need a pickle
    config = msgspec.json.decode(msgspec.json.encode(model.config))
    back = Tags.restore(config, arrays)
    assert (back.names, back.config, back.softmax) == (model.names, model.config, model.softmax)
    np.testing.assert_array_equal(back.predict(table), model.predict(table))
    np.testing.assert_array_equal(back.threshold_C, model.threshold_C)


def test_a_new_user_with_missing_columns_gets_an_answer(tags: Tags) -> None:
    known = tags.predict({"browse": [12.0], "buy": [1.0], "review": [2.0]})
    partial = tags.predict({"browse": [12.0]})
    nothing = tags.predict(pa.table({"browse": pa.array([None], pa.float64())}))
    assert known[0].argmax() == partial[0].argmax() == tags.names.index("fashion")
    for answer in (known, partial, nothing):
        assert np.isfinite(answer).all()
    assert nothing[0].max() < known[0].max()
    np.testing.assert_array_equal(known, tags.predict(np.array([[12.0, 1.0, 2.0]])))


def test_missing_values_in_training() -> None:
    table, labels = planted(200)
    holes = np.array(table["browse"].to_numpy())
    holes[::7] = np.nan
    table = table.set_column(0, "browse", pa.array(holes, from_pandas=True))
    model = fit_tags(table, labels, FAST)
    assert "browse missing" in model.transform.names
    assert np.isfinite(model.predict(table)).all()


def test_a_tag_that_one_person_carries_does_not_disturb() -> None:
    table, labels = planted(100)
    labels[7] = "gardening"
    model = fit_tags(table, labels, FAST)
    assert "gardening" in model.names
    assert np.isfinite(model.predict(table)).all()
    y = as_labels(labels).y_RC
    for seed in range(10):
        assert not _validation_rows(y, 0.3, np.arange(100), seed)[7]


def test_rows_of_one_person_stay_on_one_side() -> None:
    groups = np.repeat(np.arange(30), 4)
    valid = _validation_rows(as_labels([str(g % 3) for g in groups]).y_RC, 0.3, groups, 0)
    assert 0 < valid.sum() < len(valid)
    assert {valid[groups == g].mean() for g in range(30)} == {0.0, 1.0}


def test_calibration_mends_what_is_too_sure() -> None:
    draw = rng(4, "calibration")
    true = draw.standard_normal((4000, 2)).astype(np.float32)
    y = (draw.random((4000, 2)) < 1 / (1 + np.exp(-true))).astype(np.float32)
    slope, shift = network.fit_scaling(3 * true + 1, y, softmax=False)
    assert slope == pytest.approx(1 / 3, abs=0.03)
    assert shift == pytest.approx(-1 / 3, abs=0.08)
    odds = np.exp(true)
    one = (draw.random(4000) < odds[:, 0] / odds.sum(axis=1)).astype(np.float32)
    slope, shift = network.fit_scaling(3 * true, np.stack([one, 1 - one], 1), softmax=True)
    assert slope == pytest.approx(1 / 3, abs=0.03)
    assert shift == 0


def test_thresholds_find_rare_tags() -> None:
    draw = rng(5, "thresholds")
    chance = draw.beta(1, 9, size=(3000, 1))
    y = (draw.random(chance.shape) < chance).astype(np.float32)
    threshold = network.fit_thresholds(chance.astype(np.float32), y)

    def f1(least: float) -> float:
        said = chance >= least
        return 2 * (said & (y > 0)).sum() / max(1, said.sum() + y.sum())

    assert f1(threshold[0]) > f1(0.5) + 0.1


def test_explain_adds_up_and_names_the_right_feature(tags: Tags) -> None:
    person = {"browse": [14.0], "buy": [3.0], "review": [4.0]}
    found = tags.explain(person, "fashion", k=3)
    assert found[0].feature == "browse"
    assert found[0].text == "browse 14: more than usual"
    assert [entry.weight for entry in found] == sorted((entry.weight for entry in found), reverse=True)
    assert all(entry.weight > 0 for entry in found)
    x = tags.normalise(person)
    for tag in range(3):
        direction = np.eye(3)[tag] - 1 / 3
        parts = network.attribution(tags.weights, x[0], direction, steps=2000)
        whole = (network.logits(tags.weights, x) - network.logits(tags.weights, 0 * x))[0] @ direction
        assert parts.sum() == pytest.approx(whole, rel=0.01, abs=0.01)


def test_the_likeliest_tags_are_those_of_predict_and_explain(tags: Tags) -> None:
    person = {"browse": [30.0]}
    chance_C, best, evidence = tags.likeliest(person, 2)
    np.testing.assert_array_equal(chance_C, tags.predict(person)[0])
    assert best == np.argsort(-chance_C, kind="stable")[:2].tolist()
    assert evidence == tags.explain_many(person, [tags.names[c] for c in best])


def test_explain_refuses_what_it_cannot_answer(tags: Tags) -> None:
    with pytest.raises(InputError, match="no such tag"):
        tags.explain({"browse": [1.0]}, "gardening")
    with pytest.raises(InputError, match="one person"):
        tags.explain({"browse": [1.0, 2.0]}, "food")


def test_text_columns_are_features_and_are_explained() -> None:
    city = ["Rome", "Oslo"] * 50
    model = fit_tags({"city": city}, ["pasta" if c == "Rome" else "fish" for c in city], FAST)
    assert model.predict({"city": ["Rome"]}).argmax() == model.names.index("pasta")
    assert "city = Rome" in {entry.text for entry in model.explain({"city": ["Rome"]}, "pasta")}
    assert np.isfinite(model.predict({"city": ["Paris"]})).all()


def test_refit_keeps_the_recipe_and_learns_from_all_rows(several: Tags) -> None:
    table, labels = planted_several()
    again = refit_tags(several, table, as_labels(labels), Run(seed=3))
    np.testing.assert_array_equal(again.scaling, several.scaling)
    np.testing.assert_array_equal(again.threshold_C, several.threshold_C)
    truth = as_labels(labels).y_RC > 0
    assert (again.decide(again.predict(table)) == truth).mean() > 0.9


def test_balanced_weights_raise_rare_tags() -> None:
    draw = rng(6, "balanced")
    x = draw.standard_normal(400)
    labels = ["rare" if value + draw.standard_normal() > 2.2 else "common" for value in x]
    plain, balanced = (
        fit_tags({"x": x}, labels, msgspec.structs.replace(FAST, class_weights=weights, calibrate=False))
        for weights in ("none", "balanced")
    )
    rare = plain.names.index("rare")
    assert balanced.predict({"x": x})[:, rare].mean() > 2 * plain.predict({"x": x})[:, rare].mean()


def test_no_validation_part_runs_all_epochs() -> None:
    table, labels = planted(60)
    model = fit_tags(table, labels, TagsConfig(epochs=4, validation=0.0))
    assert model.epochs == 4
    np.testing.assert_array_equal(model.scaling, [1.0, 0.0])


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (["tea"] * 60, "same tags"),
        ([["tea", "cake"]] * 60, "same tags"),
        ([[]] * 60, "same tags"),
        (["tea", "cake"] * 5, "at least 20"),
    ],
)
def test_nothing_to_learn_is_said_clearly(labels: list[str] | list[list[str]], says: str) -> None:
    with pytest.raises(ModelError, match=says):
        fit_tags({"x": np.arange(float(len(labels)))}, labels)


def test_unusable_features_and_wrong_shapes_are_refused(tags: Tags) -> None:
    labels = ["tea", "cake"] * 30
    with pytest.raises(ModelError, match="no column can be a feature"):
        fit_tags({"id": [f"u{row}" for row in range(60)]}, labels)
    with pytest.raises(InputError, match="one label"):
        fit_tags({"x": [1.0, 2.0]}, labels)
    with pytest.raises(InputError, match="3 columns"):
        tags.predict(np.zeros((2, 4)))
    with pytest.raises(ModelError, match="a tag for every person"):
        fit_tags({"x": range(60)}, [["tea"], []] * 30, TagsConfig(mode="softmax"))
    with pytest.raises(InputError, match="no table"):
        tags.predict({"browse": [1.0, "two"]})
    with pytest.raises(InputError, match="numeric in training"):
        tags.predict({"browse": ["many"]})


def test_divergence_is_an_error() -> None:
    table, labels = planted(100)
    config = TagsConfig(optimiser="sgd", learning_rate=1e30, epochs=3)
    with pytest.raises(ModelError, match="diverged"):
        fit_tags(table, labels, config)


def test_ctrl_c_says_what_is_safe() -> None:
    table, labels = planted(100)

    def stop(task: str, done: int, total: int | None, figures: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="nothing was changed"):
        fit_tags(table, labels, FAST, Run(progress=stop))


def test_training_leaves_the_number_of_threads_alone() -> None:
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    table, labels = planted(60)
    fit_tags(table, labels, TagsConfig(epochs=1))
    assert torch.get_num_threads() == before


def test_answering_needs_no_torch_and_training_says_what_is_missing() -> None:
    program = """
import sys
sys.modules["torch"] = None
from penchant.core.errors import MissingExtra
from penchant.models import Tags, TagsConfig, fit_tags
import penchant.models._tags_train
try:
    fit_tags({"x": list(range(40))}, ["a", "b"] * 20)
except MissingExtra as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "penchant[train]" in done.stdout
    assert MissingExtra("train", "x").exit_code == 6


def test_labels_of_users() -> None:
    users = pa.table({INTEREST_LABEL: [["tea", "tea", " "], None, [], ["cake"]]})
    rows, labels = labels_from_users(users)
    assert rows.tolist() == [0, 3]
    assert [sorted(set(row)) for row in labels] == [["tea"], ["cake"]]
    with pytest.raises(InputError, match="no label column"):
        labels_from_users(pa.table({"user_id": ["u"]}))
    with pytest.raises(InputError, match="must be text"):
        labels_from_users(pa.table({INTEREST_LABEL: [1, 2]}))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.sampled_from("abcd"), max_size=4), min_size=1, max_size=12))
def test_label_table_holds_exactly_the_tags(rows: list[list[str]]) -> None:
    labels = as_labels(rows)
    found = [{labels.names[tag] for tag in np.flatnonzero(row)} for row in labels.y_RC]
    assert found == [set(row) for row in rows]
