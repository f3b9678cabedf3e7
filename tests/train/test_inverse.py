"""The inverse that is never made, against the one that is."""

import numpy as np
import numpy.typing as npt
import pytest
from numpy.testing import assert_allclose
from scipy import sparse

from train.ease.solver import Direct, Iterated, inverse, leading

Matrix = npt.NDArray[np.float64]


def some(height: int, items: int, *, dtype: type = np.float64) -> sparse.csr_array:
    """A tenth of the entries are there, some items in many rows, others in few."""
    random = np.random.default_rng(0)
    often = random.uniform(0.02, 0.3, items)
    return sparse.csr_array((random.random((height, items)) < often).astype(dtype))


def made(rows: sparse.csr_array, ridge: float) -> Matrix:
    dense = rows.toarray().astype(np.float64)
    inverted: Matrix = np.linalg.inv(dense.T @ dense + ridge * np.eye(dense.shape[1]))
    return inverted


@pytest.mark.parametrize(("height", "items"), [(30, 80), (80, 30), (1, 5), (5, 1), (0, 4)])
def test_direct(height: int, items: int) -> None:
    rows = some(height, items)
    found = inverse(rows, 3.0, None, generator=np.random.default_rng(0))
    assert isinstance(found, Direct)
    assert_allclose(found(np.eye(items)), made(rows, 3.0), atol=1e-10)
    assert_allclose(found.diagonal, np.diag(made(rows, 3.0)), atol=1e-10)


def test_iterated() -> None:
    rows = some(300, 120, dtype=np.float32)
    known = leading(rows, width=100, generator=np.random.default_rng(0))
    found = Iterated(rows, 20.0, known, generator=np.random.default_rng(0))
    expected = made(rows, 20.0)
    vectors = np.random.default_rng(1).standard_normal((120, 7))
    assert_allclose(found(vectors), expected @ vectors, atol=0.01 * np.abs(expected @ vectors).max())
    # From 100 random vectors: what is estimated is what the leading ones leave.
    assert_allclose(found.diagonal, np.diag(expected), rtol=0.05)


def test_leading_are_the_largest() -> None:
    rows = some(60, 40)
    found = leading(rows, width=30, generator=np.random.default_rng(0))
    expected = np.linalg.eigvalsh(rows.toarray().T @ rows.toarray())[::-1]
    assert_allclose(found.values[:10], expected[:10], rtol=1e-3)
    assert_allclose(found.basis.T @ found.basis, np.eye(30), atol=1e-6)
