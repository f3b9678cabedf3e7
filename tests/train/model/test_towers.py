import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.support.columns import column
from tests.support.towers import DIM, ITEM_COLUMNS, USER_COLUMNS, items, rows, users
from train.config.options import Attention, Encoder, Mean, Mlp
from train.features.kinds import unit
from train.model import build
from train.model.encoders import EncoderShape
from train.model.feature_embedding import FeatureEmbedding
from train.model.towers import ItemTower, UserTower, in_blocks

OPTIONS: dict[str, Encoder] = {"attention": Attention(), "mean": Mean(), "mlp": Mlp()}
TRAINED = ("attention", "mean", "mlp")


def user_tower(encoder: str, *, residual_dropout: float = 1.0) -> UserTower:
    torch.manual_seed(0)
    shape = EncoderShape(dim=DIM, layers=2, heads=2, dropout=0.3, max_length=6)
    options = OPTIONS[encoder]
    if encoder == "attention":
        options = Attention(residual_dropout=residual_dropout)
    tower = UserTower(USER_COLUMNS, dim=DIM, encoder=build.encoder(options, shape)).eval()
    for weight in tower.parameters():
        nn.init.normal_(weight, std=0.3)  # no test may pass only because a weight starts at zero
    tower.freeze_items(functional.normalize(torch.randn(10, DIM), dim=-1))
    return tower


@pytest.mark.parametrize("encoder", OPTIONS)
def test_user_vectors_are_unit_and_a_batch_equals_its_rows(encoder: str) -> None:
    tower, batch = user_tower(encoder), users()
    vectors = tower(batch)
    assert vectors.shape == (4, DIM)
    torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(4))
    for row in range(4):
        torch.testing.assert_close(tower(rows(batch, slice(row, row + 1)))[0], vectors[row], atol=1e-6, rtol=0)


@pytest.mark.parametrize("residual_dropout", [0.5, 1.0])
@pytest.mark.parametrize("encoder", OPTIONS)
def test_padding_and_empty_lists_and_empty_batches(encoder: str, residual_dropout: float) -> None:
    tower, batch = user_tower(encoder, residual_dropout=residual_dropout), users()
    vectors = tower(batch)
    wider = batch | {"past": functional.pad(batch["past"], (0, 5))}
    torch.testing.assert_close(tower(wider), vectors, atol=1e-6, rtol=0)
    without = rows(batch, slice(1, 2))
    torch.testing.assert_close(tower(without | {"past": without["past"][:, :0]})[0], vectors[1], atol=1e-6, rtol=0)
    assert tower(rows(batch, slice(0, 0))).shape == (0, DIM)


@pytest.mark.parametrize("residual_dropout", [0.5, 1.0])
@pytest.mark.parametrize("encoder", TRAINED)
def test_the_state_at_a_slot_is_the_vector_of_the_history_up_to_it(encoder: str, residual_dropout: float) -> None:
    """What training learns at every position is what the exported tower answers."""
    tower, batch = user_tower(encoder, residual_dropout=residual_dropout), users()
    past = batch["past"]
    slots = torch.arange(past.shape[0] * (past.shape[1] + 1))
    states = tower.states(batch, tower.item_vectors[past], past, slots).view(4, -1, DIM)
    for slot in range(1, past.shape[1] + 1):
        shorter = batch | {"past": past[:, slot - 1 :]}
        there = past[:, slot - 1] != 0
        torch.testing.assert_close(states[there, slot], tower(shorter)[there], atol=1e-6, rtol=0)
    nothing = batch | {"past": torch.zeros_like(past)}
    torch.testing.assert_close(states[:, 0], tower(nothing), atol=1e-6, rtol=0)


def test_the_newest_item_has_an_embedding_of_its_own_and_so_has_no_item() -> None:
    tower, batch = user_tower("attention", residual_dropout=0.5), users()
    embedding = tower.last_item_embedding
    assert embedding is not None

    def changed(row: int) -> list[bool]:
        """Which users' vectors change with the embedding of a row."""
        before = tower(batch)
        with torch.no_grad():
            embedding.weight[row] += 1.0
        found: list[bool] = ((tower(batch) - before).abs().max(dim=-1).values > 1e-3).tolist()
        return found

    assert changed(5) == [True, False, False, False]
    assert changed(4) == [False] * 4  # the second newest of the first user
    assert changed(0) == [False, True, False, False]


def test_an_item_added_after_training_has_the_embedding_of_the_unknown_item() -> None:
    tower, batch = user_tower("attention", residual_dropout=0.5), users()
    tower.item_vectors = torch.cat([tower.item_vectors, tower.item_vectors[1:2]])  # row 12, with the unknown's vector
    newer, unknown = ({**batch, "past": torch.tensor([[row, 4, 3]] * 4)} for row in (12, 1))
    torch.testing.assert_close(tower(newer), tower(unknown), atol=0, rtol=0)


def test_the_last_item_embedding_starts_at_zero_and_only_where_it_is_used() -> None:
    shape = EncoderShape(dim=DIM, layers=1, heads=2, dropout=0.3, max_length=6)
    encoder = build.encoder(Attention(residual_dropout=0.5), shape)
    with_history = UserTower(USER_COLUMNS, dim=DIM, encoder=encoder)
    without = UserTower(USER_COLUMNS[:2], dim=DIM, encoder=encoder)
    assert with_history.last_item_embedding is not None
    assert not with_history.last_item_embedding.weight.any()
    assert without.last_item_embedding is None
    assert user_tower("attention").last_item_embedding is None


def test_dropout_changes_the_states_in_training_only() -> None:
    tower, batch = user_tower("attention"), users()
    past, slots = batch["past"], torch.arange(20)
    first, second = (tower.states(batch, tower.item_vectors[past], past, slots) for _ in range(2))
    torch.testing.assert_close(first, second, atol=0, rtol=0)
    tower.train()
    first, second = (tower.states(batch, tower.item_vectors[past], past, slots) for _ in range(2))
    assert ((first - second).abs().max(dim=1).values > 1e-3).all()


def test_which_encoders_see_what() -> None:
    batch = users()
    turned = batch | {"past": batch["past"].flip(1)}
    turned["past"][0] = torch.tensor([3, 4, 5, 0])
    for name, encoder_sees_order in (("attention", True), ("mean", False), ("mlp", False)):
        tower = user_tower(name)
        same = torch.allclose(tower(batch)[0], tower(turned)[0], atol=1e-6)
        assert same is not encoder_sees_order
    tower = user_tower("mlp")
    torch.testing.assert_close(tower(batch), tower(batch | {"past": batch["past"] * 0}))


def test_item_vectors_are_unit_whatever_comes_in() -> None:
    torch.manual_seed(0)
    tower = ItemTower(ITEM_COLUMNS, dim=DIM, id_column="id").eval()
    vectors = tower(items())
    torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(3))
    torch.testing.assert_close(in_blocks(tower, items(), block=2), vectors, atol=1e-6, rtol=0)
    assert tower(items(0)).shape == (0, DIM)


def test_a_vector_without_direction_becomes_the_first_axis() -> None:
    found = unit(torch.tensor([[0.0, 0.0, 0.0], [0.0, 3.0, 4.0], [0.0, 0.0, 1e-20]]))
    expected = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.6, 0.8]])
    torch.testing.assert_close(found[:2], expected)
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(3))


def test_an_item_is_its_id_plus_the_mean_of_its_features() -> None:
    columns = (
        column(name="id", kind="category", height=4),
        column(name="a", kind="category", height=3),
        column(name="b", kind="categories", height=5),
    )
    embedding = FeatureEmbedding(columns, 2, id_column="id").eval()
    with torch.no_grad():
        for table, values in zip(
            embedding.embeddings,
            (
                [[0, 0], [0, 0], [1, 0], [0, 1]],
                [[0, 0], [0, 0], [4, 4]],
                [[8, 8], [0, 0], [1, 0], [3, 0], [0, 1]],
            ),
            strict=True,
        ):
            table.weight.copy_(torch.tensor(values, dtype=torch.float32))  # type: ignore[operator]
    batch = {
        "id": torch.tensor([2, 3]),
        "a": torch.tensor([2, 0]),
        "b": torch.tensor([[2, 0, 3], [0, 0, 0]]),
    }
    # id + (a + mean of b) / 2; an empty list is the row of missing.
    expected = torch.tensor([[1 + (4 + 2) / 2, (4 + 0) / 2], [(0 + 8) / 2, 1 + (0 + 8) / 2]])
    torch.testing.assert_close(embedding(batch, 2), expected)


def test_hiding_trains_the_rows_of_missing_and_unknown() -> None:
    torch.manual_seed(0)
    embedding = FeatureEmbedding(ITEM_COLUMNS, DIM, id_column="id", id_dropout=0.5, feature_dropout=0.5)
    batch = {name: values[:1].expand(200, *values.shape[1:]) for name, values in items().items()}
    kept = {name: values.clone() for name, values in batch.items()}
    embedding(batch, 200).sum().backward()
    grown = {
        name: table.weight.grad.abs().sum(dim=-1) > 0  # type: ignore[union-attr, operator]
        for (name, kind), table in zip(embedding.kinds.items(), embedding.embeddings, strict=True)
        if kind not in ("number", "vector")
    }
    assert grown["id"][:3].tolist() == [False, True, True]
    assert grown["code"][:3].tolist() == [True, True, True]
    assert grown["tags"][:4].tolist() == [True, True, True, True]
    for name, values in kept.items():
        torch.testing.assert_close(batch[name], values)
