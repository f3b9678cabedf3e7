"""Index: build, search, add, remove, save and load a FAISS index. Missing results are row -1 with score -inf.

The FAISS structure never changes after it is built. Vectors added later are searched exactly, and removed rows are
filtered out. `docs/performance.md` says how a search with a filter works.
"""

from functools import cached_property
from pathlib import Path
from typing import Any, Final

import faiss
import numpy as np

from retrieval.common import csr
from retrieval.common.arrays import Mask, Rows, Scores, Vectors
from retrieval.common.csr import CSR
from retrieval.common.errors import BundleError, DataError, QueryError
from retrieval.index import exact
from retrieval.index.factory import DEFAULT_PARAMS, IndexSpec, SearchParams, ivf_of, train
from retrieval.index.filtered_ivf import InvertedLists
from retrieval.index.row_filter import RowFilter

MAX_EXCLUDED: Final = 1_000  # excluded rows for which FAISS is asked for further candidates
MAX_CANDIDATES: Final = 4_096  # with more candidates exact search is as fast
SMALL_FLAT: Final = 6_000  # items up to which FAISS's flat index is faster than `exact.top_k`
FEW_FLAT: Final = 10  # queries below which it is faster, too
FLAT_QUERIES: Final = 16  # queries per call of a flat index: from 20 on FAISS multiplies matrices, and rounds otherwise
UNFILTERED_SHARE: Final = 0.95  # share of rows from which FAISS's own filter finds the k best for most queries
ADD_BLOCK: Final = 65_536
NO_ROWS: Final[Rows] = np.empty(0, dtype=np.int64)


class Index:
    """Search by inner product over rows of unit vectors.

    Threads may search at the same time, but not while another one adds or removes.

    Attributes:
        structure: The FAISS index: flat, or a coarse index with a flat store of full vectors.
        spec: What was built.
        params: Search parameters, used where a search names none.
        base: (n, d) float32, the vectors in the structure (read-only).
        added: (m, d) float32, vectors added later; their rows follow those of `base`.
        removed: Rows that are never found, ascending.
    """

    def __init__(
        self,
        structure: Any,
        spec: IndexSpec,
        *,
        params: SearchParams = DEFAULT_PARAMS,
        added: Vectors | None = None,
        removed: Rows | None = None,
    ) -> None:
        """Use `build` or `load`."""
        self.structure = structure
        self.spec = spec
        self.params = params
        self.dim = int(structure.d)
        self.base = _full_vectors(structure)
        self.added = np.empty((0, self.dim), dtype=np.float32) if added is None else added
        self.removed = NO_ROWS if removed is None else removed
        self._live_rows = self.select(None)

    @classmethod
    def build(cls, vectors: Vectors, spec: IndexSpec, *, seed: int = 0) -> "Index":
        """Build an index.

        Args:
            vectors: (n, d) float32 unit vectors, n >= 1. They may be memory-mapped: they are read in blocks.
            spec: The structure to build.
            seed: Seed of the training of the structure; the same seed gives the same bytes.

        Raises:
            DataError: if FAISS cannot build this structure over n vectors.
        """
        try:
            structure = _build_structure(vectors, spec, seed=seed)
        except RuntimeError as error:
            reason = str(error).rpartition("failed: ")[2].partition("\n")[0].strip() or "FAISS gives no reason"
            raise DataError(
                f'index: --kind "{spec.name}" cannot be built over {len(vectors):,} items: {reason}'
            ) from error
        return cls(structure, spec)

    @classmethod
    def load(cls, path: Path, spec: IndexSpec, *, params: SearchParams, added: Vectors, removed: Rows) -> "Index":
        """Open a saved structure, mapped into memory so that processes share its pages.

        Args:
            path: A file with a verified checksum: FAISS trusts what it reads.
            spec: The structure that the file holds.
            params: Search parameters.
            added: (m, d) float32, vectors added since.
            removed: Rows removed since.

        Raises:
            BundleError: if the file does not hold this structure.
        """
        try:
            structure = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
        except RuntimeError as error:
            raise BundleError(f'{path}: FAISS cannot read it; rebuild it with "twotower index build"') from error
        if isinstance(structure, faiss.IndexFlat) != spec.is_flat or structure.d != added.shape[1]:
            raise BundleError(
                f'{path}: is not the index that index.json describes; rebuild it with "twotower index build"'
            )
        return cls(structure, spec, params=params, added=added, removed=removed)

    def save(self, path: Path) -> None:
        """Write the structure; the caller stores `added` and `removed`. Raises OSError."""
        try:
            faiss.write_index(self.structure, str(path))
        except RuntimeError as error:  # FAISS reports only that writing failed
            raise OSError(28, "FAISS could not write it; no space left", str(path)) from error

    @property
    def height(self) -> int:
        """Number of rows, removed ones included: every row is below it."""
        return len(self.base) + len(self.added)

    @property
    def count(self) -> int:
        """Number of rows that can be found."""
        return self.height - len(self.removed)

    @cached_property
    def lists(self) -> InvertedLists | None:
        """The lists of an IVF; None for other structures, and where a rotation precedes the IVF."""
        ivf = ivf_of(self.structure)
        return None if ivf is None else InvertedLists(ivf, self.base)

    def add(self, vectors: Vectors) -> Rows:
        """Add unit vectors (m, d) float32. Returns their rows, (m,)."""
        rows = np.arange(self.height, self.height + len(vectors))
        self.added = np.concatenate([self.added, np.asarray(vectors, dtype=np.float32).reshape(-1, self.dim)])
        self._live_rows = self.select(None)
        return rows

    def remove(self, rows: Rows) -> None:
        """Remove rows; other rows keep their numbers. Raises IndexError for a row outside the index."""
        rows = np.asarray(rows, dtype=np.int64)
        if len(rows) and (rows.min() < 0 or rows.max() >= self.height):
            raise IndexError(f"a row to remove is not in 0 .. {self.height - 1}")
        self.removed = np.union1d(self.removed, rows)
        self._live_rows = self.select(None)

    def vectors(self, rows: Rows) -> Vectors:
        """Copy the vectors (r, d) of rows (r,), which may be removed ones but not negative."""
        found = np.empty((len(rows), self.dim), dtype=np.float32)
        is_added = rows >= len(self.base)
        found[~is_added] = self.base[rows[~is_added]]
        found[is_added] = self.added[rows[is_added] - len(self.base)]
        return found

    def select(self, mask: Mask | None) -> RowFilter:
        """Make a filter of the rows in a mask (height,), without removed rows; None selects all rows."""
        if len(self.removed):
            mask = np.ones(self.height, dtype=np.bool_) if mask is None else mask.copy()
            mask[self.removed] = False
        count = self.height if mask is None else int(np.count_nonzero(mask))
        return RowFilter(mask, count, self.height, self.base, self.added, lambda: self.lists)

    def search(
        self,
        queries: Vectors,
        *,
        k: int,
        row_filter: RowFilter | None = None,
        exclude: CSR | None = None,
        params: SearchParams | None = None,
    ) -> tuple[Rows, Scores]:
        """Find the k rows with the largest inner product for each query.

        Args:
            queries: (q, d) float32 unit vectors; not modified.
            k: Number of rows per query, at least 1.
            row_filter: Rows that the queries may find. Default: all.
            exclude: Rows that each query must not find, one list per query.
            params: Search parameters. Default: those that tuning chose.

        Returns:
            rows (q, k) int64 and scores (q, k) float32, best first, ties by lower row. Missing results are row -1 with
            score -inf.

        Raises:
            QueryError: if d differs from the dimension of the index, or k is below 1.
        """
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        if queries.ndim != 2 or queries.shape[1] != self.dim:
            raise QueryError(f"expected vectors of {self.dim} numbers, found an array of shape {list(queries.shape)}")
        if k < 1:
            raise QueryError(f"k is {k}; it must be at least 1")
        row_filter, params = row_filter or self._live_rows, params or self.params
        if len(queries) == 0 or row_filter.count == 0:
            return np.full((len(queries), k), -1, dtype=np.int64), np.full((len(queries), k), -np.inf, dtype=np.float32)
        if row_filter.is_small:
            return self._search_gathered(queries, k, row_filter, exclude)
        excluded = 0 if exclude is None else int(exclude.lengths.max(initial=0))
        candidates = min(k + min(excluded, MAX_EXCLUDED) + 1, len(self.base))
        if self._is_exact_faster(len(queries), candidates, row_filter):
            return self._search_exactly(queries, k, row_filter, exclude)
        if row_filter.share < UNFILTERED_SHARE:
            return self._search_lists(queries, k, row_filter, exclude)
        return self._search_structure(queries, k, row_filter, exclude, params, candidates)

    def _is_exact_faster(self, queries: int, candidates: int, row_filter: RowFilter) -> bool:
        """Whether to score every row: the structure offers nothing faster, or cannot filter."""
        if candidates > MAX_CANDIDATES or candidates * 4 > row_filter.count:
            return True
        if self.spec.is_flat:
            return row_filter.mask is not None or (queries >= FEW_FLAT and len(self.base) > SMALL_FLAT)
        return row_filter.mask is not None and self.lists is None

    def _search_gathered(
        self, queries: Vectors, k: int, row_filter: RowFilter, exclude: CSR | None
    ) -> tuple[Rows, Scores]:
        """Search exactly among the few rows that pass."""
        if exclude is not None:
            at = np.minimum(np.searchsorted(row_filter.rows, exclude.indices), row_filter.count - 1)
            passes = row_filter.rows[at] == exclude.indices
            exclude = csr.from_pairs(exclude.owners()[passes], at[passes], height=exclude.height)
        if len(queries) == 1:  # scoring every row takes less time than a matrix product and its maxima
            places = np.arange(row_filter.count)
            places = places if exclude is None else np.delete(places, exclude.indices)
            scores = exact.score(queries, row_filter.vectors, places[None])
            found, scores = exact.best_candidates(places[None], scores, k=k)
        else:
            found, scores = exact.top_k(queries, row_filter.vectors, k=k, exclude=exclude)
        return np.where(found >= 0, row_filter.rows[found], -1), scores

    def _search_exactly(
        self, queries: Vectors, k: int, row_filter: RowFilter, exclude: CSR | None
    ) -> tuple[Rows, Scores]:
        """Score every row."""
        base, added = self._split(exclude)
        rows, scores = exact.top_k(queries, self.base, k=k, keep=row_filter.base_mask, exclude=base)
        return self._with_added(queries, rows, scores, k, row_filter, added)

    def _search_lists(
        self, queries: Vectors, k: int, row_filter: RowFilter, exclude: CSR | None
    ) -> tuple[Rows, Scores]:
        """Search the lists in which rows pass."""
        base, added = self._split(exclude)
        found = [
            row_filter.lists.search(query[None], k=k, excluded=NO_ROWS if base is None else base.list(at))
            for at, query in enumerate(queries)
        ]
        rows, scores = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
        return self._with_added(queries, rows, scores, k, row_filter, added)

    def _search_structure(
        self,
        queries: Vectors,
        k: int,
        row_filter: RowFilter,
        exclude: CSR | None,
        params: SearchParams,
        candidates: int,
    ) -> tuple[Rows, Scores]:
        """Search with FAISS."""
        # The factor is per result; excluded rows need no further candidates.
        k_factor = max(1.0, (params.k_factor * k + candidates - k) / candidates)
        parameters = None if self.spec.is_flat else row_filter.parameters(self.structure, params, k_factor)
        step = FLAT_QUERIES if self.spec.is_flat else len(queries)
        parts = [
            self.structure.search(queries[start : start + step], candidates, params=parameters)
            for start in range(0, len(queries), step)
        ]
        scores, rows = parts[0] if len(parts) == 1 else map(np.concatenate, zip(*parts, strict=True))
        last = scores[:, -1]
        base, added = self._split(exclude)
        rows, scores = exact.best_first(*exact.exclude_rows(rows, scores, base), k=k)
        # A row that FAISS cut off may score the same as the k-th.
        is_cut = last >= scores[:, -1]
        rows, scores = self._with_added(queries, rows, scores, k, row_filter, added)
        if candidates < len(self.base) and is_cut.any():
            again = np.flatnonzero(is_cut)
            lists = None if exclude is None else exclude.take(again)
            search = self._search_exactly if row_filter.mask is None or self.lists is None else self._search_lists
            rows[again], scores[again] = search(queries[again], k, row_filter, lists)
        return rows, scores

    def _split(self, exclude: CSR | None) -> tuple[CSR | None, CSR | None]:
        """Excluded rows of the structure, and of the added vectors, counted from the first of these."""
        if exclude is None or len(self.added) == 0:
            return exclude, None
        owners, is_added = exclude.owners(), exclude.indices >= len(self.base)
        base = csr.from_pairs(owners[~is_added], exclude.indices[~is_added], height=exclude.height)
        added = csr.from_pairs(owners[is_added], exclude.indices[is_added] - len(self.base), height=exclude.height)
        return base, added

    def _with_added(
        self, queries: Vectors, rows: Rows, scores: Scores, k: int, row_filter: RowFilter, exclude: CSR | None
    ) -> tuple[Rows, Scores]:
        """Merge results of the structure with an exact search of the added vectors."""
        if len(self.added) == 0:
            return rows, scores
        late, late_scores = exact.top_k(queries, self.added, k=k, keep=row_filter.added_mask, exclude=exclude)
        late = np.where(late >= 0, late + len(self.base), -1)
        return exact.best_first(
            np.concatenate([rows, late], axis=1), np.concatenate([scores, late_scores], axis=1), k=k
        )


def _build_structure(vectors: Vectors, spec: IndexSpec, *, seed: int) -> Any:
    """Train and fill a FAISS index."""
    dim = vectors.shape[1]
    if spec.is_flat:
        structure = faiss.IndexFlatIP(dim)
    else:
        coarse = faiss.index_factory(dim, spec.factory, faiss.METRIC_INNER_PRODUCT)
        train(coarse, vectors, seed=seed)
        structure = faiss.IndexRefineFlat(coarse)
    for start in range(0, len(vectors), ADD_BLOCK):
        structure.add(np.ascontiguousarray(vectors[start : start + ADD_BLOCK]))
    return structure


def _full_vectors(structure: Any) -> Vectors:
    """A read-only view (n, d) of the full vectors in a structure."""
    flat = structure if isinstance(structure, faiss.IndexFlat) else faiss.downcast_index(structure.refine_index)
    if flat.ntotal == 0:
        return np.empty((0, structure.d), dtype=np.float32)
    view: Vectors = faiss.rev_swig_ptr(flat.get_xb(), flat.ntotal * flat.d).reshape(flat.ntotal, flat.d)
    view.flags.writeable = False
    return view
