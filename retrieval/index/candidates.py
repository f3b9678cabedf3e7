"""Candidates: rows that may be among the best, several for each of many queries, on their way to an answer."""

import numpy as np
import numpy.typing as npt

from retrieval.common.csr import CSR

Rows = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


def sorted_best(rows: Rows, scores: Scores, count: int) -> tuple[Rows, Scores]:
    """The `count` best candidates (q, c), best first, equal scores in any order. Returns (q, count) each."""
    if scores.shape[1] > 2 * count:
        best = scores.argpartition(-count, axis=1)[:, -count:]
        rows, scores = np.take_along_axis(rows, best, axis=1), np.take_along_axis(scores, best, axis=1)
    order = (-scores).argsort(axis=1)[:, :count]
    return np.take_along_axis(rows, order, axis=1), np.take_along_axis(scores, order, axis=1)


def hide(rows: Rows, scores: Scores, exclude: CSR | None) -> tuple[Rows, Scores]:
    """Candidates (q, c) with those excluded turned into none: row -1, score -inf."""
    if exclude is None or len(exclude.indices) == 0:
        return rows, scores
    height = max(int(rows.max(initial=0)), int(exclude.indices.max())) + 1
    hidden = np.sort(exclude.owners() * height + exclude.indices)
    keys = np.arange(len(rows))[:, None] * height + rows
    at = np.minimum(np.searchsorted(hidden, keys), len(hidden) - 1)
    gone = (hidden[at] == keys) & (rows >= 0)
    return np.where(gone, -1, rows), np.where(gone, np.float32(-np.inf), scores)


def padded(chosen: Mask, best: Rows) -> Rows:
    """The columns that are chosen, of each row: (q, most of a row), -1 beyond.

    chosen: (q, n); changed. best: (q,), a chosen column of each that is to come first.
    """
    chosen[np.arange(len(chosen)), best] = False
    counts = np.count_nonzero(chosen, axis=1)
    filled = np.arange(counts.max(initial=0)) < counts[:, None]
    columns = np.full(filled.shape, -1, dtype=np.int64)
    columns[filled] = chosen.ravel().nonzero()[0] - np.repeat(np.arange(len(chosen)) * chosen.shape[1], counts)
    return np.concatenate([best[:, None], columns], axis=1)
