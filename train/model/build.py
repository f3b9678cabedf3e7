"""Config and preprocess -> the towers, untrained: the one place that reads both."""

import dataclasses
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from retrieval.features.schema import Side
from train.config import options as keys
from train.config.load import Config
from train.features.preprocess import Batch, Preprocess
from train.model.encoders import ENCODERS, Encoder, EncoderShape
from train.model.feature_embedding import Column
from train.model.notebook_encoders import CrossAttention, RollingAttention, SeedAttention, SeedMlp
from train.model.towers import ItemTower, UserTower
from train.model.two_tower import TwoTower, TwoTowerOptions

T = TypeVar("T")


def given(value: T | None) -> T:
    """What a resolved config leaves to nobody else."""
    assert value is not None
    return value


def columns(preprocess: Preprocess, side: Side) -> tuple[Column, ...]:
    """What a tower must know of its inputs, in the order of the features."""
    return tuple(
        Column(feature=feature, fitted=preprocess.fitted(side, feature.name)) for feature in preprocess.features(side)
    )


def encoder(options: keys.Encoder, shape: EncoderShape) -> Encoder:
    """Build the encoder that a config names. shape: what the config says for all encoders; the options win."""
    if isinstance(options, keys.SeedAttention):
        return SeedAttention(options, shape)
    if isinstance(options, keys.RollingAttention):
        return RollingAttention(options, shape)
    if isinstance(options, keys.SeedMlp):
        return SeedMlp(options, shape)
    if isinstance(options, keys.CrossAttention):
        return CrossAttention(options, shape)
    names = ("layers", "heads", "dropout", "attention_dropout", "short_cut", "short_cut_items", "decay")
    own = {name: value for name in names if (value := getattr(options, name, None)) is not None}
    return ENCODERS[options.name](dataclasses.replace(shape, **own))


def item_encoder(options: keys.Encoder | None, shape: EncoderShape) -> Encoder | None:
    """The same for items, which have no history. None for the default, the mean: the features are summed."""
    if options is None or isinstance(options, keys.Mean):
        return None
    return encoder(options, dataclasses.replace(shape, history=False, max_length=1))


def pair(config: Config, preprocess: Preprocess, *, frequency: Tensor) -> TwoTower:
    """Both towers of a resolved config. frequency: (items,) share of the training targets."""
    model, train = config.model, config.train
    assert model.user is not None
    dim, hidden = given(model.dim), given(train.id_dropout)
    history = config.history
    shape = EncoderShape(
        dim=dim,
        layers=given(model.layers),
        heads=given(model.heads),
        dropout=given(model.dropout),
        max_length=history.max_length if history is not None and history.max_length else 1,
        history=history is not None,
    )
    item_columns = columns(preprocess, "item")
    is_id = any(column.name == config.data.item and column.kind in ("category", "hash") for column in item_columns)
    return TwoTower(
        UserTower(
            columns(preprocess, "user"),
            dim=dim,
            encoder=encoder(model.user, shape),
            feature_dropout=hidden,
        ),
        ItemTower(
            item_columns,
            dim=dim,
            id_column=config.data.item if is_id else None,
            encoder=item_encoder(model.item, shape),
            id_dropout=hidden,
            feature_dropout=hidden,
        ),
        options=TwoTowerOptions(
            objective=given(train.objective),
            candidates=given(train.candidates),
            temperature=given(train.temperature),
            teaching=given(train.teaching),
            item_dropout=hidden,
            impressions=given(train.impressions),
        ),
        frequency=frequency,
    )


def tensors(batch: Batch) -> dict[str, Tensor]:
    """Encoded arrays as tensors, on the CPU. They share memory where numpy lets them."""
    return {name: torch.from_numpy(np.require(values, requirements=["W", "C"])) for name, values in batch.items()}


def frequency(items: Sequence[int] | npt.NDArray[np.integer], *, catalogue: int) -> Tensor:
    """Share of the training interactions that each item has: (catalogue,) float32."""
    counts = np.bincount(np.asarray(items, dtype=np.int64), minlength=catalogue)
    return torch.from_numpy((counts / max(counts.sum(), 1)).astype(np.float32))
