"""Rows of a matrix in a few numbers, and items by the company they keep: the same bits every time."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from penchant.core import Floats, Ints

_SHRUNK = 10  # people beside whom an item's own count for half


def row_factors(matrix_NK: Floats | sparse.csr_matrix, width: int, draw: np.random.Generator) -> Floats:
    """Left singular vectors times singular values, (N, D), D at most ``width``; no column where too little is known.

    A truncated singular value decomposition by Lanczos iterations (ARPACK), as ``scipy.sparse.linalg.svds`` makes it.
    That one hands no generator on to the restarts, which equal singular values lead to: the same input then gives
    other bases from call to call.

    Args:
        matrix_NK: Sparse or dense.
        width: Numbers wanted.
        draw: Starts the iterations, and starts them anew.

    Example:
        >>> two = row_factors(np.array([[2.0, 0, 0], [0, 1, 0], [2, 0, 0]]), 1, np.random.default_rng(0))
        >>> abs(two).round(6).ravel().tolist()
        [2.0, 0.0, 2.0]
    """
    from scipy.sparse.linalg import LinearOperator, eigsh

    filled = int((np.asarray(abs(matrix_NK).sum(1)).ravel() > 0).sum())
    width = min(width, filled - 1, min(matrix_NK.shape) - 1)
    if width < 1:
        return np.zeros((matrix_NK.shape[0], 0))
    tall = matrix_NK.shape[0] >= matrix_NK.shape[1]
    from_short, to_short = (matrix_NK, matrix_NK.T) if tall else (matrix_NK.T, matrix_NK)
    size = min(matrix_NK.shape)
    gram = LinearOperator((size, size), matvec=lambda x: to_short @ (from_short @ x), dtype=np.float64)
    _, basis_SD = eigsh(gram, k=width, v0=draw.standard_normal(size), rng=draw)
    basis_SD, _ = np.linalg.qr(basis_SD)  # of equal values the vectors are not exactly orthonormal
    left, size_D, right_DD = np.linalg.svd(from_short @ basis_SD, full_matrices=False)
    rows_ND = left if tall else basis_SD @ right_DD.T
    return np.asarray((rows_ND * size_D)[:, ::-1])


def unit_rows(vec_ND: Floats) -> Floats:
    """Rows of length one; zeros stay."""
    length_N = np.linalg.norm(vec_ND, axis=1, keepdims=True)
    return np.where(length_N > 1e-9, vec_ND / np.maximum(length_N, 1e-9), 0.0)


def company_vectors(
    person_P: Ints,
    item_P: Ints,
    shape: tuple[int, int],
    width: int,
    draw: np.random.Generator,
    count_N: Floats | None = None,
) -> Floats:
    """Items by the company they keep: (N + 1, D), rows of length one, shorter where an item has little history.

    Who turned to what, people and items weighed by the root of their counts, little-known items shrunk, in
    ``row_factors``.

    Args:
        person_P: From 0, side by side with ``item_P``; how often a pair comes does not matter.
        item_P: From 1.
        shape: People, and N + 1.
        width: Numbers wanted.
        draw: For ``row_factors``.
        count_N: How much is known of each item, (N + 1,); None: how many people turned to it.
    """
    matrix_UN = sparse.csr_matrix((np.ones(len(item_P)), (person_P, item_P)), shape=shape)
    matrix_UN.data[:] = 1.0
    count_N = np.asarray(matrix_UN.sum(0)).ravel() if count_N is None else count_N
    active_U = np.maximum(np.asarray(matrix_UN.sum(1)).ravel(), 1)
    weighed = sparse.diags(active_U**-0.5) @ matrix_UN @ sparse.diags((5 + count_N) ** -0.5)
    vec_ND = unit_rows(row_factors(weighed.T.tocsr(), width, draw))
    return np.asarray(vec_ND * np.sqrt(count_N / (count_N + _SHRUNK))[:, None])
