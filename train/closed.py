"""The closed form of a dataset: which of its settings validation chooses, and the pair that it makes."""

import dataclasses
import time
from typing import Any

from retrieval.console import note
from train import linear
from train.config import Config
from train.datamodule import DataModule
from train.dataset import Dataset
from train.initial import start_linear
from train.likeness import likeness_of
from train.pair import Pair


def choose(dataset: Dataset, config: Config) -> linear.Settings:
    """Find on validation what the dataset's config leaves open. config: resolved."""
    started = time.monotonic()
    note(f"linear start: a closed form of {dataset.items.height:,} items, its settings tried on validation")
    data = DataModule(dataset, config, ordered=False)
    evidence = _evidence(data, config)
    known = chosen(dataset.config)
    asked = linear.Asked(data.truth.history, data.truth.wanted, data.truth.seen)
    first = linear.start(evidence)._replace(**known)
    found = linear.choose(evidence, asked, first, fixed=frozenset(known), seed=config.train.seed)
    told = ", ".join(f"{name} {value:g}" for name, value in found._asdict().items())
    note(f"linear start: {told}, in {time.monotonic() - started:.0f} s")
    return found


def chosen(config: Config) -> dict[str, Any]:
    """The settings that a config names."""
    train = config.train
    named = {"dim": config.model.dim, "ridge": train.ridge, "likeness": train.likeness, "damping": train.damping}
    return {name: value for name, value in named.items() if value is not None}


def put(config: Config, settings: linear.Settings) -> Config:
    """Write the settings into a config."""
    own = settings._asdict()
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, dim=int(own.pop("dim"))),
        train=dataclasses.replace(config.train, **own),
    )


def begin(pair: Pair, data: DataModule, config: Config) -> None:
    """Make the pair the closed form of its data. config: resolved, with the settings in it."""
    settings = linear.Settings(**chosen(config))
    factors = linear.factors(_evidence(data, config), settings, seed=config.train.seed)
    start_linear(pair, factors, data.users, data.items, data.histories)


def _evidence(data: DataModule, config: Config) -> linear.Evidence:
    return linear.evidence(data.histories, likeness_of(data, config), seed=config.train.seed)
