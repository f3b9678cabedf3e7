"""Items at the end of training: what features tell of the trained vectors, and how far items of few histories move."""

import numpy as np
import pytest
import torch
from torch import Tensor

from retrieval.features.vocabulary import FIRST, UNKNOWN
from train.loop.item_shrinkage import HELD_BACK, choose, settle, vectors_of
from train.model.feature_embedding import Column
from train.model.towers import ItemTower

ITEMS, SHELVES, DIM = 60, 4, 8
NOBODYS = slice(50, 60)  # items that nobody took, whose ids training has not seen


@pytest.fixture
def items() -> dict[str, Tensor]:
    ids = torch.arange(ITEMS) + FIRST
    ids[NOBODYS] = UNKNOWN
    return {"id": ids, "shelf": torch.arange(ITEMS) % SHELVES + FIRST}


@pytest.fixture
def taken() -> Tensor:
    taken = torch.full((ITEMS,), 9)
    taken[0] = 1
    taken[NOBODYS] = 0
    return taken


@pytest.fixture
def tower() -> ItemTower:
    """Ids that say which shelf an item stands on, beside features that say nothing of it."""
    torch.manual_seed(0)
    columns = (
        Column(name="id", kind="category", height=ITEMS + FIRST),
        Column(name="shelf", kind="category", height=SHELVES + FIRST),
    )
    tower = ItemTower(columns, dim=DIM, id_column="id").requires_grad_(False).eval()
    own = vectors_of(tower.embedding, "id")
    own[FIRST:] = 3 * torch.eye(DIM)[torch.arange(ITEMS) % SHELVES] + 0.3 * torch.randn(ITEMS, DIM)
    return tower


def shelves_found(vectors: Tensor) -> float:
    """The share of items nobody took that are nearest to those of their own shelf."""
    centres = torch.stack([vectors[shelf:50:SHELVES].mean(dim=0) for shelf in range(SHELVES)])
    nearest = (vectors[NOBODYS] @ centres.T).argmax(dim=1)
    return float((nearest == torch.arange(ITEMS)[NOBODYS] % SHELVES).float().mean())


def test_what_features_tell_stands_for_the_id_of_items_nobody_took(
    tower: ItemTower, items: dict[str, Tensor], taken: Tensor
) -> None:
    before = tower(items)
    assert shelves_found(before) < 0.6
    put = settle(tower, items, taken)
    assert put is not None
    put(0.0)
    after = tower(items)
    assert (after[1:50] * before[1:50]).sum(dim=1).min() > 0.99  # what was trained stays, nearly
    assert shelves_found(after) == 1.0


def test_items_of_few_histories_move_further(tower: ItemTower, items: dict[str, Tensor], taken: Tensor) -> None:
    before = tower(items)
    put = settle(tower, items, taken)
    assert put is not None
    put(1.0)
    moved = (tower(items) * before).sum(dim=1)
    assert moved[0] < moved[1:50].min()


def test_the_unknown_id_stays_as_far_as_asked(tower: ItemTower, items: dict[str, Tensor], taken: Tensor) -> None:
    own = vectors_of(tower.embedding, "id")
    trained = own[UNKNOWN].clone()
    put = settle(tower, items, taken)
    assert put is not None
    for share in (1.0, 0.5, 0.0):
        put(share)
        np.testing.assert_allclose(own[UNKNOWN], share * trained)


def test_without_features_or_without_ids_nothing_changes(items: dict[str, Tensor], taken: Tensor) -> None:
    only_ids = ItemTower((Column(name="id", kind="category", height=ITEMS + FIRST),), dim=DIM, id_column="id")
    only_features = ItemTower((Column(name="shelf", kind="category", height=SHELVES + FIRST),), dim=DIM, id_column=None)
    for tower in (only_ids, only_features):
        before = [weight.clone() for weight in tower.parameters()]
        assert settle(tower, items, taken) is None
        assert all(torch.equal(*pair) for pair in zip(before, tower.parameters(), strict=True))


def test_items_stay_as_trained_where_settling_them_gains_nothing() -> None:
    some = np.array([0.0, 0.2, 0.3, 0.5])
    assert choose(lambda share: some, some) is None  # noqa: ARG005
    assert choose(lambda share: some - share, some - 0.9) is None  # not for what the unknown id alone may gain
    assert choose(lambda share: some - share, some - 1.1) == 0.0
    assert choose(lambda share: some + 0.1, some) == HELD_BACK[0] == 1.0  # noqa: ARG005  (of equals what changes least)
    # Two gain and one loses, which may be chance; three gain, which is not.
    assert choose(lambda share: some + np.array([-0.1, 0, 0.1, 0.1]), some) is None  # noqa: ARG005
    assert choose(lambda share: some + np.array([0, 0.1, 0.1, 0.1]), some) == 1.0  # noqa: ARG005
