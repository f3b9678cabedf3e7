"""Validation: held-out users of a `DataModule` ranked by two towers over the whole catalogue."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from retrieval.metrics import ranking, rating
from train.config.components import fits_values
from train.config.load import ResolvedConfig
from train.data.datamodule import DataModule
from train.model.feature_embedding import Inputs
from train.model.towers import in_blocks

K: Final = 10
Vectors = npt.NDArray[np.float32]


def monitored(config: ResolvedConfig) -> tuple[str, Literal["min", "max"]]:
    """The metric by which the best epoch is chosen, and whether it is to be low or high."""
    return ("rmse", "min") if fits_values(config.train.objective) else ("ndcg@10", "max")


@torch.no_grad()
def validate(
    data: DataModule, user_tower: Callable[[Inputs], Tensor], item_tower: Callable[[Inputs], Tensor]
) -> dict[str, float]:
    """Metrics of two towers in eval mode on the CPU. The user tower has its item vectors already."""
    if not len(data.truth.users):
        return {}
    users = in_order(data, [user_tower(block) for block in data.val_dataloader()])
    return measure(data, users, in_blocks(item_tower, data.items).numpy())


def in_order(data: DataModule, blocks: Sequence[Tensor]) -> Vectors:
    """Vectors of the validation blocks, in the order of `Truth.users`: (users, dim)."""
    vectors = torch.cat(list(blocks)).float().cpu().numpy()
    users = np.empty_like(vectors)
    users[data.validation_order] = vectors
    return users


def measure(data: DataModule, users: Vectors, items: Vectors) -> dict[str, float]:
    """Mean recall@10 and NDCG@10 over the validation users; with ratings to predict also their RMSE.

    Args:
        data: With the held-out items.
        users: (n, dim) in the order of `Truth.users`.
        items: (catalogue, dim).

    """
    truth = data.truth
    ranks = ranking.ranks(users, items, truth.wanted, truth.seen)
    metrics = {
        f"recall@{K}": float(np.nanmean(ranking.recall(ranks, truth.wanted, k=K))),
        f"ndcg@{K}": float(np.nanmean(ranking.ndcg(ranks, truth.wanted, k=K))),
    }
    ratings, limits = data.ratings, data.preprocess.values
    if ratings is not None and limits is not None and len(ratings.values):
        scores = (users[ratings.users] * items[ratings.items]).sum(axis=1)
        predicted = rating.stars(scores, low=limits.low, high=limits.high)
        metrics["rmse"] = rating.errors(predicted, ratings.values)["rmse"]
    return metrics


def best_epoch(epochs: Sequence[Mapping[str, Any]], config: ResolvedConfig) -> Mapping[str, Any]:
    """The best of the epochs by the monitored metric; the last where none was validated."""
    name, mode = monitored(config)
    measured = [epoch for epoch in epochs if name in epoch]
    choose = max if mode == "max" else min
    return choose(measured, key=lambda epoch: float(epoch[name])) if measured else epochs[-1]
