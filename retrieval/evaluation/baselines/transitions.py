"""A directed graph of which item follows which, walked from the last one or two items of a history."""

from typing import Any, ClassVar, Final

import numpy as np
from scipy import sparse

from retrieval.common.arrays import Scores
from retrieval.common.csr import CSR
from retrieval.evaluation.baselines.base import Choices, Settings, Training, packed, power, product, recency_weights

WINDOW: Final = 10  # followers further away than this are not counted


class Transitions:
    """Score of item j: sum over the last items i of decay^age * follows(i, j) / (users(i)^own * users(j)^other).

    follows(i, j) counts the histories in which j comes after i, fade^(gap - 1) each, up to WINDOW places later;
    `last` is how many of the newest items are looked at. After the item-transition graphs of arXiv:2605.07125, which
    look at the last one or two; more of them, with decay, is the stronger model.
    """

    choices: ClassVar[Choices] = {
        "last": (5, 2, 1, 10),
        "decay": (0.7, 0.5, 0.8, 0.9, 0.3),
        "fade": (0.9, 0.8, 0.7, 0.5, 0.0),
        "other": (0.2, 0.3, 0.5, 0.0),
        "own": (0.5, 0.3, 0.7),
    }

    def fit(self, training: Training) -> None:
        histories, items = training.histories, training.items
        self._items = items
        self._counts = histories.counts(items)
        left = histories.ages()
        self._gaps = []
        for gap in range(1, WINDOW + 1):
            first = np.flatnonzero(left >= gap)
            pairs = (histories.indices[first], histories.indices[first + gap])
            ones = np.ones(len(first), dtype=np.float32)
            self._gaps.append(sparse.coo_array((ones, pairs), shape=(items, items)).tocsr())
        self._made: tuple[float, Any] = (np.nan, None)

    def score(self, histories: CSR, settings: Settings) -> Scores:
        fade = settings["fade"]
        if self._made[0] != fade:
            self._made = (fade, packed(sum(fade**gap * follows for gap, follows in enumerate(self._gaps))))
        newest = histories.newest(int(settings["last"]))
        weights = recency_weights(newest, items=self._items, decay=settings["decay"])
        weights.data *= power(self._counts, settings["own"])[weights.indices]
        scores = product(weights, self._made[1])
        scores *= power(self._counts, settings["other"])
        return scores
