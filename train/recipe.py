"""The default recipe: what a config leaves open, chosen by what the data is; never by its name."""

import dataclasses
from dataclasses import dataclass

import numpy as np

from train import keys
from train.config import Config
from train.dataset import Dataset

FULL_SOFTMAX = 5_000  # items up to which the whole catalogue costs no more than sampling from it

STEPS = 50  # an epoch, at least, where there is little data
WIDE = 15_000  # items from which twice the width is worth its time


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """What a recipe is chosen by, over the training rows.

    lengths: mean length of a history; ordered: whether times tell what came first.
    """

    users: int
    items: int
    interactions: int
    mean_length: float
    ordered: bool
    values: bool


def statistics(dataset: Dataset) -> Statistics:
    rows = dataset.rows("train")
    times = rows.get_column("time")
    lengths = np.bincount(rows.get_column("user").to_numpy())
    return Statistics(
        users=int((lengths > 0).sum()),
        items=dataset.items.height,
        interactions=rows.height,
        mean_length=rows.height / max(int((lengths > 0).sum()), 1),
        ordered=is_ordered(dataset),
        values=times.len() > 0 and rows.get_column("value").null_count() < rows.height,
    )


def is_ordered(dataset: Dataset) -> bool:
    """Whether the order of a history means anything.

    Without a time column the rows stand in the order of the file, which is an order unless the split ignores it.
    Where times are given and all alike, nothing came before anything.
    """
    times = dataset.interactions.get_column("time")
    if times.null_count() == times.len():
        return dataset.config.split.kind in ("leave-one-out", "time")
    return times.n_unique() > 1


def resolve(config: Config, facts: Statistics) -> Config:
    """Fill in everything a config leaves open."""
    small = facts.items <= FULL_SOFTMAX
    model, train = config.model, config.train
    dim = model.dim or (128 if facts.items > WIDE else 64)
    heads = model.heads or next(heads for heads in (2, 1) if dim % heads == 0)
    has_history = config.history is not None
    user = model.user or (
        keys.Attention() if has_history and facts.ordered else keys.Mean() if has_history else keys.Mlp()
    )
    batch_size = train.batch_size or _between(64, facts.interactions // STEPS, 1000)
    steps = max(facts.interactions // batch_size, 1)
    return dataclasses.replace(
        config,
        model=dataclasses.replace(
            model,
            dim=dim,
            heads=heads,
            layers=model.layers or (2 if small else 1),
            dropout=(0.3 if dim < 128 else 0.4) if model.dropout is None else model.dropout,
            user=user,
            item=model.item or keys.Mean(),
        ),
        train=dataclasses.replace(
            train,
            objective=train.objective or ("softmax" if small else "sampled-softmax"),
            epochs=train.epochs or 30,
            patience=train.patience or 5,
            batch_size=batch_size,
            lr=train.lr or 0.003,
            weight_decay=0.0 if train.weight_decay is None else train.weight_decay,
            candidates=train.candidates or _between(64, facts.items // 2, 512),
            temperature=train.temperature or 0.07,
            horizon=train.horizon or 0.0,
            positions=train.positions or 0,
            teaching=_teaching(train) if train.teaching is None else train.teaching,
            start=train.start or "spectral",
            averaging=train.averaging or 2.0 * steps,
            id_dropout=0.05 if train.id_dropout is None else train.id_dropout,
        ),
    )


def _between(low: int, value: int, high: int) -> int:
    return max(low, min(value, high))


def _teaching(train: keys.Train) -> float:
    """Ratings say what was thought of an item, not what follows it."""
    return 0.0 if train.objective == "rating" else 0.3
