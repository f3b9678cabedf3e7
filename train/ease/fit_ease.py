"""The closed form of a dataset: which of its settings validation chooses, and the pair that it makes."""

import dataclasses
import time
from collections.abc import Mapping
from typing import Any

from retrieval.common.console import note
from train.config import options
from train.config.load import Config
from train.data.datamodule import DataModule
from train.ease import ease
from train.ease.feature_rows import likeness_of
from train.ease.warm_start import start_linear
from train.model.two_tower import TwoTower


class EaseTowers:
    """The closed form of a dataset.

    data: of the dataset with a resolved config, which leaves the settings open or not. known: what the config names.
    """

    def __init__(self, data: DataModule, known: Mapping[str, Any]) -> None:
        self._data, self._known, self._seed = data, known, data.config.train.seed
        self._evidence = ease.evidence(data.histories, likeness_of(data, data.config), seed=self._seed)
        self._asked = ease.Validation(data.truth.history, data.truth.wanted, data.truth.seen)
        # Where nothing came before anything, there is no age.
        self._fixed = frozenset(known) | (frozenset() if data.has_ages else {"decay"})
        self._made: tuple[ease.Settings, ease.Factors] | None = None

    def first(self) -> ease.Settings:
        """The settings that are known, and for the rest those that did well on many kinds of data."""
        return ease.start(self._evidence)._replace(**self._known)

    def choose(self) -> ease.Settings:
        """Find on validation what is not known of the settings."""
        started = time.monotonic()
        items = self._evidence.taken.shape[1]
        note(f"linear start: a closed form of {items:,} items, its settings tried on validation")
        found = ease.choose(self._evidence, self._asked, self.first(), fixed=self._fixed, seed=self._seed)
        told = ", ".join(f"{name} {value:g}" for name, value in found._asdict().items())
        note(f"linear start: {told}, in {time.monotonic() - started:.0f} s")
        return found

    def ndcg(self, settings: ease.Settings, *, k: int) -> float:
        """What validation finds of it: the mean NDCG@k of its users."""
        found = ease.measure(self.factors(settings), self._asked, decay=settings.decay, k=k)
        return float(found.mean())

    def begin(self, pair: TwoTower, settings: ease.Settings) -> None:
        """Make the pair the closed form."""
        start_linear(pair, self.factors(settings), self._data.users, self._data.items, self._data.histories)

    def factors(self, settings: ease.Settings) -> ease.Factors:
        """What items add, and what they are found by; the last ones are kept."""
        if self._made is None or self._made[0] != settings:
            self._made = settings, ease.factors(self._evidence, settings, seed=self._seed)
        return self._made[1]


def chosen(config: Config) -> dict[str, Any]:
    """The settings that a config names."""
    train, user = config.train, config.model.user
    named = {"dim": config.model.dim, "ridge": train.ridge, "likeness": train.likeness, "damping": train.damping}
    if isinstance(user, options.Sum):
        named["decay"] = user.decay
    return {name: value for name, value in named.items() if value is not None}


def put(config: Config, settings: ease.Settings) -> Config:
    """Write the settings into a config."""
    own = settings._asdict()
    user = config.model.user if isinstance(config.model.user, options.Sum) else options.Sum()
    user = dataclasses.replace(user, decay=own.pop("decay"))
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, dim=int(own.pop("dim")), user=user),
        train=dataclasses.replace(config.train, **own),
    )


def settings(config: Config) -> ease.Settings:
    """The settings of a config that names them all."""
    return ease.Settings(**chosen(config))
