"""The spectral start: counts of items that stand near each other, and their eigenvectors."""

import numpy as np
from numpy.testing import assert_allclose
from scipy import sparse

from tests.support.histories import histories_of, planted_histories
from train.data.cooccurrence import FADE, FEATURES, follows, near, together
from train.ease.warm_start import spectral


def test_follows_by_hand() -> None:
    counted = follows(histories_of([0, 1, 2], [0, 1]), catalogue=3, window=2, both=False, read=1.0, found=0.0).toarray()
    # 0 is had twice, 1 twice, 2 once; 2 comes two places after 0.
    assert_allclose(counted, np.array([[0.0, 1.0, FADE / 2], [0.0, 0.0, 0.5], [0.0, 0.0, 0.0]]), rtol=1e-6)
    both = follows(histories_of([0, 1, 2], [0, 1]), catalogue=3, window=1, both=True).toarray()
    assert_allclose(both, both.T)
    assert both[0, 2] == 0


def test_together_is_the_matrix_it_never_makes() -> None:
    given = histories_of([0, 1, 2], [2, 0], [3])
    taken = np.array([[1, 1, 1, 0], [1, 0, 1, 0], [0, 0, 0, 1]], dtype=np.float64)
    scale = np.diag(taken.sum(axis=0) ** -0.5)
    expected = scale @ taken.T @ np.diag([1 / 3, 1 / 2, 1]) @ taken @ scale
    assert_allclose(together(given, catalogue=4)(np.eye(4)), expected, rtol=1e-6)


def test_near_is_what_follows_and_what_is_alike() -> None:
    given = histories_of([0, 1, 2], [2, 0], [0, 2])
    none = sparse.csr_array((0, 4), dtype=np.float32)
    pairs = follows(given, catalogue=4, window=5, both=True)
    assert_allclose(near(given, none, window=5)(np.eye(4)), pairs.toarray(), rtol=1e-5)
    # One value of items 1 and 3, which nobody took: all that is known of 3; another that all have and says nothing.
    alike = sparse.csr_array(np.array([[0, 1, 0, 1], [1, 1, 1, 1]], np.float32))
    found = near(given, alike, window=5)(np.eye(4))
    assert_allclose(found, found.T, rtol=1e-6)
    raw = follows(given, catalogue=4, window=5, both=True, read=0, found=0)
    shared = FEATURES * raw.sum() / 7 / 2  # each of two items is half of what a walk by the value comes to
    assert_allclose(found[3], [0, shared / (FEATURES * (1 + FEATURES)) ** 0.5, 0, shared / FEATURES], rtol=1e-5)
    assert_allclose(found[0, 2], pairs.toarray()[0, 2], rtol=1e-5)
    # Directions of a vector have signs, and stay within what a walk may come to.
    signed = sparse.csr_array(np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32))
    told = near(given, signed, window=5)(np.eye(4)) - near(given, 0 * signed, window=5)(np.eye(4))
    assert np.abs(np.linalg.eigvalsh(told)).max() < 2 * FEATURES * raw.sum() / 7


def test_a_spectral_start_puts_together_what_is_taken_together() -> None:
    counts = follows(planted_histories(), catalogue=25, window=5, both=True)
    vectors = spectral(counts.__matmul__, items=25, dim=8, generator=np.random.default_rng(0))
    assert_allclose(np.linalg.norm(vectors, axis=1), [1.0] * 24 + [0.0], atol=1e-5)  # nobody took item 24
    cosines = vectors[:24] @ vectors[:24].T
    even = np.arange(24) % 2 == 0
    assert cosines[even][:, even].mean() > cosines[even][:, ~even].mean() + 0.2


def test_a_product_with_a_sparse_matrix_is_what_spectral_takes() -> None:
    matrix = sparse.csr_array(np.diag([3.0, 2.0, 1.0]).astype(np.float32))
    vectors = spectral(matrix.__matmul__, items=3, dim=3, generator=np.random.default_rng(0))
    assert_allclose(vectors @ vectors.T, np.eye(3), atol=1e-5)
