"""The spectral start: counts of items that stand near each other, and their eigenvectors."""

import numpy as np
from numpy.testing import assert_allclose
from scipy import sparse

from tests.support.histories import planted_histories
from train.data.cooccurrence import pair_counts
from train.ease.warm_start import spectral


def test_a_spectral_start_puts_together_what_is_taken_together() -> None:
    counts = pair_counts(planted_histories(), catalogue=25, window=5)
    vectors = spectral(counts.__matmul__, items=25, dim=8, generator=np.random.default_rng(0))
    assert_allclose(np.linalg.norm(vectors, axis=1), [1.0] * 24 + [0.0], atol=1e-5)  # nobody took item 24
    cosines = vectors[:24] @ vectors[:24].T
    even = np.arange(24) % 2 == 0
    assert cosines[even][:, even].mean() > cosines[even][:, ~even].mean() + 0.2


def test_a_product_with_a_sparse_matrix_is_what_spectral_takes() -> None:
    matrix = sparse.csr_array(np.diag([3.0, 2.0, 1.0]).astype(np.float32))
    vectors = spectral(matrix.__matmul__, items=3, dim=3, generator=np.random.default_rng(0))
    assert_allclose(vectors @ vectors.T, np.eye(3), atol=1e-5)
