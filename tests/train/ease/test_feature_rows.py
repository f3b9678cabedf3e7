"""Item features as rows of a matrix, and vectors predicted from features."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from retrieval.features.schema import Feature
from tests.support.columns import column
from train.ease.feature_regression import fit_features
from train.ease.feature_rows import feature_rows
from train.model.feature_embedding import FeatureEmbedding

NAN = float("nan")


def test_a_row_a_value() -> None:
    features = [Feature(name="genre", kind="category"), Feature(name="tags", kind="categories")]
    values = {"genre": np.array([2, 2, 3, 0, 1]), "tags": np.array([[2, 3], [3, 3], [0, 2], [2, 0], [2, 4]])}
    # Genre 3 is of one item only, as is tag 4; a missing (0) or unknown (1) genre says nothing.
    expected = [[1, 1, 0, 0, 0], [1, 0, 1, 1, 1], [1, 1, 0, 0, 0]]
    assert_allclose(feature_rows(features, values, items=5).toarray(), expected)


def test_what_is_the_same_of_all_says_nothing() -> None:
    features = [Feature(name="genre", kind="category"), Feature(name="year", kind="number")]
    values = {"genre": np.full(4, 2), "year": np.full(4, 1990.0)}
    assert feature_rows(features, values, items=4).shape == (0, 4)
    assert feature_rows([], {}, items=4).shape == (0, 4)


def test_numbers_near_each_other_share_a_row() -> None:
    years = np.array([1950.0, 1951.0, NAN, 2000.0, 2001.0])
    rows = feature_rows([Feature(name="year", kind="number")], {"year": np.repeat(years, 20)}, items=100).toarray()
    assert (rows.sum(axis=0).reshape(5, 20) == np.array([1, 1, 0, 1, 1])[:, None]).all()
    assert not (rows[:, :40].any(axis=1) & rows[:, 60:].any(axis=1)).any()


@pytest.mark.parametrize("missing", [False, True])
def test_vectors_are_turned_to_where_they_differ(missing: bool) -> None:
    vectors = np.array([[1.0, 0, 0], [0, 1, 0], [1, 0, 0], [NAN] * 3 if missing else [0, 2, 0]])
    rows = feature_rows([Feature(name="text", kind="vector", size=3)], {"text": vectors}, items=4).toarray()
    # The first direction parts the two kinds; missing is nowhere.
    assert rows[0, 0] * rows[0, 1] < 0
    assert rows[0, 0] == pytest.approx(rows[0, 2])
    assert rows[0, 3] == pytest.approx(0 if missing else rows[0, 1])


def test_features_are_given_what_they_tell() -> None:
    torch.manual_seed(0)
    columns = [
        column(name="id", kind="category", height=102),
        column(name="genre", kind="category", height=4),
        column(name="year", kind="number", mean=0.0, std=1.0),
        column(name="tags", kind="categories", height=4),
        column(name="text", kind="vector", size=2),
    ]
    embedding = FeatureEmbedding(columns, 3, id_column="id").eval()
    random = np.random.default_rng(0)
    inputs = {
        "id": torch.arange(100) + 2,
        "genre": torch.from_numpy(random.integers(2, 4, 100)),
        "year": torch.from_numpy(random.standard_normal(100).astype(np.float32)),
        "tags": torch.from_numpy(random.integers(0, 4, (100, 2))),
        "text": torch.from_numpy(random.standard_normal((100, 2)).astype(np.float32)),
    }
    says = torch.tensor([[0.0, 0, 0], [0, 0, 0], [1, 0, 5], [0, 2, 5]])
    fit_features(embedding, inputs, says[inputs["genre"]])
    with torch.no_grad():
        predicted = embedding(inputs, 100)
        assert_allclose(predicted.numpy(), says[inputs["genre"]].numpy(), atol=0.1)
        unknown = embedding(inputs | {"id": torch.ones(100, dtype=torch.int64)}, 100)
    assert torch.equal(predicted, unknown)


def test_without_features_all_are_predicted_the_mean() -> None:
    embedding = FeatureEmbedding([column(name="id", kind="category", height=4)], 2, id_column="id").eval()
    fit_features(embedding, {"id": torch.tensor([2, 3])}, torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    assert_allclose(embedding({"id": torch.tensor([2, 1])}, 2).detach().numpy(), [[0.5, 0.5]] * 2)
