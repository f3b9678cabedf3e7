"""iALS: implicit-feedback matrix factorisation, by the `implicit` library (extra `baselines`)."""

from typing import Any, ClassVar

import numpy as np
from scipy import sparse
from threadpoolctl import threadpool_limits

from retrieval.common.arrays import Scores
from retrieval.common.csr import CSR
from retrieval.evaluation.baselines.base import RECENCY, Choices, Settings, Training, incidence, recency_weights

ITERATIONS = 10


class IALS:
    """Hu, Koren and Volinsky, "Collaborative filtering for implicit feedback datasets", ICDM 2008.

    A user's vector is solved for from the history at hand, known user or new: an item of it has confidence
    1 + alpha * decay^age.
    """

    choices: ClassVar[Choices] = {
        "decay": RECENCY,
        "regularization": (50, 10, 150),
        "alpha": (20, 5),
        "factors": (128, 64, 256),
    }

    def fit(self, training: Training) -> None:
        self._items = training.items
        self._seen = sparse.csr_matrix(incidence(training.histories, items=training.items))
        self._made: tuple[tuple[float, ...], Any] = ((), None)

    def _model(self, settings: Settings) -> Any:
        from implicit.als import AlternatingLeastSquares

        key = (settings["factors"], settings["regularization"], settings["alpha"])
        if self._made[0] != key:
            with threadpool_limits(1, "blas"):  # the library threads by itself, and warns where BLAS does too
                model = AlternatingLeastSquares(
                    factors=int(settings["factors"]),
                    regularization=settings["regularization"],
                    alpha=settings["alpha"],
                    iterations=ITERATIONS,
                    random_state=0,
                )
                model.fit(self._seen, show_progress=False)
            self._made = (key, model)
        return self._made[1]

    def score(self, histories: CSR, settings: Settings) -> Scores:
        model = self._model(settings)
        weights = recency_weights(histories, items=self._items, decay=settings["decay"])
        with threadpool_limits(1, "blas"):
            users = model.recalculate_user(np.arange(histories.height), sparse.csr_matrix(weights))
        scores: Scores = np.asarray(users, dtype=np.float32) @ model.item_factors.T
        return scores
