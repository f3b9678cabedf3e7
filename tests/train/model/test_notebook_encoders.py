"""The notebook's encoders, on either side: what holds of every encoder, and what each one computes."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.support.columns import column
from tests.support.towers import DIM, ITEM_COLUMNS, USER_COLUMNS, items, rows, users
from train.config import options
from train.features.kinds import unit
from train.model import build, notebook_encoders
from train.model.encoders import EncoderShape
from train.model.notebook_encoders import (
    CrossAttentionOptions,
    NotebookAttentionOptions,
    NotebookMlpOptions,
    RollingAttentionOptions,
)
from train.model.towers import ItemTower, UserTower, in_blocks

OPTIONS: dict[str, options.Encoder] = {
    "notebook-attention": NotebookAttentionOptions(embed=24, heads=4),
    "rolling-attention": RollingAttentionOptions(embed=20, window=3, width=8, heads=2),
    "notebook-mlp": NotebookMlpOptions(hidden=24),
    "notebook-mlp, last ReLU": NotebookMlpOptions(hidden=24, last_relu=True),
    "cross-attention": CrossAttentionOptions(embed=24, heads=4),
}


def shaken(tower: nn.Module) -> None:
    for weight in tower.parameters():
        nn.init.normal_(weight, std=0.3)


def user_tower(encoder: str, *, history: bool = True) -> UserTower:
    torch.manual_seed(0)
    shape = EncoderShape(dim=DIM, layers=1, heads=2, dropout=0.0, max_length=6, history=history)
    columns = USER_COLUMNS if history else USER_COLUMNS[:2]
    tower = UserTower(columns, dim=DIM, encoder=build.encoder(OPTIONS[encoder], shape)).eval()
    shaken(tower)
    tower.freeze_items(functional.normalize(torch.randn(10, DIM), dim=-1))
    return tower


def item_tower(encoder: str) -> ItemTower:
    torch.manual_seed(3)
    shape = EncoderShape(dim=DIM, layers=1, heads=2, dropout=0.0, max_length=6)
    tower = ItemTower(ITEM_COLUMNS, dim=DIM, id_column="id", encoder=build.item_encoder(OPTIONS[encoder], shape)).eval()
    shaken(tower)
    return tower


@pytest.mark.parametrize("history", [True, False])
@pytest.mark.parametrize("encoder", OPTIONS)
def test_user_vectors_are_unit_and_a_batch_equals_its_rows(encoder: str, history: bool) -> None:
    tower, batch = user_tower(encoder, history=history), users()
    vectors = tower(batch)
    torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(4))
    for row in range(4):
        torch.testing.assert_close(tower(rows(batch, slice(row, row + 1)))[0], vectors[row], atol=1e-6, rtol=0)
    assert tower(rows(batch, slice(0, 0))).shape == (0, DIM)


@pytest.mark.parametrize("encoder", OPTIONS)
def test_padding_and_empty_lists(encoder: str) -> None:
    tower, batch = user_tower(encoder), users()
    vectors = tower(batch)
    wider = batch | {"past": functional.pad(batch["past"], (0, 5))}
    torch.testing.assert_close(tower(wider), vectors, atol=1e-6, rtol=0)
    without = rows(batch, slice(1, 2))
    torch.testing.assert_close(tower(without | {"past": without["past"][:, :0]})[0], vectors[1], atol=1e-6, rtol=0)


@pytest.mark.parametrize("encoder", OPTIONS)
def test_the_state_at_a_slot_is_the_vector_of_the_history_up_to_it(encoder: str) -> None:
    tower, batch = user_tower(encoder), users()
    past = batch["past"]
    states = unit(tower.encoder(tower.embedding(batch, 4), tower.item_vectors[past], past != 0))
    assert states.shape == (4, 1 + past.shape[1], DIM)
    for slot in range(1, past.shape[1] + 1):
        shorter = batch | {"past": past[:, slot - 1 :]}
        there = past[:, slot - 1] != 0
        torch.testing.assert_close(states[there, slot], tower(shorter)[there], atol=1e-6, rtol=0)
    torch.testing.assert_close(states[:, 0], tower(batch | {"past": past * 0}), atol=1e-6, rtol=0)


@pytest.mark.parametrize("encoder", OPTIONS)
def test_history_and_features_both_count(encoder: str) -> None:
    tower, batch = user_tower(encoder), users()
    vectors = tower(batch)
    assert not torch.allclose(tower(batch | {"job": (batch["job"] + 1) % 5}), vectors, atol=1e-3)
    changed = tower(batch | {"past": batch["past"].clamp(max=4)})
    assert not torch.allclose(changed[0], vectors[0], atol=1e-4)
    torch.testing.assert_close(changed[1], vectors[1])


@pytest.mark.parametrize("encoder", OPTIONS)
def test_items(encoder: str) -> None:
    tower = item_tower(encoder)
    vectors = tower(items())
    torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(3))
    torch.testing.assert_close(in_blocks(tower, items(), block=2), vectors, atol=1e-6, rtol=0)
    assert tower(items(0)).shape == (0, DIM)
    assert not torch.allclose(tower(items() | {"code": torch.tensor([3, 3, 3])}), vectors, atol=1e-3)


def test_the_sum_of_the_tokens_is_one_linear_map_of_the_features() -> None:
    """Of standardised numbers side by side, as the notebook's first layer has it."""
    torch.manual_seed(0)
    columns = [column(name=name, kind="number", mean=mean, std=2.0) for name, mean in (("a", 1.0), ("b", -3.0))]
    tokens = notebook_encoders.Tokens(columns, 5).eval()
    values = torch.tensor([[1.0, 2.0], [5.0, -1.0]])
    assert tokens.numbers is not None
    matrix = tokens.numbers.value.T
    bias = tokens.base + tokens.numbers.bias.sum(dim=0)
    z = (values - torch.tensor([1.0, -3.0])) / 2
    found = tokens({"a": values[:, 0], "b": values[:, 1]}, 2).sum(dim=1)
    torch.testing.assert_close(found, functional.linear(z, matrix, bias))


def test_notebook_attention_is_the_notebooks_layers() -> None:
    """With torch's own attention on the same weights: attention over the features, mean, linear."""
    tower = user_tower("notebook-attention", history=False)
    encoder = tower.encoder
    assert isinstance(encoder, notebook_encoders.NotebookAttention)
    ours = encoder.attention
    theirs = nn.MultiheadAttention(24, 4, batch_first=True).eval()
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key_value.weight]))
        theirs.in_proj_bias.copy_(torch.cat([ours.query.bias, ours.key_value.bias]))
        theirs.out_proj.weight.copy_(ours.out.weight)
        theirs.out_proj.bias.copy_(ours.out.bias)
    profile = tower.embedding(users(), 4)
    assert profile.shape == (4, 3, 24)  # age, job, and the one that is always there
    expected = unit(encoder.out(theirs(profile, profile, profile)[0].mean(dim=1)))
    torch.testing.assert_close(tower(users()), expected, atol=1e-6, rtol=0)


def test_rolling_windows_overlap_and_are_projected_to_the_attentions_width() -> None:
    """The notebook fed windows of 3 to an attention of another width: here each is a token of that width."""
    tower = user_tower("rolling-attention", history=False)
    encoder = tower.encoder
    assert isinstance(encoder, notebook_encoders.RollingAttention)
    profile = tower.embedding(users(), 4)
    active = (profile.sum(dim=1) / profile.shape[1] ** 0.5).relu()
    windows = active.unfold(1, 3, 1)  # (4, 18, 3): torch's own rolling
    assert windows.shape == (4, 18, 3)
    read = encoder.attention(encoder.project(windows), encoder.project(windows)).mean(dim=1)
    torch.testing.assert_close(tower(users()), unit(encoder.out(read)), atol=1e-6, rtol=0)


def test_many_windows_train_as_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """States are taken in blocks in training; neither the vectors nor the gradients know of it."""

    def gradients() -> tuple[Tensor, list[Tensor]]:
        tower = user_tower("rolling-attention").train()
        batch = users() | {"past": users()["past"].clamp(min=1)}
        past = batch["past"]
        states = tower.encoder(tower.embedding(batch, 4), tower.item_vectors[past], past != 0)
        states.square().sum().backward()
        return states.detach(), [weight.grad for weight in tower.encoder.parameters() if weight.grad is not None]

    whole, expected = gradients()
    monkeypatch.setattr(notebook_encoders, "WINDOW_ROWS", 3)
    parted, found = gradients()
    torch.testing.assert_close(parted, whole)
    for left, right in zip(found, expected, strict=True):
        torch.testing.assert_close(left, right)


def test_a_last_relu_puts_half_the_ratings_out_of_reach() -> None:
    """No coordinate is negative, so no cosine is: why the notebook's last ReLU is off by default."""
    for encoder, reachable in (("notebook-mlp", True), ("notebook-mlp, last ReLU", False)):
        user, item = user_tower(encoder), item_tower(encoder)
        lowest = []
        for seed_ in range(10):
            torch.manual_seed(seed_)
            shaken(user)
            lowest.append((user(users()) @ item(items()).T).min().item())
        assert (min(lowest) < 0) is reachable
    assert NotebookMlpOptions().last_relu is False


def test_cross_attention_weighs_the_history_by_the_profile() -> None:
    """With one item in the history there is nothing to weigh but the key of nothing; with three the profile decides."""
    tower = user_tower("cross-attention")
    encoder = tower.encoder
    assert isinstance(encoder, notebook_encoders.CrossAttention)
    batch = users()
    assert encoder.history is not None
    options = torch.cat(
        [encoder.nothing.expand(4, 1, -1), encoder.history(tower.item_vectors[batch["past"]])],
        dim=1,
    )
    padding = torch.cat([torch.zeros(4, 1, dtype=torch.bool), batch["past"] == 0], dim=1)
    profile = tower.embedding(batch, 4)
    query = (profile.sum(dim=1) / profile.shape[1] ** 0.5)[:, None]
    expected = unit(encoder.out(query + encoder.attention(query, options, padding=padding))[:, 0])
    torch.testing.assert_close(tower(batch), expected, atol=1e-6, rtol=0)


def test_the_scale_of_attention_is_the_power_that_was_asked_for() -> None:
    shape = EncoderShape(dim=DIM, layers=1, heads=2, dropout=0.0, max_length=6)
    for exponent in (0.0, 0.5, 1.0):
        encoder = build.encoder(NotebookAttentionOptions(embed=24, heads=4, scale=exponent), shape)
        assert isinstance(encoder, notebook_encoders.NotebookAttention)
        assert encoder.attention.scale == 6**-exponent
