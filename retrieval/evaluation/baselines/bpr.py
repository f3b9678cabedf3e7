"""BPR: matrix factorisation that ranks what was taken above what was not, by `implicit` (extra `baselines`)."""

from typing import Any, ClassVar

import numpy as np
from scipy import sparse
from threadpoolctl import threadpool_limits

from retrieval.common.arrays import Scores
from retrieval.common.csr import CSR
from retrieval.evaluation.baselines.base import RECENCY, Choices, Settings, Training, incidence, recency_weights

LEARNING_RATE = 0.05
RIDGE = 1e-2  # of the map of a history to a user's vector, as a share of the mean square that it maps


class BPR:
    """Rendle et al., "BPR: Bayesian personalized ranking from implicit feedback", UAI 2009 (arXiv 1205.2618).

    It learns a vector a user, and has none for a history: that is the mean of the items' vectors, weighted by
    decay^age, through the linear map that comes nearest to the vectors of the users it was trained on.
    """

    choices: ClassVar[Choices] = {
        "decay": RECENCY,
        "regularization": (0.01, 0.001, 0.05),
        "factors": (64, 128),
        "iterations": (100, 300),
    }

    def fit(self, training: Training) -> None:
        self._items = training.items
        self._histories = training.histories.take(np.flatnonzero(training.histories.lengths))
        self._made: tuple[tuple[float, ...], Any] = ((), None)
        self._mapped: tuple[tuple[float, ...], Scores] = ((), np.empty((0, 0), dtype=np.float32))

    def _model(self, settings: Settings) -> Any:
        from implicit.bpr import BayesianPersonalizedRanking

        key = (settings["factors"], settings["regularization"], settings["iterations"])
        if self._made[0] != key:
            with threadpool_limits(1, "blas"):
                model = BayesianPersonalizedRanking(
                    factors=int(settings["factors"]),
                    regularization=settings["regularization"],
                    iterations=int(settings["iterations"]),
                    learning_rate=LEARNING_RATE,
                    num_threads=1,  # its threads race, and no two runs are alike
                    random_state=0,
                )
                seen = sparse.csr_matrix(incidence(self._histories, items=self._items))
                model.fit(seen, show_progress=False)
            self._made = (key, model)
        return self._made[1]

    def _map(self, model: Any, settings: Settings) -> Scores:
        """What turns the mean vector of a history into a user's: (factors + 1, factors + 1)."""
        key = (*self._made[0], settings["decay"])
        if self._mapped[0] != key:
            means = self._means(self._histories, model, settings["decay"])
            square = means.T @ means
            square[np.diag_indices(len(square))] += RIDGE * np.trace(square) / len(square)
            self._mapped = (key, np.linalg.solve(square, means.T @ model.user_factors).astype(np.float32))
        return self._mapped[1]

    def _means(self, histories: CSR, model: Any, decay: float) -> Scores:
        weights = recency_weights(histories, items=self._items, decay=decay)
        total = np.maximum(weights.sum(axis=1), 1e-12)[:, None]
        # An item's last factor is its bias; a history has a constant there, as the users have.
        means: Scores = np.asarray(weights @ model.item_factors / total, dtype=np.float32)
        means[:, -1] = 1
        return means

    def score(self, histories: CSR, settings: Settings) -> Scores:
        model = self._model(settings)
        users = self._means(histories, model, settings["decay"]) @ self._map(model, settings)
        scores: Scores = users @ model.item_factors.T
        return scores
