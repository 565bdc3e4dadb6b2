"""Nearest contents: exactly where items are few, nearly so by clusters where they are many."""

from __future__ import annotations

import numpy as np
import pytest

from penchant.models import _nearest
from penchant.models._nearest import nearest


def contents(count: int, topics: int, seed: int = 0) -> np.ndarray:
    """Items around topics; row 0 is no item."""
    draw = np.random.default_rng(seed)
    centre = draw.normal(size=(topics, 24))
    found = centre[draw.integers(topics, size=count)] + 0.5 * draw.normal(size=(count, 24))
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    return np.r_[np.zeros((1, 24)), found].astype(np.float32)


def slow(content: np.ndarray, item: int, among: np.ndarray, count: int) -> set[int]:
    return set(among[np.argsort(-(content[among] @ content[item]))[:count]].tolist())


@pytest.mark.parametrize("cells", [500, 8_000_000])
def test_it_finds_the_nearest(monkeypatch: pytest.MonkeyPatch, cells: int) -> None:
    """Whatever the blocks."""
    monkeypatch.setattr(_nearest, "_BLOCK_CELLS", cells)
    content = contents(300, 12)
    asking, among = np.arange(1, 301, 7), np.arange(2, 301, 2)
    near_JK, cosine_JK = nearest(content, asking, among, 10)
    for item, near_K, cosine_K in zip(asking, near_JK, cosine_JK, strict=True):
        assert set(near_K.tolist()) == slow(content, item, among, 10)
        np.testing.assert_allclose(cosine_K, content[near_K] @ content[item], rtol=1e-5)


def test_there_may_be_fewer_than_are_wanted() -> None:
    content = contents(30, 3)
    assert nearest(content, np.arange(1, 31), np.array([4, 9]), 10)[0].shape == (30, 2)
    assert nearest(content, np.arange(1, 31), np.array([], np.int64), 10)[0].shape == (30, 0)
    assert nearest(content, np.array([], np.int64), np.arange(1, 31), 10)[0].shape == (0, 10)


def test_clusters_find_most_of_the_nearest_at_a_part_of_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    content = contents(6000, 60)
    asking, among = np.arange(1, 6001, 11), np.arange(1, 6001)
    exact_JK, _ = nearest(content, asking, among, 50)
    monkeypatch.setattr(_nearest, "EXACT", 5000)
    pairs = sum(len(rows) * len(items) for rows, items in _nearest._groups(content, asking, among, 50))
    assert pairs < 0.2 * len(asking) * len(among)
    near_JK, _ = nearest(content, asking, among, 50)
    found = [len(set(a) & set(b)) / 50 for a, b in zip(exact_JK.tolist(), near_JK.tolist(), strict=True)]
    assert np.mean(found) > 0.9
    assert all(len(set(row)) == 50 for row in near_JK.tolist())
    again_JK, _ = nearest(content, asking, among, 50)
    np.testing.assert_array_equal(near_JK, again_JK)


def test_clusters_open_until_there_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_nearest, "EXACT", 100)
    content = contents(400, 5)
    near_JK, _ = nearest(content, np.arange(1, 401), np.arange(1, 401), 390)
    assert all(len(set(row)) == 390 for row in near_JK.tolist())
