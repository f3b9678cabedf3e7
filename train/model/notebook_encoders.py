"""The towers of the notebook as encoders of users or items.

The notebook has no history. If a tower has one, each encoder also reads it, and returns the state after every item in
one pass, as all encoders do (see `encoders`): an item reads itself and older ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from train.config import options as config
from train.config.options import key
from train.features.kinds import Scaler, standardised
from train.model.attention import BLOCKED, MultiHeadAttention
from train.model.encoders import Encoder, EncoderShape
from train.model.feature_embedding import Column, FeatureEmbedding, Inputs

WINDOW_ROWS = 512  # states whose windows are in memory at once in training


class Numbers(nn.Module):
    """Numbers, each standardised and with a flag for missing, through linear maps: one token per number."""

    mean: Tensor
    std: Tensor

    def __init__(self, columns: Sequence[Column], width: int) -> None:
        super().__init__()
        self.names = [column.name for column in columns]
        scalers = [column.fitted for column in columns if isinstance(column.fitted, Scaler)]
        self.register_buffer("mean", torch.tensor([scaler.mean for scaler in scalers], dtype=torch.float32))
        # A constant feature has a deviation of 0.
        spread = [scaler.std if scaler.std > 1e-12 else 1.0 for scaler in scalers]
        self.register_buffer("std", torch.tensor(spread, dtype=torch.float32))
        # The initialisation of torch.nn.Linear with two inputs.
        bound = 2**-0.5
        self.value = nn.Parameter(torch.empty(len(columns), width).uniform_(-bound, bound))
        self.missing = nn.Parameter(torch.empty(len(columns), width).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(len(columns), width).uniform_(-bound, bound))

    def forward(self, inputs: Inputs) -> Tensor:
        """Embed numbers. inputs: one (n,) float32 tensor per column. Returns (n, columns, width)."""
        values = torch.stack([inputs[name] for name in self.names], dim=1)  # (n, columns)
        pair = standardised(values, self.mean, self.std)  # (n, columns, 2)
        tokens: Tensor = pair[:, :, :1] * self.value + pair[:, :, 1:] * self.missing + self.bias
        return tokens


class Tokens(FeatureEmbedding):
    """One token per feature, and a constant one.

    Their sum is one linear map of the concatenated features; the constant token is its bias.
    """

    def __init__(
        self,
        columns: Sequence[Column],
        width: int,
        *,
        id_column: str | None = None,
        id_dropout: float = 0.0,
        feature_dropout: float = 0.0,
    ) -> None:
        numbers = [column for column in columns if column.kind == "number"]
        others = [column for column in columns if column.kind != "number"]
        super().__init__(others, width, id_column=id_column, id_dropout=id_dropout, feature_dropout=feature_dropout)
        self.numbers = Numbers(numbers, width) if numbers else None
        nn.init.normal_(self.base, std=width**-0.5)

    def forward(self, inputs: Inputs, rows: int) -> Tensor:
        """Embed a batch. inputs: one tensor per column, with `rows` rows. Returns (rows, 1 + columns, width)."""
        tokens = torch.stack([self.base.expand(rows, -1), *self.parts(inputs)], dim=1)
        return tokens if self.numbers is None else torch.cat([tokens, self.numbers(inputs)], dim=1)


class NotebookEncoder(Encoder):
    """Base class of the notebook's encoders. Their profile is (batch, tokens, width)."""

    def __init__(self, shape: EncoderShape, options: config.Encoder, *, width: int) -> None:
        super().__init__(shape, options)
        self.width = width
        # The history reads the vectors of the item tower, of size `dim`.
        self.history = nn.Linear(shape.dim, width) if shape.history else None

    def features(
        self,
        columns: Sequence[Column],
        *,
        id_column: str | None = None,
        id_dropout: float = 0.0,
        feature_dropout: float = 0.0,
    ) -> FeatureEmbedding:
        return Tokens(columns, self.width, id_column=id_column, id_dropout=id_dropout, feature_dropout=feature_dropout)

    def alone(self, profile: Tensor) -> Tensor:
        """Compute the state without a history. profile: (n, tokens, width). Returns (n, dim)."""
        raise NotImplementedError

    def forward(self, profile: Tensor, history: Tensor, mask: Tensor) -> Tensor:
        if self.history is None:
            return repeat(self.alone(profile), "b d -> b slots d", slots=1 + history.shape[1])
        return self.states(profile, history, mask)

    def states(self, profile: Tensor, history: Tensor, mask: Tensor) -> Tensor:
        """Compute the state at every slot, for a tower with a history: (batch, 1 + k, dim)."""
        raise NotImplementedError

    def last(self, profile: Tensor, history: Tensor, mask: Tensor) -> Tensor:
        return self.alone(profile) if self.history is None else self.after(profile, history, mask)

    def after(self, profile: Tensor, history: Tensor, mask: Tensor) -> Tensor:
        """Compute the state after the newest item, for a tower with a history: (batch, dim). This is exported."""
        raise NotImplementedError

    def linear(self, profile: Tensor, history: Tensor, mask: Tensor) -> Tensor:
        """Apply one linear map to the features and the mean of the history up to each slot: (batch, 1 + k, width)."""
        assert self.history is not None
        total = rearrange(joined(profile), "b w -> b 1 w")
        embedded: Tensor = total + self.history(means_so_far(history, mask))
        return embedded

    def linear_last(self, profile: Tensor, history: Tensor, mask: Tensor) -> Tensor:
        """As `linear`, after the newest item only: (batch, width)."""
        assert self.history is not None
        weight = rearrange(mask.to(history.dtype), "b k -> b k 1")
        mean = (history * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1)
        total: Tensor = joined(profile) + self.history(mean)
        return total


def joined(tokens: Tensor) -> Tensor:
    """Add the tokens and divide by the root of their number: (n, tokens, width) -> (n, width)."""
    total: Tensor = tokens.sum(dim=1) * tokens.shape[1] ** -0.5
    return total


def means_so_far(history: Tensor, mask: Tensor) -> Tensor:
    """Compute the mean of each item and the older ones, zeros at slot 0: (b, k, d), newest first -> (b, 1 + k, d)."""
    weight = rearrange(mask.to(history.dtype), "b k -> b k 1")
    means = older(history * weight) / older(weight).clamp(min=1)
    return torch.cat([history.new_zeros(len(history), 1, history.shape[2]), means], dim=1)


def older(values: Tensor) -> Tensor:
    """Sum each slot and the older ones: (b, k, d), newest first -> (b, k, d)."""
    # A product with a triangle of ones, since not every runtime has a cumulative sum.
    k = values.shape[1]
    sums: Tensor = torch.ones(k, k, dtype=values.dtype, device=values.device).triu() @ values
    return sums


@dataclass(frozen=True, slots=True, kw_only=True)
class NotebookAttentionOptions(config.Encoder):
    """Options of `NotebookAttention`."""

    encoder: str = "notebook-attention"
    embed: int = key(128, "Width of the attention; a multiple of the heads.", low=1, high=4096)
    heads: int = key(8, "Attention heads.", low=1, high=64)
    scale: float = key(0.5, "Exponent of the width of a head that divides the attention scores.", low=0, high=1)
    dropout: float = key(0.0, "Dropout of the attention.", low=0, below=1)

    def __post_init__(self) -> None:
        if self.embed % self.heads:
            raise ValueError(f"{self.heads} heads do not divide embed = {self.embed}")


class NotebookAttention(NotebookEncoder):
    """The notebook's attention tower: linear, self-attention over the features, mean, linear.

    Each feature is a token, and each item of a history another. Features read features; items read features, themselves
    and older items. The mean is over the tokens that a state may read.
    """

    Options = NotebookAttentionOptions

    def __init__(self, shape: EncoderShape, options: NotebookAttentionOptions | None = None) -> None:
        options = options or NotebookAttentionOptions()
        super().__init__(shape, options, width=options.embed)
        self.attention = MultiHeadAttention(
            options.embed, options.heads, dropout=options.dropout, exponent=options.scale
        )
        self.out = nn.Linear(options.embed, shape.dim)

    def alone(self, profile: Tensor) -> Tensor:
        state: Tensor = self.out(self.attention(profile, profile).mean(dim=1))
        return state

    def states(self, profile: Tensor, history: Tensor, mask: Tensor) -> Tensor:
        tokens = profile.shape[1]
        read, weight = self._read(profile, history, mask)
        static = read[:, :tokens].sum(dim=1, keepdim=True)  # (batch, 1, width)
        total = static + older(read[:, tokens:] * weight)
        means = torch.cat([static / tokens, total / (tokens + older(weight))], dim=1)
        out: Tensor = self.out(means)
        return out  # (batch, 1 + k, dim)

    def after(self, profile: Tensor, history: Tensor, mask: Tensor) -> Tensor:
        tokens = profile.shape[1]
        read, weight = self._read(profile, history, mask)
        total = read[:, :tokens].sum(dim=1) + (read[:, tokens:] * weight).sum(dim=1)  # (batch, width)
        state: Tensor = self.out(total / (tokens + weight.sum(dim=1)))
        return state

    def _read(self, profile: Tensor, history: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Apply attention: (batch, tokens + k, width), and 1.0 where an item is, (batch, k, 1)."""
        assert self.history is not None
        sequence = torch.cat([profile, self.history(history)], dim=1)
        padding = torch.cat([torch.zeros_like(profile[:, :, 0], dtype=torch.bool), ~mask], dim=1)
        read = self.attention(sequence, sequence, padding=padding, bias=self._bias(profile.shape[1], history))
        return read, rearrange(mask.to(read.dtype), "b k -> b k 1")

    def _bias(self, tokens: int, history: Tensor) -> Tensor:
        """The bias of the attention, BLOCKED where a row may not read a column: (tokens + k, tokens + k)."""
        size = tokens + history.shape[1]
        position = torch.arange(size, device=history.device)
        query, key = position[:, None], position[None, :]
        # An item is not read by older items (at later slots) or by features.
        hidden = ~(key < tokens) & ((key < query) | (query < tokens))
        return torch.zeros(size, size, device=history.device).masked_fill(hidden, BLOCKED)


@dataclass(frozen=True, slots=True, kw_only=True)
class RollingAttentionOptions(config.Encoder):
    """Options of `RollingAttention`."""

    encoder: str = "rolling-attention"
    embed: int = key(128, "Width of the embedding that the windows are cut from.", low=1, high=4096)
    window: int = key(3, "Width of a window; at most the embedding's.", low=1, high=4096)
    width: int = key(32, "Width of the attention that a window is projected to; a multiple of the heads.", low=1)
    heads: int = key(4, "Attention heads.", low=1, high=64)
    scale: float = key(0.5, "Exponent of the width of a head that divides the attention scores.", low=0, high=1)
    dropout: float = key(0.0, "Dropout of the attention.", low=0, below=1)

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"{self.heads} heads do not divide width = {self.width}")
        if self.window > self.embed:
            raise ValueError(f"window = {self.window} is larger than embed = {self.embed}")


class RollingAttention(NotebookEncoder):
    """The notebook's tower that crashed: linear, ReLU, attention over windows of the embedding, mean, linear.

    The notebook passes windows of 3 to an attention of another width, which fails; here they are projected to it.
    """

    Options = RollingAttentionOptions

    def __init__(self, shape: EncoderShape, options: RollingAttentionOptions | None = None) -> None:
        options = options or RollingAttentionOptions()
        super().__init__(shape, options, width=options.embed)
        self.window = options.window
        self.project = nn.Linear(options.window, options.width)
        self.attention = MultiHeadAttention(
            options.width, options.heads, dropout=options.dropout, exponent=options.scale
        )
        self.out = nn.Linear(options.width, shape.dim)

    def alone(self, profile: Tensor) -> Tensor:
        return self._state(joined(profile))

    def states(self, profile: Tensor, history: Tensor, mask: Tensor) -> Tensor:
        embedded = self.linear(profile, history, mask)  # (batch, 1 + k, width)
        states = self._state(rearrange(embedded, "b s w -> (b s) w"))
        return rearrange(states, "(b s) d -> b s d", s=embedded.shape[1])

    def after(self, profile: Tensor, history: Tensor, mask: Tensor) -> Tensor:
        return self._state(self.linear_last(profile, history, mask))

    def _state(self, embedded: Tensor) -> Tensor:
        """Compute states of embedded features: (n, width) -> (n, dim)."""
        if self.training and len(embedded) > WINDOW_ROWS:
            parts = [
                checkpoint(self._windows, part, use_reentrant=False) for part in torch.split(embedded, WINDOW_ROWS)
            ]
            return torch.cat(parts)
        return self._windows(embedded)

    def _windows(self, embedded: Tensor) -> Tensor:
        active = nn.functional.relu(embedded)
        count = self.width - self.window + 1
        rolled = torch.stack([active[:, first : first + count] for first in range(self.window)], dim=-1)
        windows = self.project(rolled)  # (n, windows, attention's width)
        out: Tensor = self.out(self.attention(windows, windows).mean(dim=1))
        return out


@dataclass(frozen=True, slots=True, kw_only=True)
class NotebookMlpOptions(config.Encoder):
    """Options of `NotebookMlp`."""

    encoder: str = "notebook-mlp"
    hidden: int = key(128, "Width of the hidden layer.", low=1, high=8192)
    last_relu: bool = key(False, "ReLU after the last layer too, as in the notebook: no cosine is then below 0.")


class NotebookMlp(NotebookEncoder):
    """The notebook's plain tower: linear, ReLU, linear.

    With `last_relu`, as in the notebook, a second ReLU follows. Then no cosine is negative, and ratings in the lower
    half of the range cannot be predicted.
    """

    Options = NotebookMlpOptions

    def __init__(self, shape: EncoderShape, options: NotebookMlpOptions | None = None) -> None:
        options = options or NotebookMlpOptions()
        super().__init__(shape, options, width=options.hidden)
        self.out = nn.Linear(options.hidden, shape.dim)
        self.last_relu = options.last_relu

    def alone(self, profile: Tensor) -> Tensor:
        return self._state(joined(profile))

    def states(self, profile: Tensor, history: Tensor, mask: Tensor) -> Tensor:
        return self._state(self.linear(profile, history, mask))

    def after(self, profile: Tensor, history: Tensor, mask: Tensor) -> Tensor:
        return self._state(self.linear_last(profile, history, mask))

    def _state(self, embedded: Tensor) -> Tensor:
        state: Tensor = self.out(nn.functional.relu(embedded))
        return nn.functional.relu(state) if self.last_relu else state


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossAttentionOptions(config.Encoder):
    """Options of `CrossAttention`."""

    encoder: str = "cross-attention"
    embed: int = key(128, "Width of the attention; a multiple of the heads.", low=1, high=4096)
    heads: int = key(8, "Attention heads.", low=1, high=64)
    scale: float = key(0.5, "Exponent of the width of a head that divides the attention scores.", low=0, high=1)
    dropout: float = key(0.0, "Dropout of the attention.", low=0, below=1)

    def __post_init__(self) -> None:
        if self.embed % self.heads:
            raise ValueError(f"{self.heads} heads do not divide embed = {self.embed}")


class CrossAttention(NotebookEncoder):
    """Attention with the profile as query, over the history or, without one, over the features.

    The item as query, the notebook's idea, would need both towers at once. One constant key is always there, for an
    empty history.
    """

    Options = CrossAttentionOptions

    def __init__(self, shape: EncoderShape, options: CrossAttentionOptions | None = None) -> None:
        options = options or CrossAttentionOptions()
        super().__init__(shape, options, width=options.embed)
        self.attention = MultiHeadAttention(
            options.embed, options.heads, dropout=options.dropout, exponent=options.scale
        )
        self.nothing = nn.Parameter(torch.randn(options.embed) * options.embed**-0.5)
        self.out = nn.Linear(options.embed, shape.dim)

    def alone(self, profile: Tensor) -> Tensor:
        query = rearrange(joined(profile), "b w -> b 1 w")
        read = self.attention(query, torch.cat([self._nothing(profile), profile], dim=1))
        state: Tensor = self.out(query + read)[:, 0]
        return state

    def states(self, profile: Tensor, history: Tensor, mask: Tensor) -> Tensor:
        assert self.history is not None
        slots = 1 + history.shape[1]
        query = rearrange(joined(profile), "b w -> b 1 w")
        read = self.attention(
            repeat(query, "b 1 w -> b slots w", slots=slots),
            torch.cat([self._nothing(profile), self.history(history)], dim=1),  # (batch, 1 + k, width)
            padding=self._padding(profile, mask),
            bias=self._bias(slots, history),
        )
        out: Tensor = self.out(query + read)
        return out  # (batch, 1 + k, dim)

    def after(self, profile: Tensor, history: Tensor, mask: Tensor) -> Tensor:
        assert self.history is not None
        query = rearrange(joined(profile), "b w -> b 1 w")
        keys = torch.cat([self._nothing(profile), self.history(history)], dim=1)
        read = self.attention(query, keys, padding=self._padding(profile, mask))
        state: Tensor = self.out(query + read)[:, 0]
        return state

    def _nothing(self, profile: Tensor) -> Tensor:
        """The constant key: (batch, 1, width)."""
        return self.nothing.expand(profile.shape[0], 1, -1)

    def _padding(self, profile: Tensor, mask: Tensor) -> Tensor:
        """The padding of the constant key and the items: (batch, 1 + k)."""
        return torch.cat([torch.zeros_like(profile[:, :1, 0], dtype=torch.bool), ~mask], dim=1)

    def _bias(self, slots: int, history: Tensor) -> Tensor:
        """The bias: slot s reads the constant key and, if s > 0, the items from slot s on: (slots, slots)."""
        position = torch.arange(slots, device=history.device)
        query, key = position[:, None], position[None, :]
        hidden = (key > 0) & ((key < query) | (query == 0))
        return torch.zeros(slots, slots, device=history.device).masked_fill(hidden, BLOCKED)
