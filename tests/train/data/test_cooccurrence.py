"""Counts over small histories, against matrices worked out by hand."""

import numpy as np
from numpy.testing import assert_allclose
from scipy import sparse

from tests.support.histories import histories_of
from train.data.cooccurrence import FADE, FEATURES, by_user, pair_counts, windowed


def test_pair_counts_by_hand() -> None:
    counts = pair_counts(histories_of([0, 1, 2], [0, 1]), catalogue=3, window=2).toarray()
    # 0 and 1 are neighbours in both histories; 2 comes two places after 0.
    assert_allclose(counts, np.array([[0, 2, FADE], [2, 0, 1], [FADE, 1, 0]]), rtol=1e-6)
    assert pair_counts(histories_of([0, 1, 2]), catalogue=3, window=1).toarray()[0, 2] == 0


def test_by_user_is_the_matrix_that_it_never_builds() -> None:
    given = histories_of([0, 1, 2], [2, 0], [3])
    taken = np.array([[1, 1, 1, 0], [1, 0, 1, 0], [0, 0, 0, 1]], dtype=np.float64)
    scale = np.diag(taken.sum(axis=0) ** -0.5)
    expected = scale @ taken.T @ np.diag([1 / 3, 1 / 2, 1]) @ taken @ scale
    assert_allclose(by_user(given, catalogue=4)(np.eye(4)), expected, rtol=1e-6)


def test_windowed_counts_pairs_and_common_features() -> None:
    given = histories_of([0, 1, 2], [2, 0], [0, 2])
    none = sparse.csr_array((0, 4), dtype=np.float32)
    raw = pair_counts(given, catalogue=4, window=5)
    scale = np.diag(np.array([3, 1, 3, 1]) ** -0.5)  # item 3 has no interaction, which counts as one
    pairs = scale @ raw.toarray() @ scale
    assert_allclose(windowed(given, none, window=5)(np.eye(4)), pairs, rtol=1e-5)
    # One value of items 1 and 3, the only thing known of 3; one of all items, which says nothing.
    alike = sparse.csr_array(np.array([[0, 1, 0, 1], [1, 1, 1, 1]], np.float32))
    found = windowed(given, alike, window=5)(np.eye(4))
    assert_allclose(found, found.T, rtol=1e-6)
    shared = FEATURES * raw.sum() / 7 / 2  # two items share the value
    assert_allclose(found[3], [0, shared / (FEATURES * (1 + FEATURES)) ** 0.5, 0, shared / FEATURES], rtol=1e-5)
    assert_allclose(found[0, 2], pairs[0, 2], rtol=1e-5)
    # Directions of a vector have signs; the spectrum stays bounded.
    signed = sparse.csr_array(np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32))
    only_features = windowed(given, signed, window=5)(np.eye(4)) - windowed(given, 0 * signed, window=5)(np.eye(4))
    assert np.abs(np.linalg.eigvalsh(only_features)).max() < 2 * FEATURES * raw.sum() / 7
