"""Rows of different lengths in flat arrays: the few operations everyone here needs."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from penchant.core import Ints

Int64s = npt.NDArray[np.int64]


def ragged_range(start: Ints, stop: Ints) -> Int64s:
    """All numbers of some ranges, one range after the other.

    Example:
        >>> ragged_range(np.array([5, 0]), np.array([7, 3])).tolist()
        [5, 6, 0, 1, 2]
    """
    first = np.asarray(start, np.int64)
    length: Int64s = np.maximum(np.asarray(stop, np.int64) - first, 0)
    shift: Int64s = first - (np.cumsum(length) - length)
    numbers: Int64s = np.arange(int(length.sum()), dtype=np.int64) + np.repeat(shift, length)
    return numbers


def offsets(count: Ints) -> Int64s:
    """Where rows of these lengths begin, and where the last ends.

    Example:
        >>> offsets(np.array([2, 0, 3])).tolist()
        [0, 2, 2, 5]
    """
    ptr = np.zeros(len(count) + 1, np.int64)
    np.cumsum(count, out=ptr[1:])
    return ptr


def user_blocks(ptr: Ints, block: int) -> list[tuple[int, int]]:
    """Cut rows into runs of about ``block`` events: pairs (first row, last row + 1) that cover all rows.

    Example:
        >>> user_blocks(np.array([0, 2, 4, 9, 10]), 4)
        [(0, 2), (2, 3), (3, 4)]
    """
    rows, first = len(ptr) - 1, 0
    found: list[tuple[int, int]] = []
    while first < rows:
        last = int(np.searchsorted(ptr, ptr[first] + block, side="right")) - 1
        last = min(rows, max(first + 1, last))
        found.append((first, last))
        first = last
    return found
