"""EASE: the item-to-item weights of a ridge regression of every item on all others, in closed form."""

from typing import ClassVar

import numpy as np
from scipy import linalg

from retrieval.common.arrays import Scores
from retrieval.common.csr import CSR
from retrieval.evaluation.baselines.base import (
    RECENCY,
    Choices,
    Settings,
    Training,
    incidence,
    product,
    recency_weights,
)


class EASE:
    """B = I - P / diag(P), P = (X'X + ridge I)^-1; a history's items count decay^age.

    Steck, "Embarrassingly shallow autoencoders for sparse data", WWW 2019, equation 8.
    ridge: as a multiple of the mean number of users of an item, so that one choice means alike on any data.
    """

    choices: ClassVar[Choices] = {"decay": RECENCY, "ridge": (10, 30, 3, 100, 1)}

    def fit(self, training: Training) -> None:
        self._items = training.items
        seen = incidence(training.histories, items=training.items)
        self._gram = (seen.T @ seen).toarray()
        self._mean = max(float(len(training.histories.indices)) / max(training.items, 1), 1e-6)
        self._made: tuple[float, Scores] = (np.nan, np.empty((0, 0), dtype=np.float32))

    def _weights(self, ridge: float) -> Scores:
        """(items, items) float32, zero diagonal."""
        if self._made[0] != ridge:
            gram = self._gram.copy()
            gram[np.diag_indices(self._items)] += np.float32(ridge * self._mean)
            factor, status = linalg.lapack.spotrf(gram.T, lower=1, overwrite_a=1)
            assert status == 0, "a Gram matrix with a ridge is positive definite"
            inverse, status = linalg.lapack.spotri(factor, lower=1, overwrite_c=1)
            assert status == 0
            # LAPACK fills one triangle: mirror it, a block of rows at a time.
            weights = inverse.T
            for row in range(self._items):
                weights[row + 1 :, row] = weights[row, row + 1 :]
            weights /= -weights.diagonal().copy()
            weights[np.diag_indices(self._items)] = 0
            self._made = (ridge, weights)
        return self._made[1]

    def score(self, histories: CSR, settings: Settings) -> Scores:
        weights = recency_weights(histories, items=self._items, decay=settings["decay"])
        return product(weights, self._weights(settings["ridge"]))
