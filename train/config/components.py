"""Losses and encoders by their name in the config.

To add one, write its class and register it here. A class of another package needs no registration: the config names
its path, for example `train.objective = "mypackage.losses:MyLoss"`.
"""

import importlib
from collections.abc import Mapping
from typing import Any, Final

from retrieval.common.errors import ConfigError

# Name in the config -> module:class. The classes are imported when a config names them, since torch takes seconds.
LOSSES: Final[Mapping[str, str]] = {
    "softmax": "train.model.losses:Softmax",
    "sampled-softmax": "train.model.losses:SampledSoftmax",
    "in-batch": "train.model.losses:InBatch",
    "bpr": "train.model.losses:Bpr",
    "rating": "train.model.losses:Rating",
}
ENCODERS: Final[Mapping[str, str]] = {
    "attention": "train.model.encoders:Attention",
    "mean": "train.model.encoders:Mean",
    "mlp": "train.model.encoders:Mlp",
    "notebook-attention": "train.model.notebook_encoders:NotebookAttention",
    "rolling-attention": "train.model.notebook_encoders:RollingAttention",
    "notebook-mlp": "train.model.notebook_encoders:NotebookMlp",
    "cross-attention": "train.model.notebook_encoders:CrossAttention",
}


def loss_class(name: str) -> Any:
    """Import the loss that a config names.

    Args:
        name: A key of `LOSSES`, or the path of a class: "package.module:Class".

    Returns:
        A subclass of `train.model.losses.Loss`.

    Raises:
        ConfigError: If the path cannot be imported or is not such a class.
    """
    return _load(name, LOSSES, base="train.model.losses:Loss")


def encoder_class(name: str) -> Any:
    """Import the encoder that a config names: as `loss_class`, a subclass of `train.model.encoders.Encoder`."""
    return _load(name, ENCODERS, base="train.model.encoders:Encoder")


def fits_values(objective: str | None) -> bool:
    """Whether an objective fits the values (ratings) of the interactions. The default objective, None, does not."""
    return objective is not None and bool(loss_class(objective).fits_values)


def _load(name: str, known: Mapping[str, str], *, base: str) -> Any:
    try:
        found, parent = _import(known.get(name, name)), _import(base)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f'cannot import "{name}" ({error}); is its package installed or on PYTHONPATH?') from error
    if not isinstance(found, type) or not issubclass(found, parent):
        raise ConfigError(f'"{name}" is not a subclass of {base.replace(":", ".")}')
    return found


def _import(path: str) -> Any:
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)
