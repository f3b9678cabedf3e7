"""Columns -> one vector a row: what either tower makes of its static features."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from retrieval.features.schema import Feature
from retrieval.features.vocabulary import UNKNOWN
from train.features.kinds import KINDS, Category, Fitted, drop

Inputs = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """An input of a tower: a feature and what it was fitted to."""

    feature: Feature
    fitted: Fitted = None

    @property
    def name(self) -> str:
        return self.feature.name

    @property
    def kind(self) -> str:
        return self.feature.kind

    @property
    def height(self) -> int:
        """Rows of the embedding table of a category, a hash or a history, the two reserved ones included."""
        kind = KINDS[self.kind]
        assert isinstance(kind, Category)
        return kind.height(self.feature, self.fitted)


class FeatureEmbedding(nn.Module):
    """The id's vector, if there is one, plus the mean of the other features' vectors."""

    def __init__(
        self,
        columns: Sequence[Column],
        dim: int,
        *,
        id_column: str | None = None,
        id_dropout: float = 0.0,
        feature_dropout: float = 0.0,
    ) -> None:
        """id_dropout: how often, in training, the id is unknown, so that the other features learn to do alone.

        feature_dropout: how often a category is unknown or missing (half each), so that those rows are trained.
        """
        super().__init__()
        self.id_column = id_column
        self.id_dropout = id_dropout
        self.feature_dropout = feature_dropout
        self.kinds = {column.name: column.kind for column in columns}
        # Keyed by position: a module's name may not hold a dot, a column's may.
        self.embeddings = nn.ModuleList(
            KINDS[column.kind].embedding(column.feature, column.fitted, dim) for column in columns
        )
        self.base = nn.Parameter(torch.zeros(dim))

    def forward(self, inputs: Inputs, rows: int) -> Tensor:
        """inputs: a tensor a column, `rows` long. Returns (rows, dim), of any length."""
        total = self.base.expand(rows, -1)  # (rows, dim)
        others = len(self.kinds) - (self.id_column in self.kinds)
        for name, part in zip(self.kinds, self.parts(inputs), strict=True):
            total = torch.add(total, part, alpha=1.0 if name == self.id_column else 1 / others)
        return total

    def parts(self, inputs: Inputs) -> Iterator[Tensor]:
        """The vector of each column: (rows, dim)."""
        for (name, kind), embedding in zip(self.kinds.items(), self.embeddings, strict=True):
            yield embedding(self._dropped(inputs[name], name, kind) if self.training else inputs[name])

    def module(self, name: str) -> Any:
        """The embedding of a column."""
        return self.embeddings[list(self.kinds).index(name)]

    def vectors(self, name: str) -> nn.Parameter:
        """The embedding table of a category: (height, dim)."""
        table: nn.Parameter = self.module(name).weight
        return table

    def _dropped(self, values: Tensor, name: str, kind: str) -> Tensor:
        """Some categories made unknown or missing. values: (n,) or (n, length)."""
        if name == self.id_column:
            return drop(values, self.id_dropout, to=UNKNOWN)
        return KINDS[kind].drop(values, self.feature_dropout)
