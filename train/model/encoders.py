"""Encoders: profile and history -> the state of a user after every item, all in one pass.

Training and serving share one layout. Histories run newest first and are padded at the end, so slot k of the history
is the k-th newest item whatever the padding. A state is what is known up to and including its item. Slot 0 of the
states is the profile alone: the state of a user without history.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from retrieval.features.schema import Side
from train.config import options as config
from train.model.attention import BLOCKED, MultiHeadAttention
from train.model.dropout import Dropout
from train.model.feature_embedding import Column, FeatureEmbedding


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderShape:
    """What the config says for all encoders.

    Attributes:
        dim: Size of a state.
        layers: Number of blocks.
        heads: Number of attention heads.
        dropout: Dropout rate.
        max_length: Longest history that the encoder reads.
        history: Whether the tower has a history.
    """

    dim: int
    layers: int
    heads: int
    dropout: float
    max_length: int
    history: bool = True


class Encoder(nn.Module):
    """Base class of the encoders.

    To write an encoder, implement `forward`, and `last` where the newest state alone is cheaper. Register the class in
    train/config/components.py, or name its path in the config.

    Attributes:
        Options: Dataclass of the encoder's keys in the config.
        sides: Towers that can use the encoder.
        residual_dropout: Dropout of `UserTower.last_item_embedding`; 1 for none.
    """

    Options: ClassVar[type[config.Encoder]] = config.Encoder
    sides: ClassVar[tuple[Side, ...]] = ("user", "item")
    residual_dropout = 1.0

    def __init__(self, shape: EncoderShape, options: config.Encoder | None = None) -> None:
        """Keep the shape, with the values that the options name (layers, heads, dropout) in place of the shape's."""
        super().__init__()
        own = {name: getattr(options, name, None) for name in ("layers", "heads", "dropout")}
        self.shape = dataclasses.replace(shape, **{name: value for name, value in own.items() if value is not None})

    def features(
        self,
        columns: Sequence[Column],
        *,
        id_column: str | None = None,
        id_dropout: float = 0.0,
        feature_dropout: float = 0.0,
    ) -> FeatureEmbedding:
        """Build the module that makes the profile, (n, dim), of the static features."""
        return FeatureEmbedding(
            columns, self.shape.dim, id_column=id_column, id_dropout=id_dropout, feature_dropout=feature_dropout
        )

    def alone(self, profile: Tensor) -> Tensor:
        """Compute the state without a history, as for an item: (n, dim)."""
        none = profile.new_zeros(profile.shape[0], 0, self.shape.dim)
        return self.last(profile, none, none[:, :, 0] != 0)

    def forward(self, profile: Tensor, history: Tensor, mask: Tensor) -> Tensor:
        """Compute the state at every slot.

        Args:
            profile: (batch, dim), as `features` makes it.
            history: (batch, k, dim), newest first.
            mask: (batch, k) bool, true where an item is.

        Returns:
            (batch, 1 + k, dim), of any length; states at padded slots mean nothing.
        """
        raise NotImplementedError

    def last(self, profile: Tensor, history: Tensor, mask: Tensor) -> Tensor:
        """Compute the state after the newest item, or of the profile if there is none: (batch, dim).

        This is the part that is exported.
        """
        return newest(self(profile, *padded(history, mask)), mask)


class Block(nn.Module):
    """One causal block: attention with a learned bias per distance, then a feed-forward network (pre-norm)."""

    def __init__(self, shape: EncoderShape, *, attention_dropout: float) -> None:
        super().__init__()
        dim, self.max_length = shape.dim, shape.max_length
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = MultiHeadAttention(dim, shape.heads, dropout=attention_dropout)
        # Row d: the key is d items older than the query; the last row: the key is the profile.
        self.distance_bias = nn.Parameter(torch.zeros(shape.max_length + 1, shape.heads))
        self.network_norm = nn.LayerNorm(dim)
        self.network = nn.Sequential(
            nn.Linear(dim, 2 * dim), nn.ReLU(), Dropout(shape.dropout), nn.Linear(2 * dim, dim)
        )
        self.dropout = Dropout(shape.dropout)

    def forward(self, states: Tensor, mask: Tensor, *, slots: int | None = None) -> Tensor:
        """Compute the block.

        Args:
            states: (batch, 1 + k, dim), of the profile and the items, newest first.
            mask: (batch, k) bool, true where an item is.
            slots: Number of leading slots to compute; all if None.

        Returns:
            (batch, slots, dim).
        """
        normed = self.attention_norm(states)
        states = states if slots is None else states[:, :slots]  # (batch, slots, dim)
        queries = normed[:, : states.shape[1]]
        padding = ~nn.functional.pad(mask, (1, 0), value=True)  # (batch, 1 + k)
        read = self.attention(queries, normed, padding=padding, bias=self._bias(queries.shape[1], normed.shape[1]))
        states = states + self.dropout(read)
        out: Tensor = states + self.dropout(self.network(self.network_norm(states)))
        return out

    def _bias(self, queries: int, keys: int) -> Tensor:
        """The learned bias where a slot may read another, BLOCKED where that one is newer: (heads, queries, keys)."""
        query = torch.arange(queries, device=self.distance_bias.device)[:, None]
        key = torch.arange(keys, device=self.distance_bias.device)[None, :]
        profile = key == 0
        distance = torch.where(profile, self.max_length, (key - query).clamp(0, self.max_length - 1))
        newer = ~profile & ((key < query) | (query == 0))
        bias = rearrange(nn.functional.embedding(distance, self.distance_bias), "q k h -> h q k")
        return bias.masked_fill(newer, BLOCKED)


class Attention(Encoder):
    """Causal self-attention over the static features and the history. User side only.

    As SASRec (arXiv 1808.09781), with a bias per distance in place of position embeddings. A distance means the same in
    a history of any length, so what is learned in the middle of a history holds at its end, where the tower is used.
    """

    Options = config.Attention
    sides = ("user",)

    def __init__(self, shape: EncoderShape, options: config.Attention | None = None) -> None:
        options = options or config.Attention()
        super().__init__(shape, options)
        shape = self.shape
        if options.residual_dropout is not None:
            self.residual_dropout = options.residual_dropout
        attention_dropout = shape.dropout if options.attention_dropout is None else options.attention_dropout
        self.history_scale = nn.Parameter(torch.tensor(shape.dim**0.5))
        self.dropout = Dropout(shape.dropout)
        self.blocks = nn.ModuleList(Block(shape, attention_dropout=attention_dropout) for _ in range(shape.layers))
        self.norm = nn.LayerNorm(shape.dim)

    def forward(self, profile: Tensor, history: Tensor, mask: Tensor) -> Tensor:
        states = self._input(profile, history)
        for block in self.blocks:
            states = block(states, mask)
        out: Tensor = self.norm(states)
        return out

    def last(self, profile: Tensor, history: Tensor, mask: Tensor) -> Tensor:
        history, slots = padded(history, mask)
        states = self._input(profile, history)
        *earlier, last = self.blocks
        for block in earlier:
            states = block(states, slots)
        # Two slots are enough for the last block: its attention is then linear in the length of the history.
        out: Tensor = newest(self.norm(last(states, slots, slots=2)), mask)
        return out

    def _input(self, profile: Tensor, history: Tensor) -> Tensor:
        """The first states: (batch, 1 + k, dim)."""
        states = torch.cat([rearrange(profile, "b d -> b 1 d"), history * self.history_scale], dim=1)
        out: Tensor = self.dropout(states)
        return out


class Mean(Encoder):
    """The mean of the history and of the embedded features, through a feed-forward network."""

    Options = config.Mean

    def __init__(self, shape: EncoderShape, options: config.Mean | None = None) -> None:
        super().__init__(shape, options)
        self.history_scale = nn.Parameter(torch.tensor(shape.dim**0.5))
        self.dropout = Dropout(self.shape.dropout)
        self.network = feed_forward(self.shape)
        self.norm = nn.LayerNorm(shape.dim)

    def forward(self, profile: Tensor, history: Tensor, mask: Tensor) -> Tensor:
        weight = rearrange(mask.to(history.dtype), "b k -> b k 1")
        # Sums from the oldest item up to each slot.
        total = (history * weight).flip(1).cumsum(1).flip(1)  # (batch, k, dim)
        count = weight.flip(1).cumsum(1).flip(1)  # (batch, k, 1)
        means = torch.cat([torch.zeros_like(total[:, :1]), total / count.clamp(min=1)], dim=1)  # (batch, 1 + k, dim)
        return self._state(rearrange(profile, "b d -> b 1 d"), means)

    def last(self, profile: Tensor, history: Tensor, mask: Tensor) -> Tensor:
        weight = rearrange(mask.to(history.dtype), "b k -> b k 1")
        return self._state(profile, (history * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1))

    def _state(self, profile: Tensor, mean: Tensor) -> Tensor:
        pooled = self.dropout(mean * self.history_scale + profile)
        out: Tensor = self.norm(pooled + self.network(pooled))
        return out


class Mlp(Encoder):
    """A feed-forward network over the embedded features. It does not read the history."""

    Options = config.Mlp

    def __init__(self, shape: EncoderShape, options: config.Mlp | None = None) -> None:
        super().__init__(shape, options)
        self.network = feed_forward(self.shape)
        self.norm = nn.LayerNorm(shape.dim)

    def forward(self, profile: Tensor, history: Tensor, mask: Tensor) -> Tensor:
        return repeat(self.last(profile, history, mask), "b d -> b slots d", slots=1 + history.shape[1])

    def last(self, profile: Tensor, history: Tensor, mask: Tensor) -> Tensor:  # noqa: ARG002  (an encoder's signature)
        out: Tensor = self.norm(profile + self.network(profile))
        return out


def feed_forward(shape: EncoderShape) -> nn.Module:
    """Build dim -> 2 dim -> dim, with a norm before it."""
    return nn.Sequential(
        nn.LayerNorm(shape.dim),
        nn.Linear(shape.dim, 2 * shape.dim),
        nn.GELU(),
        Dropout(shape.dropout),
        nn.Linear(2 * shape.dim, shape.dim),
        Dropout(shape.dropout),
    )


def padded(history: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Append an empty slot, so that the states have a slot 1 even if all histories are empty."""
    return nn.functional.pad(history, (0, 0, 0, 1)), nn.functional.pad(mask, (0, 1))


def newest(states: Tensor, mask: Tensor) -> Tensor:
    """Select slot 1 where the history holds an item, else slot 0.

    Args:
        states: (batch, at least 2, dim).
        mask: (batch, k) bool.

    Returns:
        (batch, dim).
    """
    some = mask.any(dim=1, keepdim=True).to(states.dtype)  # (batch, 1)
    return states[:, 1] * some + states[:, 0] * (1 - some)
