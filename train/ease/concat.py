"""Two pairs side by side as one: towers that are trained, and a closed form that reads histories as sets.

They err apart. A model of sequences tells what comes next, one of few directions what many have in common; of a user
with many tastes, or of an item that few took, a regression over all pairs of items tells more. A score that is a mean
of both is again a product of two vectors, since vectors may stand one after the other, and so stays two towers and one
index.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from train.config import options
from train.config.load import Config
from train.data.preprocess import Preprocess
from train.ease import ease
from train.model import build
from train.model.feature_embedding import Inputs
from train.model.two_tower import TwoTower


class ConcatTowers(nn.Module):
    """Towers of one side whose unit vectors stand one after the other, each times the root of its share.

    The product of two such vectors is the mean of the parts' cosines, weighted by their shares.
    """

    roots: Tensor

    def __init__(self, parts: Sequence[nn.Module], shares: Sequence[float]) -> None:
        """shares: of the parts; sum to 1."""
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.register_buffer("roots", torch.tensor(shares).sqrt())

    def forward(self, inputs: Inputs) -> Tensor:
        """inputs: as the parts take them. Returns (n, the sum of their dims), unit rows."""
        vectors = [part(inputs) * root for part, root in zip(self.parts, self.roots, strict=True)]
        return torch.cat(vectors, dim=1)


def towers(pair: TwoTower, other: TwoTower, *, share: float) -> tuple[ConcatTowers, ConcatTowers]:
    """The user tower and the item tower of two pairs. share: of the other."""
    shares = (1 - share, share)
    return (
        ConcatTowers([pair.user_tower, other.user_tower], shares),
        ConcatTowers([pair.item_tower, other.item_tower], shares),
    )


def pair(config: Config, preprocess: Preprocess) -> TwoTower:
    """The pair that a resolved config wants beside its own, untrained."""
    beside = config.model.linear
    apart = dataclasses.replace(
        config.model,
        dim=beside.dim,
        user=options.Sum(decay=beside.decay),
        item=options.Mean(),
        linear=options.Linear(share=0.0),
    )
    return build.pair(dataclasses.replace(config, model=apart), preprocess, frequency=build.frequency([], catalogue=1))


def named(config: Config) -> dict[str, Any]:
    """The settings of the closed form that a config names."""
    beside = config.model.linear
    return {name: value for name in ease.Settings._fields if (value := getattr(beside, name)) is not None}


def put(config: Config, settings: ease.Settings, *, share: float) -> Config:
    """Write what stands beside into a config."""
    own: Mapping[str, Any] = settings._asdict()
    beside = options.Linear(share=share, **own) if share else options.Linear(share=0.0)
    return dataclasses.replace(config, model=dataclasses.replace(config.model, linear=beside))
