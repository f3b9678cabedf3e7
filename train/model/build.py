"""Config and preprocess -> the untrained model."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from retrieval.features.schema import Side
from train.config import options as config_options
from train.config.components import encoder_class, loss_class
from train.config.load import ResolvedConfig
from train.features.preprocess import Preprocess
from train.model.encoders import Encoder, EncoderShape
from train.model.feature_embedding import Column
from train.model.towers import ItemTower, UserTower
from train.model.two_tower import TwoTower, TwoTowerOptions


def columns(preprocess: Preprocess, side: Side) -> tuple[Column, ...]:
    """Return what a tower has to know of its inputs, in the order of the features."""
    return tuple(
        Column(feature=feature, fitted=preprocess.fitted(side, feature.name)) for feature in preprocess.features(side)
    )


def encoder(options: config_options.Encoder, shape: EncoderShape) -> Encoder:
    """Build the encoder that a config names. The options have priority over the shape."""
    found: Encoder = encoder_class(options.encoder)(shape, options)
    return found


def item_encoder(options: config_options.Encoder | None, shape: EncoderShape) -> Encoder | None:
    """Build the encoder of the item tower, which has no history. None for the default, "mean": features are added."""
    if options is None or isinstance(options, config_options.Mean):
        return None
    return encoder(options, dataclasses.replace(shape, history=False, max_length=1))


def pair(config: ResolvedConfig, preprocess: Preprocess, *, frequency: Tensor) -> TwoTower:
    """Build the untrained model of a resolved config.

    Args:
        config: Model and training settings.
        preprocess: Fitted on the training data.
        frequency: (items,) float32, share of the training targets that each item is.
    """
    model, train = config.model, config.train
    dim, dropped = model.dim, train.id_dropout
    history = config.history
    shape = EncoderShape(
        dim=dim,
        layers=model.layers,
        heads=model.heads,
        dropout=model.dropout,
        max_length=history.max_length if history is not None and history.max_length else 1,
        history=history is not None,
    )
    item_columns = columns(preprocess, "item")
    is_id = any(column.name == config.data.item and column.kind in ("category", "hash") for column in item_columns)
    return TwoTower(
        UserTower(columns(preprocess, "user"), dim=dim, encoder=encoder(model.user, shape), feature_dropout=dropped),
        ItemTower(
            item_columns,
            dim=dim,
            id_column=config.data.item if is_id else None,
            encoder=item_encoder(model.item, shape),
            id_dropout=dropped,
            feature_dropout=dropped,
        ),
        loss_class(train.objective)(impression_weight=train.impression_weight),
        options=TwoTowerOptions(
            candidates=train.candidates,
            temperature=train.temperature,
            item_dropout=dropped,
        ),
        frequency=frequency,
    )


def frequency(items: Sequence[int] | npt.NDArray[np.integer], *, catalogue: int) -> Tensor:
    """Return the share of `items` that each item row is: (catalogue,) float32."""
    counts = np.bincount(np.asarray(items, dtype=np.int64), minlength=catalogue)
    return torch.from_numpy((counts / max(counts.sum(), 1)).astype(np.float32))
