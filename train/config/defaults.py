"""The default recipe: what a config leaves open, chosen by what the data is; never by its name."""

import dataclasses
import math
from dataclasses import dataclass

import numpy as np

from retrieval.common.errors import ConfigError
from train.config import options
from train.config.components import fits_values
from train.config.load import Config
from train.data.dataset import Dataset
from train.data.order_test import SOFTMAX

FULL_SOFTMAX = 5_000  # items up to which the whole catalogue costs no more than sampling from it

EPOCHS = 30
STEPS = 100  # an epoch, at least, where there is little data
LONG = 30  # items of a history, from where on what is read of it is dropped at the price of twice the epochs
SHARP = 3.0  # times chance that items follow each other, from where on what follows the newest is worth learning apart
MANY_USERS = 5_000  # from so many on, and above FULL_SOFTMAX items, twice the width finds more in the same time
WIDE = 256  # of a closed form: where validation wants more directions, those that towers learn are too few to add any
TARGETS = 5_000_000  # that such towers are trained on: some minutes, as trying the settings of the closed form takes


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """What a recipe is chosen by, over the training rows.

    mean_length: of a history. ordered: whether the order of a history tells anything. repeats: how often items follow
    each other, over chance; None where it was not measured. learned: whether histories without an order are read by
    towers that are trained, the closed form beside them.
    """

    users: int
    items: int
    interactions: int
    mean_length: float
    ordered: bool
    values: bool
    repeats: float | None = None
    learned: bool = False


def statistics(dataset: Dataset) -> Statistics:
    rows = dataset.rows("train")
    times = rows.get_column("time")
    lengths = np.bincount(rows.get_column("user").to_numpy())
    return Statistics(
        users=int((lengths > 0).sum()),
        items=dataset.items.height,
        interactions=rows.height,
        mean_length=rows.height / max(int((lengths > 0).sum()), 1),
        ordered=dataset.order.told,
        repeats=dataset.order.repeats,
        values=times.len() > 0 and rows.get_column("value").null_count() < rows.height,
    )


def resolve(config: Config, facts: Statistics) -> Config:
    """Fill in everything a config leaves open."""
    small = facts.items <= FULL_SOFTMAX
    model, train = config.model, config.train
    user = model.user or _user_encoder(config, facts)
    if isinstance(user, options.Attention) and user.residual_dropout is None:
        user = dataclasses.replace(user, residual_dropout=_residual_dropout(train, facts))
    if isinstance(user, options.Attention) and user.attention_dropout is None and user.dropout is None:
        user = dataclasses.replace(user, attention_dropout=0.0 if small and facts.mean_length >= LONG else None)
    closed = isinstance(user, options.Sum) and _closed(config) and train.start in (None, "linear")
    if train.start == "linear" and not closed:
        raise ConfigError(
            f'{config.source}: train.start = "linear" needs the user encoder "sum", a history, and the item\'s id, '
            "as a category, among its features; leave it out, or name those"
        )
    dim = model.dim or (256 if closed else 128 if not small and facts.users > MANY_USERS else 64)
    # Candidates cost the same whatever the batch, the whole catalogue what the batch does.
    most = 4000 if closed or facts.learned else 2000 if facts.ordered and not small else 1000
    batch_size = train.batch_size or _between(64, facts.interactions // STEPS, most)
    steps = max(facts.interactions // batch_size, 1)
    return dataclasses.replace(
        config,
        model=dataclasses.replace(
            model,
            dim=dim,
            heads=model.heads or 1,
            layers=model.layers or (2 if small else 1),
            dropout=(0.3 if dim < 128 or facts.ordered else 0.4) if model.dropout is None else model.dropout,
            user=user,
            item=model.item or options.Mean(),
            linear=model.linear if beside(config, facts) and not closed else options.Linear(share=0.0),
        ),
        train=dataclasses.replace(
            train,
            objective=train.objective or ("softmax" if small else "sampled-softmax"),
            epochs=train.epochs or (_closed_epochs(config) if closed else _epochs(facts)),
            patience=train.patience or 5,
            batch_size=batch_size,
            lr=train.lr or (0.0001 if closed else _lr(train, facts, batch_size)),  # a closed form has much to lose
            weight_decay=0.0 if train.weight_decay is None else train.weight_decay,
            candidates=train.candidates or _between(64, facts.items // 2, 512),
            temperature=train.temperature or (0.025 if closed else 0.07),
            distillation=_distillation(train, facts) if train.distillation is None else train.distillation,
            start=train.start or ("linear" if closed else "spectral"),
            averaging=train.averaging or (4.0 if facts.ordered else 2.0) * steps,
            impression_weight=1.0 if train.impression_weight is None else train.impression_weight,
            id_dropout=0.05 if train.id_dropout is None else train.id_dropout,
        ),
    )


def beside(config: Config, facts: Statistics) -> bool:
    """Whether a closed form may stand beside an encoder that is trained.

    Raises ConfigError where the config wants it and it cannot be.
    """
    share = config.model.linear.share
    if share is None:
        return (facts.ordered or facts.learned) and _is_open(config)
    if share and not _closed(config):
        raise ConfigError(
            f"{config.source}: model.linear.share = {share:g} needs a history, the item's id, as a category, among its "
            "features, and an objective that ranks; set it to 0"
        )
    return share > 0


def may_learn(config: Config) -> bool:
    """Whether the closed form of histories without an order may have towers beside it that are trained.

    It may not where the config names what only one of them has.
    """
    train = config.train
    return _is_open(config) and config.model.linear.share is None and train.start is None and train.epochs is None


def _is_open(config: Config) -> bool:
    """Whether a config leaves it open that a score is of two parts, one of them the closed form."""
    free = config.model.user is None and config.model.dim is None and config.data.negative is None
    return free and _closed(config) and config.train.objective in SOFTMAX


def _between(low: int, value: int, high: int) -> int:
    return max(low, min(value, high))


def _lr(train: options.Train, facts: Statistics, batch_size: int) -> float:
    """As high as the average over four epochs smooths; the noise of a step falls with the root of its size."""
    if not facts.ordered or fits_values(train.objective):
        return 0.003
    return max(0.003, round(0.006 * math.sqrt(batch_size / 1000), 4))


def _distillation(train: options.Train, facts: Statistics) -> float:
    """No soft targets for ratings or for data without order: transition counts say nothing about either."""
    return 0.3 if facts.ordered and not fits_values(train.objective) else 0.0


def _residual_dropout(train: options.Train, facts: Statistics) -> float:
    """Without dropout the embedding of the newest item overfits. 1, no such embedding, where it does not help.

    That is for ratings, and for a small catalogue in which the newest item hardly predicts the next one.
    """
    dull = facts.items <= FULL_SOFTMAX and (facts.repeats or 0.0) < SHARP
    return 1.0 if fits_values(train.objective) or dull else 0.6


def _user_encoder(config: Config, facts: Statistics) -> options.Encoder:
    if config.history is None:
        return options.Mlp()
    if facts.ordered:
        return options.Attention()
    return options.Sum() if _closed(config) and not facts.learned else options.Mean()


def _epochs(facts: Statistics) -> int:
    """The most there are; of towers that may come to nothing, fewer of much data."""
    return _between(1, TARGETS // max(facts.interactions, 1), EPOCHS) if facts.learned else EPOCHS


def _closed_epochs(config: Config) -> int:
    """The first epoch is the closed form itself, which knows neither another objective nor what was not chosen."""
    return 1 if config.train.objective in SOFTMAX and config.data.negative is None else 5


def _closed(config: Config) -> bool:
    """Whether training can start from the closed form: items have vectors of their own."""
    named = any(feature.name == config.data.item and feature.kind == "category" for feature in config.item_features)
    own = isinstance(config.model.item, options.Mean | None)
    ranked = not fits_values(config.train.objective)
    return config.history is not None and named and own and ranked
