"""Item vectors for the map of interests, from whatever is known of items, and their clusters.

Letters: N items, D width, U users, K labels.
"""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt
from scipy import sparse

from penchant.core import Floats, Snapshot, rng
from penchant.data import item_content, item_labels
from penchant.models._counts import positives
from penchant.models._factors import company_vectors, row_factors, unit_rows

_SAMPLE = 50_000  # items that clusters are found on
_ROUNDS = 30
_TRIES = 4  # beginnings; the tightest clusters are kept


def item_vectors(snapshot: Snapshot, width: int, seed: int = 0) -> npt.NDArray[np.float32]:
    """Unit vectors of items by the company they keep, their labels and their content: (N + 1, D) float32.

    Each source gives up to ``width`` numbers by a truncated singular value decomposition and weighs the same where it
    knows something of an item; what has no history is placed by the others. Zeros where nothing is known.
    """
    found, shape = positives(snapshot), (snapshot.num_users, snapshot.num_items + 1)
    parts = [
        company_vectors(found.user, found.item, shape, width, rng(seed, "vectors")),
        _label_vectors(snapshot, width, seed),
        _content(snapshot, width, seed),
    ]
    parts = [part for part in parts if part.shape[1]]
    joined_ND = np.concatenate(parts, 1) if parts else np.zeros((snapshot.num_items + 1, 1))
    return unit_rows(joined_ND).astype(np.float32)


def _label_vectors(snapshot: Snapshot, width: int, seed: int) -> Floats:
    """Brand, steps of the category and labels, the rare ones weighing more."""
    label_NL = item_labels(snapshot)
    item, column = np.nonzero(label_NL)
    if not len(item):
        return np.zeros((len(label_NL), 0))
    label = label_NL[item, column]
    weight_K = np.log(len(label_NL) / np.maximum(np.bincount(label), 1))
    matrix_NK = sparse.csr_matrix((weight_K[label], (item, label)), shape=(len(label_NL), len(weight_K)))
    return unit_rows(row_factors(matrix_NK, width, rng(seed, "vectors")))


def _content(snapshot: Snapshot, width: int, seed: int) -> Floats:
    content_NC = item_content(snapshot)
    if content_NC is None:
        return np.zeros((snapshot.num_items + 1, 0))
    return unit_rows(row_factors(np.asarray(content_NC, np.float64), width, rng(seed, "vectors")))


def cluster(vec_ND: npt.NDArray[np.float32], most: int, fewest: int, seed: int = 0) -> npt.NDArray[np.int64]:
    """Group items by k-means on unit vectors: number of each item's group from 1, (N + 1,); 0 where nothing is known.

    As many groups as the root of half the items, at most ``most``; one of fewer than ``fewest`` items goes to its
    neighbours.
    """
    from scipy.cluster.vq import kmeans2

    known = np.flatnonzero(np.linalg.norm(vec_ND, axis=1) > 0)
    num = min(most, round((len(known) / 2) ** 0.5))
    group_N = np.zeros(len(vec_ND), np.int64)
    if num < 2:
        return group_N
    draw = rng(seed, "clusters")
    some = known if len(known) <= _SAMPLE else np.sort(draw.choice(known, _SAMPLE, replace=False))
    point_SD = vec_ND[some].astype(np.float64)
    num = min(num, len(np.unique(point_SD.round(6), axis=0)))  # alike items have one place among them
    if num < 2:
        return group_N
    tried = []
    for _ in range(_TRIES):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "One of the clusters is empty", UserWarning)  # it goes below
            centre_GD, own_S = kmeans2(point_SD, num, iter=_ROUNDS, minit="++", rng=draw, missing="warn")
        tried.append((float(((point_SD - centre_GD[own_S]) ** 2).sum()), centre_GD))
    centre_GD = min(tried, key=lambda pair: pair[0])[1]
    while True:
        nearest = _nearest(vec_ND[known], centre_GD)
        size_G = np.bincount(nearest, minlength=len(centre_GD))
        if size_G.min() >= fewest or len(centre_GD) <= 2:
            break
        centre_GD = np.delete(centre_GD, int(size_G.argmin()), axis=0)
    group_N[known] = np.unique(nearest, return_inverse=True)[1] + 1
    return group_N


def _nearest(vec_ND: npt.NDArray[np.float32], centre_GD: Floats) -> npt.NDArray[np.int64]:
    half_G = 0.5 * (centre_GD**2).sum(1)
    found = [
        (vec_ND[at : at + 10_000] @ centre_GD.T - half_G).argmax(1) for at in range(0, len(vec_ND), 10_000)
    ]
    return np.concatenate(found)
