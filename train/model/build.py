"""Config and preprocess -> the untrained model."""

import dataclasses
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from retrieval.features.schema import Feature, Side
from retrieval.features.vocabulary import FIRST
from train.config import options as config_options
from train.config.components import encoder_class, loss_class
from train.config.load import Config
from train.data.preprocess import Preprocess
from train.model.encoders import Encoder, EncoderShape
from train.model.feature_embedding import Column
from train.model.towers import ItemTower, UserTower
from train.model.two_tower import TwoTower, TwoTowerOptions

T = TypeVar("T")


def given(value: T | None) -> T:
    """Assert that a value of a resolved config is there, and return it."""
    assert value is not None
    return value


def columns(preprocess: Preprocess, side: Side) -> tuple[Column, ...]:
    """Return what a tower has to know of its inputs, in the order of the features."""
    return tuple(_column(preprocess, side, feature) for feature in preprocess.features(side))


def _column(preprocess: Preprocess, side: Side, feature: Feature) -> Column:
    if feature.kind == "number":
        scaler = preprocess.scaler(side, feature.name)
        return Column(name=feature.name, kind="number", mean=scaler.mean, std=scaler.std)
    if feature.kind == "vector":
        assert feature.size is not None
        return Column(name=feature.name, kind="vector", size=feature.size)
    if feature.kind == "hash":
        assert feature.buckets is not None
        return Column(name=feature.name, kind="hash", height=feature.buckets + FIRST)
    return Column(name=feature.name, kind=feature.kind, height=len(preprocess.vocabulary(side, feature.name)))


def encoder(options: config_options.Encoder, shape: EncoderShape) -> Encoder:
    """Build the encoder that a config names. The options have priority over the shape."""
    found: Encoder = encoder_class(options.encoder)(shape, options)
    return found


def item_encoder(options: config_options.Encoder | None, shape: EncoderShape) -> Encoder | None:
    """Build the encoder of the item tower, which has no history. None for the default, "mean": features are added."""
    if options is None or isinstance(options, config_options.Mean):
        return None
    return encoder(options, dataclasses.replace(shape, history=False, max_length=1))


def pair(config: Config, preprocess: Preprocess, *, frequency: Tensor) -> TwoTower:
    """Build the untrained model of a resolved config.

    Args:
        config: Nothing is left open in it.
        preprocess: Fitted on the training data.
        frequency: (items,) float32, share of the training targets that each item is.
    """
    model, train = config.model, config.train
    assert model.user is not None
    dim, dropped = given(model.dim), given(train.id_dropout)
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
        UserTower(columns(preprocess, "user"), dim=dim, encoder=encoder(model.user, shape), feature_dropout=dropped),
        ItemTower(
            item_columns,
            dim=dim,
            id_column=config.data.item if is_id else None,
            encoder=item_encoder(model.item, shape),
            id_dropout=dropped,
            feature_dropout=dropped,
        ),
        loss_class(given(train.objective))(impression_weight=given(train.impression_weight)),
        options=TwoTowerOptions(
            candidates=given(train.candidates),
            temperature=given(train.temperature),
            distillation=given(train.distillation),
            item_dropout=dropped,
        ),
        frequency=frequency,
    )


def frequency(items: Sequence[int] | npt.NDArray[np.integer], *, catalogue: int) -> Tensor:
    """Return the share of `items` that each item row is: (catalogue,) float32."""
    counts = np.bincount(np.asarray(items, dtype=np.int64), minlength=catalogue)
    return torch.from_numpy((counts / max(counts.sum(), 1)).astype(np.float32))
