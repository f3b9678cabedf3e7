"""UserTower and ItemTower: named tensors -> unit vectors. Plain modules that know nothing of Lightning."""

from collections.abc import Callable, Sequence
from typing import Final

import torch
from einops import rearrange
from torch import Tensor, nn

from retrieval.features.vocabulary import UNKNOWN
from train.features.kinds import unit
from train.model.dropout import Dropout
from train.model.encoders import Encoder
from train.model.feature_embedding import Column, FeatureEmbedding, Inputs

FADING: Final = 0.7  # of its weight, from an item to the next older one, to start with


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
        """id_column: the category that is the item itself, None where items are told by their features alone.

        encoder: what makes a state of the features; by default they are summed.
        """
        super().__init__()
        self.columns = tuple(columns)
        self.encoder = encoder
        options = {"id_dropout": id_dropout, "feature_dropout": feature_dropout}
        if encoder is None:
            self.embedding = FeatureEmbedding(columns, dim, id_column=id_column, **options)
        else:
            self.embedding = encoder.features(columns, id_column=id_column, **options)

    def forward(self, inputs: Inputs) -> Tensor:
        """inputs: a tensor a column, as `Preprocess.encode` gives them. Returns (n, dim), unit rows."""
        profile = self.embedding(inputs, rows_of(inputs))
        state = profile if self.encoder is None else self.encoder.alone(profile)
        return unit(state)


class UserTower(nn.Module):
    """The features and the history of a user -> its unit vector.

    `item_vectors` (rows of the item vocabulary, dim) is what the history reads: row 0 (missing) zeros, row 1
    (unknown) learned, then the item tower's own vectors, put there by `freeze_items`; or, where the encoder is not
    tied to them, what each item adds to a user, learned as `source`.

    `successors` is a short cut past the encoder: what each of the newest items, or having none, adds to the state by
    itself, at a weight for its age that is learned where these are several. The tied vectors can only generalise; these
    hold what followed that one item (as the Markov chain does beside a user's taste in Rendle et al., WWW 2010, doi
    10.1145/1772690.1772773). None where the encoder's shape wants none.
    """

    item_vectors: Tensor
    successor_weights: Tensor

    def __init__(
        self,
        columns: Sequence[Column],
        *,
        dim: int,
        encoder: Encoder,
        feature_dropout: float = 0.0,
    ) -> None:
        """columns: may hold one history."""
        super().__init__()
        self.columns = tuple(columns)
        self.history = next((column for column in columns if column.kind == "history"), None)
        static = [column for column in columns if column.kind != "history"]
        self.embedding = encoder.features(static, feature_dropout=feature_dropout)
        self.encoder = encoder
        self.unknown_item = nn.Parameter(torch.randn(dim) * dim**-0.5)
        height = self.history.height if self.history else 2
        self.source = None if encoder.tied else nn.Embedding(height, dim)
        dropped = encoder.shape.short_cut if self.history else 1.0
        self.successors = nn.Embedding(height, dim) if dropped < 1 else None
        if self.successors is not None:
            nn.init.zeros_(self.successors.weight)
            self.reach = encoder.shape.short_cut_items
            weights = FADING ** torch.arange(float(self.reach))  # by age
            if self.reach > 1:
                self.successor_weights = nn.Parameter(weights)
            else:  # what it adds has a scale of its own
                self.register_buffer("successor_weights", weights, persistent=False)
        self.successors_dropout = Dropout(dropped)
        self.register_buffer("item_vectors", torch.zeros(height, dim))

    def forward(self, inputs: Inputs) -> Tensor:
        """inputs: a tensor a column, as `Preprocess.encode` gives them: histories (n, k) newest first, zeros after.

        Returns (n, dim), unit rows.
        """
        profile = self.profile(inputs, rows_of(inputs))
        if self.history is None:
            rows = torch.zeros(profile.shape[0], 0, dtype=torch.int64, device=profile.device)
        else:
            rows = inputs[self.history.name]
        state = self.encoder.last(profile, nn.functional.embedding(rows, self.item_vectors), rows != 0)
        return unit(state if self.successors is None else state + self._followed_last(self.successors, rows))

    def at(self, profile: Tensor, history: Tensor, rows: Tensor, slots: Tensor) -> Tensor:
        """Give the states at some slots, as `Encoder.at` does.

        profile: (batch, dim) for most. history: (batch, k, dim), newest first, what stands at rows: (batch, k) of the
        item vocabulary. slots: (n,) int64 into batch * (1 + k). Returns (n, dim), unit rows.
        """
        states = self.encoder.at(profile, history, rows != 0, slots)
        if self.successors is not None:
            added = rearrange(self._followed(self.successors, rows), "b s d -> (b s) d")
            states = states + added.index_select(0, slots)
        return unit(states)

    def _followed(self, successors: nn.Embedding, rows: Tensor) -> Tensor:
        """The short cut at every slot, in training. rows: (batch, k), newest first. Returns (batch, 1 + k, dim)."""
        own: Tensor = self.successors_dropout(successors(nn.functional.pad(rows, (1, 0))))  # (batch, 1 + k, dim)
        if self.reach == 1:
            return own
        place = torch.arange(rows.shape[1], device=rows.device)
        age = place[None, :] - place[:, None]  # (slot, item), from the newest on
        weights = torch.cat([self.successor_weights, self.successor_weights.new_zeros(1)])
        counted = nn.functional.embedding(
            torch.where((age >= 0) & (age < self.reach), age, self.reach), weights[:, None]
        )
        items = own[:, 1:] * (rows != 0)[:, :, None]
        return torch.cat([own[:, :1] * self.successor_weights[0], counted[:, :, 0] @ items], dim=1)

    def _followed_last(self, successors: nn.Embedding, rows: Tensor) -> Tensor:
        """The short cut after the newest item. rows: (batch, k), newest first, zeros after. Returns (batch, dim)."""
        newest = nn.functional.pad(rows, (0, self.reach))[:, : self.reach]
        # An item that joined the table of histories after training has no successors of its own.
        known = torch.where(newest < successors.num_embeddings, newest, UNKNOWN)
        # Having no history is what row 0 stands for, and so it counts where it is first.
        there = torch.cat([torch.ones_like(newest[:, :1]), newest[:, 1:]], dim=1) != 0
        weight = there.to(self.successor_weights.dtype) * self.successor_weights  # (batch, reach)
        added: Tensor = rearrange(rearrange(weight, "b n -> b 1 n") @ successors(known), "b 1 d -> b d")
        return added

    def profile(self, inputs: Inputs, rows: int) -> Tensor:
        """The static features alone, whatever the history, as the encoder wants them: (rows, dim) for most."""
        out: Tensor = self.embedding(inputs, rows)
        return out

    def reserved_vectors(self) -> Tensor:
        """What histories read at the rows of missing and unknown: (2, dim)."""
        return torch.stack([torch.zeros_like(self.unknown_item), unit(self.unknown_item)])

    @torch.no_grad()
    def freeze_items(self, vectors: Tensor) -> None:
        """Take the item tower's vectors, (items, dim) in the order of the vocabulary, as what histories read."""
        if self.source is not None:
            self.item_vectors = self.source.weight.detach().clone()
        elif self.history is not None:
            self.item_vectors = torch.cat([self.reserved_vectors(), vectors]).detach().clone()


def rows_of(inputs: Inputs) -> int:
    """How many rows a batch has."""
    return next(iter(inputs.values())).shape[0]


@torch.no_grad()
def in_blocks(tower: Callable[[Inputs], Tensor], inputs: Inputs, *, block: int = 4096) -> Tensor:
    """Apply a tower to a table of any length, block by block. Returns (n, dim)."""
    n = rows_of(inputs)
    starts = range(0, max(n, 1), block)
    return torch.cat(
        [tower({name: values[start : start + block] for name, values in inputs.items()}) for start in starts]
    )
