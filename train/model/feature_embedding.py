"""The static features of a user or an item -> one vector per row."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn

from retrieval.features.schema import Kind
from retrieval.features.vocabulary import UNKNOWN

Inputs = Mapping[str, Tensor]

CLAMP_Z = 10.0  # standard deviations, so that one absurd number does not outweigh every other feature
NO_DIRECTION = 1e-12  # length below which a vector has no direction
CLAMP_VECTOR = 1e15  # the sum of its squares over a vector is still a float32


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """What a tower has to know of an input to build its part of the network.

    Attributes:
        name: Name of the feature.
        kind: Kind of the feature.
        height: Number of rows of the vocabulary, with the two reserved ones (category, categories, hash, history).
        size: Size of the vector (vector).
        mean: Mean over the training rows (number).
        std: Standard deviation over the training rows (number).
    """

    name: str
    kind: Kind
    height: int = 0
    size: int = 0
    mean: float = 0.0
    std: float = 1.0


class NumberEmbedding(nn.Module):
    """A standardised number, and whether it is missing, through a two-layer network."""

    mean: Tensor
    std: Tensor

    def __init__(self, column: Column, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(column.mean, dtype=torch.float32))
        # A constant feature has a deviation of 0.
        self.register_buffer("std", torch.tensor(column.std if column.std > 1e-12 else 1.0, dtype=torch.float32))
        self.hidden = nn.Linear(2, dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, values: Tensor) -> Tensor:
        """Embed numbers. values: (n,) float32, NaN or infinite where missing. Returns (n, dim)."""
        out: Tensor = self.out(self.activations(values))
        return out

    def activations(self, values: Tensor) -> Tensor:
        """Compute the hidden layer: (n,) -> (n, dim)."""
        return nn.functional.relu(self.hidden(standardised(values, self.mean, self.std)))


def standardised(values: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Standardise numbers: (...,) -> (..., 2), the standard deviations from the mean (0 if missing), 1 if missing."""
    missing = values.isnan() | values.isinf()
    z = (torch.where(missing, mean, values) - mean) / std
    return torch.stack([z.clamp(-CLAMP_Z, CLAMP_Z), missing.to(z.dtype)], dim=-1)


def finite(vectors: Tensor) -> Tensor:
    """Replace numbers that are not finite by 0, and clamp the rest so that their squares are finite."""
    return torch.where(vectors.isnan() | vectors.isinf(), 0.0, vectors).clamp(-CLAMP_VECTOR, CLAMP_VECTOR)


class CategoryEmbedding(nn.Embedding):
    """A learned vector per row of the vocabulary; the rows of missing and unknown are learned like any other."""

    def __init__(self, column: Column, dim: int) -> None:
        super().__init__(column.height, dim)
        nn.init.normal_(self.weight, std=dim**-0.5)


class CategoriesEmbedding(CategoryEmbedding):
    """The mean over the entries of a list; an empty list has the vector of the row of missing."""

    def forward(self, rows: Tensor) -> Tensor:
        """Embed lists. rows: (n, length) int64, 0 where padding. Returns (n, dim)."""
        kept = (rows != 0).to(self.weight.dtype)  # (n, length)
        total = (super().forward(rows) * rearrange(kept, "n l -> n l 1")).sum(dim=1)  # (n, dim)
        count = kept.sum(dim=1, keepdim=True)  # (n, 1)
        return total / count.clamp(min=1) + self.weight[0] * (count == 0)


class VectorEmbedding(nn.Module):
    """A vector of the data, scaled to unit length, through a linear map."""

    def __init__(self, column: Column, dim: int) -> None:
        super().__init__()
        self.out = nn.Linear(column.size, dim)

    def forward(self, vectors: Tensor) -> Tensor:
        """Embed vectors. vectors: (n, size) float32, NaN where missing. Returns (n, dim)."""
        out: Tensor = self.out(unit(finite(vectors)))
        return out


EMBEDDINGS = {
    "number": NumberEmbedding,
    "category": CategoryEmbedding,
    "hash": CategoryEmbedding,
    "categories": CategoriesEmbedding,
    "vector": VectorEmbedding,
}


def unit(vectors: Tensor) -> Tensor:
    """Scale rows to unit length. vectors: (..., dim). A row of zeros becomes the first axis."""
    norm = vectors.norm(dim=-1, keepdim=True)
    none = norm < NO_DIRECTION
    first = torch.eye(1, vectors.shape[-1], dtype=vectors.dtype, device=vectors.device)[0]  # (dim,)
    scaled: Tensor = (vectors + none * first) / torch.where(none, 1.0, norm)
    return scaled


class FeatureEmbedding(nn.Module):
    """The vector of the id, if there is one, plus the mean of the vectors of the other features."""

    def __init__(
        self,
        columns: Sequence[Column],
        dim: int,
        *,
        id_column: str | None = None,
        id_dropout: float = 0.0,
        feature_dropout: float = 0.0,
    ) -> None:
        """Create the embedding of each feature.

        Args:
            columns: The features.
            dim: Size of a vector.
            id_column: Name of the feature that is the id; None if there is none.
            id_dropout: Share of ids that are read as unknown in training, so that the other features predict alone.
            feature_dropout: Share of categories that are read as unknown or missing in training (half each), so that
                those rows are trained.
        """
        super().__init__()
        self.id_column = id_column
        self.id_dropout = id_dropout
        self.feature_dropout = feature_dropout
        self.kinds = {column.name: column.kind for column in columns}
        # Keyed by position: a module's name may not hold a dot, a column's may.
        self.embeddings = nn.ModuleList(EMBEDDINGS[column.kind](column, dim) for column in columns)
        self.base = nn.Parameter(torch.zeros(dim))

    def forward(self, inputs: Inputs, rows: int) -> Tensor:
        """Embed a batch.

        Args:
            inputs: One tensor per column, with `rows` rows.
            rows: Number of rows.

        Returns:
            (rows, dim), of any length.
        """
        total = self.base.expand(rows, -1)  # (rows, dim)
        others = len(self.kinds) - (self.id_column in self.kinds)
        for name, part in zip(self.kinds, self.parts(inputs), strict=True):
            total = torch.add(total, part, alpha=1.0 if name == self.id_column else 1 / others)
        return total

    def parts(self, inputs: Inputs) -> Iterator[Tensor]:
        """Yield the vector of each column: (rows, dim)."""
        for (name, kind), embedding in zip(self.kinds.items(), self.embeddings, strict=True):
            yield embedding(self._dropped(inputs[name], name, kind) if self.training else inputs[name])

    def _dropped(self, values: Tensor, name: str, kind: Kind) -> Tensor:
        """Apply dropout to the values of a column, (n,) or (n, length)."""
        if name == self.id_column:
            return drop(values, self.id_dropout, to=UNKNOWN)
        if kind in ("category", "hash"):
            half = self.feature_dropout / 2
            return drop(drop(values, half, to=UNKNOWN), half, to=0)
        if kind == "categories":
            dropped = torch.where(values != 0, drop(values, self.feature_dropout / 2, to=UNKNOWN), values)
            emptied = torch.rand(len(values), 1, device=values.device) < self.feature_dropout / 2
            return dropped.masked_fill(emptied, 0)
        return values


def drop(values: Tensor, share: float, *, to: int) -> Tensor:
    """Return values of any shape with a random share of them replaced by `to`."""
    if share <= 0:
        return values
    return values.masked_fill(torch.rand(values.shape, device=values.device) < share, to)
