"""Index: FAISS behind build, search, add, remove, save, load. It speaks rows; -1 and -inf stand for "none".

What was built is never changed: vectors added later are kept beside it and searched exactly, removed rows are hidden.
Filtered search never asks FAISS for more than k and drops what does not pass: with an attribute that follows the
geometry that loses most results. It looks only at what passes: all of it if that is little, else list by list.
"""

import math
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import faiss
import numpy as np
import numpy.typing as npt

from retrieval.common import csr
from retrieval.common.csr import CSR
from retrieval.common.errors import BundleError, DataError, QueryError
from retrieval.index import exact
from retrieval.index.alone import Alone, ask_structure, best_of_few, best_pairs, columns_of
from retrieval.index.arranging import arrange
from retrieval.index.candidates import hide, sorted_best
from retrieval.index.factory import LEAST, IndexSpec, SearchParams, plain_ivf, search_parameters, train
from retrieval.index.filtered_ivf import REACH, Depth
from retrieval.index.ivf import Lists
from retrieval.index.probing import Probing, bounds
from retrieval.index.row_filter import RowFilter

Vectors = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

MANY_EXCLUDED: Final = 1_000  # beyond, a query's exclusions become a bitmap instead of further candidates
WIDEST: Final = 4_096  # candidates beyond which exact search is no dearer
SMALL_FLAT: Final = 6_000  # up to here FAISS's plain scan is faster than blocked products
FEW_FLAT: Final = 10  # and for fewer queries than this
FLAT_QUERIES: Final = 16  # from 20 on FAISS multiplies matrices, and a score would depend on its batch
UNFILTERED_SHARE: Final = 0.95  # with so much kept a bitmap alone does for most queries
PARAMETERS_KEPT: Final = 1_024
ADD_BLOCK: Final = 65_536
NO_ROWS: Final[Rows] = np.empty(0, dtype=np.int64)


class Index:
    """Rows by inner product. Searching is safe from many threads; adding and removing are not while others search."""

    def __init__(
        self,
        structure: Any,
        kind: IndexSpec,
        *,
        effort: SearchParams = LEAST,
        added: Vectors | None = None,
        removed: Rows | None = None,
    ) -> None:
        """Use `build` or `load`."""
        self.structure = structure
        self.kind = kind
        self.effort = effort
        self.dim = int(structure.d)
        self.base = _whole_vectors(structure)
        self.added = np.empty((0, self.dim), dtype=np.float32) if added is None else added
        self.removed = np.empty(0, dtype=np.int64) if removed is None else removed
        self._one = (1, self.dim)
        self._refresh()

    @classmethod
    def build(cls, vectors: Vectors, kind: IndexSpec, *, seed: int = 0) -> "Index":
        """Build over vectors.

        vectors: (n, d) float32, unit rows, n >= 1; may be memory-mapped: it is read a block at a time.
        Raises DataError where FAISS cannot build that kind over so many.
        """
        try:
            return cls._build(vectors, kind, seed=seed)
        except RuntimeError as error:
            reason = str(error).rpartition("failed: ")[2].partition("\n")[0].strip() or "FAISS does not say why"
            raise DataError(
                f'index: --kind "{kind.name}" cannot be built over {len(vectors):,} items: {reason}'
            ) from error

    @classmethod
    def _build(cls, vectors: Vectors, kind: IndexSpec, *, seed: int) -> "Index":
        count, dim = vectors.shape
        if kind.is_flat:
            structure = faiss.IndexFlatIP(dim)
        else:
            base = faiss.index_factory(dim, kind.factory, faiss.METRIC_INNER_PRODUCT)
            train(base, vectors, seed=seed)
            structure = faiss.IndexRefineFlat(base)
        for start in range(0, count, ADD_BLOCK):
            structure.add(np.ascontiguousarray(vectors[start : start + ADD_BLOCK]))
        return cls(structure, kind)

    @classmethod
    def load(cls, path: Path, kind: IndexSpec, *, effort: SearchParams, added: Vectors, removed: Rows) -> "Index":
        """Map a saved structure into memory; processes share its pages.

        path: of a file whose checksum was verified: FAISS trusts what it reads.
        Raises BundleError if it is not a structure of that kind.
        """
        try:
            structure = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
        except RuntimeError as error:
            raise BundleError(f'{path}: FAISS cannot read it; make it again with "twotower index build"') from error
        if isinstance(structure, faiss.IndexFlat) != kind.is_flat or structure.d != added.shape[1]:
            raise BundleError(
                f'{path}: is not the index that index.json tells of; make it again with "twotower index build"'
            )
        return cls(structure, kind, effort=effort, added=added, removed=removed)

    def save(self, path: Path) -> None:
        """Write the structure that was built; `added` and `removed` are kept by whoever saves. Raises OSError."""
        try:
            faiss.write_index(self.structure, str(path))
        except RuntimeError as error:  # FAISS says no more than that writing failed
            raise OSError(28, "FAISS could not write it; no space left", str(path)) from error

    def guide(self, vectors: Vectors) -> None:
        """Choose lists by other vectors than their centroids, (lists, d), before saving. See `guides`."""
        quantizer = faiss.downcast_index(plain_ivf(self.structure).quantizer)
        assert vectors.shape == (quantizer.ntotal, quantizer.d)
        faiss.rev_swig_ptr(quantizer.get_xb(), vectors.size)[:] = vectors.ravel()
        self._forget_lists()

    def arrange(self, users: Vectors, looked: Mask, least: Scores) -> None:
        """Let lists hold first what those who look into them want, before saving. See `retrieval.index.arranging`."""
        assert self.lists is not None
        arrange(self.lists, users, looked, least)
        self._forget_lists()

    def _forget_lists(self) -> None:
        self.__dict__.pop("lists", None)
        self.__dict__.pop("probing", None)
        self._refresh()

    @cached_property
    def lists(self) -> Lists | None:
        """The lists of the structure, if it has any."""
        ivf = plain_ivf(self.structure)
        return None if ivf is None else Lists(ivf, self.base)

    @cached_property
    def probing(self) -> Probing | None:
        """The centroids of those lists."""
        ivf = plain_ivf(self.structure)
        return None if ivf is None else Probing(ivf, self.base)

    @property
    def height(self) -> int:
        """The number of rows, removed ones included: a row is below it."""
        return len(self.base) + len(self.added)

    @property
    def count(self) -> int:
        """The number of rows that can be found."""
        return self.height - len(self.removed)

    def add(self, vectors: Vectors) -> Rows:
        """Add rows. vectors: (m, d) float32, unit rows. Returns their rows, (m,)."""
        rows = np.arange(self.height, self.height + len(vectors))
        self.added = np.concatenate([self.added, np.asarray(vectors, dtype=np.float32).reshape(-1, self.dim)])
        self._refresh()
        return rows

    def remove(self, rows: Rows) -> None:
        """Let rows be found no more. Rows of others stay as they are. Rows outside the index are an IndexError."""
        rows = np.asarray(rows, dtype=np.int64)
        if len(rows) and (rows.min() < 0 or rows.max() >= self.height):
            raise IndexError(f"a row to remove is not in 0 .. {self.height - 1}")
        self.removed = np.union1d(self.removed, rows)
        self._refresh()

    def _refresh(self) -> None:
        self._all = self.select(None)
        self._alone: dict[int, Alone] = {}

    def vectors(self, rows: Rows) -> Vectors:
        """Vectors of rows, removed ones too. rows: (r,), none negative. Returns (r, d), a copy."""
        found = np.empty((len(rows), self.dim), dtype=np.float32)
        late = rows >= len(self.base)
        found[~late] = self.base[rows[~late]]
        found[late] = self.added[rows[late] - len(self.base)]
        return found

    def select(self, mask: Mask | None) -> RowFilter:
        """The rows of a mask (height,) that are not removed; None for all."""
        if len(self.removed):
            mask = np.ones(self.height, dtype=np.bool_) if mask is None else mask.copy()
            mask[self.removed] = False
        count = self.height if mask is None else int(np.count_nonzero(mask))
        return RowFilter(mask, count, self.height, self.base, self.added, lambda: self.lists)

    def search(
        self,
        vectors: Vectors,
        *,
        k: int,
        among: RowFilter | None = None,
        exclude: CSR | None = None,
        effort: SearchParams | None = None,
    ) -> tuple[Rows, Scores]:
        """Find the k rows with the largest inner product per query.

        vectors: (q, d) float32, unit rows; not modified.
        among: the rows that may be found by any query. exclude: a list of rows per query that may not.
        effort: instead of what was tuned.
        Returns rows (q, k) int64 and scores (q, k) float32, best first; equal scores by lower row.
        If fewer than k are there, the tail is row -1 with score -inf.
        Raises QueryError if d is not the dimension of the index or k is below 1.
        """
        queries = np.ascontiguousarray(vectors, dtype=np.float32)
        if among is None and exclude is None and effort is None and queries.shape == self._one and k > 0:
            alone = self._alone.get(k)
            if alone is None or alone.effort is not self.effort:
                alone = self._prepare(k)
            found = alone.search(queries)
            if found is not None:
                return found
        if queries.ndim != 2 or queries.shape[1] != self.dim:
            raise QueryError(f"expected vectors of {self.dim} numbers, found an array of shape {list(queries.shape)}")
        if k < 1:
            raise QueryError(f"k is {k}; it must be at least 1")
        among = self._all if among is None else among
        hidden = (
            0 if exclude is None else int(exclude.lengths.max(initial=0)) if len(queries) > 1 else len(exclude.indices)
        )
        if len(queries) == 0 or among.count == 0:
            return self._nothing(len(queries), k)
        if among.is_few:
            return self._search_few(queries, k, among, exclude)
        if self._is_exact_cheaper(len(queries), k + hidden, among):
            return self._search_all(queries, k, among, exclude)
        if hidden > MANY_EXCLUDED:
            assert exclude is not None
            return self._search_each(queries, k, among, exclude, effort)
        candidates = min(k + hidden + 1, len(self.base))
        if among.share < UNFILTERED_SHARE:
            return self._search_lists(queries, k, among, exclude, effort or self.effort)
        if len(queries) == 1:
            return self._search_one(queries, k, among, exclude, effort or self.effort, candidates)
        return self._search_structure(queries, k, among, exclude, effort or self.effort, candidates)

    def _nothing(self, queries: int, k: int) -> tuple[Rows, Scores]:
        return np.full((queries, k), -1, dtype=np.int64), np.full((queries, k), -np.inf, dtype=np.float32)

    def _is_exact_cheaper(self, queries: int, wanted: int, among: RowFilter) -> bool:
        """Whether looking at everything is right: it is, where the structure has no better way to go."""
        if wanted > WIDEST or wanted * 4 > among.count:
            return True
        if self.kind.is_flat:
            many = queries >= FEW_FLAT and len(self.base) > SMALL_FLAT
            return many or among.mask is not None
        return among.mask is not None and self.lists is None

    def _search_few(self, queries: Vectors, k: int, among: RowFilter, exclude: CSR | None) -> tuple[Rows, Scores]:
        """Exactly, among a few gathered rows."""
        if exclude is not None:
            at = np.minimum(np.searchsorted(among.rows, exclude.indices), len(among.rows) - 1)
            inside = among.rows[at] == exclude.indices
            exclude = csr.from_pairs(exclude.owners()[inside], at[inside], height=exclude.height)
        answer = None
        if len(queries) == 1:
            answer = best_of_few(queries, among.vectors, k=k, hidden=NO_ROWS if exclude is None else exclude.indices)
        found, scores = exact.top_k(queries, among.vectors, k=k, exclude=exclude) if answer is None else answer
        return np.where(found >= 0, among.rows[found], -1), scores

    def _search_all(self, queries: Vectors, k: int, among: RowFilter, exclude: CSR | None) -> tuple[Rows, Scores]:
        """Exactly, by looking at every row."""
        base, added = self._split(exclude)
        found = exact.top_k(queries, self.base, k=k, keep=among.base_mask, exclude=base)
        return self._with_added(queries, *found, k, among, added)

    def _search_each(
        self, queries: Vectors, k: int, among: RowFilter, exclude: CSR, effort: SearchParams | None
    ) -> tuple[Rows, Scores]:
        """One query at a time, its exclusions taken out of the selection."""
        rows, scores = self._nothing(len(queries), k)
        for query in range(len(queries)):
            mask = np.ones(self.height, dtype=np.bool_) if among.mask is None else among.mask.copy()
            mask[exclude.list(query)] = False
            own = self.search(queries[query : query + 1], k=k, among=self.select(mask), effort=effort)
            rows[query], scores[query] = own[0][0], own[1][0]
        return rows, scores

    def _search_one(
        self, query: Vectors, k: int, among: RowFilter, exclude: CSR | None, effort: SearchParams, candidates: int
    ) -> tuple[Rows, Scores]:
        """As `_search_structure` for one query (1, d), in plain Python: array operations cost more than they save."""
        rows, scores = self._find_one(query, k, candidates, among, effort)
        hidden = [] if exclude is None else exclude.indices.tolist()
        found = best_pairs(rows[0], scores[0], hidden, k=k, is_whole=candidates == len(self.base))
        if found is None:
            return self._search_further(query, k, among, exclude, effort)
        answer, answer_scores = columns_of(found, k=k)
        if len(self.added) == 0:
            return answer, answer_scores
        return self._with_added(query, answer, answer_scores, k, among, self._split(exclude)[1])

    def _find_one(
        self, query: Vectors, k: int, candidates: int, among: RowFilter, effort: SearchParams
    ) -> tuple[Rows, Scores]:
        """Candidates for one query (1, d), best first where the structure chooses the lists, else in no order."""
        if effort.within is not None:
            return self._probed(query, k, candidates, among, effort)
        return ask_structure(self.structure.search_c, query, candidates, self._parameters(k, candidates, among, effort))

    def _prepare(self, k: int) -> Alone:
        """How one query is asked for k of all there is. Kept until the index changes or is searched harder."""
        effort, among, candidates = self.effort, self._all, k + 1
        if len(self.added) or among.mask is not None or k >= among.count or self._is_exact_cheaper(1, k, among):
            alone = Alone(effort, k, lambda _: None)
        elif effort.within is not None:
            assert self.probing is not None
            ask_lists, (within, most) = self.probing.search_one, bounds(effort)
            made, count = among.probing_parameters, self._count(k, candidates, effort)
            alone = Alone(effort, k, lambda query: ask_lists(query, count, within, most, made, None))
        else:
            ask, parameters = self.structure.search_c, self._parameters(k, candidates, among, effort)
            alone = Alone(effort, k, lambda query: ask_structure(ask, query, candidates, parameters))
        if len(self._alone) >= PARAMETERS_KEPT:
            self._alone.clear()
        self._alone[k] = alone
        return alone

    def _search_structure(
        self, queries: Vectors, k: int, among: RowFilter, exclude: CSR | None, effort: SearchParams, candidates: int
    ) -> tuple[Rows, Scores]:
        """By the structure; exactly where its answer is short or cut off between equals."""
        if effort.within is not None:
            rows, scores = self._probed(queries, k, candidates, among, effort)
            return self._chosen(queries, *sorted_best(rows, scores, candidates), k, among, exclude, effort)
        parameters = self._parameters(k, candidates, among, effort)
        step = FLAT_QUERIES if self.kind.is_flat else len(queries)
        parts = [
            self.structure.search(queries[start : start + step], candidates, params=parameters)
            for start in range(0, len(queries), step)
        ]
        scores, rows = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return self._chosen(queries, rows, scores, k, among, exclude, effort)

    def _probed(
        self, queries: Vectors, k: int, candidates: int, among: RowFilter, effort: SearchParams
    ) -> tuple[Rows, Scores]:
        """Candidates from the lists that are near enough, in no order."""
        assert self.probing is not None
        count = self._count(k, candidates, effort)
        return self.probing.search(queries, count, effort, among.probing_parameters, among.selector)

    def _count(self, k: int, candidates: int, effort: SearchParams) -> int:
        """Candidates by their codes. The factor is per item wanted; what is excluded needs no rivals of its own."""
        return min(candidates + math.ceil((effort.factor - 1) * k), len(self.base))

    def _search_lists(
        self, queries: Vectors, k: int, among: RowFilter, exclude: CSR | None, effort: SearchParams
    ) -> tuple[Rows, Scores]:
        """Under a filter: by the lists in which something is kept.

        A query whose answer falls short, or is cut off between equals, is answered exactly.
        """
        kept = among.by_list
        if len(kept.numbers) == 0:
            return self._search_all(queries, k, among, exclude)
        base_lists, added_lists = self._split(exclude)
        depth = Depth(effort.factor, REACH if effort.reach is None else effort.reach)
        if len(queries) == 1:
            hidden = NO_ROWS if base_lists is None else base_lists.indices
            found = kept.search_one(queries, k=k, hidden=hidden, depth=depth)
            if found is None:
                return self._search_all(queries, k, among, exclude)
            return self._with_added(queries, *found, k, among, added_lists)
        rows, scores, is_cut = kept.search_many(queries, k=k, hidden=base_lists, depth=depth)
        rows, scores = self._with_added(queries, rows, scores, k, among, added_lists)
        if is_cut.any():
            again = np.flatnonzero(is_cut)
            own = None if exclude is None else exclude.take(again)
            rows[again], scores[again] = self._search_all(queries[again], k, among, own)
        return rows, scores

    def _search_further(
        self, queries: Vectors, k: int, among: RowFilter, exclude: CSR | None, effort: SearchParams
    ) -> tuple[Rows, Scores]:
        """Where the structure's answer is short or cut off between equals."""
        if among.mask is None:
            return self._search_all(queries, k, among, exclude)
        return self._search_lists(queries, k, among, exclude, effort)

    def _chosen(
        self,
        queries: Vectors,
        rows: Rows,
        scores: Scores,
        k: int,
        among: RowFilter,
        exclude: CSR | None,
        effort: SearchParams,
    ) -> tuple[Rows, Scores]:
        """The k best of candidates (q, c) that come best first, and of the added rows."""
        base_list, added_list = self._split(exclude)
        candidates = rows.shape[1]
        lowest = scores[:, -1]
        if base_list is not None:
            rows, scores = hide(rows, scores, base_list)
        if base_list is not None or not (scores[:, :-1] > scores[:, 1:]).all():
            rows, scores = exact.best_first(rows, scores, k=k)
        else:
            rows, scores = rows[:, :k], scores[:, :k]
        if candidates == len(self.base):
            return self._with_added(queries, rows, scores, k, among, added_list)
        # Strictly: what scores like the k-th may be beyond the candidates.
        is_cut = (lowest >= scores[:, -1]) | (rows[:, -1] < 0)
        rows, scores = self._with_added(queries, rows, scores, k, among, added_list)
        if is_cut.any():
            again = np.flatnonzero(is_cut)
            rows, scores = rows.copy(), scores.copy()
            own = None if exclude is None else exclude.take(again)
            rows[again], scores[again] = self._search_further(queries[again], k, among, own, effort)
        return rows, scores

    def _parameters(self, k: int, candidates: int, among: RowFilter, effort: SearchParams) -> Any:
        if self.kind.is_flat:
            return None
        # The factor is per item wanted; what is excluded needs no rivals of its own.
        factor = max(1.0, (effort.factor * k + candidates - k) / candidates)
        made = among.parameters.get((effort, factor))
        if made is None:
            if len(among.parameters) >= PARAMETERS_KEPT:
                among.parameters.clear()
            made = search_parameters(self.structure, effort, factor=factor, selector=among.selector)
            among.parameters[effort, factor] = made
        return made

    def _split(self, exclude: CSR | None) -> tuple[CSR | None, CSR | None]:
        """Excluded rows of the base, and of what was added (counted from its own start)."""
        if exclude is None or len(self.added) == 0:
            return exclude, None
        owners, late = exclude.owners(), exclude.indices >= len(self.base)
        base = csr.from_pairs(owners[~late], exclude.indices[~late], height=exclude.height)
        return base, csr.from_pairs(owners[late], exclude.indices[late] - len(self.base), height=exclude.height)

    def _with_added(
        self, queries: Vectors, rows: Rows, scores: Scores, k: int, among: RowFilter, exclude: CSR | None
    ) -> tuple[Rows, Scores]:
        """Answers of the base together with the added rows, which are searched exactly."""
        if len(self.added) == 0:
            return rows, scores
        late, late_scores = exact.top_k(queries, self.added, k=k, keep=among.added_mask, exclude=exclude)
        late = np.where(late >= 0, late + len(self.base), -1)
        return exact.best_first(
            np.concatenate([rows, late], axis=1), np.concatenate([scores, late_scores], axis=1), k=k
        )


def _whole_vectors(structure: Any) -> Vectors:
    """The whole vectors that a structure holds: a view (n, d), not to be written to."""
    flat = structure if isinstance(structure, faiss.IndexFlat) else faiss.downcast_index(structure.refine_index)
    if flat.ntotal == 0:
        return np.empty((0, structure.d), dtype=np.float32)
    view: Vectors = faiss.rev_swig_ptr(flat.get_xb(), flat.ntotal * flat.d).reshape(flat.ntotal, flat.d)
    view.flags.writeable = False
    return view
