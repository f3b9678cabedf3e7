import pytest
import torch
from torch import nn

from train.model.attention import BLOCKED, MultiHeadAttention
from train.model.dropout import Dropout


def with_weights_of(ours: MultiHeadAttention, dim: int, heads: int) -> nn.MultiheadAttention:
    theirs = nn.MultiheadAttention(dim, heads, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key_value.weight]))
        theirs.in_proj_bias.copy_(torch.cat([ours.query.bias, ours.key_value.bias]))
        theirs.out_proj.weight.copy_(ours.out.weight)
        theirs.out_proj.bias.copy_(ours.out.bias)
    return theirs


@pytest.mark.parametrize("heads", [1, 2, 8])
def test_equals_torch_with_the_same_weights(heads: int) -> None:
    torch.manual_seed(0)
    ours = MultiHeadAttention(32, heads).eval()
    theirs = with_weights_of(ours, 32, heads).eval()
    x = torch.randn(3, 5, 32)
    padding = torch.tensor([[0, 0, 0, 0, 1], [0, 0, 0, 0, 0], [0, 0, 1, 1, 1]], dtype=torch.bool)
    expected = theirs(x, x, x, key_padding_mask=padding, need_weights=False)[0]
    torch.testing.assert_close(ours(x, x, padding=padding), expected, atol=1e-6, rtol=0)
    later = torch.ones(5, 5, dtype=torch.bool).triu(1)
    expected = theirs(x, x, x, attn_mask=later, need_weights=False)[0]
    torch.testing.assert_close(ours(x, x, bias=later * BLOCKED), expected, atol=1e-6, rtol=0)
    queries = torch.randn(3, 2, 32)
    expected = theirs(queries, x, x, need_weights=False)[0]
    torch.testing.assert_close(ours(queries, x), expected, atol=1e-6, rtol=0)


def test_exponent_is_the_power_of_the_width_of_a_head() -> None:
    torch.manual_seed(0)
    half = MultiHeadAttention(32, 2)
    quarter = MultiHeadAttention(32, 2, exponent=0.25)
    quarter.load_state_dict(half.state_dict())
    with torch.no_grad():
        quarter.query.weight.mul_(16**-0.25)
        quarter.query.bias.mul_(16**-0.25)
    x = torch.randn(2, 4, 32)
    torch.testing.assert_close(half(x, x), quarter(x, x), atol=1e-6, rtol=0)


def test_all_padded_is_finite_and_an_empty_batch_is_empty() -> None:
    attention = MultiHeadAttention(8, 2)
    x = torch.randn(1, 3, 8)
    assert attention(x, x, padding=torch.ones(1, 3, dtype=torch.bool)).isfinite().all()
    assert attention(x[:0], x[:0]).shape == (0, 3, 8)


def test_bias_is_added_to_the_logits() -> None:
    torch.manual_seed(0)
    attention = MultiHeadAttention(8, 2)
    x = torch.randn(2, 3, 8)
    only_first = torch.tensor([0.0, -1e9, -1e9]).expand(2, 3, 3)  # (heads, q, k)
    read = attention(x, x, bias=only_first)
    value = attention.key_value(x[:, :1]).chunk(2, dim=-1)[1]
    torch.testing.assert_close(read, attention.out(value).expand(-1, 3, -1), atol=1e-6, rtol=0)


def test_dropout_keeps_the_mean_and_zeros_its_share() -> None:
    torch.manual_seed(0)
    dropout, values = Dropout(0.25), torch.ones(100, 77)
    dropped = dropout(values)
    assert dropped.unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert (dropped == 0).float().mean().item() == pytest.approx(0.25, abs=0.02)
    assert dropout.eval()(values) is values
    assert Dropout(0.0)(values) is values
