"""Probing: which lists of an IVF a search looks into, where no filter asks for others.

FAISS looks into a fixed number of lists for every query. Here it is those that are nearly as near as the nearest one:
few where one list stands out, more where many compete. The same recall then takes fewer lists. A query gets the same
lists alone and among others.
"""

from typing import Any, Final

import faiss
import numpy as np
import numpy.typing as npt

from retrieval.index import exact
from retrieval.index.candidates import padded
from retrieval.index.factory import SearchParams

Vectors = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

# One query takes microseconds: its functions are found without looking into a module each time.
swig_ptr, multiply_all, multiply_some = faiss.swig_ptr, faiss.fvec_inner_products_ny, faiss.fvec_inner_products_by_idx
empty, float32, int64 = np.empty, np.float32, np.int64

QUERIES: Final = 1_024  # that are compared with all lists at a time
CAP: Final = 4  # times as many lists as the average query, at most: someone unlike anyone is near to none, and to all


class Probing:
    """The lists of an IVF, by the vectors that stand for them: centroids, or guides (see `retrieval.index.guides`)."""

    def __init__(self, ivf: Any, vectors: Vectors) -> None:
        """ivf: trained and filled with the vectors (n, d), ids 0 .. n - 1."""
        self.ivf = ivf
        self.vectors = vectors
        self.centroids: Vectors = ivf.quantizer.reconstruct_n(0, ivf.nlist)  # (lists, d)
        self._columns = np.ascontiguousarray(self.centroids.T)
        # Codes of what is left of an item without its centroid need the score of that beside their own.
        self._needs_near = bool(ivf.by_residual)
        self._pointers = swig_ptr(self.centroids), swig_ptr(vectors)
        self._lists, self._dim = self.centroids.shape
        self._search_lists = ivf.search_preassigned_c

    def gaps(self, queries: Vectors) -> Scores:
        """How much less near each list is than the nearest. queries: (q, d). Returns (q, lists)."""
        near: Scores = queries @ self._columns
        gaps: Scores = near.max(axis=1, keepdims=True) - near
        return gaps

    def search(
        self, queries: Vectors, count: int, effort: SearchParams, parameters: dict[int, Any], selector: Any
    ) -> tuple[Rows, Scores]:
        """`count` candidates by their codes, with the scores of their whole vectors.

        queries: (q, d). parameters: where to keep what FAISS takes; one for each selector.
        Returns rows (q, count), -1 for none, and scores, in no order.
        """
        if len(queries) == 1:
            return self.search_one(queries, count, *bounds(effort), parameters, selector)
        found = []
        for start in range(0, len(queries), QUERIES):
            part = queries[start : start + QUERIES]
            lists, near = self._near(part, *bounds(effort))
            found.append(search_lists(self.ivf, part, count, lists, near, parameters, selector))
        rows = np.concatenate(found)
        return rows, exact.score(queries, self.vectors, rows)

    def search_one(
        self, query: Vectors, count: int, within: float, most: int, parameters: dict[int, Any], selector: Any
    ) -> tuple[Rows, Scores]:
        """As `search` for a query (1, d). Each step on so little takes longer to call than to do: there are few.

        within, most: by `bounds`.
        """
        pointer, (centroids, vectors) = swig_ptr, self._pointers
        near, scores, rows = empty(self._lists, float32), empty((1, count), float32), empty((1, count), int64)
        asked, places, found, nearness = pointer(query), pointer(scores), pointer(rows), pointer(near)
        multiply_all(nearness, asked, centroids, self._dim, self._lists)
        lists = (near >= near.item(near.argmax()) - within).nonzero()[0]
        looked = len(lists)
        if looked > most:
            lists = lists[near[lists].argpartition(-most)[-most:]]
            looked = most
        if self._needs_near:
            near = near[lists]
            nearness = pointer(near)
        made = parameters.get(looked) or parameters_of(looked, parameters, selector)
        self._search_lists(1, asked, count, pointer(lists), nearness, places, found, False, made)
        multiply_some(places, asked, vectors, found, self._dim, 1, count)
        return rows, scores

    def _near(self, queries: Vectors, within: float, most: int) -> tuple[Rows, Scores]:
        """Lists and their nearness, (q, p) each, list -1 beyond those of a query. Nearness only where codes need it.

        The nearest list comes first: what is found in it lets FAISS pass over most of what follows.
        """
        near = queries @ self._columns
        best = near.argmax(axis=1)
        least = near[np.arange(len(near)), best] - np.float32(within)
        chosen = near >= least[:, None]
        wide = np.flatnonzero(np.count_nonzero(chosen, axis=1) > most)
        if len(wide):
            least[wide] = np.partition(near[wide], -most, axis=1)[:, -most]
            chosen = near >= least[:, None]
        lists = padded(chosen, best)
        nearness = np.take_along_axis(near, lists, axis=1) if self._needs_near else np.zeros(lists.shape, np.float32)
        return lists, nearness


def bounds(effort: SearchParams) -> tuple[float, int]:
    """How much less near than the nearest a list may be, and how many are looked into at most."""
    assert effort.within is not None
    assert effort.probes is not None
    return float(np.float32(effort.within)), CAP * effort.probes  # one query and many compare with the same number


def looked_into(near: Scores, effort: SearchParams) -> Mask:
    """Which lists a search looks into. near: (q, lists). Returns (q, lists)."""
    probes = near.shape[1] if effort.probes is None else effort.probes
    if effort.within is not None:
        probes *= CAP
    least = np.partition(near, -min(probes, near.shape[1]), axis=1)[:, -min(probes, near.shape[1])]
    if effort.within is not None:
        least = np.maximum(least, near.max(axis=1) - np.float32(effort.within))
    looked: Mask = near >= least[:, None]
    return looked


def parameters_of(width: int, kept: dict[int, Any], selector: Any) -> Any:
    """What FAISS takes for a search of so many lists: made once, since making takes as long as a search."""
    made = kept.get(width)
    if made is None:
        made = kept[width] = faiss.SearchParametersIVF(nprobe=width, sel=selector)
    return made


def search_lists(
    ivf: Any, queries: Vectors, count: int, lists: Rows, near: Scores, parameters: dict[int, Any], selector: Any
) -> Rows:
    """`count` rows of some lists that are best by their codes, best first, -1 for none.

    queries: (q, d); lists and near: (q, p), contiguous. parameters: as `Probing.search` takes them.
    """
    made = parameters_of(lists.shape[1], parameters, selector)
    scores = np.empty((len(queries), count), dtype=np.float32)
    rows = np.empty((len(queries), count), dtype=np.int64)
    pointer = faiss.swig_ptr
    ivf.search_preassigned_c(  # the wrapper of this method takes no parameters
        len(queries), pointer(queries), count, pointer(lists), pointer(near), pointer(scores), pointer(rows),
        False, made,
    )  # fmt: skip
    return rows
