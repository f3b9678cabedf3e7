"""Alone: one query that is asked of all there is. What does not depend on it is prepared once."""

import operator
from collections.abc import Callable
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from retrieval.kinds import Effort

Vectors = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]

Ask = Callable[[Vectors], tuple[Rows, Scores] | None]


class Alone:
    """How one query is answered: with as few calls as can be, since each takes longer than what it does.

    Safe from many threads: what a call writes to is its own.
    """

    __slots__ = ("_ask", "_k", "effort")

    def __init__(self, effort: Effort, k: int, ask: Ask) -> None:
        """ask: a query (1, d) -> k + 1 candidates or more, rows and scores (1, c) each; None if that is not the way."""
        self.effort = effort
        self._k = k
        self._ask = ask

    def search(self, query: Vectors) -> tuple[Rows, Scores] | None:
        """Rows and scores, (1, k) each. None where equal scores or too few rows want a closer look."""
        found = self._ask(query)
        if found is None:
            return None
        rows, scores = found
        if scores.shape[1] > 2 * self._k + 1 or not self._is_falling(scores):
            order = scores[0].argsort()[: -self._k - 2 : -1]
            rows, scores = rows[0].take(order)[None], scores[0].take(order)[None]
            if not self._is_falling(scores):
                return None
        return rows[:, : self._k], scores[:, : self._k]

    def _is_falling(self, scores: Scores) -> bool:
        """Whether the candidates are in order and no two score alike: so they mostly come."""
        reached = scores[0].tolist()
        return all(map(operator.gt, reached, reached[1:])) and reached[self._k - 1] > -np.inf


def ask_structure(search: Callable[..., None], query: Vectors, count: int, parameters: Any) -> tuple[Rows, Scores]:
    """Candidates of a FAISS structure for a query (1, d), best first: (1, count) each.

    search: its `search_c`.
    """
    scores, rows = np.empty((1, count), dtype=np.float32), np.empty((1, count), dtype=np.int64)
    pointer = faiss.swig_ptr
    search(1, pointer(query), count, pointer(scores), pointer(rows), parameters)
    return rows, scores


def sorted_best(rows: Rows, scores: Scores, count: int) -> tuple[Rows, Scores]:
    """The `count` best candidates (q, c), best first, equal scores in any order. Returns (q, count) each."""
    if scores.shape[1] > 2 * count:
        best = scores.argpartition(-count, axis=1)[:, -count:]
        rows, scores = np.take_along_axis(rows, best, axis=1), np.take_along_axis(scores, best, axis=1)
    order = (-scores).argsort(axis=1)[:, :count]
    return np.take_along_axis(rows, order, axis=1), np.take_along_axis(scores, order, axis=1)
