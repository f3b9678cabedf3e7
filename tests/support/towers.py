"""Columns and batches of small towers."""

from collections.abc import Mapping

import torch
from torch import Tensor

from tests.support.columns import column

DIM = 16
USER_COLUMNS = (
    column(name="age", kind="number", mean=30.0, std=5.0),
    column(name="job", kind="category", height=5),
    column(name="past", kind="history", height=12),
)
ITEM_COLUMNS = (
    column(name="id", kind="category", height=12),
    column(name="year", kind="number", mean=1990.0, std=0.0),
    column(name="tags", kind="categories", height=6),
    column(name="text.embedding", kind="vector", size=4),
    column(name="code", kind="hash", height=9),
)


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
