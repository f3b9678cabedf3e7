"""Item-based nearest neighbours: items that the same users have, the newest of a history counting most."""

from typing import ClassVar

import numpy as np

from retrieval.common.arrays import Scores
from retrieval.common.csr import CSR
from retrieval.evaluation.baselines.base import (
    RECENCY,
    Choices,
    Settings,
    Training,
    bounded,
    incidence,
    packed,
    power,
    product,
    recency_weights,
)


class ItemKNN:
    """Score of item j: sum over the history's items i of decay^age * together(i, j) / (users(i)^own * users(j)^other).

    own = other = 0.5 is the cosine; a smaller exponent favours popular items.
    Sarwar et al., "Item-based collaborative filtering recommendation algorithms", WWW 2001; exponents as in
    Deshpande and Karypis, "Item-based top-N recommendation algorithms", TOIS 22(1), 2004.
    """

    choices: ClassVar[Choices] = {
        "decay": RECENCY,
        "other": (0.3, 0.5, 0.4, 0.2, 0.1, 0.0),
        "own": (0.5, 0.3, 0.7, 1.0),
    }

    def fit(self, training: Training) -> None:
        self._items = training.items
        self._counts = training.histories.counts(training.items)
        seen = incidence(bounded(training.histories), items=training.items)
        together = (seen.T @ seen).tocsr()
        together.setdiag(0)
        together.eliminate_zeros()
        self._together = packed(together)

    def score(self, histories: CSR, settings: Settings) -> Scores:
        weights = recency_weights(histories, items=self._items, decay=settings["decay"])
        weights.data *= power(self._counts, settings["own"])[weights.indices]
        scores = product(weights, self._together)
        scores *= power(self._counts, settings["other"])
        return np.ascontiguousarray(scores)
