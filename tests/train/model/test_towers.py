from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from train.model import feature_embedding
from train.model.encoders import ENCODERS, EncoderShape
from train.model.feature_embedding import CategoriesEmbedding, Column, FeatureEmbedding, trained_unit, unit
from train.model.towers import ItemTower, UserTower, in_blocks

DIM = 16
USER_COLUMNS = (
    Column(name="age", kind="number", mean=30.0, std=5.0),
    Column(name="job", kind="category", height=5),
    Column(name="past", kind="history", height=12),
)
ITEM_COLUMNS = (
    Column(name="id", kind="category", height=12),
    Column(name="year", kind="number", mean=1990.0, std=0.0),
    Column(name="tags", kind="categories", height=6),
    Column(name="text.embedding", kind="vector", size=4),
    Column(name="code", kind="hash", height=9),
)


def user_tower(encoder: str, *, layers: int = 2, short_cut: float = 1.0, short_cut_items: int = 3) -> UserTower:
    torch.manual_seed(0)
    shape = EncoderShape(
        dim=DIM,
        layers=layers,
        heads=2,
        dropout=0.3,
        max_length=6,
        short_cut=short_cut,
        short_cut_items=short_cut_items,
        decay=0.8,
    )
    tower = UserTower(USER_COLUMNS, dim=DIM, encoder=ENCODERS[encoder](shape)).eval()
    for weight in tower.parameters():
        nn.init.normal_(weight, std=0.3)  # nothing may hold only because a weight starts at zero
    tower.freeze_items(functional.normalize(torch.randn(10, DIM), dim=-1))
    return tower


def users() -> dict[str, Tensor]:
    return {
        "age": torch.tensor([20.0, float("nan"), float("inf"), 1e38]),
        "job": torch.tensor([0, 1, 4, 2]),
        "past": torch.tensor([[5, 4, 3, 0], [0, 0, 0, 0], [2, 7, 11, 3], [1, 0, 0, 0]]),
    }


def items(n: int = 3) -> dict[str, Tensor]:
    nan = float("nan")
    return {
        "id": torch.tensor([2, 1, 0])[:n],
        "year": torch.tensor([1990.0, nan, -1e38])[:n],
        "tags": torch.tensor([[2, 0, 3], [0, 0, 0], [1, 1, 1]])[:n],
        "text.embedding": torch.tensor([[1.0, 2, 3, 4], [nan] * 4, [1e38, -1e38, float("inf"), 0]])[:n],
        "code": torch.tensor([2, 0, 8])[:n],
    }


def rows(batch: Mapping[str, Tensor], chosen: slice) -> dict[str, Tensor]:
    return {name: values[chosen] for name, values in batch.items()}


@pytest.mark.parametrize("encoder", ENCODERS)
def test_user_vectors_are_unit_and_a_batch_equals_its_rows(encoder: str) -> None:
    tower, batch = user_tower(encoder), users()
    vectors = tower(batch)
    assert vectors.shape == (4, DIM)
    torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(4))
    for row in range(4):
        torch.testing.assert_close(tower(rows(batch, slice(row, row + 1)))[0], vectors[row], atol=1e-6, rtol=0)


@pytest.mark.parametrize("short_cut", [0.5, 1.0])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_padding_and_empty_lists_and_empty_batches(encoder: str, short_cut: float) -> None:
    tower, batch = user_tower(encoder, short_cut=short_cut), users()
    vectors = tower(batch)
    wider = batch | {"past": functional.pad(batch["past"], (0, 5))}
    torch.testing.assert_close(tower(wider), vectors, atol=1e-6, rtol=0)
    without = rows(batch, slice(1, 2))
    torch.testing.assert_close(tower(without | {"past": without["past"][:, :0]})[0], vectors[1], atol=1e-6, rtol=0)
    assert tower(rows(batch, slice(0, 0))).shape == (0, DIM)


@pytest.mark.parametrize("short_cut", [0.5, 1.0])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_the_state_at_a_slot_is_the_vector_of_the_history_up_to_it(encoder: str, short_cut: float) -> None:
    """What training learns at every position is what the exported tower answers."""
    tower, batch = user_tower(encoder, short_cut=short_cut), users()
    past = batch["past"]
    every = torch.arange(past.shape[0] * (past.shape[1] + 1))
    states = tower.at(tower.profile(batch, 4), tower.item_vectors[past], past, every).view(4, -1, DIM)
    for slot in range(1, past.shape[1] + 1):
        shorter = batch | {"past": past[:, slot - 1 :]}
        there = past[:, slot - 1] != 0
        torch.testing.assert_close(states[there, slot], tower(shorter)[there], atol=1e-6, rtol=0)
    nothing = batch | {"past": torch.zeros_like(past)}
    torch.testing.assert_close(states[:, 0], tower(nothing), atol=1e-6, rtol=0)


def test_the_newest_items_have_a_short_cut_and_having_none_has_one() -> None:
    tower, batch = user_tower("attention", short_cut=0.5), users()
    assert tower.successors is not None
    weights = tower.successor_weights

    def changed(row: int) -> list[bool]:
        """Which users' vectors another short cut of a row moves."""
        before = tower(batch)
        with torch.no_grad():
            tower.successors.weight[row] += 1.0  # type: ignore[union-attr]  # it is there
        return ((tower(batch) - before).abs().max(dim=-1).values > 1e-3).tolist()  # type: ignore[no-any-return]

    assert changed(5) == [True, False, False, False]
    assert changed(4) == [True, False, False, False]  # read second
    assert changed(11) == [False, False, True, False]  # read third
    assert changed(3) == [True, False, False, False]  # third by the first, fourth by the third
    assert changed(0) == [False, True, False, False]
    with torch.no_grad():
        weights[1] = 0.0
    assert changed(4) == [False] * 4


def test_one_item_may_be_all_that_has_a_short_cut() -> None:
    tower, batch = user_tower("attention", short_cut=0.5, short_cut_items=1), users()
    assert tower.successors is not None
    assert "successor_weights" not in tower.state_dict()  # nothing that trainings before this lack
    before = tower(batch)
    with torch.no_grad():
        tower.successors.weight[4] += 1.0  # read second by the first user, newest by nobody
        torch.testing.assert_close(tower(batch), before, atol=0, rtol=0)
        tower.successors.weight[5] += 1.0
    changed = (tower(batch) - before).abs().max(dim=-1).values > 1e-3
    assert changed.tolist() == [True, False, False, False]


def test_an_item_that_joined_later_has_the_short_cut_of_the_unknown() -> None:
    tower, batch = user_tower("attention", short_cut=0.5), users()
    tower.item_vectors = torch.cat([tower.item_vectors, tower.item_vectors[1:2]])  # row 12, as the unknown in all
    newer, unknown = ({**batch, "past": torch.tensor([[row, 4, 3]] * 4)} for row in (12, 1))
    torch.testing.assert_close(tower(newer), tower(unknown), atol=0, rtol=0)


def test_a_short_cut_starts_at_nothing_and_is_there_only_where_it_is_wanted() -> None:
    shape = EncoderShape(dim=DIM, layers=1, heads=2, dropout=0.3, max_length=6, short_cut=0.5)
    with_history = UserTower(USER_COLUMNS, dim=DIM, encoder=ENCODERS["attention"](shape))
    without = UserTower(USER_COLUMNS[:2], dim=DIM, encoder=ENCODERS["mlp"](shape))
    assert with_history.successors is not None
    assert not with_history.successors.weight.any()
    assert without.successors is None
    assert user_tower("attention").successors is None


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


def test_unit_in_training_is_unit_with_its_gradient() -> None:
    torch.manual_seed(0)
    vectors = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(5, 4, dtype=torch.float64)
    torch.testing.assert_close(trained_unit(vectors), unit(vectors))
    (wanted,) = torch.autograd.grad((unit(vectors) * weight).sum(), vectors)
    torch.testing.assert_close(torch.autograd.grad((trained_unit(vectors) * weight).sum(), vectors)[0], wanted)
    nothing = torch.zeros(1, 3)
    torch.testing.assert_close(trained_unit(nothing), unit(nothing))


def test_lists_in_training_are_those_that_are_answered_with(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    embedding = CategoriesEmbedding(Column(name="tags", kind="categories", height=6), DIM).double()
    tags = torch.tensor([[2, 0, 3, 0], [0, 0, 0, 0], [1, 1, 1, 5], [4, 2, 3, 4]])
    weight = torch.randn(4, DIM, dtype=torch.float64)
    expected = embedding.eval()(tags)
    (wanted,) = torch.autograd.grad((expected * weight).sum(), embedding.weight)
    for limit in (6, 5):  # the product with the whole vocabulary, and gathering from it
        monkeypatch.setattr(feature_embedding, "SMALL_VOCABULARY", limit)
        found = embedding.train()(tags)
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(torch.autograd.grad((found * weight).sum(), embedding.weight)[0], wanted)
    assert embedding(tags[:0]).shape == (0, DIM)
    assert embedding(tags[:, :0]).shape == (4, DIM)


def test_an_item_is_its_id_plus_the_mean_of_its_features() -> None:
    columns = (
        Column(name="id", kind="category", height=4),
        Column(name="a", kind="category", height=3),
        Column(name="b", kind="categories", height=5),
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
