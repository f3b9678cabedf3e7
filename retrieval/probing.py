"""Probing: which lists of an IVF a search looks into, where no filter asks for others.

FAISS looks into a fixed number of lists for every query. Here it is those whose centroid is nearly as near as the
nearest one: few where one list stands out, more where many compete. The same recall then takes fewer lists.
"""

from typing import Any, Final

import faiss
import numpy as np
import numpy.typing as npt

from retrieval import exact
from retrieval.kinds import Effort

Vectors = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]

QUERIES: Final = 1_024  # that are compared with all centroids at a time
CAP: Final = 4  # times as many lists as the average query, at most: someone unlike anyone is near to none, and to all


class Probing:
    """The lists of an IVF, by their centroids."""

    def __init__(self, ivf: Any, vectors: Vectors) -> None:
        """ivf: trained and filled with the vectors (n, d), ids 0 .. n - 1."""
        self.ivf = ivf
        self.vectors = vectors
        self.centroids: Vectors = ivf.quantizer.reconstruct_n(0, ivf.nlist)  # (lists, d)
        self._columns = np.ascontiguousarray(self.centroids.T)

    def gaps(self, queries: Vectors) -> Scores:
        """How much less near each list is than the nearest. queries: (q, d). Returns (q, lists)."""
        near: Scores = queries @ self._columns
        gaps: Scores = near.max(axis=1, keepdims=True) - near
        return gaps

    def search(
        self, queries: Vectors, count: int, effort: Effort, parameters: dict[int, Any], selector: Any
    ) -> tuple[Rows, Scores]:
        """`count` candidates by their codes, with the scores of their whole vectors.

        queries: (q, d). parameters: where to keep what FAISS takes; one for each selector.
        Returns rows (q, count), -1 for none, and scores, in no order.
        """
        assert effort.within is not None
        assert effort.probes is not None
        if len(queries) == 1:
            lists, near = self._near_one(queries[0], effort.within, CAP * effort.probes)
            rows = search_lists(self.ivf, queries, count, lists, near, parameters, selector)
            return rows, exact.score(queries, self.vectors, rows)
        found = []
        for start in range(0, len(queries), QUERIES):
            part = queries[start : start + QUERIES]
            lists, near = self._near(part, effort.within, CAP * effort.probes)
            found.append(search_lists(self.ivf, part, count, lists, near, parameters, selector))
        rows = np.concatenate(found)
        return rows, exact.score(queries, self.vectors, rows)

    def _near_one(self, query: Vectors, within: float, most: int) -> tuple[Rows, Scores]:
        """As `_near` for one query (d,): (1, p) each. Array operations on so little cost more than what they do."""
        near = self.centroids @ query
        lists = (near >= np.maximum.reduce(near) - within).nonzero()[0]
        if len(lists) > most:
            lists = lists[near[lists].argpartition(-most)[-most:]]
        return lists[None], near[lists][None]

    def _near(self, queries: Vectors, within: float, most: int) -> tuple[Rows, Scores]:
        """Lists and their nearness, (q, p) each, list -1 beyond those of a query."""
        near = queries @ self._columns
        least = near.max(axis=1) - within
        owners, lists = (near >= least[:, None]).nonzero()
        counts = np.bincount(owners, minlength=len(queries))
        if counts.max() > most:
            wide = np.flatnonzero(counts > most)
            least[wide] = np.partition(near[wide], -most, axis=1)[:, -most]
            owners, lists = (near >= least[:, None]).nonzero()
            counts = np.bincount(owners, minlength=len(queries))
        chosen = np.full((len(queries), counts.max()), -1, dtype=np.int64)
        nearness = np.zeros(chosen.shape, dtype=np.float32)
        places = exact.places(owners, counts)
        chosen[owners, places], nearness[owners, places] = lists, near[owners, lists]
        return chosen, nearness


def search_lists(
    ivf: Any, queries: Vectors, count: int, lists: Rows, near: Scores, parameters: dict[int, Any], selector: Any
) -> Rows:
    """`count` rows of some lists that are best by their codes, best first, -1 for none.

    queries: (q, d); lists and near: (q, p), contiguous. parameters: as `Probing.search` takes them.
    """
    width = lists.shape[1]
    made = parameters.get(width)
    if made is None:
        made = parameters[width] = faiss.SearchParametersIVF(nprobe=width, sel=selector)
    scores = np.empty((len(queries), count), dtype=np.float32)
    rows = np.empty((len(queries), count), dtype=np.int64)
    pointer = faiss.swig_ptr
    ivf.search_preassigned_c(  # the wrapper of this method takes no parameters
        len(queries), pointer(queries), count, pointer(lists), pointer(near), pointer(scores), pointer(rows),
        False, made,
    )  # fmt: skip
    return rows
