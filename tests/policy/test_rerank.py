"""Reranking: each method does what its paper says, and the odds are those of what is drawn."""

import itertools

import numpy as np
import pytest

from penchant.core import Candidates
from penchant.policy import DPP, MMR, Best, Calibrated, Softmax, draw_slate, slate_odds


def unit(rows):
    rows = np.asarray(rows, float)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def some(n=8, seed=0, classes=3):
    draw = np.random.default_rng(seed)
    candidates = Candidates(np.arange(1, n + 1), draw.random(n), np.zeros(n), "test")
    vec_ND = unit(draw.normal(size=(n, 4)))
    share_NC = np.eye(classes)[draw.integers(classes, size=n)]
    person_C = draw.dirichlet(np.ones(classes))
    return candidates, vec_ND, share_NC, person_C


def stages(strength, n=8, seed=0):
    _, vec_ND, share_NC, person_C = some(n, seed)
    return [MMR(strength, vec_ND), DPP(strength, vec_ND), Calibrated(strength, share_NC, person_C)]


def greedy(candidates, stage, k):
    return draw_slate(Best(), candidates, k, 0.0, np.random.default_rng(0), rerank=[stage]).index_K.tolist()


@pytest.mark.parametrize("number", range(3))
def test_strength_0_is_the_order_of_the_means(number):
    candidates, *_ = some()
    assert greedy(candidates, stages(0.0)[number], 8) == np.argsort(-candidates.mean_N).tolist()


@pytest.mark.parametrize("strength", [0.3, 0.7, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_mmr_by_the_book(strength, seed):
    candidates, vec_ND, *_ = some(seed=seed)
    relevance = (candidates.mean_N - candidates.mean_N.min()) / np.ptp(candidates.mean_N)
    placed = []
    for _ in range(5):
        left = [i for i in range(8) if i not in placed]
        alike = {i: max((float(vec_ND[i] @ vec_ND[j]) for j in placed), default=0.0) for i in left}
        placed.append(max(left, key=lambda i: (1 - strength) * relevance[i] - strength * alike[i]))
    assert greedy(candidates, MMR(strength, vec_ND), 5) == placed


@pytest.mark.parametrize("strength", [0.3, 0.9])
@pytest.mark.parametrize("seed", range(4))
def test_dpp_adds_the_determinant_that_is_largest(strength, seed):
    candidates, vec_ND, *_ = some(seed=seed)
    relevance = (candidates.mean_N - candidates.mean_N.min()) / np.ptp(candidates.mean_N)
    placed = []
    for _ in range(4):  # as many as the width: after that nothing has a volume
        left = [i for i in range(8) if i not in placed]

        def worth(i, placed=placed):
            rows = vec_ND[[*placed, i]]
            return (1 - strength) * relevance[i] + strength * np.linalg.slogdet(rows @ rows.T)[1]

        placed.append(max(left, key=worth))
    assert greedy(candidates, DPP(strength, vec_ND), 4) == placed


@pytest.mark.parametrize("seed", range(4))
def test_calibration_alone_makes_the_list_as_like_the_person_as_one_step_can(seed):
    candidates, _, share_NC, person_C = some(seed=seed)

    def divergence(places):
        mixed = 0.99 * share_NC[places].mean(0) + 0.01 * person_C
        return float((person_C * np.log(person_C / mixed)).sum())

    placed = greedy(candidates, Calibrated(1.0, share_NC, person_C), 6)
    for slot in range(6):
        left = [i for i in range(8) if i not in placed[:slot]]
        assert divergence(placed[: slot + 1]) == pytest.approx(
            min(divergence([*placed[:slot], i]) for i in left)
        )


@pytest.mark.parametrize("number", range(3))
def test_odds_under_reranking_are_honest(number):
    """Over all slates of two the odds sum to 1, and the slates come as often as they say."""
    candidates, *_ = some(5, 3)
    stage = [stages(0.5, 5, 3)[number]]
    said = {
        pair: float(np.prod(slate_odds(Softmax(0.2), candidates, np.array(pair) + 1, 0.1, rerank=stage)))
        for pair in itertools.permutations(range(5), 2)
    }
    assert sum(said.values()) == pytest.approx(1)
    generator, draws, count = np.random.default_rng(1), 4000, dict.fromkeys(said, 0)
    for _ in range(draws):
        choice = draw_slate(Softmax(0.2), candidates, 2, 0.1, generator, rerank=stage)
        pair = tuple(choice.index_K.tolist())
        count[pair] += 1
        assert float(np.prod(choice.odds_K)) == pytest.approx(said[pair])
    for pair, odds in said.items():
        assert abs(count[pair] / draws - odds) <= 4.5 * np.sqrt(odds * (1 - odds) / draws)


def test_what_reranking_puts_first_is_not_called_explored():
    candidates, vec_ND, *_ = some()
    choice = draw_slate(Best(), candidates, 5, 0.0, np.random.default_rng(0), rerank=[MMR(0.9, vec_ND)])
    assert choice.index_K.tolist() != np.argsort(-candidates.mean_N)[:5].tolist()
    assert not choice.explored_K.any()
    assert choice.odds_K.tolist() == [1.0] * 5


def test_what_may_not_be_shown_stays_out_of_reranked_slates():
    candidates, *_ = some()
    candidates.mean_N[2] = -np.inf
    for stage in stages(0.8):
        choice = draw_slate(Best(), candidates, 8, 0.1, np.random.default_rng(0), rerank=[stage])
        assert len(choice.index_K) == 7
        assert 2 not in choice.index_K
