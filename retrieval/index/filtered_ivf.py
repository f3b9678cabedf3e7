"""Filtered search through the lists of an IVF.

FAISS visits the lists whose centroids are nearest to the query, even when the filter leaves nothing in them. Filters
often follow the geometry (a genre, a language), so the items that pass can be in lists further away. Here a list is
rated by the rows that pass: the mean of their scores plus some standard deviations bounds the score of its best row.
Lists are visited by falling bound: first some hundred rows, then every list whose bound reaches the k-th best score of
these. Scores are exact.
"""

from typing import Any, Final

import faiss
import numpy as np

from retrieval.common.arrays import Mask, Rows, Scores, Vectors
from retrieval.index import exact

# With 3.5 deviations, recall@10 was 0.97 and more for clusters, half-spaces and random rows, at 12,000 to 400,000
# items of 64 and 384 dimensions; with 3 it was 0.93 (docs/performance.md).
DEVIATIONS: Final = 3.5  # standard deviations above the mean
SAMPLE: Final = 64  # passing rows, at least, that describe a longer list
SHAPE_SAMPLE: Final = 8_192  # rows that describe in which directions lists spread
FIRST_ROWS: Final = 300  # passing rows, at least, that are scored first
FIRST_PER_RESULT: Final = 5  # the same for each result


class InvertedLists:
    """The rows in each list of an IVF, and the directions in which they spread.

    Attributes:
        sizes: (lists,) int64, number of rows in each list.
        rows: (n,) int64, the rows, list by list.
        owners: (n,) int64, the list of each of `rows`.
        shape: (d, d) float32, the covariance of rows around the mean of their list, scaled to a mean variance of 1.
    """

    def __init__(self, ivf: Any, vectors: Vectors) -> None:
        """Read the lists.

        Args:
            ivf: A trained FAISS IndexIVF with ids 0 .. n - 1.
            vectors: (n, d) float32, the unit vectors that were added to it.
        """
        lists, dim = ivf.invlists, vectors.shape[1]
        self.sizes: Rows = np.array([lists.list_size(number) for number in range(ivf.nlist)], dtype=np.int64)
        held = [
            faiss.rev_swig_ptr(lists.get_ids(number), size).copy()
            for number, size in enumerate(self.sizes.tolist())
            if size
        ]
        self.rows: Rows = np.concatenate([*held, np.empty(0, dtype=np.int64)])
        self.owners: Rows = np.repeat(np.arange(ivf.nlist), self.sizes)
        step = max(len(self.rows) // SHAPE_SAMPLE, 1)
        sample, owners = vectors[self.rows[::step]], self.owners[::step]
        means = np.zeros((ivf.nlist, dim), dtype=np.float32)
        np.add.at(means, owners, sample)
        means /= np.maximum(np.bincount(owners, minlength=ivf.nlist), 1)[:, None]
        sample -= means[owners]
        covariance = sample.T @ sample
        self.shape: Vectors = covariance * (dim / max(float(np.trace(covariance)), 1e-12))


class FilteredLists:
    """The rows of each list that pass a filter, and how they are distributed."""

    def __init__(self, lists: InvertedLists, vectors: Vectors, mask: Mask) -> None:
        """Describe the passing rows of each list.

        Args:
            lists: The lists of the IVF.
            vectors: (n, d) float32, the unit vectors that were added to it.
            mask: (n,) bool, True where a row passes.
        """
        passes = mask[lists.rows]
        counts = np.bincount(lists.owners[passes], minlength=len(lists.sizes))
        self._vectors = vectors
        self._shape = lists.shape
        self._rows = lists.rows[passes]
        self._counts: Rows = counts[counts > 0]  # (f,), of the lists in which any row passes
        self._ends = np.cumsum(self._counts).tolist()
        self._starts = [0, *self._ends[:-1]]
        self._means: Vectors = np.empty((len(self._counts), vectors.shape[1]), dtype=np.float32)
        for at, (start, end) in enumerate(zip(self._starts, self._ends, strict=True)):
            self._means[at] = vectors[self._rows[start : end : max((end - start) // SAMPLE, 1)]].mean(axis=0)
        # The mean squared distance of unit vectors from their mean m is 1 - |m|^2: the variance in all directions.
        variance = np.maximum(1 - (self._means**2).sum(axis=1), 0) / vectors.shape[1]
        self._deviations: Scores = DEVIATIONS * np.sqrt(variance)

    def search(self, query: Vectors, *, k: int, excluded: Rows) -> tuple[Rows, Scores]:
        """Find the best passing rows in the lists that may hold them.

        Args:
            query: (1, d) float32 unit vector.
            k: Number of rows to find.
            excluded: Rows that must not be found.

        Returns:
            rows and scores, (1, k) each, best first, ties by lower row. Fewer than k rows are found only if fewer pass;
            the rest is row -1 with score -inf.
        """
        vector = query[0]
        bounds = self._means @ vector + self._deviations * np.sqrt(vector @ self._shape @ vector)
        order = bounds.argsort()[::-1]
        enough = max(FIRST_ROWS, FIRST_PER_RESULT * k + len(excluded))
        first = int(self._counts[order].cumsum().searchsorted(enough)) + 1
        rows, scores = self._score(query, order[:first], excluded)
        kth_best = np.partition(scores, -k)[-k] if len(scores) >= k else np.float32(-np.inf)
        further = order[first : int((bounds >= kth_best).sum())]
        if len(further):
            more, more_scores = self._score(query, further, excluded)
            rows, scores = np.concatenate([rows, more]), np.concatenate([scores, more_scores])
        best = (scores >= max(kth_best, exact.LOWEST)).nonzero()[0]
        return exact.best_first(rows[best][None], scores[best][None], k=k)

    def _score(self, query: Vectors, lists: Rows, excluded: Rows) -> tuple[Rows, Scores]:
        """The passing rows of some lists and their scores, list by list; -inf for excluded rows."""
        rows = np.concatenate([self._rows[self._starts[at] : self._ends[at]] for at in lists.tolist()])
        scores = exact.score_vectors(query, self._vectors.take(rows, axis=0))
        if len(excluded):
            scores[np.isin(rows, excluded)] = -np.inf
        return rows, scores
