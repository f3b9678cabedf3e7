"""Where training ends: what features tell of the trained vectors, and what an item of few histories is taken for.

Where there is little data, what a few histories add to an item is mostly chance, and so is what its features came to
tell beside that. So, in closed form, features are given what they tell of the trained vectors, and an item is moved
towards that, the more the fewer took it. One that nobody took is what its features tell, and some of the unknown id,
which is what holds items back of which nothing is known. Where validation gains no more by it than chance would give,
all stays as trained.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from retrieval.features.vocabulary import FIRST, UNKNOWN
from retrieval.metrics.ranking import PerUser, exceeds_chance
from train.ease.feature_regression import explain
from train.loop import checkpoint
from train.loop.lightning_module import Module, averaged
from train.model.feature_embedding import FeatureEmbedding, Inputs, unit
from train.model.towers import ItemTower
from train.model.two_tower import features_of

FEW: Final = 1.0  # interactions of an item with which its own vector counts as much as what its features tell
HELD_BACK: Final = (1.0, 0.5, 0.0)  # tried shares of the unknown id
RIDGES: Final = (0.1, 1.0, 10.0)  # of the regression, tried on items left out of it
LEFT_OUT: Final = 0.2  # share of the items
LEAST: Final = 20  # items, of which some can be left out
SURE: Final = 2.0  # standard errors that a gain has to exceed


@torch.no_grad()
def finish(path: Path, module: Module, *, unknown: float | None) -> None:
    """Settle the items of a stripped checkpoint, where there is what to settle them by.

    unknown: the share of the unknown id's vector that stays, as an earlier training chose it. None to choose it on
    validation, and to leave all as it was trained where that gains nothing.
    """
    data, pair = module.data, module.average.cpu()
    pair.load_state_dict(checkpoint.read(path)["state_dict"])
    taken = torch.from_numpy(np.bincount(data.histories.items, minlength=len(pair.frequency)))
    as_trained = module.validated() if unknown is None else None
    put = settle(pair.item_tower, data.items, taken)
    if put is None:
        return

    @cache
    def measured(share: float) -> dict[str, PerUser]:
        put(share)
        return module.validated()

    found: dict[str, float] = {}
    if as_trained is not None:
        unknown = choose(lambda share: measured(share)["ndcg@10"], as_trained["ndcg@10"])
        if unknown is None:
            return
        found = averaged(measured(unknown))
    assert unknown is not None
    put(unknown)
    pair.freeze_items(data.items)
    checkpoint.add(path, state_dict=pair.state_dict(), unknown=unknown, measured=found)


def choose(measured: Callable[[float], PerUser], as_trained: PerUser) -> float | None:
    """Find the share of the unknown id that stays, of equals the largest.

    None where settled items, with all of it, gain no more than `SURE` standard errors over the users: new items may be
    found less by it, which validation hardly sees.
    """
    if not exceeds_chance(measured(HELD_BACK[0]) - as_trained, errors=SURE):
        return None
    return max(HELD_BACK, key=lambda share: float(measured(share).mean()))


@torch.no_grad()
def settle(tower: ItemTower, items: Inputs, taken: Tensor) -> Callable[[float], None] | None:
    """Let a tower's features tell what they can of the vectors that it gives; its ids are zeros then.

    items: the features of the catalogue. taken: (items,) in how many histories each is. Returns what puts the ids
    there, with a share of the unknown one; None, and nothing changed, where items have no id or nothing beside it.
    """
    embedding = tower.embedding
    column = embedding.id_column
    # What an encoder makes of them is no sum; with an id's hash other items would move as well.
    if column is None or tower.encoder is not None or embedding.kinds[column] != "category" or len(embedding.kinds) < 2:
        return None
    own, ids = vectors_of(embedding, column), items[column]
    vectors, unknown = unit(embedding.eval()(items, len(taken))), own[UNKNOWN].clone()
    some, weight = taken > 0, taken / (taken + FEW)  # (items,)
    known, wanted, weight = features_of(items, some), vectors[some], weight[some]
    explain(embedding, known, wanted, weight=weight, ridge=ridge_of(embedding, known, wanted, weight))
    named = (ids >= FIRST) & some
    own[ids[named]] = ((vectors - embedding(items, len(taken))) * (taken / (taken + FEW))[:, None])[named]

    def put(share: float) -> None:
        own[UNKNOWN] = unknown * share

    return put


def ridge_of(embedding: FeatureEmbedding, inputs: Inputs, wanted: Tensor, weight: Tensor) -> float:
    """The ridge by which features tell most of items left out. The embedding is written over."""
    if len(wanted) < LEAST:
        return RIDGES[1]
    out = torch.from_numpy(np.random.default_rng(0).random(len(wanted)) < LEFT_OUT)

    def missed(ridge: float) -> float:
        explain(embedding, features_of(inputs, ~out), wanted[~out], weight=weight[~out], ridge=ridge)
        told = embedding(features_of(inputs, out), int(out.sum()))
        return float(((wanted[out] - told).square().sum(dim=1) * weight[out]).sum())

    return min(RIDGES, key=missed)


def vectors_of(embedding: FeatureEmbedding, column: str) -> nn.Parameter:
    """The vectors of a category: (height, dim)."""
    return next(embedding.embeddings[list(embedding.kinds).index(column)].parameters())
