"""Where training ends: what features tell of the trained vectors, and what an item of few histories is taken for.

The vectors of features are trained beside those of ids, and have to be right only together with them; what a few
histories add is mostly chance. So, in closed form, features are given what they tell of the trained vectors, and an
item is moved towards that, the more the fewer took it. One that nobody took is what its features tell, and some of
the unknown id, which is what holds items back of which nothing is known. Validation says how much of either.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from retrieval.vocabulary import FIRST, UNKNOWN
from train import checkpoint
from train.explain import explain
from train.features import FeatureEmbedding, Inputs, unit
from train.module import Module
from train.pair import features_of
from train.towers import ItemTower

FEW: Final = 1.0  # interactions of an item with which its own vector counts as much as what its features tell
HELD_BACK: Final = (1.0, 0.5, 0.0)  # tried shares of the unknown id
RIDGES: Final = (0.1, 1.0, 10.0)  # of the regression, tried on items left out of it
LEFT_OUT: Final = 0.2  # share of the items
LEAST: Final = 20  # items, of which some can be left out


class Choice(NamedTuple):
    """few: interactions that an item's features count for. unknown: share of the unknown id's vector that stays."""

    few: float = 0.0
    unknown: float = 1.0


@torch.no_grad()
def finish(path: Path, module: Module, *, choice: Choice | None) -> dict[str, Any]:
    """Settle the items of a stripped checkpoint.

    choice: None to make it on validation. Returns it, and what validation says of the towers that are kept; nothing
    where there was nothing to do.
    """
    data, pair = module.data, module.average.cpu()
    pair.load_state_dict(checkpoint.read(path)["state_dict"])
    taken = torch.from_numpy(np.bincount(data.histories.items, minlength=len(pair.frequency)))
    put = settle(pair.item_tower, data.items, taken)
    if put is None:
        return {}
    validated = len(data.truth.users) > 0

    @cache
    def measured(tried: Choice) -> dict[str, float]:
        put(tried)
        return module.validated() if validated else {}

    if choice is None:
        choice = choose(lambda tried: measured(tried)["ndcg@10"]) if validated else Choice()
    settled = {"choice": choice._asdict(), "measured": measured(choice)}
    put(choice)
    pair.freeze_items(data.items)
    checkpoint.write(path, pair, settled=settled)
    return settled


def choose(measured: Callable[[Choice], float]) -> Choice:
    """Find one thing after the other; of equals what changes least."""
    few = max((0.0, FEW), key=lambda count: measured(Choice(count)))
    return max((Choice(few, share) for share in HELD_BACK), key=measured)


@torch.no_grad()
def settle(tower: ItemTower, items: Inputs, taken: Tensor) -> Callable[[Choice], None] | None:
    """Let a tower's features tell what they can of the vectors that it gives; its ids are zeros then.

    items: the features of the catalogue. taken: (items,) in how many histories each is. Returns what puts the ids
    there; None, and nothing changed, where items have no id or nothing beside it.
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
    apart = vectors - embedding(items, len(taken))
    named = (ids >= FIRST) & some

    def put(choice: Choice) -> None:
        own[ids[named]] = (apart * (taken / (taken + choice.few))[:, None])[named]
        own[UNKNOWN] = unknown * choice.unknown

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
