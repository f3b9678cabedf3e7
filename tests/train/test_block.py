"""The block by hand against its parts: values and gradients, in double precision."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from train.model.attention import BLOCKED
from train.model.block import BlockPass, Kept, distances, gathered
from train.model.encoders import Attention, Block, EncoderShape

DIM, HEADS, LONGEST = 16, 2, 9


def block() -> Block:
    torch.manual_seed(0)
    made = Block(EncoderShape(dim=DIM, layers=1, heads=HEADS, dropout=0.0, max_length=LONGEST)).double()
    for weight in made.parameters():
        nn.init.normal_(weight, std=0.3)  # nothing may hold only because a weight starts at zero
    return made


def states_and_mask(width: int) -> tuple[Tensor, Tensor]:
    states = torch.randn(3, width, DIM, dtype=torch.float64, requires_grad=True)
    lengths = torch.tensor([width - 1, max(width - 3, 0), max(width - 2, 0)])
    return states, torch.arange(width - 1) < lengths[:, None]


def plainly(made: Block, states: Tensor, blocked: Tensor, kept: Kept) -> Tensor:
    """The formulas of arXiv 1706.03762 with dropout, a head at a time. blocked: (batch, width, width)."""
    weights = made.weights()
    batch, width, _ = states.shape
    half = DIM // HEADS
    normed = functional.layer_norm(states, [DIM], weights.attention_scale, weights.attention_shift)
    query = normed @ weights.query.T + weights.query_bias
    key, value = (normed @ weights.key_value.T + weights.key_value_bias).chunk(2, dim=-1)
    bias = made._bias(width, width, states.device)
    heads = []
    for head in range(HEADS):
        own = slice(head * half, (head + 1) * half)
        logits = query[..., own] @ key[..., own].mT / half**0.5 + bias[head]
        shares = logits.masked_fill(blocked, BLOCKED).softmax(dim=-1)
        if kept.shares is not None:
            shares = shares * kept.shares.view(batch, HEADS, width, width)[:, head]
        heads.append(shares @ value[..., own])
    read = torch.cat(heads, dim=-1) @ weights.out.T + weights.out_bias
    middle = states + read * kept.read.view_as(read)
    again = functional.layer_norm(middle, [DIM], weights.network_scale, weights.network_shift)
    hidden = functional.relu(again @ weights.widen.T + weights.widen_bias)
    hidden = hidden * kept.hidden.view_as(hidden)
    return middle + (hidden @ weights.narrow.T + weights.narrow_bias) * kept.added.view_as(middle)


@pytest.mark.parametrize("some", [False, True])
@pytest.mark.parametrize("dropped", ["nothing", "all", "all but shares"])
@pytest.mark.parametrize("width", [1, 2, 6, LONGEST + 1])
def test_equals_its_parts(width: int, dropped: str, *, some: bool) -> None:
    made = block()
    states, mask = states_and_mask(width)
    present = functional.pad(mask, (1, 0), value=True)
    slots = present.flatten().nonzero()[:, 0]
    shapes = (3 * HEADS, width, width), (3 * width, DIM), (3 * width, 2 * DIM), (3 * width, DIM)
    kept = Kept(*((torch.rand(shape) < 0.7).double() / 0.7 for shape in shapes))
    if dropped == "all but shares":
        kept = kept._replace(shares=None)
    expected = made(states, mask) if dropped == "nothing" else plainly(made, states, ~present[:, None, :], kept)
    expected = expected.flatten(0, 1)[slots]
    if some:
        kept = kept._replace(read=kept.read[slots], hidden=kept.hidden[slots], added=kept.added[slots])
    found = BlockPass.apply(  # type: ignore[no-untyped-call]
        states, ~present * BLOCKED, slots if some else None, None if dropped == "nothing" else kept, *made.weights()
    )
    if not some:
        found = found[slots]
    torch.testing.assert_close(found, expected)
    weight = torch.randn_like(expected)
    of = [states, *made.weights()]
    wanted = torch.autograd.grad((expected * weight).sum(), of)
    for ours, theirs in zip(torch.autograd.grad((found * weight).sum(), of), wanted, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("width", [1, 2, 3, LONGEST + 1])
def test_distances_are_the_bias_of_the_block(width: int) -> None:
    made = block()
    expected = made._bias(width, width, torch.device("cpu"))
    torch.testing.assert_close(distances(made.distance_bias.detach(), width), expected.detach())
    weight = torch.randn_like(expected).masked_fill(expected == BLOCKED, 0.0)
    wanted = torch.autograd.grad((expected * weight).sum(), made.distance_bias)[0]
    torch.testing.assert_close(gathered(weight, like=made.distance_bias), wanted)


def test_the_encoder_trains_what_it_answers() -> None:
    """At any slots the states are those of `forward`; in training dropout leaves them so on average."""
    torch.manual_seed(0)
    encoder = Attention(EncoderShape(dim=DIM, layers=2, heads=HEADS, dropout=0.1, max_length=LONGEST)).eval()
    profile, history = torch.randn(4, DIM), torch.randn(4, 6, DIM)
    mask = torch.arange(6) < torch.tensor([6, 0, 3, 1])[:, None]
    slots = functional.pad(mask, (1, 0), value=True).flatten().nonzero()[::2, 0]
    expected = encoder(profile, history, mask).flatten(0, 1)[slots]
    torch.testing.assert_close(encoder.at(profile, history, mask, slots), expected)
    encoder.train()
    with torch.no_grad():
        drawn = torch.stack([encoder.at(profile, history, mask, slots) for _ in range(200)])
    assert drawn.std(dim=0).min() > 0.01
    assert (drawn.mean(dim=0) - expected).abs().mean() < 0.15
