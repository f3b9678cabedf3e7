"""EASE as two towers, and the ensemble of two pairs of towers."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from retrieval.common.csr import CSR
from retrieval.features.vocabulary import FIRST
from train.config.load import ResolvedConfig
from train.data.datamodule import DataModule
from train.ease.ease import EaseFactors, fit_ease, interaction_matrix, user_vectors
from train.ease.feature_regression import fit_features
from train.ease.feature_rows import feature_rows
from train.features.kinds import unit
from train.features.preprocess import Preprocess
from train.model.build import columns
from train.model.feature_embedding import Column, FeatureEmbedding, Inputs
from train.model.towers import ItemTower, rows_of
from train.model.two_tower import features_of

# Length of the vector that features predict for a user without a history, beside that of an item with the largest
# source. It decides only where there is no history.
FEATURES_ONLY_SCALE: Final = 1e-3
MAX_USERS_FOR_FEATURES: Final = 20_000  # on whom the user features' regression is fitted


class EaseUserTower(nn.Module):
    """The vector of a user: what its features predict, plus the sources of the items in its history.

    item_vectors: (rows of the item vocabulary, dim), the source of each item; 0 for missing and unknown items.
    """

    item_vectors: Tensor
    decay: Tensor

    def __init__(self, columns: Sequence[Column], *, dim: int, max_length: int, recency_decay: float) -> None:
        """columns: Of the user, one of them a history."""
        super().__init__()
        self.columns = tuple(columns)
        self.history = next(column for column in columns if column.kind == "history")
        self.max_length = max_length
        self.embedding = FeatureEmbedding([column for column in columns if column.kind != "history"], dim)
        self.register_buffer("item_vectors", torch.zeros(self.history.height, dim))
        self.register_buffer("decay", recency_decay ** torch.arange(float(max_length)), persistent=False)

    def forward(self, inputs: Inputs) -> Tensor:
        """inputs: A tensor for each column; the history (n, k) newest first. Returns (n, dim) unit vectors."""
        rows = inputs[self.history.name]  # (n, k)
        sources = functional.embedding(rows, self.item_vectors)  # (n, k, dim)
        age = torch.arange(rows.shape[1], device=rows.device).clamp(max=self.max_length - 1)
        weight = (rows != 0).to(sources.dtype) * self.decay.index_select(0, age)  # (n, k)
        total = rearrange(rearrange(weight, "n k -> n 1 k") @ sources, "n 1 d -> n d")
        return unit(total + self.embedding(inputs, rows_of(inputs)))


class EaseTowers(nn.Module):
    """EASE as a user tower and an item tower. Solved in closed form, never trained."""

    def __init__(self, config: ResolvedConfig, preprocess: Preprocess) -> None:
        super().__init__()
        assert config.history is not None
        assert config.history.max_length is not None
        ease = config.model.ease
        self.user_tower = EaseUserTower(
            columns(preprocess, "user"),
            dim=ease.dim,
            max_length=config.history.max_length,
            recency_decay=ease.recency_decay,
        )
        self.item_tower = ItemTower(columns(preprocess, "item"), dim=ease.dim, id_column=config.data.item)

    @classmethod
    @torch.no_grad()
    def fit(cls, config: ResolvedConfig, data: DataModule) -> "EaseTowers":
        """Fit EASE on the training rows.

        The item tower predicts targets from features and stores in the id's embedding what the features miss. So an
        item without interactions is found by its features, and a user without a history by the user's features.
        """
        torch.manual_seed(config.train.seed)
        towers = cls(config, data.preprocess).eval()
        factors = _factors(config, data)
        towers._store_items(factors, data)
        towers._store_users(factors, data, recency_decay=config.model.ease.recency_decay)
        return towers

    def _store_items(self, factors: EaseFactors, data: DataModule) -> None:
        embedding = self.item_tower.embedding
        assert embedding.id_column is not None
        items = len(factors.target)
        target = torch.from_numpy(factors.target)
        seen = torch.from_numpy(np.bincount(data.histories.items, minlength=items) > 0)
        fit_features(embedding, features_of(data.items, seen), target[seen])
        rows = data.items[embedding.id_column]
        known = rows >= FIRST
        embedding.vectors(embedding.id_column)[rows[known]] = (target - embedding(data.items, items))[known]

    def _store_users(self, factors: EaseFactors, data: DataModule, *, recency_decay: float) -> None:
        self.user_tower.item_vectors[FIRST:] = torch.from_numpy(factors.source)
        histories = data.histories
        drawn = np.sort(np.random.default_rng(0).permutation(len(histories.users))[:MAX_USERS_FOR_FEATURES])
        vectors = user_vectors(factors, CSR(histories.starts, histories.items).take(drawn), recency_decay=recency_decay)
        states = unit(torch.from_numpy(vectors))
        users = features_of(data.users, torch.from_numpy(histories.users[drawn]))
        fit_features(self.user_tower.embedding, users, FEATURES_ONLY_SCALE * states)


def _factors(config: ResolvedConfig, data: DataModule) -> EaseFactors:
    items = len(next(iter(data.items.values())))
    features = [feature for feature in config.item_features if feature.name != config.data.item]
    ease = config.model.ease
    return fit_ease(
        interaction_matrix(data.histories, items=items, seed=config.train.seed),
        feature_rows(features, {name: values.numpy() for name, values in data.items.items()}, items=items),
        dim=ease.dim,
        ridge=ease.ridge,
        feature_weight=ease.feature_weight,
        seed=config.train.seed,
    )


class ConcatTowers(nn.Module):
    """An ensemble: the unit vectors of several towers of one side, concatenated.

    Each vector is scaled by the root of its tower's weight, so the inner product of two concatenated vectors is the
    weighted mean of the towers' cosines. The ensemble is still one tower, with one vector for one index.
    """

    scales: Tensor

    def __init__(self, towers: Sequence[nn.Module], weights: Sequence[float]) -> None:
        """weights: Of the towers; they sum to 1."""
        super().__init__()
        self.towers = nn.ModuleList(towers)
        self.register_buffer("scales", torch.tensor(weights).sqrt())

    def forward(self, inputs: Inputs) -> Tensor:
        """inputs: As the towers take them. Returns (n, sum of the towers' dimensions) unit vectors."""
        vectors = [tower(inputs) * scale for tower, scale in zip(self.towers, self.scales, strict=True)]
        return torch.cat(vectors, dim=1)
