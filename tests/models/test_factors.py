import numpy as np
import pytest
from scipy import sparse
from scipy.sparse.linalg import svds

from penchant.models._factors import company_vectors, row_factors


@pytest.mark.parametrize("shape", [(60, 40), (40, 60)])
def test_the_factors_are_those_of_a_singular_value_decomposition(shape):
    matrix = sparse.random(*shape, 0.3, random_state=1, format="csr")
    found = row_factors(matrix, 5, np.random.default_rng(0))
    left, size_D, _ = svds(matrix, k=5, random_state=np.random.default_rng(0))
    np.testing.assert_allclose(found, left * size_D, atol=1e-6)
    dense = row_factors(matrix.toarray(), 5, np.random.default_rng(0))
    np.testing.assert_allclose(dense @ dense.T, found @ found.T, atol=1e-6)  # a sign is anybody's


def test_equal_singular_values_give_the_same_bits_every_time():
    """Items of three kinds and six sorts, all alike: the iterations run out of directions and begin anew."""
    item = np.repeat(np.arange(1, 25), 2)
    label = np.stack([1 + np.arange(24) % 3, 4 + np.arange(24) % 6], 1).ravel()
    weight_K = np.log(25 / np.bincount(label, minlength=10).clip(1))
    matrix = sparse.csr_matrix((weight_K[label], (item, label)), shape=(25, 10))
    for width in (5, 7, 8):
        made = {row_factors(matrix, width, np.random.default_rng(0)).tobytes() for _ in range(40)}
        assert len(made) == 1


def test_nothing_known_gives_no_numbers():
    assert row_factors(np.zeros((4, 3)), 2, np.random.default_rng(0)).shape == (4, 0)
    assert row_factors(np.array([[1.0, 0.0], [0.0, 0.0]]), 2, np.random.default_rng(0)).shape == (2, 0)


def test_items_of_the_same_people_lie_together():
    person = np.repeat(np.arange(40), 3)
    item = np.concatenate([draw + 3 * (n % 2) for n, draw in enumerate(np.tile([1, 2, 3], (40, 1)))])
    vec_ND = company_vectors(person, item, (40, 8), 2, np.random.default_rng(0))
    alike = vec_ND @ vec_ND.T
    assert alike[1, 2] > 0.5 > abs(alike[1, 4])
    assert not vec_ND[[0, 7]].any()
