"""The nearest contents of some items: all are compared where items are few, like clusters where they are many.

Legend: N items, C content width, J items that ask, M items that may answer, K neighbours, Q clusters, S a sample.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from penchant.core import Floats, Ints

EXACT = 20_000  # items that may answer: up to here all are compared
_BLOCK_CELLS = 8_000_000  # similarities held at once: 32 MB of float32
_ROUNDS, _SAMPLE = 6, 64  # of k-means, on so many items a cluster
_PROBED = 0.1  # share of the clusters that are looked into
_Found = tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]


def nearest(content_NC: Floats, item_J: Ints, among_M: Ints, count: int) -> _Found:
    """The nearest of some items among others, and their cosines: (J, K) each, K at most ``count``.

    Beyond 20,000 items that may answer they are cut into clusters (spherical k-means, Dhillon and Modha 2001), and an
    item is compared with those of the tenth of the clusters that are nearest to its own: a third
    to a tenth of the work for nine in ten of the nearest. Memory stays flat.

    Args:
        content_NC: (N + 1, C), rows of length 1.
        item_J: Who asks.
        among_M: Who may answer, those who ask among them or not.
        count: How many are wanted.
    """
    count = min(count, len(among_M))
    near_JK = np.zeros((len(item_J), count), np.int64)
    cosine_JK = np.zeros((len(item_J), count), np.float32)
    if not count or not len(item_J):
        return near_JK, cosine_JK
    for row_B, among_P in _groups(content_NC, item_J, among_M, count):
        among_PC = content_NC[among_P]
        step = max(1, _BLOCK_CELLS // len(among_P))
        for start in range(0, len(row_B), step):
            rows = row_B[start : start + step]
            cosine_BP = content_NC[item_J[rows]] @ among_PC.T
            best_BK = np.argpartition(-cosine_BP, count - 1, axis=1)[:, :count]
            near_JK[rows] = among_P[best_BK]
            cosine_JK[rows] = np.take_along_axis(cosine_BP, best_BK, axis=1)
    return near_JK, cosine_JK


def _groups(content_NC: Floats, item_J: Ints, among_M: Ints, count: int) -> Iterator[tuple[Ints, Ints]]:
    """Who asks, as places in ``item_J``, and whom each of them is compared with."""
    if len(among_M) <= EXACT:
        yield np.arange(len(item_J)), among_M
        return
    centre_QC = _centres(content_NC, among_M)
    home_M, home_J = _home(content_NC, among_M, centre_QC), _home(content_NC, item_J, centre_QC)
    by_home = np.argsort(home_M, kind="stable")
    begin_Q = np.searchsorted(home_M[by_home], np.arange(len(centre_QC) + 1))
    probed = max(1, round(_PROBED * len(centre_QC)))
    for home in np.unique(home_J):
        like_Q = np.argsort(-(centre_QC @ centre_QC[home]), kind="stable")
        size_Q = (begin_Q[1:] - begin_Q[:-1])[like_Q].cumsum()
        opened = max(probed, int(np.searchsorted(size_Q, count)) + 1)
        places = [by_home[begin_Q[q] : begin_Q[q + 1]] for q in like_Q[:opened]]
        yield np.flatnonzero(home_J == home), among_M[np.sort(np.concatenate(places))]


def _centres(content_NC: Floats, among_M: Ints) -> npt.NDArray[np.float32]:
    """About the root of M centres, (Q, C), the same for the same items."""
    draw = np.random.default_rng(len(among_M))
    count = round(np.sqrt(len(among_M)))
    item_S = draw.choice(among_M, min(len(among_M), _SAMPLE * count), replace=False)
    centre_QC = np.array(content_NC[item_S[:count]], np.float32)
    for _ in range(_ROUNDS):
        home_S = _home(content_NC, item_S, centre_QC)
        order = np.argsort(home_S, kind="stable")
        filled_Q, begin = np.unique(home_S[order], return_index=True)
        total_QC = np.add.reduceat(content_NC[item_S[order]], begin, axis=0)
        length_Q1 = np.linalg.norm(total_QC, axis=1, keepdims=True)
        centre_QC[filled_Q] = total_QC / np.maximum(length_Q1, 1e-12)
    return centre_QC


def _home(content_NC: Floats, item_J: Ints, centre_QC: Floats) -> npt.NDArray[np.int64]:
    """The nearest centre of each item, (J,)."""
    step = max(1, _BLOCK_CELLS // len(centre_QC))
    parts = [
        (content_NC[item_J[start : start + step]] @ centre_QC.T).argmax(axis=1)
        for start in range(0, len(item_J), step)
    ]
    return np.concatenate(parts).astype(np.int64)
