"""Encoders: profile and history -> the user's state after every item, all of them in one pass.

The layout is shared by training and serving: histories run newest first and are padded at the end, so slot k of the
history is the k-th newest item whatever the padding. A state is what is known up to and including its item; slot 0
of the output is the profile alone, the state of a user without history.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from train.model.attention import BLOCKED, MultiHeadAttention
from train.model.block import BlockPass, Kept, Weights
from train.model.dropout import Dropout
from train.model.feature_embedding import Column, FeatureEmbedding


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderShape:
    """The sizes every encoder is built from.

    max_length: the longest history it will read. history: whether the tower has one.
    attention_dropout: of what a slot reads of others; as the rest if None.
    short_cut: dropout of what the newest `short_cut_items` add to the state past the encoder, see `UserTower`; 1 for
    nothing.
    decay: weight of an item beside that of the next newer one, where the encoder is a sum.
    """

    dim: int
    layers: int
    heads: int
    dropout: float
    max_length: int
    history: bool = True
    attention_dropout: float | None = None
    short_cut: float = 1.0
    short_cut_items: int = 1
    decay: float = 1.0


class Encoder(nn.Module):
    """Base of all encoders of a user.

    reads_history: false where only the profile counts.
    causal: true where `forward` gives a state at every slot, so that all positions of a history train in one pass.
        False where only `last` is meant; training then takes one cut of the history a pass.
    ordered: false where the order of the history changes nothing.
    tied: true where the history reads the item tower's vectors; false where what an item adds to a user is learned
        apart from what it is found by.
    """

    reads_history = True
    causal = True
    ordered = True
    tied = True

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        self.shape = shape

    def features(
        self,
        columns: Sequence[Column],
        *,
        id_column: str | None = None,
        id_dropout: float = 0.0,
        feature_dropout: float = 0.0,
    ) -> FeatureEmbedding:
        """Build what makes a profile of the static features: (n, dim) here, an encoder may want it otherwise."""
        return FeatureEmbedding(
            columns, self.shape.dim, id_column=id_column, id_dropout=id_dropout, feature_dropout=feature_dropout
        )

    def alone(self, profile: Tensor) -> Tensor:
        """Give the state without a history, which is all there is of an item: (n, dim)."""
        none = profile.new_zeros(profile.shape[0], 0, self.shape.dim)
        return self.last(profile, none, none[:, :, 0] != 0)

    def forward(self, profile: Tensor, history: Tensor, mask: Tensor) -> Tensor:
        """Give the state at every slot.

        profile: (batch, dim); history: (batch, k, dim), newest first; mask: (batch, k) bool, true where an item is.
        Returns (batch, 1 + k, dim), of any length; what stands at padded slots means nothing.
        """
        raise NotImplementedError

    def at(self, profile: Tensor, history: Tensor, mask: Tensor, slots: Tensor) -> Tensor:
        """Give the states at some slots, as training asks for them.

        slots: (n,) int64, each once, into batch * (1 + k). Returns (n, dim), of any length.
        """
        states: Tensor = self(profile, history, mask)
        return rearrange(states, "b s d -> (b s) d")[slots]

    def last(self, profile: Tensor, history: Tensor, mask: Tensor) -> Tensor:
        """Give the state after the newest item, the profile's where there is none: (batch, dim)."""
        states = self(profile, *padded(history, mask))
        return newest(states, mask)


class Block(nn.Module):
    """One causal block: attention biased by distance, then a network a slot, each with a short cut (pre-norm)."""

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        dim, self.max_length = shape.dim, shape.max_length
        self.attention_norm = nn.LayerNorm(dim)
        reading = shape.dropout if shape.attention_dropout is None else shape.attention_dropout
        self.attention = MultiHeadAttention(dim, shape.heads, dropout=reading)
        # Row d: the key is d items older than the query; the last row: the key is the profile.
        self.distance_bias = nn.Parameter(torch.zeros(shape.max_length + 1, shape.heads))
        self.network_norm = nn.LayerNorm(dim)
        self.network = nn.Sequential(
            nn.Linear(dim, 2 * dim), nn.ReLU(), Dropout(shape.dropout), nn.Linear(2 * dim, dim)
        )
        self.dropout = Dropout(shape.dropout)

    def forward(self, states: Tensor, mask: Tensor, *, only_first: int | None = None) -> Tensor:
        """states: (batch, 1 + k, dim), the profile's and the items', newest first; mask: (batch, k).

        only_first: how many slots are wanted; all if None. Returns (batch, slots, dim).
        """
        normed = self.attention_norm(states)
        wanted = states if only_first is None else states[:, :only_first]
        bias = self._bias(wanted.shape[1], states.shape[1], states.device)  # (heads, slots, 1 + k)
        present = nn.functional.pad(mask, (1, 0), value=True)  # (batch, 1 + k)
        read = self.attention(normed[:, : wanted.shape[1]], normed, padding=~present, bias=bias)
        wanted = wanted + self.dropout(read)
        out: Tensor = wanted + self.dropout(self.network(self.network_norm(wanted)))
        return out

    def trained(self, states: Tensor, padding: Tensor, *, slots: Tensor | None = None) -> Tensor:
        """The same in one pass, as training wants it: faster than the parts, and nothing that can be exported.

        padding: (batch, 1 + k), BLOCKED where a slot is empty, else 0. slots: those that are asked for, as
        `Encoder.at` has them, all if None. Returns (slots, dim).
        """
        batch, width, dim = states.shape
        count = batch * width if slots is None else len(slots)
        square = batch * self.distance_bias.shape[1], width, width
        reading, kept = self.attention.dropout, None
        if reading.active or self.dropout.active:
            kept = Kept(
                reading.kept(square, states) if reading.active else None,
                *(self.dropout.kept((count, size), states) for size in (dim, 2 * dim, dim)),
            )
        out: Tensor = BlockPass.apply(  # type: ignore[no-untyped-call]  # torch does not type it
            states, padding, slots, kept, *self.weights()
        )
        return out

    def weights(self) -> Weights:
        """What `BlockPass` works with."""
        attention, (widen, _, _, narrow) = self.attention, self.network
        assert isinstance(widen, nn.Linear)
        assert isinstance(narrow, nn.Linear)
        return Weights(
            distance_bias=self.distance_bias,
            attention_scale=self.attention_norm.weight,
            attention_shift=self.attention_norm.bias,
            query=attention.query.weight,
            query_bias=attention.query.bias,
            key_value=attention.key_value.weight,
            key_value_bias=attention.key_value.bias,
            out=attention.out.weight,
            out_bias=attention.out.bias,
            network_scale=self.network_norm.weight,
            network_shift=self.network_norm.bias,
            widen=widen.weight,
            widen_bias=widen.bias,
            narrow=narrow.weight,
            narrow_bias=narrow.bias,
        )

    def _bias(self, queries: int, keys: int, device: torch.device) -> Tensor:
        """The learned bias where a slot may read another, BLOCKED where that one is newer. (heads, queries, keys)."""
        query = torch.arange(queries, device=device)[:, None]
        key = torch.arange(keys, device=device)[None, :]
        profile = key == 0
        distance = torch.where(profile, self.max_length, (key - query).clamp(0, self.max_length - 1))
        newer = ~profile & ((key < query) | (query == 0))
        bias = rearrange(nn.functional.embedding(distance, self.distance_bias), "q k h -> h q k")
        return bias.masked_fill(newer, BLOCKED)


class Attention(Encoder):
    """Causal self-attention over [profile, items] (arXiv 1808.09781), with distances in place of positions.

    A distance means the same in a history of any length, so what was learned in the middle of a history holds at its
    end, where the tower is asked.
    """

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__(shape)
        self.history_scale = nn.Parameter(torch.tensor(shape.dim**0.5))
        self.dropout = Dropout(shape.dropout)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = nn.LayerNorm(shape.dim)

    def forward(self, profile: Tensor, history: Tensor, mask: Tensor) -> Tensor:
        states = self._input(profile, history)
        for block in self.blocks:
            states = block(states, mask)
        out: Tensor = self.norm(states)
        return out

    def at(self, profile: Tensor, history: Tensor, mask: Tensor, slots: Tensor) -> Tensor:
        states = self._input(profile, history)
        shape = states.shape
        padding = nn.functional.pad(mask.logical_not() * BLOCKED, (1, 0))  # (batch, 1 + k)
        *earlier, last = self.blocks
        assert isinstance(last, Block)
        for block in earlier:
            assert isinstance(block, Block)
            states = block.trained(states, padding).view(shape)
        # Past what its slots read of each other, the last block has only those to see to that are asked for.
        found: Tensor = self.norm(last.trained(states, padding, slots=slots))
        return found

    def last(self, profile: Tensor, history: Tensor, mask: Tensor) -> Tensor:
        history, slots = padded(history, mask)
        states = self._input(profile, history)
        for number, block in enumerate(self.blocks, start=1):
            # The last block is asked for two slots only: attention linear, not square, in the history.
            states = block(states, slots, only_first=2 if number == len(self.blocks) else None)
        found: Tensor = newest(self.norm(states[:, :2]), mask)
        return found

    def _input(self, profile: Tensor, history: Tensor) -> Tensor:
        states = torch.cat([rearrange(profile, "b d -> b 1 d"), history * self.history_scale], dim=1)
        dropped: Tensor = self.dropout(states)
        return dropped  # (batch, 1 + k, dim)


class Mean(Encoder):
    """The mean of the items so far beside the profile, through a network: order does not count."""

    ordered = False

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__(shape)
        self.history_scale = nn.Parameter(torch.tensor(shape.dim**0.5))
        self.dropout = Dropout(shape.dropout)
        self.network = perceptron(shape)
        self.norm = nn.LayerNorm(shape.dim)

    def forward(self, profile: Tensor, history: Tensor, mask: Tensor) -> Tensor:
        weight = rearrange(mask.to(history.dtype), "b k -> b k 1")
        # Sums from the oldest item up to each slot.
        total = (history * weight).flip(1).cumsum(1).flip(1)  # (batch, k, dim)
        count = weight.flip(1).cumsum(1).flip(1)  # (batch, k, 1)
        means = torch.cat([torch.zeros_like(total[:, :1]), total / count.clamp(min=1)], dim=1)
        return self._state(rearrange(profile, "b d -> b 1 d"), means)

    def last(self, profile: Tensor, history: Tensor, mask: Tensor) -> Tensor:
        weight = rearrange(mask.to(history.dtype), "b k -> b k 1")
        return self._state(profile, (history * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1))

    def _state(self, profile: Tensor, mean: Tensor) -> Tensor:
        pooled = self.dropout(mean * self.history_scale + profile)
        out: Tensor = self.norm(pooled + self.network(pooled))
        return out


class Sum(Encoder):
    """The sum of what each item adds, beside the profile: a linear map of the history (EASE, arXiv 1905.03375).

    What an item adds is a vector of its own, not the one it is found by. Of an item as much counts as its age leaves.
    """

    tied = False
    weight: Tensor

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__(shape)
        self.ordered = shape.decay < 1
        self.dropout = Dropout(shape.dropout)
        self.register_buffer("weight", shape.decay ** torch.arange(shape.max_length), persistent=False)  # by age

    def forward(self, profile: Tensor, history: Tensor, mask: Tensor) -> Tensor:
        added = history * rearrange(mask.to(history.dtype), "b k -> b k 1")
        place = torch.arange(history.shape[1], device=history.device)
        age = place[None, :] - place[:, None]  # (slot, item)
        counted = torch.where(age >= 0, self.weight[age.clamp(0, self.shape.max_length - 1)], 0.0)
        total = counted @ added  # from the oldest item up to each slot
        states = torch.cat([torch.zeros_like(profile)[:, None], total], dim=1) + rearrange(profile, "b d -> b 1 d")
        dropped: Tensor = self.dropout(states)
        return dropped

    def last(self, profile: Tensor, history: Tensor, mask: Tensor) -> Tensor:
        weight = mask.to(history.dtype)  # (batch, k)
        if self.ordered:
            age = torch.arange(history.shape[1], device=history.device)  # past max_length there is but padding
            weight = weight * self.weight.index_select(0, age.clamp(max=self.shape.max_length - 1))
        total = rearrange(weight, "b k -> b 1 k") @ history  # (batch, 1, dim)
        dropped: Tensor = self.dropout(rearrange(total, "b 1 d -> b d") + profile)
        return dropped


class Features(Encoder):
    """The profile through a network, whatever the history."""

    reads_history = False
    ordered = False

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__(shape)
        self.network = perceptron(shape)
        self.norm = nn.LayerNorm(shape.dim)

    def forward(self, profile: Tensor, history: Tensor, mask: Tensor) -> Tensor:
        return repeat(self.last(profile, history, mask), "b d -> b slots d", slots=1 + history.shape[1])

    def last(self, profile: Tensor, history: Tensor, mask: Tensor) -> Tensor:  # noqa: ARG002  (an encoder's signature)
        out: Tensor = self.norm(profile + self.network(profile))
        return out


# The name in the config -> the user encoder.
ENCODERS: Final[dict[str, Callable[[EncoderShape], Encoder]]] = {
    "attention": Attention,
    "mean": Mean,
    "sum": Sum,
    "mlp": Features,
}


def perceptron(shape: EncoderShape) -> nn.Module:
    """Dim -> 2 dim -> dim, normalised first."""
    return nn.Sequential(
        nn.LayerNorm(shape.dim),
        nn.Linear(shape.dim, 2 * shape.dim),
        nn.GELU(),
        Dropout(shape.dropout),
        nn.Linear(2 * shape.dim, shape.dim),
        Dropout(shape.dropout),
    )


def padded(history: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Add an empty slot at the end, so that slot 1 of the states exists even for lists of length 0."""
    return nn.functional.pad(history, (0, 0, 0, 1)), nn.functional.pad(mask, (0, 1))


def newest(states: Tensor, mask: Tensor) -> Tensor:
    """Pick slot 1 where the history holds an item, else slot 0. states: (batch, at least 2, dim); mask: (batch, k)."""
    some = mask.any(dim=1, keepdim=True).to(states.dtype)  # (batch, 1)
    return states[:, 1] * some + states[:, 0] * (1 - some)
