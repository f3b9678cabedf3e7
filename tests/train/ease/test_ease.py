"""EASE against the formula of arXiv 1905.03375, written out with dense matrices."""

import numpy as np
import numpy.typing as npt
import pytest
from numpy.testing import assert_allclose
from scipy import sparse

from retrieval.common.csr import from_pairs
from tests.support.histories import histories_of, planted_histories
from train.data.batches import Histories
from train.ease import ease
from train.ease.ease import EaseFactors, fit_ease, interaction_matrix, user_vectors

Matrix = npt.NDArray[np.float64]
RIDGE = 30.0
NO_FEATURES = sparse.csr_array((0, 24), dtype=np.float32)


def dense(histories: Histories, items: int = 24) -> Matrix:
    matrix = np.zeros((len(histories.users), items))
    matrix[np.repeat(np.arange(len(matrix)), histories.lengths), histories.items] = 1
    return matrix


def weights(rows: Matrix) -> Matrix:
    """B as the listing of the paper has it."""
    inverse = np.linalg.inv(rows.T @ rows + RIDGE * np.eye(rows.shape[1]))
    matrix: Matrix = inverse / -np.diag(inverse)
    np.fill_diagonal(matrix, 0)
    return matrix


def fitted(histories: Histories, *, dim: int) -> EaseFactors:
    interactions = interaction_matrix(histories, items=24, seed=0)
    return fit_ease(interactions, NO_FEATURES, dim=dim, ridge=RIDGE, feature_weight=3.0, seed=0)


@pytest.mark.parametrize("dense_items", [24, 23])  # inverted as a matrix, and by conjugate gradients
@pytest.mark.parametrize("users", [12, 60])  # fewer than the items, and more
def test_at_full_rank_predictions_are_those_of_ease(
    users: int, dense_items: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ease, "DENSE_ITEMS", dense_items)
    histories = planted_histories(users)  # six items each, so all rows have the same weight
    factors = fitted(histories, dim=25)
    assert_allclose(np.linalg.norm(factors.target, axis=1), np.ones(24), rtol=1e-5)
    assert not factors.source[:, -1].any()
    scores = dense(histories) @ factors.source @ factors.target.T
    expected = dense(histories) @ weights(dense(histories))
    scale = np.linalg.norm(expected) / np.linalg.norm(scores)
    assert_allclose(scores * scale, expected, atol=2e-3 * np.abs(expected).max())


def test_at_a_lower_rank_predictions_are_the_nearest_of_that_rank() -> None:
    histories, rank = planted_histories(), 6
    factors = fitted(histories, dim=rank + 1)
    taken = dense(histories)
    level = np.maximum(taken.sum(axis=0), 1) ** -ease.POPULARITY_EXPONENT
    left, values, right = np.linalg.svd(taken @ weights(taken) * level)
    expected = (left[:, :rank] * values[:rank]) @ right[:rank] / level
    scores = taken @ factors.source @ factors.target.T
    scale = np.linalg.norm(expected) / np.linalg.norm(scores)
    assert_allclose(scores * scale, expected, atol=5e-3 * np.abs(expected).max())


def test_long_histories_weigh_less_and_features_count_as_users_do() -> None:
    interactions = interaction_matrix(histories_of([0, 1, 2, 3], [4]), items=5, seed=0)
    features = sparse.csr_array(np.array([[1.0, 1.0, 0.0, 0.0, 0.0]], np.float32))
    rows = ease._weighted_rows(interactions, features, 2.0).toarray()
    usual = 2.5  # items of a user
    expected = np.array([[1, 1, 1, 1, 0], [0, 0, 0, 0, 1], [1, 1, 0, 0, 0]], dtype=np.float64)
    weight = np.array([(4 / usual) ** -0.5, (1 / usual) ** -0.5, 2 * (2 / usual) ** -0.5])
    assert_allclose(rows, expected * np.sqrt(weight)[:, None], rtol=1e-6)


def test_an_older_item_counts_less() -> None:
    factors = EaseFactors(np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32))
    history = from_pairs(np.array([0, 0, 0, 1]), np.array([0, 1, 2, 1]), height=2)  # oldest first
    assert_allclose(user_vectors(factors, history, recency_decay=0.5), [[0.25, 0.5, 1.0], [0.0, 1.0, 0.0]])


def test_features_relate_items_that_nobody_took_together() -> None:
    histories = histories_of(*[[0, 1]] * 20, *[[2, 3]] * 20, [4], [5])
    features = sparse.csr_array(np.array([[1, 1, 0, 0, 1, 0], [0, 0, 1, 1, 0, 1]], np.float32))
    interactions = interaction_matrix(histories, items=6, seed=0)
    factors = fit_ease(interactions, features, dim=6, ridge=1.0, feature_weight=3.0, seed=0)
    scores = factors.source @ factors.target.T
    assert scores[4, 0] > scores[4, 2]
    assert scores[5, 2] > scores[5, 0]


def test_very_many_users_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ease, "MAX_INTERACTIONS", 60)
    assert interaction_matrix(planted_histories(), items=24, seed=0).shape == (10, 24)  # six items each
    monkeypatch.setattr(ease, "MAX_INTERACTIONS", 10_000)
    monkeypatch.setattr(ease, "MAX_USERS", 7)
    assert interaction_matrix(planted_histories(), items=24, seed=0).shape == (7, 24)
