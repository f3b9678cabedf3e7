"""One block of the attention encoder in one pass of training: forward and backward by hand.

The formulas are those of `encoders.Block`. Written out, a pass makes a sixth of the tensors that autograd makes of
them, keeps what the way back needs and no more, and works in place; on one core, where a tensor of a thousand slots is
soon gone through, that is half of the time.
"""

from typing import Any, NamedTuple

import torch
from einops import rearrange
from torch import Tensor
from torch.autograd.function import once_differentiable

from train.model.attention import BLOCKED

EPS = 1e-5  # of the norms, as torch.nn.LayerNorm has it

aten = torch.ops.aten


class Weights(NamedTuple):
    """What a block has learned. Matrices as torch.nn.Linear has them: (out, in).

    distance_bias: (max_length + 1, heads), see `encoders.Block`.
    """

    distance_bias: Tensor
    attention_scale: Tensor
    attention_shift: Tensor
    query: Tensor
    query_bias: Tensor
    key_value: Tensor
    key_value_bias: Tensor
    out: Tensor
    out_bias: Tensor
    network_scale: Tensor
    network_shift: Tensor
    widen: Tensor
    widen_bias: Tensor
    narrow: Tensor
    narrow_bias: Tensor


class Kept(NamedTuple):
    """What dropout leaves, scaled up: 0 or 1 / (1 - share). Of the shapes of what they are multiplied with.

    shares: (batch * heads, width, width), None for all of them; read, added: (slots, dim); hidden: (slots, 2 dim).
    """

    shares: Tensor | None
    read: Tensor
    hidden: Tensor
    added: Tensor


class BlockPass(torch.autograd.Function):
    """states (batch, width, dim) -> states (slots, dim) after the block.

    padding: (batch, width), BLOCKED where a slot is empty, else 0; None where none is.
    slots: (n,) int64 into batch * width, those that are asked for, each once; None for all.
    kept: None for no dropout.
    """

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, padding: Tensor | None, slots: Tensor | None, kept: Kept | None, *given: Tensor
    ) -> Tensor:
        weights = Weights(*given)
        batch, width, dim = states.shape
        heads = weights.distance_bias.shape[1]
        flat = states.reshape(-1, dim)
        normed, *moments = torch.native_layer_norm(flat, [dim], weights.attention_scale, weights.attention_shift, EPS)
        together, bias = joined(weights)
        # With one head a view: products read and write by strides, and nothing is copied.
        mixed = rearrange(
            torch.addmm(bias, normed, together.T), "(b s) (three h w) -> three (b h) s w", b=batch, three=3, h=heads
        )
        query, key, value = mixed
        logits = distances(weights.distance_bias, width)[None].expand(batch, -1, -1, -1)
        logits = logits.contiguous() if padding is None else logits + rearrange(padding, "b s -> b 1 1 s")
        # Not in place: over rows as short as these that takes half as long again.
        shares = logits.view(-1, width, width).baddbmm_(query, key.mT).softmax(dim=-1)
        counted = shares if kept is None or kept.shares is None else shares * kept.shares
        read = rearrange(counted @ value, "(b h) s w -> (b s) (h w)", b=batch)
        old = flat
        if slots is not None:
            read, old = read.index_select(0, slots), flat.index_select(0, slots)
        added = torch.addmm(weights.out_bias, read, weights.out.T)
        middle = old + added if kept is None else torch.addcmul(old, added, kept.read)
        again, *more = torch.native_layer_norm(middle, [dim], weights.network_scale, weights.network_shift, EPS)
        hidden = torch.addmm(weights.widen_bias, again, weights.widen.T).relu_()
        if kept is not None:
            hidden *= kept.hidden
        added = torch.addmm(weights.narrow_bias, hidden, weights.narrow.T)
        ctx.kept, ctx.slots = kept, slots
        ctx.shape = states.shape
        ctx.save_for_backward(
            flat,
            normed,
            *moments,
            mixed,
            together,
            shares,
            counted,
            read,
            middle,
            again,
            *more,
            hidden,
            *weights,
        )
        return middle + added if kept is None else torch.addcmul(middle, added, kept.added)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        flat, normed, mean, deviation, mixed, together, shares, counted = saved[:8]
        read, middle, again, mean2, deviation2, hidden = saved[8:14]
        weights = Weights(*saved[14:])
        kept, slots = ctx.kept, ctx.slots
        batch, width, dim = ctx.shape
        heads = weights.distance_bias.shape[1]
        query, key, value = mixed

        added = gradient if kept is None else gradient * kept.added
        narrow, narrow_bias = added.T @ hidden, added.sum(dim=0)
        inner = added @ weights.narrow
        if kept is not None:
            inner *= kept.hidden
        inner = aten.threshold_backward(inner, hidden, 0)  # what dropout made 0 has no gradient either
        widen, widen_bias = inner.T @ again, inner.sum(dim=0)
        across, network_scale, network_shift = aten.native_layer_norm_backward(
            inner @ weights.widen,
            middle,
            [dim],
            mean2,
            deviation2,
            weights.network_scale,
            weights.network_shift,
            [True, True, True],
        )
        across += gradient  # (n, dim), of `middle`
        added = across if kept is None else across * kept.read
        out, out_bias = added.T @ read, added.sum(dim=0)
        back = added @ weights.out
        if slots is not None:
            back = torch.zeros_like(flat).index_copy_(0, slots, back)
            across = torch.zeros_like(flat).index_copy_(0, slots, across)
        back = rearrange(back, "(b s) (h w) -> (b h) s w", b=batch, h=heads)
        apart = torch.empty_like(mixed)
        torch.bmm(counted.mT, back, out=apart[2])
        inner = back @ value.mT  # (batch * heads, width, width)
        if kept is not None and kept.shares is not None:
            inner *= kept.shares
        inner = aten._softmax_backward_data(inner, shares, -1, inner.dtype)
        distance_bias = gathered(inner.view(batch, heads, width, width).sum(dim=0), like=weights.distance_bias)
        torch.bmm(inner, key, out=apart[0])
        torch.bmm(inner.mT, query, out=apart[1])
        merged = rearrange(apart, "three (b h) s w -> (b s) (three h w)", b=batch)
        matrix, bias = merged.T @ normed, merged.sum(dim=0)
        below, attention_scale, attention_shift = aten.native_layer_norm_backward(
            merged @ together,
            flat,
            [dim],
            mean,
            deviation,
            weights.attention_scale,
            weights.attention_shift,
            [True, True, True],
        )
        below += across
        scale = scaling(dim, heads)
        return (
            below.view(ctx.shape), None, None, None,
            distance_bias, attention_scale, attention_shift,
            matrix[:dim] * scale, bias[:dim] * scale, matrix[dim:], bias[dim:],
            out, out_bias, network_scale, network_shift, widen, widen_bias, narrow, narrow_bias,
        )  # fmt: skip


def scaling(dim: int, heads: int) -> float:
    """What queries are multiplied by (arXiv 1706.03762, section 3.2.1)."""
    return float((dim // heads) ** -0.5)


def joined(weights: Weights) -> tuple[Tensor, Tensor]:
    """Queries', keys' and values' matrices as one, queries scaled: (3 dim, dim) and (3 dim,)."""
    scale = scaling(weights.query.shape[0], weights.distance_bias.shape[1])
    return (
        torch.cat([weights.query * scale, weights.key_value]),
        torch.cat([weights.query_bias * scale, weights.key_value_bias]),
    )


def distances(bias: Tensor, width: int) -> Tensor:
    """The bias of every slot for every other, BLOCKED where that one is newer. (heads, width, width).

    bias: (max_length + 1, heads): row d for an item d places older, the last for the profile, which is slot 0; it
    reads itself only. width: at most max_length + 1.
    """
    heads, items = bias.shape[1], width - 1
    out = bias.new_full((heads, width, width), BLOCKED)
    out[:, :, 0] = bias[-1][:, None]
    # Row q of the items is BLOCKED q times, and then starts from distance 0: windows into one line.
    line = torch.cat([bias.new_full((heads, max(items - 1, 0)), BLOCKED), bias[:items].T], dim=1)
    if items:
        out[:, 1:, 1:] = line.unfold(1, items, 1).flip(1)
    return out


def gathered(gradient: Tensor, *, like: Tensor) -> Tensor:
    """The gradient of `distances`: (heads, width, width), exactly 0 where BLOCKED -> (max_length + 1, heads)."""
    heads, width, _ = gradient.shape
    items = width - 1
    out = torch.zeros_like(like)
    out[-1] = gradient[:, :, 0].sum(dim=1)
    if items:
        inner = gradient[:, 1:, 1:]
        # Rows one longer than they are: each starts at its diagonal, and what it runs over into is BLOCKED.
        line = torch.cat([inner.reshape(heads, -1), gradient.new_zeros(heads, items)], dim=1)
        skewed = line.as_strided((heads, items, items), (line.stride(0), items + 1, 1))
        out[:items] += skewed.sum(dim=1).T
    return out
