"""Where training starts: the counts, their eigenvectors, and the closed form."""

import numpy as np
import numpy.typing as npt
import pytest
from numpy.testing import assert_allclose
from scipy import sparse

from train.batches import Histories
from train.counts import FADE, follows, together
from train.initial import spectral
from train.linear import RIDGES, factors

Matrix = npt.NDArray[np.float64]


def histories(*items: list[int]) -> Histories:
    owner = np.repeat(np.arange(len(items)), [len(part) for part in items])
    return Histories.from_rows(owner.astype(np.int64), np.concatenate(items).astype(np.int64))


def planted(users: int = 60, items: int = 24, seed: int = 0) -> Histories:
    """Even users take even items, odd ones odd items."""
    random = np.random.default_rng(seed)
    return histories(*(random.permutation(np.arange(user % 2, items, 2))[:6].tolist() for user in range(users)))


def test_follows_by_hand() -> None:
    counted = follows(histories([0, 1, 2], [0, 1]), catalogue=3, window=2, both=False, read=1.0, found=0.0).toarray()
    # 0 is had twice, 1 twice, 2 once; 2 comes two places after 0.
    assert_allclose(counted, np.array([[0.0, 1.0, FADE / 2], [0.0, 0.0, 0.5], [0.0, 0.0, 0.0]]), rtol=1e-6)
    both = follows(histories([0, 1, 2], [0, 1]), catalogue=3, window=1, both=True).toarray()
    assert_allclose(both, both.T)
    assert both[0, 2] == 0


def test_together_is_the_matrix_it_never_makes() -> None:
    given = histories([0, 1, 2], [2, 0], [3])
    taken = np.array([[1, 1, 1, 0], [1, 0, 1, 0], [0, 0, 0, 1]], dtype=np.float64)
    scale = np.diag(taken.sum(axis=0) ** -0.5)
    expected = scale @ taken.T @ np.diag([1 / 3, 1 / 2, 1]) @ taken @ scale
    assert_allclose(together(given, catalogue=4)(np.eye(4)), expected, rtol=1e-6)


def test_a_spectral_start_puts_together_what_is_taken_together() -> None:
    counts = follows(planted(), catalogue=25, window=5, both=True)
    vectors = spectral(counts.__matmul__, items=25, dim=8, generator=np.random.default_rng(0))
    assert_allclose(np.linalg.norm(vectors, axis=1), [1.0] * 24 + [0.0], atol=1e-5)  # nobody took item 24
    cosines = vectors[:24] @ vectors[:24].T
    even = np.arange(24) % 2 == 0
    assert cosines[even][:, even].mean() > cosines[even][:, ~even].mean() + 0.2


def ease(taken: Matrix, ridge: float) -> Matrix:
    """The matrix of arXiv 1905.03375, as its listing has it."""
    inverse = np.linalg.inv(taken.T @ taken + ridge * np.eye(taken.shape[1]))
    weights: Matrix = inverse / -np.diag(inverse)
    np.fill_diagonal(weights, 0)
    return weights


@pytest.mark.parametrize("users", [12, 60])  # fewer than the items, and more
def test_the_closed_form_is_ease(users: int) -> None:
    given = planted(users)
    taken = np.zeros((users, 24))
    taken[np.repeat(np.arange(users), given.lengths), given.items] = 1
    made = factors(given, catalogue=24, dim=25, ridge=RIDGES[0], generator=np.random.default_rng(0))
    assert_allclose(np.linalg.norm(made.target, axis=1), np.ones(24), rtol=1e-5)
    assert not made.source[:, -1].any()
    scores = made.source @ made.target.T
    expected = ease(taken, RIDGES[0])
    factor = np.linalg.norm(expected) / np.linalg.norm(scores)
    assert_allclose(scores * factor, expected, atol=1e-3 * np.abs(expected).max())


def test_a_product_with_a_sparse_matrix_is_what_spectral_takes() -> None:
    matrix = sparse.csr_array(np.diag([3.0, 2.0, 1.0]).astype(np.float32))
    vectors = spectral(matrix.__matmul__, items=3, dim=3, generator=np.random.default_rng(0))
    assert_allclose(vectors @ vectors.T, np.eye(3), atol=1e-5)
