"""The conformance suite of vector indexes: subclass it, say how one is built, and every promise is tested."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pytest

from penchant.core import VectorIndex

ITEMS, WIDTH, PEOPLE = 20_000, 32, 40


class IndexTests:
    """What every vector index must hold, on 20,000 vectors in loose groups of unequal length.

    Example:
        ``class TestExact(IndexTests): recall = 1.0`` with a ``build`` that returns ``ExactIndex(vec_ND, bias_N)``
    """

    recall: ClassVar[float] = 1.0
    """Share of the true best 100 that has to be found."""

    @classmethod
    def build(
        cls, vec_ND: npt.NDArray[np.float32], bias_N: npt.NDArray[np.float32] | None = None
    ) -> VectorIndex:
        """The index under test."""
        raise NotImplementedError

    @pytest.fixture(scope="class")
    @classmethod
    def vec_ND(cls) -> npt.NDArray[np.float32]:
        """(N + 1, D), row 0 is no item."""
        draw = np.random.default_rng(0)
        centre_GD = draw.normal(size=(200, WIDTH))
        vec_ND = 0.7 * centre_GD[draw.integers(200, size=ITEMS + 1)] + draw.normal(size=(ITEMS + 1, WIDTH))
        vec_ND *= np.exp(0.2 * draw.normal(size=(ITEMS + 1, 1)))
        vec_ND[0] = 0
        return vec_ND.astype(np.float32)

    @pytest.fixture(scope="class")
    @classmethod
    def query_QRD(cls, vec_ND: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Interests near items, two a person."""
        draw = np.random.default_rng(1)
        near = vec_ND[draw.integers(1, ITEMS + 1, size=(PEOPLE, 2))]
        return (near + 0.3 * draw.normal(size=near.shape)).astype(np.float32)

    @pytest.fixture(scope="class")
    @classmethod
    def index(cls, vec_ND: npt.NDArray[np.float32]) -> VectorIndex:
        """Built once; tests that change it build their own."""
        return cls.build(vec_ND)

    def check(
        self,
        index: VectorIndex,
        vec_ND: npt.NDArray[np.float32],
        query_QRD: npt.NDArray[np.float32],
        allowed_N: npt.NDArray[np.bool_],
        k: int = 100,
        bias_N: npt.NDArray[np.float32] | None = None,
    ) -> None:
        """Items in order, all allowed, with their exact scores; as many of the true best as was promised."""
        found_share = []
        for query_RD in query_QRD:
            item_K, score_K = index.search(query_RD, k, allowed_N)
            truth_N = (vec_ND @ query_RD.T).max(axis=1)
            if bias_N is not None:
                truth_N += bias_N
            assert item_K.dtype == np.int64
            assert score_K.dtype == np.float32
            assert len(item_K) == len(score_K) == min(k, np.count_nonzero(allowed_N))
            assert (np.diff(item_K) > 0).all()
            assert allowed_N[item_K].all()
            np.testing.assert_allclose(score_K, truth_N[item_K], rtol=1e-4, atol=1e-4)
            truth_N[~allowed_N] = -np.inf
            best = np.argsort(-truth_N, kind="stable")[: len(item_K)]
            found_share.append(np.isin(best, item_K).mean() if len(best) else 1.0)
        assert np.mean(found_share) >= self.recall - 1e-9

    def test_it_finds_the_best(
        self, index: VectorIndex, vec_ND: npt.NDArray[np.float32], query_QRD: npt.NDArray[np.float32]
    ) -> None:
        """With one interest, and with the better of two."""
        self.check(index, vec_ND, query_QRD, _all(vec_ND))
        self.check(index, vec_ND, query_QRD[:, :1], _all(vec_ND))

    @pytest.mark.parametrize("share", [1.0, 0.05])
    def test_a_bias_joins_the_score(
        self, vec_ND: npt.NDArray[np.float32], query_QRD: npt.NDArray[np.float32], share: float
    ) -> None:
        """What some items gain and others lose whoever asks decides with the vectors, for items added later too."""
        draw = np.random.default_rng(3)
        bias_N = (4 * draw.standard_normal(len(vec_ND))).astype(np.float32)
        allowed_N = draw.random(len(vec_ND)) < share
        allowed_N[0] = False
        index = self.build(vec_ND[:-99], bias_N[:-99]).extended(vec_ND[-99:], bias_N[-99:])
        self.check(index, vec_ND, query_QRD, allowed_N, bias_N=bias_N)

    @pytest.mark.parametrize("share", [0.9, 0.4, 0.01, 0.0])
    def test_filters_are_exact(
        self,
        index: VectorIndex,
        vec_ND: npt.NDArray[np.float32],
        query_QRD: npt.NDArray[np.float32],
        share: float,
    ) -> None:
        """However few may be shown: nothing else is, and as many are found as without a filter."""
        allowed_N = np.random.default_rng(2).random(len(vec_ND)) < share
        allowed_N[0] = False
        self.check(index, vec_ND, query_QRD, allowed_N)

    def test_what_was_seen_stays_out(
        self, index: VectorIndex, vec_ND: npt.NDArray[np.float32], query_QRD: npt.NDArray[np.float32]
    ) -> None:
        """The best themselves are barred: the next best come, all of them."""
        for query_RD in query_QRD[:8]:
            allowed_N = _all(vec_ND)
            seen_K, _ = index.search(query_RD, 300, allowed_N)
            allowed_N[seen_K] = False
            self.check(index, vec_ND, query_RD[None], allowed_N)

    def test_all_there_is(
        self, index: VectorIndex, vec_ND: npt.NDArray[np.float32], query_QRD: npt.NDArray[np.float32]
    ) -> None:
        """Who asks for more than there is gets everything that is allowed."""
        item_K, _ = index.search(query_QRD[0], 2 * ITEMS, _all(vec_ND))
        assert item_K.tolist() == list(range(1, ITEMS + 1))

    def test_ties_are_cut_in_item_order(self, vec_ND: npt.NDArray[np.float32]) -> None:
        """Of equal vectors the first ones answer, the same way every time."""
        twins_ND = vec_ND.copy()
        twins_ND[1000:1200] = 9 * vec_ND[1000] / np.linalg.norm(vec_ND[1000])
        index = self.build(twins_ND)
        found = [index.search(twins_ND[1000][None], 50, _all(twins_ND))[0].tolist() for _ in range(2)]
        assert found[0] == found[1] == list(range(1000, 1050))

    def test_new_items_are_found(
        self, vec_ND: npt.NDArray[np.float32], query_QRD: npt.NDArray[np.float32]
    ) -> None:
        """An item that is added answers at once; one that is barred never again."""
        index = self.build(vec_ND[: ITEMS - 999]).extended(vec_ND[ITEMS - 999 :])
        self.check(index, vec_ND, query_QRD, _all(vec_ND))
        own, _ = index.search(100 * vec_ND[-1:], 10, _all(vec_ND))
        assert ITEMS in own


def _all(vec_ND: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    allowed_N = np.ones(len(vec_ND), np.bool_)
    allowed_N[0] = False
    return allowed_N
