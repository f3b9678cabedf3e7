"""Refit: what a training on all interactions takes over from the training before it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from retrieval.bundle.layout import METRICS, SCHEMA, SUMMARY, TRAINING
from retrieval.common.errors import TrainError
from train.data.order_test import OrderTest


@dataclass(frozen=True, slots=True, kw_only=True)
class Previous:
    """The training that a refit follows.

    out: The artifact folder. summary: Its summary.json.
    epochs: The best epoch, 0 where nothing but EASE was fitted. order_test: Its result.
    """

    out: Path
    summary: dict[str, Any]
    epochs: int
    order_test: OrderTest

    @classmethod
    def read(cls, out: Path) -> "Previous":
        """Raises TrainError if no training in `out` says how long to train."""
        path = out / TRAINING / SUMMARY
        try:
            summary = json.loads(path.read_text(encoding="utf-8"))
            statistics = summary["statistics"]
            order_test = OrderTest(
                informative=bool(statistics["ordered"]),
                timed=bool(statistics["timed"]),
                repeats=statistics["repeats"],
            )
            return cls(out=out, summary=summary, epochs=int(summary["best"]["epoch"]), order_test=order_test)
        except (OSError, ValueError, KeyError) as error:
            raise TrainError(
                f"{path}: --refit needs a training to take the number of epochs from; "
                'run "twotower train" without it first'
            ) from error

    def metrics(self) -> dict[str, Any] | None:
        """What evaluation measured; None if it was not evaluated."""
        if self.summary.get("refit"):  # refitted again
            return cast("dict[str, Any] | None", self.summary.get("refitted_from"))
        try:
            found = json.loads((self.out / METRICS).read_text(encoding="utf-8"))
            exported = json.loads((self.out / SCHEMA).read_text(encoding="utf-8"))
            if found["pair_id"] != exported["pair_id"] or exported["fingerprint"] != self.summary["fingerprint"]:
                return None
            return {"pair_id": found["pair_id"], "verdict": found["verdict"]["sentence"], "metrics": found["metrics"]}
        except (OSError, ValueError, KeyError, TypeError):
            return None
