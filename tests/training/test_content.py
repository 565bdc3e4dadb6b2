"""What training decides about content: for met items only what is more than noise, for unmet ones a fair place."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from penchant.core import Estimate, Run
from penchant.data import sequence_batch, time_split
from penchant.evaluation import validation_metric
from penchant.testing import markov_snapshot
from penchant.training import fit_model
from penchant.training._content import _LENDING, _USUAL, settle_content
from penchant.training._distributed import World

TINY = {"size": "tiny", "epochs": 2, "counts_weight": 4.0, "neighbours_weight": 0.5, "repeats_weight": 0.0}
ITEMS, UNMET = 60, 13
ALONE = World(0, 1, "cpu")


def circle() -> np.ndarray:
    """Content of items in which i and i + 1 are alike, around a circle; row 0 is no item."""
    angle = 2 * np.pi * np.arange(ITEMS) / ITEMS
    return np.r_[np.zeros((1, 2)), np.stack([np.cos(angle), np.sin(angle)], axis=1)].astype(np.float32)


def noise() -> np.ndarray:
    """Content that says nothing."""
    content = np.random.default_rng(3).normal(size=(ITEMS + 1, 12)).astype(np.float32)
    content[0] = 0
    return content / np.maximum(np.linalg.norm(content, axis=1, keepdims=True), 1e-9)


@pytest.fixture(scope="module")
def shop():
    """Walks around a circle; one item is in the catalogue, and nobody has met it."""
    whole = markov_snapshot(400, ITEMS)
    kept = np.asarray(whole.item) != UNMET
    row = np.repeat(np.arange(whole.num_users), np.diff(whole.ptr))
    ptr = np.r_[0, np.cumsum(np.bincount(row[kept], minlength=whole.num_users))]
    return replace(
        whole, ptr=ptr, **{name: getattr(whole, name)[kept] for name in ("item", "kind", "ts", "value")}
    )


@pytest.fixture(scope="module")
def split(shop):
    return time_split(shop)


@pytest.fixture(scope="module")
def plain(split):
    """A model that has read nothing."""
    return fit_model("sequence", split[0], TINY | {"trend_weight": 0.0}, Run())


def settled(plain, content_NC, validate, **settings):
    live = replace(plain, config=msgspec.structs.replace(plain.config, **settings))
    return settle_content(live, content_NC, Run(validate=validate), ALONE)


class Hopeful:
    """A validation that likes content neighbours, and is sure or unsure of it."""

    def __init__(self, low: float) -> None:
        self.low = low

    def __call__(self, scorer) -> float:
        return float(scorer.config.content_weight or 0.0)

    def gain(self, scorer, than, level: float) -> Estimate:
        if not hasattr(scorer, "item_J"):  # not about items that are pretended to be new
            assert scorer.config.content_weight > 0 == than.config.content_weight
            assert level == 0.95
        return Estimate(value=0.01, low=self.low, high=0.1, n=9, method="bootstrap")


@pytest.mark.parametrize("low", [-0.001, 0.0, 0.001])
def test_met_items_take_up_content_where_the_gain_is_more_than_noise(plain, low: float) -> None:
    content, found = settled(plain, circle(), Hopeful(low))
    taken = low > 0
    assert (found.content_weight > 0) == taken
    assert (content.neighbours.matrix.nnz > 0) == taken, "neighbours that do not weigh are not kept"


def test_a_bare_figure_cannot_tell_a_gain_from_noise(plain) -> None:
    _, found = settled(plain, circle(), lambda scorer: float(scorer.config.content_weight or 0.0))
    assert found.content_weight == 0


def test_what_cannot_be_told_stays_as_usual(plain) -> None:
    _, found = settled(plain, circle(), lambda scorer: 0.25)
    assert {name: getattr(found, name) for name in _USUAL} == _USUAL


def test_what_is_given_stays(plain, split) -> None:
    own = {"content_weight": 0.7, "unmet_content_weight": 0.2, "lending": 0.9, "content_decay": 0.5}
    content, found = settled(plain, circle(), validation_metric(split[1]), **own)
    assert {name: getattr(found, name) for name in own} == own
    assert content.neighbours.matrix.nnz
    assert content.neighbours.config.decay == content.unmet.config.decay == 0.5


def test_without_validation_the_usual_values_stand(plain) -> None:
    content, found = settled(plain, circle(), None)
    assert {name: getattr(found, name) for name in _USUAL} == _USUAL
    assert not content.neighbours.matrix.nnz
    assert content.borrower_J.tolist() == [UNMET]


def places(plain, content_NC, found, content, batch) -> tuple[np.ndarray, np.ndarray]:
    """Scores of a model that has read, and its scores without."""
    from penchant.training._content import borrowing

    return borrowing(replace(plain, config=found, content=content)).scores(batch), plain.scores(batch)


def test_content_that_says_nothing_harms_nobody(plain, split) -> None:
    """Met items keep their scores to the bit, and the unmet item keeps out of the lists."""
    content, found = settled(plain, noise(), validation_metric(split[1]))
    assert found.content_weight == 0
    score_BN, plain_BN = places(plain, noise(), found, content, sequence_batch(split[0], np.arange(200), 50))
    met = np.arange(ITEMS + 1) != UNMET
    np.testing.assert_array_equal(score_BN[:, met], plain_BN[:, met])
    above_B = (score_BN > score_BN[:, [UNMET]]).sum(axis=1)
    assert (above_B < 10).mean() < 0.1


def test_content_that_says_much_brings_an_unmet_item_to_those_who_want_it(plain, split) -> None:
    """Its place is fair: high for those who come past it, low for others, though nobody could validate it."""
    content, found = settled(plain, circle(), validation_metric(split[1]))
    assert found.lending >= 0.3
    train = split[0]
    last_U = np.array(
        [
            train.item[end - 1] if end > start else 0
            for start, end in zip(train.ptr, train.ptr[1:], strict=False)
        ]
    )
    near, far = np.flatnonzero(last_U == UNMET - 1), np.flatnonzero(last_U == (UNMET + ITEMS // 2) % ITEMS)
    for rows, low, high in ((near, 0, 6), (far, 10, ITEMS)):
        score_BN, _ = places(plain, circle(), found, content, sequence_batch(train, rows, 50))
        above_B = (score_BN > score_BN[:, [UNMET]]).sum(axis=1)
        assert low <= np.median(above_B) <= high


def test_the_place_follows_what_validation_says(plain) -> None:
    """The level that serves the lists best is taken: of all that may be."""
    for wanted in (_LENDING[0], 0.5, _LENDING[-1]):
        _, found = settled(
            plain, circle(), lambda scorer, wanted=wanted: 1 - abs(scorer.config.lending - wanted) / 10
        )
        assert found.lending == wanted


class Steps:
    """A validation that likes one level best, and says how far each other falls behind, in standard errors."""

    def __init__(self, best: float, behind: dict[float, float]) -> None:
        self.best, self.behind = best, behind

    def __call__(self, scorer) -> float:
        return 1.0 if scorer.config.lending == self.best and not scorer.config.content_weight else 0.5

    def gain(self, scorer, than, level: float) -> Estimate:
        assert than.config.lending == self.best
        gap = -self.behind.get(scorer.config.lending, 9.0)
        return Estimate(value=gap, low=gap - 1, high=gap + 1, n=9, method="bootstrap", level=level)


@pytest.mark.parametrize(
    ("behind", "taken"),
    [({}, 0.2), ({0.3: 0.9}, 0.3), ({0.3: 0.9, 0.5: 0.99, 0.7: 1.2}, 0.5), ({0.3: 1.5, 0.5: 0.1}, 0.2)],
)
def test_of_levels_that_cannot_be_told_apart_the_highest(
    plain, behind: dict[float, float], taken: float
) -> None:
    _, found = settled(plain, circle(), Steps(0.2, behind))
    assert found.lending == taken


def test_who_has_met_an_item_is_not_told_that_it_is_new(plain, split) -> None:
    """Pretended items: others see the borrowed score, who had it sees the learned one."""
    seen: list = []

    def validate(scorer) -> float:
        if hasattr(scorer, "item_J") and not scorer.alone:
            seen.append(scorer)
        return 0.5

    settled(plain, circle(), validate)
    scorer = seen[0]
    assert len(scorer.item_J) == round(0.2 * (ITEMS - 1))
    assert UNMET not in scorer.item_J
    batch = sequence_batch(split[0], np.arange(100), 50)
    score_BN, known_BN = scorer.scores(batch), plain.scores(batch)
    has_BJ = (batch.item_BT[:, :, None] == scorer.item_J).any(axis=1)
    assert has_BJ.any()
    np.testing.assert_array_equal(score_BN[:, scorer.item_J][has_BJ], known_BN[:, scorer.item_J][has_BJ])
    assert (score_BN[:, scorer.item_J][~has_BJ] != known_BN[:, scorer.item_J][~has_BJ]).mean() > 0.9
    others = np.setdiff1d(np.arange(1, ITEMS + 1), [*scorer.item_J, UNMET])
    rows = np.flatnonzero(~has_BJ.any(axis=1))
    np.testing.assert_array_equal(score_BN[np.ix_(rows, others)], known_BN[np.ix_(rows, others)])
