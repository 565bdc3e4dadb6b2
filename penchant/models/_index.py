"""Finding the items whose vectors suit a person best: exactly, or nearly so and faster where there are many.

Letters: N items, D width, R interests, K answers, Q queries. Row n of ``vec_ND`` belongs to item number n; row 0 is no
item and never an answer. The score of an item is the best of its dot products with the R interests, plus its bias:
what is added to it whoever asks.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Self

import msgspec
import numpy as np
import numpy.typing as npt

from penchant.core import Bools, Estimate, Floats, Ints, VectorIndex
from penchant.core.errors import ArtifactError, InputError, MissingExtra

INDEX_ITEMS = (
    100_000  # from here on an approximate index is built and measured; below, exact search is fast enough
)
RECALL = 0.98  # share of the true best that an approximate index has to find
_AT = 100  # how many of the best that is asked of
_RARE = 0.001  # share of the biases, at either end, that are no usual ones
_DEPTHS = (500, 1000, 2000, 4000, 8000, 16_000, 32_000)  # items scored exactly after an approximate search
_TRAINED_ON = 65_536  # vectors that codes are learned from
_WORTH_SCANNING = 0.25  # up to this share of the items their vectors are gathered; above, all are multiplied
_Vectors = npt.NDArray[np.float32]
_Found = tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]


def best_of(item_K: Ints, score_K: Floats, limit: int) -> _Found:
    """The ``limit`` highest scores among some items (ascending), in item order; ties are cut in item order.

    Example:
        >>> best_of(np.array([2, 5, 7]), np.array([1.0, 3.0, 1.0]), 2)[0].tolist()
        [2, 5]
    """
    if len(item_K) > limit:
        bar = np.partition(score_K, len(score_K) - limit)[len(score_K) - limit]
        above = score_K > bar
        level = np.flatnonzero(score_K == bar)
        above[level[: limit - np.count_nonzero(above)]] = True
        item_K, score_K = item_K[above], score_K[above]
    return item_K.astype(np.int64, copy=False), score_K.astype(np.float32, copy=False)


def best_allowed(score_N: npt.NDArray[np.float32], allowed_N: Bools, limit: int) -> _Found:
    """The same of the allowed items by the scores of all, (N + 1,); scores that are not finite never come.

    Most items are never sorted: the scores of one in eight say which bar about as many as are wanted reach.

    Example:
        >>> score_N, allowed_N = np.float32([9, 1, np.nan, 3, 1]), np.array([False, True, True, True, True])
        >>> best_allowed(score_N, allowed_N, 2)[0].tolist()
        [1, 3]
    """
    score_N = score_N.astype(np.float32, copy=False)
    sample, among = score_N[::8], int(np.count_nonzero(allowed_N))
    rank = len(sample) * (limit + limit // 4) // max(among, 1) + 16
    if rank < len(sample):
        bar = np.partition(sample, len(sample) - rank)[len(sample) - rank]
        item_K = np.flatnonzero((score_N >= bar) & allowed_N)
        score_K = score_N[item_K]
        if len(item_K) >= limit and -np.inf < score_K.min() and score_K.max() < np.inf:
            return best_of(item_K, score_K, limit)
    item_K = np.flatnonzero(allowed_N & np.isfinite(score_N))
    return best_of(item_K, score_N[item_K], limit)


def distinct(*parts: Ints) -> npt.NDArray[np.int64]:
    """All numbers of some arrays, in order, each once; for a few thousand faster than the hashing of ``np.unique``."""
    number_P = np.sort(np.concatenate(parts).astype(np.int64))
    return number_P[np.diff(number_P, prepend=-1) > 0]


class ExactIndex:
    """Multiplies all vectors. Fulfils ``VectorIndex``; nothing to build.

    Example:
        >>> index = ExactIndex(np.array([[0, 0], [1, 0], [0, 2]], np.float32))
        >>> index.search(np.array([[1, 1]], np.float32), 1, np.array([False, True, True]))[0].tolist()
        [2]
    """

    kind = "exact"

    def __init__(self, vec_ND: _Vectors, bias_N: _Vectors | None = None) -> None:
        self.vec_ND, self.bias_N = vec_ND, bias_N

    def search(self, query_RD: Floats, k: int, allowed_N: Bools) -> _Found:
        """The k best of the allowed items, in item order, and their scores."""
        count = np.count_nonzero(allowed_N)
        if count <= _WORTH_SCANNING * len(allowed_N):
            item_K = np.flatnonzero(allowed_N)
            return best_of(item_K, self.scores(item_K, query_RD), k)
        return best_allowed(scores_of(self.vec_ND, query_RD, self.bias_N), allowed_N, k)

    def scores(self, item_K: Ints, query_RD: Floats) -> npt.NDArray[np.float32]:
        """Scores of some items: (K,)."""
        return scores_of(self.vec_ND[item_K], query_RD, None if self.bias_N is None else self.bias_N[item_K])

    def extended(self, vec_AD: _Vectors, bias_A: _Vectors | None = None) -> Self:
        """An index with items added at the end; they are numbered on from the last."""
        bias_N = self.bias_N
        if bias_N is not None:
            bias_N = np.r_[bias_N, np.zeros(len(vec_AD), np.float32) if bias_A is None else bias_A]
        return type(self)(np.concatenate([self.vec_ND, vec_AD.astype(np.float32)]), bias_N)


def scores_of(vec_KD: _Vectors, query_RD: Floats, bias_K: _Vectors | None = None) -> npt.NDArray[np.float32]:
    """Scores of some vectors: (K,)."""
    score_K: npt.NDArray[np.float32] = vec_KD @ query_RD[0]
    for query_D in query_RD[1:]:
        np.maximum(score_K, vec_KD @ query_D, out=score_K)
    if bias_K is not None:
        score_K += bias_K
    return score_K


class QuantizedIndex:
    """Scans codes of four bits a dimension, then scores the ``depth`` best of them exactly. Fulfils ``VectorIndex``.

    Product quantization (Jegou et al. 2011) read sixteen codes at a time (Andre et al. 2017, "Quicker ADC"), by faiss
    (Douze et al. 2024). Filters are exact: the search goes deeper by as much as they leave out, and where that is no
    gain, or too little is found, all allowed items are scored. A bias is one dimension more of every vector, which each
    query asks for once; a few biases far from all others would spoil its sixteen levels, so that they are coded as the
    last usual one, and the items of the highest are among those scored exactly in every search.

    Raises:
        MissingExtra: faiss is not installed.
    """

    kind = "quantized"

    def __init__(self, vec_ND: _Vectors, codes: Any, depth: int, bias_N: _Vectors | None = None) -> None:
        self._exact, self._codes, self.depth = ExactIndex(vec_ND, bias_N), codes, depth
        self._usual = _usual_range(bias_N)
        self._above_K = np.empty(0, np.int64) if bias_N is None else np.flatnonzero(bias_N > self._usual[1])

    @classmethod
    def build(cls, vec_ND: _Vectors, bias_N: _Vectors | None = None, depth: int = _DEPTHS[2]) -> Self:
        """Learn the codes from a sample of the vectors and encode them all; the same vectors give the same codes."""
        faiss = _faiss()
        coded_NC = _with_bias(vec_ND, bias_N, _usual_range(bias_N))
        width = coded_NC.shape[1]
        codes = faiss.index_factory(width, f"PQ{width}x4fs", faiss.METRIC_INNER_PRODUCT)
        step = max(1, len(vec_ND) // _TRAINED_ON)
        codes.train(np.ascontiguousarray(coded_NC[1::step]))
        codes.add(coded_NC)
        return cls(vec_ND, codes, depth, bias_N)

    @classmethod
    def load(
        cls, vec_ND: _Vectors, stored: npt.NDArray[np.uint8], depth: int, bias_N: _Vectors | None = None
    ) -> Self:
        """Read what ``stored`` wrote.

        Raises:
            ArtifactError: The bytes are no index of these vectors.
        """
        faiss = _faiss()
        try:
            codes = faiss.deserialize_index(np.array(stored))
        except RuntimeError as error:
            raise ArtifactError("the index of the items is damaged", value=str(error)[:80]) from None
        items, width = vec_ND.shape
        if (codes.ntotal, codes.d) != (items, width + (bias_N is not None)):
            raise ArtifactError(
                "the index is of other items", value=(codes.ntotal, codes.d), hint="train again"
            )
        return cls(vec_ND, codes, depth, bias_N)

    def stored(self) -> npt.NDArray[np.uint8]:
        """The codes as bytes, without the vectors."""
        found: npt.NDArray[np.uint8] = _faiss().serialize_index(self._codes)
        return found

    def at(self, depth: int) -> QuantizedIndex:
        """The same codes with another depth."""
        return QuantizedIndex(self._exact.vec_ND, self._codes, depth, self._exact.bias_N)

    def biased(self, bias_N: _Vectors) -> Self:
        """The same vectors with another bias in place of the one they were built with: encoded anew, not learned."""
        codes = _faiss().clone_index(self._codes)
        codes.reset()
        codes.add(_with_bias(self._exact.vec_ND, bias_N, _usual_range(bias_N)))
        return type(self)(self._exact.vec_ND, codes, self.depth, bias_N)

    def search(self, query_RD: Floats, k: int, allowed_N: Bools) -> _Found:
        """The k best of the allowed items as far as found, in item order, and their exact scores."""
        allowed = int(np.count_nonzero(allowed_N))
        total = len(allowed_N)
        deep = int(max(self.depth, 4 * k) * total / max(1, allowed))
        if deep * len(query_RD) > total // 4:
            return self._exact.search(query_RD, k, allowed_N)
        asked_RC = _with_bias(
            query_RD, None if self._exact.bias_N is None else np.ones(len(query_RD), np.float32)
        )
        _, near_RK = self._codes.search(asked_RC, deep)
        item_K = distinct(near_RK.ravel(), self._above_K)  # -1, where less was found, is none
        item_K = item_K[allowed_N[item_K]]
        if len(item_K) < min(k, allowed):
            return self._exact.search(query_RD, k, allowed_N)
        return best_of(item_K, self._exact.scores(item_K, query_RD), k)

    def extended(self, vec_AD: _Vectors, bias_A: _Vectors | None = None) -> Self:
        """An index with items added at the end, by the codes as they were learned; numbered on from the last."""
        exact = self._exact.extended(vec_AD, bias_A)
        codes = _faiss().clone_index(self._codes)
        bias_A = None if exact.bias_N is None else exact.bias_N[-len(vec_AD) :]
        codes.add(_with_bias(vec_AD, bias_A, self._usual))
        return type(self)(exact.vec_ND, codes, self.depth, exact.bias_N)


def _usual_range(bias_N: _Vectors | None) -> tuple[float, float]:
    """Between which values all biases but a few lie."""
    if bias_N is None:
        return -np.inf, np.inf
    low, high = np.quantile(bias_N, (_RARE, 1 - _RARE))
    return float(low), float(high)


def _with_bias(
    vec_KD: Floats, bias_K: _Vectors | None, usual: tuple[float, float] = (-np.inf, np.inf)
) -> _Vectors:
    """Vectors as faiss reads them, the bias as their last column, no further out than usual."""
    if bias_K is None:
        return np.ascontiguousarray(vec_KD, np.float32)
    bias_K = np.clip(bias_K, *usual)
    return np.concatenate([vec_KD, bias_K[:, None]], axis=1, dtype=np.float32)


def _faiss() -> Any:
    try:
        import faiss
    except ImportError:
        raise MissingExtra("index", "approximate search of item vectors") from None
    faiss.omp_set_num_threads(1)  # a request is short: waiting for other threads costs more than they bring
    return faiss


class IndexReport(msgspec.Struct, frozen=True):
    """What was measured of exact and approximate search, and which was taken."""

    kind: str
    items: int
    depth: int  # 0 for exact search
    recall: Estimate  # share of the true best 100 found
    ms: float  # median of one search, CPU
    exact_ms: float
    build_seconds: float
    bytes: int  # beside the vectors
    note: str


def choose_index(
    vec_ND: _Vectors,
    query_QRD: Floats,
    bias_N: _Vectors | None = None,
    depths: Sequence[int] = _DEPTHS,
) -> tuple[VectorIndex, IndexReport]:
    """Build an approximate index, measure it beside exact search, keep the faster that finds 98 % of the best 100.

    Args:
        vec_ND: Item vectors.
        query_QRD: Interests of real people, (Q, R, D): made-up ones would measure another recall.
        bias_N: What is added to the score of every item.
        depths: How many items may be scored exactly, from few to many; the first that suffices is taken.

    Raises:
        InputError: There is nobody to measure with.
    """
    if not len(query_QRD):
        raise InputError("an index is measured on the interests of people, and there are none", value=0)
    exact = ExactIndex(vec_ND, bias_N)
    allowed_N = np.ones(len(vec_ND), np.bool_)
    allowed_N[0] = False
    truth, exact_ms = _searched(exact, query_QRD, allowed_N)
    whole = Estimate(1.0, 1.0, 1.0, len(query_QRD), "exact")
    report = IndexReport("exact", len(vec_ND) - 1, 0, whole, exact_ms, exact_ms, 0.0, 0, "exact search")
    begun = time.perf_counter()
    try:
        codes = QuantizedIndex.build(vec_ND, bias_N)
    except MissingExtra:
        note = (
            f"exact search of {report.items:,} items: to have a faster one measured, pip install 'penchant[index]' "
            "and train again"
        )
        return exact, msgspec.structs.replace(report, note=note)
    built, size = time.perf_counter() - begun, len(codes.stored())
    for depth in depths:
        index = codes.at(depth)
        found, ms = _searched(index, query_QRD, allowed_N)
        share_Q = np.array([np.isin(t, f).mean() for t, f in zip(truth, found, strict=True)])
        recall = _mean(share_Q)
        if recall.value >= RECALL:
            if ms >= exact_ms:
                break
            note = f"approximate search finds {recall.value:.1%} of the best {_AT}, {exact_ms / ms:.1f} times as fast"
            return index, IndexReport(
                "quantized", report.items, depth, recall, ms, exact_ms, round(built, 1), size, note
            )
    note = f"exact search: an approximate one that finds {RECALL:.0%} of the best {_AT} is no faster here"
    return exact, msgspec.structs.replace(report, note=note)


def _searched(
    index: VectorIndex, query_QRD: Floats, allowed_N: Bools
) -> tuple[list[npt.NDArray[np.int64]], float]:
    """What an index finds for each query, and the median CPU milliseconds of a search."""
    found, seconds = [], []
    for query_RD in query_QRD:
        begun = time.thread_time()
        found.append(index.search(query_RD, _AT, allowed_N)[0])
        seconds.append(time.thread_time() - begun)
    return found, round(1000 * float(np.median(seconds)), 3)


def _mean(share_Q: npt.NDArray[np.float64]) -> Estimate:
    """Mean with its normal 95 % interval."""
    mean, half = float(share_Q.mean()), 1.96 * float(share_Q.std()) / np.sqrt(len(share_Q))
    return Estimate(mean, mean - half, min(1.0, mean + half), len(share_Q), "normal")
