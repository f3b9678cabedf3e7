"""Every key of the config file, with its default, its type and what it does.

A key is a field of a dataclass below, made by `key`. `load` checks a file against them, `render` writes their help as
comments. A default of None on a key that is not the name of a file or column means "auto", which may be written out:
`defaults` chooses the value from statistics of the data.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from train.config.components import LOSSES


def key(
    default: Any,
    text: str,
    *,
    choices: Sequence[str] | None = None,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    below: float | None = None,
    path: bool = False,
) -> Any:
    """Define a key of the config file.

    Args:
        default: Value where the file does not name the key.
        text: What the key does, written as a comment into the file.
        choices: Allowed words.
        low: Smallest allowed number.
        high: Largest allowed number.
        above: Number that the value must exceed.
        below: Number that the value must be less than.
        path: Whether the path of a class, "package.module:Class", is allowed besides `choices`.
    """
    bounds = {"low": low, "high": high, "above": above, "below": below}
    return field(default=default, metadata={"text": text, "choices": choices, "path": path, **bounds})


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """The tables and their columns."""

    interactions: str = key("interactions.parquet", "Table of interactions, relative to this file.")
    items: str | None = key(None, "Table of items; without it items are the ids of the interactions.")
    users: str | None = key(None, "Table of users; without it users are the ids of the interactions.")
    user: str = key("user_id", "Column with the user's id.")
    item: str = key("item_id", "Column with the item's id.")
    items_id: str | None = key(None, "Column of the items with the item's id, if it has another name there.")
    users_id: str | None = key(None, "Column of the users with the user's id, if it has another name there.")
    value: str | None = key(None, "Column of the interactions with a rating, count or weight.")
    time: str | None = key(None, "Column of the interactions with a number, date or ISO time; without it, file order.")
    negative: str | None = key(None, "Column of the interactions that is true where an item was shown and not chosen.")
    title: str | None = key(None, "Column of the items that is shown in answers.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Which interactions train, validate and test."""

    kind: str = key(
        "leave-one-out",
        "How to hold out: each user's last (leave-one-out), the last in time (time), whole users (new-users), "
        "at random (random), by a column (column), or nothing (none).",
        choices=("leave-one-out", "time", "new-users", "random", "column", "none"),
    )
    valid: float = key(0.1, "Share held out for validation; of users for new-users.", low=0, below=1)
    test: float = key(0.1, "Share held out for the test; of users for new-users.", low=0, below=1)
    truth: float = key(0.2, "new-users: share of a held-out user's interactions to be found.", above=0, below=1)
    column: str = key("split", "column: the column of the interactions that says train, valid or test.")
    seed: int = key(0, "Seed of new-users and random.", low=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoder:
    """Options of an encoder: the base class, and the options of an encoder that has none.

    The options of the encoders that the default recipe chooses from follow below. Those of other encoders are in the
    encoder's own file.

    Attributes:
        encoder: The encoder's name in the config, a key of `components.ENCODERS`, or the path of its class.
    """

    encoder: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention(Encoder):
    """Options of `train.model.encoders.Attention`."""

    encoder: str = "attention"
    layers: int | None = key(None, "Blocks; model.layers by default.", low=1, high=12)
    heads: int | None = key(None, "Attention heads; model.heads by default.", low=1, high=64)
    dropout: float | None = key(None, "Dropout; model.dropout by default.", low=0, below=1)
    attention_dropout: float | None = key(
        None, "Dropout of the attention weights; as dropout by default.", low=0, below=1
    )
    residual_dropout: float | None = key(
        None,
        "Dropout of the embedding of the newest item, which is added to the output of the attention; 1 for no such "
        "embedding.",
        low=0,
        high=1,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Mean(Encoder):
    """Options of `train.model.encoders.Mean`."""

    encoder: str = "mean"
    dropout: float | None = key(None, "Dropout; model.dropout by default.", low=0, below=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mlp(Encoder):
    """Options of `train.model.encoders.Mlp`."""

    encoder: str = "mlp"
    dropout: float | None = key(None, "Dropout; model.dropout by default.", low=0, below=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ease:
    """[model.ease]: EASE beside the trained towers. A score is the weighted mean of both models' cosines."""

    weight: float | None = key(
        None,
        "Weight of EASE in the score, 0 to 1. auto: 0.3 where the order of histories is informative, 1 (EASE only) "
        "where it is not; 0 if you set an encoder, model.dim, data.negative or another objective.",
        low=0,
        high=1,
    )
    dim: int | None = key(
        None,
        "Number of dimensions of EASE. auto: 128 or 256 in an ensemble, 512 for EASE only.",
        low=2,
        high=4096,
    )
    ridge: float = key(200.0, "L2 regularisation of EASE.", above=0)
    feature_weight: float = key(3.0, "Weight of the items' features beside the interactions; 0 ignores them.", low=0)
    recency_decay: float | None = key(
        None,
        "An item counts recency_decay ** (number of newer items) in a history. auto: 0.9 where histories are in time "
        "order, else 1.",
        above=0,
        high=1,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """The two towers. `user` and `item` are the tables [model.user] and [model.item], or `encoder` for both.

    `ease` is the table [model.ease].
    """

    dim: int | None = key(
        None, "Number of dimensions of the trained towers; EASE adds model.ease.dim.", low=1, high=4096
    )
    layers: int | None = key(None, "Blocks of the user tower.", low=1, high=12)
    heads: int | None = key(None, "Attention heads of the user tower.", low=1, high=64)
    dropout: float | None = key(None, "Share of activations dropped while training.", low=0, below=1)
    user: Encoder | None = None
    item: Encoder | None = None
    ease: Ease = Ease()


@dataclass(frozen=True, slots=True, kw_only=True)
class Train:
    """The objective and the optimiser."""

    objective: str | None = key(
        None,
        "Loss: softmax (all items), sampled-softmax (shared candidates), in-batch (logQ), bpr, rating (the value), or "
        'the path of a class, such as "mypackage.losses:MyLoss".',
        choices=tuple(LOSSES),
        path=True,
    )
    epochs: int | None = key(None, "Maximum number of passes over the data.", low=1)
    patience: int | None = key(None, "Epochs without a better validation before training stops.", low=1)
    batch_size: int | None = key(None, "Training targets in a step, about.", low=1)
    lr: float | None = key(None, "Learning rate.", above=0)
    weight_decay: float | None = key(None, "Weight decay of AdamW.", low=0)
    candidates: int | None = key(
        None, "sampled-softmax: items drawn uniformly, in addition to the items of the batch.", low=1
    )
    start: str | None = key(
        None,
        "Initial item vectors: random, or spectral (leading eigenvectors of item co-occurrence).",
        choices=("random", "spectral"),
    )
    averaging: float | None = key(
        None, "Steps over which weights are averaged, for validation and for keeping; 1 takes the last step's.", low=1
    )
    temperature: float | None = key(None, "Temperature of the softmax at the start; it is learned.", above=0)
    id_dropout: float | None = key(
        None, "Share of ids and features hidden in training, so that unseen ones work.", low=0, below=1
    )
    impression_weight: float | None = key(
        None,
        "Weight of the softmax over the items that were shown (data.negative), added to the softmax over all items.",
        low=0,
    )
    seed: int = key(0, "The same seed on the same CPU gives the same bytes.", low=0)
    accelerator: str = key("auto", "Where to train.", choices=("auto", "cpu", "gpu", "mps"))


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedEase(Ease):
    """`Ease` with nothing left to be chosen."""

    weight: float
    dim: int
    recency_decay: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedModel(Model):
    """`Model` with nothing left to be chosen."""

    dim: int
    layers: int
    heads: int
    dropout: float
    user: Encoder
    item: Encoder
    ease: ResolvedEase


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedTrain(Train):
    """`Train` with nothing left to be chosen."""

    objective: str
    epochs: int
    patience: int
    batch_size: int
    lr: float
    weight_decay: float
    candidates: int
    start: str
    averaging: float
    temperature: float
    id_dropout: float
    impression_weight: float
