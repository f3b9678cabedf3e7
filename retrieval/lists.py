"""Lists: which lists of an IVF a filtered search looks into.

FAISS looks into the lists nearest to the query, whatever is left in them: under an attribute that follows the geometry
those may be empty while the answer lies further on. Here a search goes from list to list, nearest first, past those
where nothing is kept, until it has looked into some
times as many lists as an unfiltered search would, and met a fair part of its vectors.
"""

from typing import Any, Final

import faiss
import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

# A filtered search looks into this many times the lists of an unfiltered one, and meets at least this share of its
# vectors: the first is for filters that follow the geometry, the second for those that thin every list out
# (docs/performance.md).
WIDER: Final = 12
MASS: Final = 1.5


class Lists:
    """The lists of an IVF."""

    def __init__(self, ivf: Any, count: int) -> None:
        """ivf: trained and filled with `count` vectors, ids 0 .. count - 1."""
        self._ivf = ivf
        self.centroids: Vectors = ivf.quantizer.reconstruct_n(0, ivf.nlist)  # (lists, d)
        self._of_row = np.empty(count, dtype=np.int32)
        for number in range(ivf.nlist):
            size = ivf.invlists.list_size(number)
            if size:
                self._of_row[faiss.rev_swig_ptr(ivf.invlists.get_ids(number), size)] = number

    def counts(self, kept: Mask) -> Rows:
        """How many of the kept rows each list holds. kept: (count,). Returns (lists,)."""
        return np.bincount(self._of_row[kept], minlength=len(self.centroids))

    def search(
        self, queries: Vectors, *, k: int, counts: Rows, selector: Any, probes: int, made: dict[int, Any]
    ) -> tuple[npt.NDArray[np.float32], Rows]:
        """Candidates among the kept rows.

        queries: (q, d). counts: of `counts`. selector: the same rows, for FAISS. probes: of an unfiltered search.
        made: FAISS's parameters by number of lists, kept between searches with the same selector.
        Returns rough scores (q, k) and rows (q, k), -1 where there are fewer.
        """
        filled = np.flatnonzero(counts)
        nearness = queries @ self.centroids[filled].T  # (q, filled lists)
        order = np.argsort(-nearness, axis=1)
        met = np.cumsum(counts[filled][order], axis=1)
        enough = MASS * probes * len(self._of_row) / len(self.centroids)
        width = np.maximum((met < enough).sum(axis=1) + 1, WIDER * probes)  # (q,)
        widest = min(int(width.max()), len(filled))
        order = order[:, :widest]
        near = nearness[np.arange(len(queries))[:, None], order]
        chosen = filled[order]
        if len(queries) > 1:
            chosen[np.arange(widest) >= width[:, None]] = -1  # FAISS passes over these
        parameters = made.get(widest)
        if parameters is None:
            parameters = made[widest] = faiss.SearchParametersIVF(nprobe=widest, sel=selector)
        scores = np.empty((len(queries), k), dtype=np.float32)
        rows = np.empty((len(queries), k), dtype=np.int64)
        chosen, near = np.ascontiguousarray(chosen), np.ascontiguousarray(near, dtype=np.float32)
        pointer = faiss.swig_ptr
        self._ivf.search_preassigned_c(
            len(queries), pointer(queries), k, pointer(chosen), pointer(near), pointer(scores), pointer(rows),
            False, parameters,
        )  # fmt: skip  # the wrapper of this method takes no parameters
        return scores, rows
