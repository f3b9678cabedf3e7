"""Rivals: the baselines, tuned on validation and asked the same as the bundle."""

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from retrieval.common.console import detail, note
from retrieval.evaluation import baselines as catalogue
from retrieval.evaluation.baselines.base import Settings, scorer
from retrieval.evaluation.baselines.tuning import Tuned, tune
from retrieval.evaluation.held_out import HeldOut, Stage
from retrieval.evaluation.metric_table import Measured, measure
from retrieval.metrics.ranking import rank_all

BUDGET_S: Final = 20.0  # for the settings of one baseline


class Rival(NamedTuple):
    """A baseline's settings, what they were chosen by, and how it did."""

    measured: Measured
    settings: Settings
    tuned: Tuned | None
    seconds: float

    def facts(self) -> dict[str, Any]:
        """How it was fitted, for `metrics.json`."""
        tried = {} if self.tuned is None else {"tried": self.tuned.tried, "out_of_time": self.tuned.stopped}
        return {"settings": dict(self.settings), **tried, "seconds": round(self.seconds, 3)}


def compete(
    held: HeldOut,
    stage: Stage,
    *,
    names: Sequence[str] | None,
    ks: Sequence[int],
    budget_s: float = BUDGET_S,
    seed: int = 0,
) -> tuple[dict[str, Rival], Mapping[str, str]]:
    """Fit, tune and ask baselines.

    names: as `baselines.choose` takes them. Returns the rivals and, by name, why others were left out.
    """
    chosen, skipped = catalogue.choose(names, held.training)
    # Settings are chosen on validation; where that is all there is, they stay as they start.
    tuning = held.stage("valid") if stage.name == "test" and held.counts().get("valid") else None
    rivals = {}
    for name in chosen:
        begin = time.perf_counter()
        model = catalogue.make(name)
        model.fit(held.training)
        tuned = None
        settings: Settings = catalogue.start(model.choices)
        if tuning is not None:
            tuned = tune(
                model,
                histories=tuning.histories,
                truth=tuning.truth,
                seen=tuning.seen,
                items=held.item_count,
                budget_s=budget_s,
                seed=seed,
            )
            settings = tuned.settings
            if tuned.stopped:
                note(f"baseline {name}: settings were searched for {budget_s:g} s, not all were tried")
        ranking = rank_all(
            scorer(model, stage.histories, settings),
            items=held.item_count,
            truth=stage.truth,
            seen=stage.seen,
            k=max(ks),
        )
        measured = measure(ranking, truth=stage.truth, popularity=held.popularity, users=held.user_count, ks=ks)
        rivals[name] = Rival(measured, settings, tuned, time.perf_counter() - begin)
        detail(f"baseline {name}: {rivals[name].facts()}")
    return rivals, skipped
