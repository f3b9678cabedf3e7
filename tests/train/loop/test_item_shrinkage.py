"""Rare items after training: how far they move towards what their features predict."""

import numpy as np
import pytest
import torch
from torch import Tensor

from retrieval.features.vocabulary import FIRST, UNKNOWN
from tests.support.columns import column
from train.loop.item_shrinkage import shrink_items
from train.model.towers import ItemTower

ITEMS, SHELVES, DIM = 60, 4, 8
NOBODYS = slice(50, 60)  # items that nobody took, whose ids training has not seen


@pytest.fixture
def items() -> dict[str, Tensor]:
    ids = torch.arange(ITEMS) + FIRST
    ids[NOBODYS] = UNKNOWN
    return {"id": ids, "shelf": torch.arange(ITEMS) % SHELVES + FIRST}


@pytest.fixture
def counts() -> Tensor:
    counts = torch.full((ITEMS,), 9)
    counts[0] = 1
    counts[NOBODYS] = 0
    return counts


@pytest.fixture
def tower() -> ItemTower:
    """Ids that say which shelf an item stands on, beside features that say nothing of it."""
    torch.manual_seed(0)
    columns = (
        column(name="id", kind="category", height=ITEMS + FIRST),
        column(name="shelf", kind="category", height=SHELVES + FIRST),
    )
    tower = ItemTower(columns, dim=DIM, id_column="id").requires_grad_(False).eval()
    own = tower.embedding.vectors("id")
    own[FIRST:] = 3 * torch.eye(DIM)[torch.arange(ITEMS) % SHELVES] + 0.3 * torch.randn(ITEMS, DIM)
    return tower


def shelves_found(vectors: Tensor) -> float:
    """The share of items nobody took that are nearest to those of their own shelf."""
    centres = torch.stack([vectors[shelf:50:SHELVES].mean(dim=0) for shelf in range(SHELVES)])
    nearest = (vectors[NOBODYS] @ centres.T).argmax(dim=1)
    return float((nearest == torch.arange(ITEMS)[NOBODYS] % SHELVES).float().mean())


def test_features_replace_the_id_of_items_that_nobody_took(
    tower: ItemTower, items: dict[str, Tensor], counts: Tensor
) -> None:
    tower.embedding.vectors("id")[UNKNOWN] = 0  # which new items have beside the prediction
    before = tower(items)
    assert shelves_found(before) < 0.6
    assert shrink_items(tower, items, counts)
    after = tower(items)
    assert (after[1:50] * before[1:50]).sum(dim=1).min() > 0.99  # items with many interactions hardly move
    assert shelves_found(after) > 0.9


def test_rare_items_move_further(tower: ItemTower, items: dict[str, Tensor], counts: Tensor) -> None:
    before = tower(items)
    assert shrink_items(tower, items, counts)
    cosine = (tower(items) * before).sum(dim=1)
    assert cosine[0] < cosine[1:50].min()


def test_an_item_keeps_n_of_n_plus_1_of_what_its_features_miss(
    tower: ItemTower, items: dict[str, Tensor], counts: Tensor
) -> None:
    vectors = tower(items)
    assert shrink_items(tower, items, counts)
    ids = tower.embedding.vectors("id").clone()
    tower.embedding.vectors("id")[FIRST:] = 0
    predicted = tower.embedding(items, ITEMS)
    for item, weight in ((0, 1 / 2), (1, 9 / 10)):
        np.testing.assert_allclose(ids[item + FIRST], (vectors - predicted)[item] * weight, atol=1e-5)


def test_the_unknown_id_keeps_its_embedding(tower: ItemTower, items: dict[str, Tensor], counts: Tensor) -> None:
    before = tower.embedding.vectors("id")[UNKNOWN].clone()
    assert shrink_items(tower, items, counts)
    assert torch.equal(tower.embedding.vectors("id")[UNKNOWN], before)


def test_without_features_or_without_ids_nothing_changes(items: dict[str, Tensor], counts: Tensor) -> None:
    only_ids = ItemTower((column(name="id", kind="category", height=ITEMS + FIRST),), dim=DIM, id_column="id")
    only_features = ItemTower((column(name="shelf", kind="category", height=SHELVES + FIRST),), dim=DIM, id_column=None)
    for tower in (only_ids, only_features):
        before = [weight.clone() for weight in tower.parameters()]
        assert not shrink_items(tower, items, counts)
        assert all(torch.equal(*pair) for pair in zip(before, tower.parameters(), strict=True))
