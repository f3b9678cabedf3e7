"""Defaults: what a config leaves open is chosen from statistics of the data, never from a dataset's name."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Final

from retrieval.common.errors import ConfigError
from train.config import options
from train.config.components import fits_values
from train.config.load import Config, ResolvedConfig

SMALL_CATALOG: Final = 5_000  # items up to which scoring the whole catalogue costs no more than sampling from it
MANY_USERS: Final = 5_000  # from so many on, above SMALL_CATALOG items, twice the dimensions pay
LONG_HISTORY: Final = 30  # mean items of a history from which dropping attention weights only slows training
MAX_EPOCHS: Final = 30
STEPS_PER_EPOCH: Final = 100  # at least, where there is little data
EASE_WEIGHT: Final = 0.3  # docs/experiments/ablation.md
EASE_DIM: Final = 512  # of EASE alone; in an ensemble 128, or 256 above SMALL_CATALOG items
EASE_MAX_NUMBERS: Final = 24_000_000  # in EASE's item vectors, beyond which they are cut shorter: about 100 MB
EASE_RECENCY_DECAY: Final = 0.9

RANKING_OBJECTIVES: Final = (None, "softmax", "sampled-softmax")  # whose towers EASE may stand beside by default


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """Sizes and properties of the training rows.

    users, items, interactions: numbers; users are those with a training row.
    mean_length: Interactions per user.
    timed: Whether histories come in an order at all: by times or by rows of the file.
    ordered: Whether that order is informative (see `train.data.order_test`), so that histories are read as sequences.
    repeats: How often the same items follow each other, over chance; None where it was not measured.
    """

    users: int
    items: int
    interactions: int
    mean_length: float
    timed: bool
    ordered: bool
    repeats: float | None


def resolve(config: Config, statistics: Statistics) -> ResolvedConfig:
    """Choose everything that a config leaves open.

    Args:
        config: As read; `history.max_length` is known.
        statistics: Of the training rows.

    Raises:
        ConfigError: if `model.ease.weight` asks for EASE where it cannot be fitted.

    """
    small = statistics.items <= SMALL_CATALOG
    ease = _ease(config, statistics)
    model, train = config.model, config.train
    dim = model.dim or (128 if not small and statistics.users > MANY_USERS else 64)
    # The cost of sampled candidates does not depend on the batch, that of the whole catalogue grows with it.
    largest_batch = 2000 if statistics.ordered and not small else 1000
    batch_size = train.batch_size or _clamp(statistics.interactions // STEPS_PER_EPOCH, 64, largest_batch)
    steps = max(statistics.interactions // batch_size, 1)
    resolved_model = options.ResolvedModel(
        dim=dim,
        layers=model.layers or (2 if small else 1),
        heads=model.heads or 1,
        dropout=(0.3 if dim < 128 or statistics.ordered else 0.4) if model.dropout is None else model.dropout,
        user=_user_encoder(config, statistics),
        item=model.item or options.Mean(),
        ease=ease,
    )
    resolved_train = options.ResolvedTrain(
        objective=train.objective or ("softmax" if small else "sampled-softmax"),
        epochs=train.epochs or MAX_EPOCHS,
        patience=train.patience or 5,
        batch_size=batch_size,
        lr=train.lr or _learning_rate(config, statistics, batch_size),
        weight_decay=0.0 if train.weight_decay is None else train.weight_decay,
        candidates=train.candidates or _clamp(statistics.items // 2, 64, 512),
        temperature=train.temperature or 0.07,
        start=train.start or "spectral",
        averaging=train.averaging or (4.0 if statistics.ordered else 2.0) * steps,
        impression_weight=1.0 if train.impression_weight is None else train.impression_weight,
        id_dropout=0.05 if train.id_dropout is None else train.id_dropout,
        seed=train.seed,
        accelerator=train.accelerator,
    )
    return ResolvedConfig(
        data=config.data,
        user_features=config.user_features,
        item_features=config.item_features,
        split=config.split,
        model=resolved_model,
        train=resolved_train,
        source=config.source,
    )


def _ease(config: Config, statistics: Statistics) -> options.ResolvedEase:
    ease, model = config.model.ease, config.model
    weight = ease.weight
    if weight is None:
        free = model.user is None and model.dim is None and config.data.negative is None
        fits = free and config.train.objective in RANKING_OBJECTIVES and _can_fit_ease(config)
        weight = 0.0 if not fits else EASE_WEIGHT if statistics.ordered else 1.0
    elif weight > 0 and not _can_fit_ease(config):
        raise ConfigError(
            f"{config.source}: model.ease.weight = {weight:g} needs a history, the item id as a category among the "
            "item features, no item encoder and an objective that ranks; set it to 0"
        )
    widest = max(EASE_MAX_NUMBERS // max(statistics.items, 1), 2)
    dim = EASE_DIM if weight == 1 else 128 if statistics.items <= SMALL_CATALOG else 256
    return options.ResolvedEase(
        weight=weight,
        dim=ease.dim or min(dim, widest),
        ridge=ease.ridge,
        feature_weight=ease.feature_weight,
        recency_decay=ease.recency_decay or (EASE_RECENCY_DECAY if statistics.timed else 1.0),
    )


def _can_fit_ease(config: Config) -> bool:
    has_ids = any(feature.name == config.data.item and feature.kind == "category" for feature in config.item_features)
    summed = isinstance(config.model.item, options.Mean | None)
    return config.history is not None and has_ids and summed and not fits_values(config.train.objective)


def _user_encoder(config: Config, statistics: Statistics) -> options.Encoder:
    if config.history is None:
        return config.model.user or options.Mlp()
    encoder = config.model.user or (options.Attention() if statistics.ordered else options.Mean())
    if not isinstance(encoder, options.Attention):
        return encoder
    if encoder.residual_dropout is None:
        encoder = dataclasses.replace(encoder, residual_dropout=_residual_dropout(config, statistics))
    if encoder.attention_dropout is None and encoder.dropout is None:
        long = statistics.items <= SMALL_CATALOG and statistics.mean_length >= LONG_HISTORY
        encoder = dataclasses.replace(encoder, attention_dropout=0.0 if long else None)
    return encoder


def _residual_dropout(config: Config, statistics: Statistics) -> float:
    """Dropout of the last item's own embedding; 1 leaves it out.

    Ratings do not say what follows an item, and in a small catalogue the tied embeddings learn it as well.
    """
    return 1.0 if fits_values(config.train.objective) or statistics.items <= SMALL_CATALOG else 0.6


def _learning_rate(config: Config, statistics: Statistics, batch_size: int) -> float:
    """The noise of a gradient falls with the root of the batch size, so the learning rate grows with it."""
    if not statistics.ordered or fits_values(config.train.objective):
        return 0.003
    return max(0.003, round(0.006 * math.sqrt(batch_size / 1000), 4))


def _clamp(value: int, low: int, high: int) -> int:
    return max(low, min(value, high))
