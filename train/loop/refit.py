"""Refit: what a training on everything takes over from the training that it follows."""

import json
from pathlib import Path
from typing import Any, Final, cast

from retrieval.bundle.layout import SCHEMA, SUMMARY, TRAINING
from retrieval.common.errors import TrainError
from train.config.load import Config
from train.data.datamodule import DataModule
from train.data.order_test import Order
from train.ease import concat, ease, fit_ease
from train.loop import ensemble_weight
from train.loop.ensemble_weight import Beside

METRICS_NAME: Final = "metrics.json"


class Previous:
    """The training that a refit follows, by its summary.

    epochs: how many validation chose. order: what it found of that of its histories. learned: see
    `recipe.Statistics`. unknown: of settled items, see `settle.finish`; None where they were left as trained.
    """

    def __init__(self, out: Path) -> None:
        """out: the artifact folder. Raises TrainError if no training in it says how long to train."""
        path = out / TRAINING / SUMMARY
        self._out = out
        try:
            self._summary = json.loads(path.read_text(encoding="utf-8"))
            self.epochs = int(self._summary["best"]["epoch"])
            found = self._summary["statistics"]
            self.order = Order(told=bool(found["ordered"]), repeats=found.get("repeats"))
            self.learned = bool(found.get("learned"))
            self.unknown: float | None = self._summary.get("unknown")
        except (OSError, ValueError, KeyError) as error:
            raise TrainError(
                f"{path}: --refit needs a training to take the number of epochs from; "
                'run "twotower train" without it first'
            ) from error

    def settings(self, config: Config) -> ease.Settings:
        """The settings of the closed form that its validation chose; what the config names goes before."""
        kept = self._chosen(config)
        return ease.Settings()._replace(**fit_ease.chosen(kept) | fit_ease.chosen(config))

    def beside(self, data: DataModule) -> Beside:
        """What it put beside its towers; what the config names goes before."""
        asked = ensemble_weight.wanted(data)
        kept = self._chosen(data.config)
        settings = asked.settings._replace(**concat.named(kept) | concat.named(data.config))
        return Beside(asked.form, settings, kept.model.linear.share if asked.share is None else asked.share)

    def _chosen(self, config: Config) -> Config:
        """A config with the recipe that it came to."""
        return Config.from_dict(config.to_dict() | self._summary["recipe"])

    def measured(self) -> dict[str, Any] | None:
        """What evaluation found of it; None if it was not evaluated."""
        if self._summary.get("refit"):  # refitted again
            return cast("dict[str, Any] | None", self._summary.get("refitted_from"))
        try:
            found = json.loads((self._out / METRICS_NAME).read_text(encoding="utf-8"))
            exported = json.loads((self._out / SCHEMA).read_text(encoding="utf-8"))
            if found["pair_id"] != exported["pair_id"] or exported["fingerprint"] != self._summary["fingerprint"]:
                return None
            return {"pair_id": found["pair_id"], "verdict": found["verdict"]["sentence"], "metrics": found["metrics"]}
        except (OSError, ValueError, KeyError, TypeError):
            return None
