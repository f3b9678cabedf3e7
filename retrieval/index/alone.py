"""Alone: one query that is asked of all there is. What does not depend on it is prepared once."""

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any, Final

import faiss
import numpy as np
import numpy.typing as npt

from retrieval.index import exact
from retrieval.index.factory import SearchParams

Vectors = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]

SPARE: Final = 32  # candidates that Python looks at before numpy is asked for the best of them
MANY: Final = 200  # candidates, from which on FAISS's heap takes longer than numpy
Ask = Callable[[Vectors], tuple[Rows, Scores] | None]


class Alone:
    """How one query is answered: with as few calls as can be, since each takes longer than what it does.

    Safe from many threads: what a call writes to is its own.
    """

    __slots__ = ("_ask", "_k", "effort")

    def __init__(self, effort: SearchParams, k: int, ask: Ask) -> None:
        """ask: a query (1, d) -> k + 1 candidates or more, rows and scores (1, c) each; None if that is not the way."""
        self.effort = effort
        self._k = k
        self._ask = ask

    def search(self, query: Vectors) -> tuple[Rows, Scores] | None:
        """Rows and scores, (1, k) each. None where equal scores or too few rows want a closer look."""
        found = self._ask(query)
        return None if found is None else in_order(*found, k=self._k)


def in_order(rows: Rows, scores: Scores, *, k: int) -> tuple[Rows, Scores] | None:
    """The k best of candidates (1, c), best first: (1, k) each.

    None where two of the k + 1 best score alike, or there are not so many: that wants a closer look.
    """
    if scores.shape[1] > 2 * k + 1 or not _is_falling(scores, k):
        order = scores[0].argsort()[: -k - 2 : -1]
        rows, scores = rows[0].take(order)[None], scores[0].take(order)[None]
        if not _is_falling(scores, k):
            return None
    return rows[:, :k], scores[:, :k]


def _is_falling(scores: Scores, k: int) -> bool:
    """Whether more than k candidates are in order, k of them there, and no two score alike: so they mostly come."""
    reached = scores[0].tolist()
    return len(reached) > k and all(map(operator.gt, reached, reached[1:])) and reached[k - 1] > -np.inf


def ask_structure(search: Callable[..., None], query: Vectors, count: int, parameters: Any) -> tuple[Rows, Scores]:
    """Candidates of a FAISS structure for a query (1, d), best first: (1, count) each.

    search: its `search_c`.
    """
    scores, rows = np.empty((1, count), dtype=np.float32), np.empty((1, count), dtype=np.int64)
    pointer = faiss.swig_ptr
    search(1, pointer(query), count, pointer(scores), pointer(rows), parameters)
    return rows, scores


def best_pairs(
    rows: Rows, scores: Scores, hidden: Sequence[int], *, k: int, is_whole: bool
) -> list[tuple[float, int]] | None:
    """The k best candidates (c,) of a query as pairs of a negated score and a row, best first, equals by lower row.

    hidden: rows that may not be found. is_whole: whether there are no other candidates.
    None where there may be others as good: too few are left, or the last scores like the k-th.
    """
    wanted = k + len(hidden)
    if len(scores) > wanted + SPARE:
        good = (scores >= np.partition(scores, -wanted)[-wanted]).nonzero()[0]
        is_whole = is_whole or len(good) < len(scores)  # what is left out scores less
        rows, scores = rows.take(good), scores.take(good)
    unwanted, reached = {-1, *hidden}, (-scores).tolist()
    found = sorted(pair for pair in zip(reached, rows.tolist(), strict=True) if pair[1] not in unwanted)
    if not is_whole and (len(found) <= k or found[k - 1][0] >= max(reached)):
        return None
    return found[:k]


def columns_of(found: list[tuple[float, int]], *, k: int) -> tuple[Rows, Scores]:
    """Such pairs as rows and scores, (1, k) each; the tail is row -1, score -inf."""
    found = found + [(math.inf, -1)] * (k - len(found))
    scores = np.array([[-score for score, _ in found]], dtype=np.float32)
    return np.array([[row for _, row in found]], dtype=np.int64), scores


def best_of_few(query: Vectors, vectors: Vectors, *, k: int, hidden: Rows) -> tuple[Rows, Scores] | None:
    """The k best of some vectors (n, d) for a query (1, d), exactly: rows and scores (1, k) each.

    hidden: positions that may not be found. None where FAISS cannot tell: many are wanted, or equals were cut off.
    """
    count = min(k + len(hidden) + 1, len(vectors))
    if count > MANY:
        return None
    scores, rows = np.empty((1, count), dtype=np.float32), np.empty((1, count), dtype=np.int64)
    pointer = faiss.swig_ptr
    height, dim = vectors.shape
    faiss.knn_inner_product(pointer(query), pointer(vectors), dim, 1, height, count, pointer(scores), pointer(rows))
    found = best_pairs(
        rows[0], exact.score(query, vectors, rows)[0], hidden.tolist(), k=k, is_whole=count == len(vectors)
    )
    return None if found is None else columns_of(found, k=k)
