"""Multi-head attention on rearranged tensors: no einsum, which kills onnxruntime on an empty batch."""

import torch
from einops import rearrange
from torch import Tensor, nn

from train.model.dropout import Dropout

BLOCKED = -1e9  # not -inf: a row with nothing to attend to must give a mean, not NaN


class MultiHeadAttention(nn.Module):
    """softmax(q k' / width^exponent + bias) v, over heads of equal width (arXiv 1706.03762, section 3.2).

    With `exponent` 0.5 and the same weights it equals `torch.nn.MultiheadAttention`.
    """

    def __init__(self, dim: int, heads: int, *, dropout: float = 0.0, exponent: float = 0.5) -> None:
        """Dim must be a multiple of heads; exponent: the power of the head's width that divides the logits."""
        super().__init__()
        assert dim % heads == 0, f"{heads} heads do not divide {dim}"
        self.heads = heads
        self.scale = (dim // heads) ** -exponent
        self.query = nn.Linear(dim, dim)
        self.key_value = nn.Linear(dim, 2 * dim)
        self.out = nn.Linear(dim, dim)
        self.dropout = Dropout(dropout)

    def forward(
        self,
        queries: Tensor,
        keys: Tensor,
        *,
        padding: Tensor | None = None,
        causal: bool = False,
        bias: Tensor | None = None,
    ) -> Tensor:
        """Let every query read the keys.

        queries: (batch, q, dim); keys: (batch, k, dim).
        padding: (batch, k) bool, true where a key is padding.
        causal: query i reads keys up to i (the last query reads all: both sequences end together).
        bias: added to the logits; broadcasts to (batch, heads, q, k).
        Returns (batch, q, dim).
        """
        query = rearrange(self.query(queries) * self.scale, "b q (h w) -> b h q w", h=self.heads)
        key, value = self.key_value(keys).chunk(2, dim=-1)
        key = rearrange(key, "b k (h w) -> b h w k", h=self.heads)
        value = rearrange(value, "b k (h w) -> b h k w", h=self.heads)
        logits = query @ key  # (batch, heads, q, k)
        if bias is not None:
            logits += bias
        if causal:
            q, k = logits.shape[-2:]
            later = torch.ones(q, k, dtype=torch.bool, device=logits.device).triu(k - q + 1)
            logits.masked_fill_(later, BLOCKED)
        if padding is not None:
            # Added, not filled in: the way back then has nothing to do.
            logits += rearrange(padding * BLOCKED, "b k -> b 1 1 k")
        read = self.dropout(logits.softmax(dim=-1)) @ value  # (batch, heads, q, width)
        mixed: Tensor = self.out(rearrange(read, "b h q w -> b q (h w)"))
        return mixed
