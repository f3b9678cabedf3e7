"""UserTower and ItemTower: named tensors -> unit vectors. Plain modules, independent of Lightning."""

from collections.abc import Callable, Sequence

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from retrieval.features.vocabulary import UNKNOWN
from train.features.kinds import unit
from train.model.dropout import Dropout
from train.model.encoders import Encoder
from train.model.feature_embedding import Column, FeatureEmbedding, Inputs


class ItemTower(nn.Module):
    """The features of an item -> its unit vector."""

    def __init__(
        self,
        columns: Sequence[Column],
        *,
        dim: int,
        id_column: str | None,
        encoder: Encoder | None = None,
        id_dropout: float = 0.0,
        feature_dropout: float = 0.0,
    ) -> None:
        """Create the tower.

        Args:
            columns: The item features.
            dim: Size of a vector.
            id_column: Name of the category that is the item's id; None if items have no id among their features.
            encoder: Computes the vector from the embedded features; None to add them up.
            id_dropout: See `FeatureEmbedding`.
            feature_dropout: See `FeatureEmbedding`.
        """
        super().__init__()
        self.columns = tuple(columns)
        self.encoder = encoder
        rates = {"id_dropout": id_dropout, "feature_dropout": feature_dropout}
        if encoder is None:
            self.embedding = FeatureEmbedding(columns, dim, id_column=id_column, **rates)
        else:
            self.embedding = encoder.features(columns, id_column=id_column, **rates)

    def forward(self, inputs: Inputs) -> Tensor:
        """Compute the vectors of items.

        Args:
            inputs: One tensor per column, as `Preprocess.encode` returns them.

        Returns:
            (n, dim) float32 unit rows.
        """
        profile = self.embedding(inputs, rows_of(inputs))
        return unit(profile if self.encoder is None else self.encoder.alone(profile))


class UserTower(nn.Module):
    """The features and the history of a user -> its unit vector.

    Attributes:
        item_vectors: (rows of the item vocabulary, dim), what the history reads. Row 0 (missing) is zeros, row 1
            (unknown) is learned, the rest are the item tower's vectors, which `freeze_items` copies here.
        last_item_embedding: Vector of the newest item (row 0: of no item) that is added to the state after the encoder.
            The item tower's vectors generalise; these learn what follows one item, as the Markov chain does in FPMC
            (Rendle et al., WWW 2010, doi 10.1145/1772690.1772773). None if the encoder's `residual_dropout` is 1.
    """

    item_vectors: Tensor

    def __init__(self, columns: Sequence[Column], *, dim: int, encoder: Encoder, feature_dropout: float = 0.0) -> None:
        """Create the tower.

        Args:
            columns: The user features; at most one is a history.
            dim: Size of a vector.
            encoder: Computes the state from the embedded features and the history.
            feature_dropout: See `FeatureEmbedding`.
        """
        super().__init__()
        self.columns = tuple(columns)
        self.history = next((column for column in columns if column.kind == "history"), None)
        static = [column for column in columns if column.kind != "history"]
        self.embedding = encoder.features(static, feature_dropout=feature_dropout)
        self.encoder = encoder
        self.unknown_item = nn.Parameter(torch.randn(dim) * dim**-0.5)
        height = self.history.height if self.history else 2
        self.last_item_embedding: nn.Embedding | None = None
        if self.history and encoder.residual_dropout < 1:
            self.last_item_embedding = nn.Embedding(height, dim)
            nn.init.zeros_(self.last_item_embedding.weight)
        self.residual_dropout = Dropout(encoder.residual_dropout)
        self.register_buffer("item_vectors", torch.zeros(height, dim))

    def forward(self, inputs: Inputs) -> Tensor:
        """Compute the vectors of users.

        Args:
            inputs: One tensor per column, as `Preprocess.encode` returns them; a history is (n, k) int64 rows of the
                item vocabulary, newest first, zeros at the end.

        Returns:
            (n, dim) float32 unit rows.
        """
        profile = self.embedding(inputs, rows_of(inputs))
        if self.history is None:
            rows = torch.zeros(profile.shape[0], 0, dtype=torch.int64, device=profile.device)
        else:
            rows = inputs[self.history.name]
        state = self.encoder.last(profile, functional.embedding(rows, self.item_vectors), rows != 0)  # (n, dim)
        if self.last_item_embedding is not None:
            newest = functional.pad(rows, (0, 1))[:, 0]  # (n,), 0 without a history
            # An item that was added to the vocabulary after training has no embedding here.
            known = torch.where(newest < self.last_item_embedding.num_embeddings, newest, UNKNOWN)
            state = state + self.last_item_embedding(known)
        return unit(state)

    def states(self, inputs: Inputs, history: Tensor, rows: Tensor, slots: Tensor) -> Tensor:
        """Compute the vectors after each of some items, for training.

        Args:
            inputs: The static features, one tensor per column, (batch,) or (batch, ...).
            history: (batch, k, dim), the vectors of the items at `rows`.
            rows: (batch, k) int64 rows of the item vocabulary, newest first, zeros at the end.
            slots: (n,) int64, positions in the flattened (batch, 1 + k) states.

        Returns:
            (n, dim) float32 unit rows.
        """
        states = self.encoder(self.embedding(inputs, len(rows)), history, rows != 0)  # (batch, 1 + k, dim)
        if self.last_item_embedding is not None:
            states = states + self.residual_dropout(self.last_item_embedding(functional.pad(rows, (1, 0))))
        return unit(rearrange(states, "b s d -> (b s) d").index_select(0, slots))

    def reserved_vectors(self) -> Tensor:
        """Return what a history reads at the rows of missing and unknown items: (2, dim)."""
        return torch.stack([torch.zeros_like(self.unknown_item), unit(self.unknown_item)])

    @torch.no_grad()
    def freeze_items(self, vectors: Tensor) -> None:
        """Copy the item tower's vectors, (items, dim) in the order of the vocabulary, into `item_vectors`."""
        if self.history is not None:
            self.item_vectors = torch.cat([self.reserved_vectors(), vectors]).detach().clone()


def rows_of(inputs: Inputs) -> int:
    """Return the number of rows of a batch."""
    return next(iter(inputs.values())).shape[0]


@torch.no_grad()
def in_blocks(tower: Callable[[Inputs], Tensor], inputs: Inputs, *, block: int = 4096) -> Tensor:
    """Apply a tower to a table of any length, `block` rows at a time. Returns (n, dim)."""
    n = rows_of(inputs)
    starts = range(0, max(n, 1), block)
    return torch.cat(
        [tower({name: values[start : start + block] for name, values in inputs.items()}) for start in starts]
    )
