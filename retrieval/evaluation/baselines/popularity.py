"""The same for everybody: what most users have, ever or of late."""

from typing import ClassVar, Final

import numpy as np

from retrieval.common.arrays import Scores
from retrieval.common.csr import CSR
from retrieval.evaluation.baselines.base import Choices, Settings, Training

THOUSAND: Final = 1000.0


class Popularity:
    """Items by how many users have them."""

    choices: ClassVar[Choices] = {}

    def fit(self, training: Training) -> None:
        self._counts = training.histories.counts(training.items).astype(np.float32)

    def score(self, histories: CSR, settings: Settings) -> Scores:  # noqa: ARG002  (the protocol's)
        return np.tile(self._counts, (histories.height, 1))


class RecentPopularity:
    """Items by how many users have them, an interaction counting half for each half-life that it is old.

    half_life: in thousandths of the time that training spans.
    """

    choices: ClassVar[Choices] = {"half_life": (100, 30, 10, 3, 1, 300)}

    def fit(self, training: Training) -> None:
        assert training.times is not None
        self._items = training.items
        self._indices = training.histories.indices
        known = np.isfinite(training.times)
        newest = training.times[known].max(initial=0.0)
        span = max(newest - training.times[known].min(initial=newest), 1.0)
        # An interaction without a time is taken to be as old as any.
        self._ages = np.where(known, (newest - training.times) / span, 1.0)

    def score(self, histories: CSR, settings: Settings) -> Scores:
        weights = np.exp2(-self._ages * (THOUSAND / settings["half_life"]))
        counts = np.bincount(self._indices, weights=weights, minlength=self._items)
        return np.tile(counts.astype(np.float32), (histories.height, 1))
