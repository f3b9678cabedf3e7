"""Lists: which lists of an IVF a filtered search looks into.

FAISS looks into the lists nearest to the query by their centroids, whatever a filter leaves in them: under an attribute
that follows the geometry those may hold nothing while the answer lies further on. Here each list is judged by what is
kept in it: the mean of that, and how far it spreads. A search takes the best lists until some items are met, sees how
good they are, and then takes every list that may hold a better one. So it looks further exactly where it must.
"""

import math
from functools import cached_property
from typing import Any, Final, NamedTuple

import faiss
import numpy as np
import numpy.typing as npt

from retrieval import exact
from retrieval.candidates import hide, padded
from retrieval.csr import CSR
from retrieval.probing import multiply_all, multiply_some, parameters_of, search_lists, swig_ptr

Vectors = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

SAMPLE: Final = 16  # kept items of a list that its mean is taken of
SPREADS: Final = 2.0  # a list is as near as its mean and so many standard deviations
REACH: Final = 0.12  # how much less near a list with an answer may be than that answer; where it was not measured
SPARSE: Final = 0.06  # of lists: where fewer are kept, they are looked at one by one instead of scanning the lists
QUERIES: Final = 1_024  # that are compared with all lists at a time
MET: Final = 20  # kept items per wanted one that the first look must meet


class Depth(NamedTuple):
    """How far a filtered search looks.

    probes: lists of a first look, at least. factor: candidates per wanted item. reach: lists that are less near than
    the k-th best row so far by more than this are passed over.
    """

    probes: int
    factor: float
    reach: float


class Lists:
    """The lists of an IVF."""

    def __init__(self, ivf: Any, vectors: Vectors) -> None:
        """ivf: trained and filled with the vectors (n, d), ids 0 .. n - 1."""
        self.ivf = ivf
        self.vectors = vectors
        self.centroids: Vectors = ivf.quantizer.reconstruct_n(0, ivf.nlist)  # (lists, d)
        held = [
            faiss.rev_swig_ptr(ivf.invlists.get_ids(number), ivf.invlists.list_size(number)).astype(np.int32)
            if ivf.invlists.list_size(number)
            else np.empty(0, dtype=np.int32)
            for number in range(ivf.nlist)
        ]
        self.rows = np.concatenate(held)  # (n,): list by list
        self.sizes: Rows = np.array([len(own) for own in held], dtype=np.int64)
        self.ends = np.cumsum(self.sizes)

    def list(self, number: int) -> npt.NDArray[np.int32]:
        """The rows of a list."""
        return self.rows[self.ends[number] - self.sizes[number] : self.ends[number]]

    @property
    def mean_size(self) -> float:
        """Items of a list."""
        return len(self.rows) / len(self.sizes)

    @cached_property
    def owners(self) -> Rows:
        """The list of each row: (n,)."""
        owners = np.empty(len(self.rows), dtype=np.int64)
        owners[self.rows] = np.repeat(np.arange(len(self.sizes)), self.sizes)
        return owners

    def keep(self, mask: Mask) -> "Kept":
        """What a filter leaves of the lists. mask: (n,)."""
        return Kept(self, mask)


class Kept:
    """The lists of which a filter leaves something, and what it leaves."""

    def __init__(self, lists: Lists, mask: Mask) -> None:
        kept = mask[lists.rows]
        so_far = np.concatenate([[0], np.cumsum(kept)])
        counts = np.diff(so_far[lists.ends], prepend=0)
        self.numbers: Rows = np.flatnonzero(counts)  # (f,): of the lists in which something is kept
        self.counts: Rows = counts[self.numbers]
        self._lists = lists
        self._sizes = lists.sizes[self.numbers]
        self._may_gather = bool((self.counts < SPARSE * self._sizes).any())
        self._rows = lists.rows[kept] if self._may_gather else lists.rows[:0]
        self._starts = np.cumsum(self.counts) - self.counts
        self._count = int(self.counts.sum())
        self._means, self._spreads = self._shape(lists.rows[kept])
        self._columns = np.ascontiguousarray(self._means.T)
        self._pointers = swig_ptr(self._means), swig_ptr(lists.vectors)
        self._no_near = np.zeros(len(lists.sizes), dtype=np.float32)
        self._needs_near = bool(lists.ivf.by_residual)
        self._selector = faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))
        self._parameters: dict[int, Any] = {}

    def _shape(self, rows: npt.NDArray[np.int32]) -> tuple[Vectors, Scores]:
        """Of each list the mean of what is kept, by a sample: (f, d); and SPREADS standard deviations of it: (f,).

        rows: all that are kept, list by list.
        """
        taken = np.minimum(self.counts, SAMPLE)
        starts = np.cumsum(taken) - taken
        place = np.arange(taken.sum()) - np.repeat(starts, taken)
        spaced = place * np.repeat(self.counts, taken) // np.repeat(taken, taken)
        sample = self._lists.vectors[rows[np.repeat(np.cumsum(self.counts) - self.counts, taken) + spaced]]
        means = np.add.reduceat(sample, starts, axis=0) / taken[:, None].astype(np.float32)
        # Of unit vectors: the squared distance from their mean is what its square lacks to 1. (t / (t - 1) makes the
        # variance of a sample that of what it was drawn from.)
        left = np.maximum(1.0 - (means * means).sum(axis=1), 0.0) * taken / np.maximum(taken - 1, 1)
        spreads = SPREADS * np.sqrt(np.where(taken > 1, left, 0.0) / means.shape[1])
        return np.ascontiguousarray(means), spreads.astype(np.float32)

    def nearness(self, query: Vectors) -> Scores:
        """How good an item of each list may be for a query (d,). Returns (f,)."""
        nearness = np.empty(len(self.numbers), dtype=np.float32)
        multiply_all(swig_ptr(nearness), swig_ptr(query), self._pointers[0], len(query), len(nearness))
        nearness += self._spreads
        return nearness

    def _first_width(self, depth: Depth, met: int) -> int:
        """How many lists a first look takes that is to meet so many kept items, if lists keep alike."""
        return min(max(depth.probes, math.ceil(met * len(self.numbers) / self._count)), len(self.numbers))

    def search_one(self, query: Vectors, *, k: int, hidden: Rows, depth: Depth) -> list[tuple[float, int]] | None:
        """The best kept rows of the lists worth looking into.

        query: (1, d). hidden: rows that may not be found.
        Returns k pairs of a negated score and a row, best first, equal scores by lower row. None if there are fewer, or
        others that score like the last may have been cut off.
        """
        nearness = self.nearness(query[0])
        met, wide = MET * k + len(hidden), self._first_width(depth, MET * k + len(hidden))
        while True:
            first = nearness.argpartition(-wide)[-wide:]
            if wide == len(nearness) or np.add.reduce(self.counts.take(first)) >= met:
                break
            wide = min(2 * wide, len(nearness))
        wanted = min(math.ceil(depth.factor * k) + 1 + len(hidden), self._count)
        unwanted = {-1, *hidden.tolist()} if len(hidden) else {-1}
        found, lowest = self._look_one(query, first, wanted, unwanted)
        found.sort()
        nearness[first] = -np.inf
        further = (nearness >= (-found[k - 1][0] - depth.reach if len(found) >= k else -2.0)).nonzero()[0]
        if len(further):
            late, least = self._look_one(query, further, wanted, unwanted)
            found, lowest = sorted(found[:k] + late), min(lowest, least)
        if len(found) < k or found[k - 1][0] >= lowest:
            return None
        return found[:k]

    def _look_one(
        self, query: Vectors, chosen: Rows, wanted: int, unwanted: set[int]
    ) -> tuple[list[tuple[float, int]], float]:
        """As `_look` for one query (1, d) and lists (p,): pairs of a negated score and a row, and the highest of those.

        The latter before what is unwanted is left out, and infinite if all that is kept in those lists is there.
        """
        pointer = swig_ptr
        if self._is_sparse(chosen):
            return self._gather_one(query, chosen, wanted, unwanted), math.inf
        numbers = self.numbers.take(chosen)
        scores, rows = np.empty(wanted, dtype=np.float32), np.empty(wanted, dtype=np.int64)
        near = self._lists.centroids[numbers] @ query[0] if self._needs_near else self._no_near
        asked, places, found = pointer(query), pointer(scores), pointer(rows)
        made = parameters_of(len(numbers), self._parameters, self._selector)
        self._lists.ivf.search_preassigned_c(
            1, asked, wanted, pointer(numbers), pointer(near), places, found, False, made
        )
        multiply_some(places, asked, self._pointers[1], found, query.shape[1], 1, wanted)
        pairs = list(zip((-scores).tolist(), rows.tolist(), strict=True))
        return [pair for pair in pairs if pair[1] not in unwanted], max(pairs)[0]

    def _gather_one(self, query: Vectors, chosen: Rows, wanted: int, unwanted: set[int]) -> list[tuple[float, int]]:
        """Of all kept rows of some lists the best `wanted` and all that score alike, as `_look_one` gives them."""
        rows = self._kept_of(chosen)
        scores = exact.score(query, self._lists.vectors, rows[None])[0]
        if len(rows) > wanted:
            good = (scores >= np.partition(scores, -wanted)[-wanted]).nonzero()[0]
            rows, scores = rows.take(good), scores.take(good)
        pairs = zip((-scores).tolist(), rows.tolist(), strict=True)
        return [pair for pair in pairs if pair[1] not in unwanted]

    def _is_sparse(self, chosen: Rows) -> bool:
        """Whether little is kept of some lists (p,)."""
        if not self._may_gather:
            return False
        return bool(np.add.reduce(self.counts.take(chosen)) < SPARSE * np.add.reduce(self._sizes.take(chosen)))

    def _kept_of(self, chosen: Rows) -> Rows:
        """The kept rows of some lists (p,), list by list."""
        counts = self.counts.take(chosen)
        ends = counts.cumsum()
        places = np.arange(ends[-1]) + (self._starts.take(chosen) - ends + counts).repeat(counts)
        rows: Rows = self._rows.take(places).astype(np.int64)
        return rows

    def search_many(self, queries: Vectors, *, k: int, hidden: CSR | None, depth: Depth) -> tuple[Rows, Scores, Mask]:
        """As `search_one` for queries (q, d) at once: each looks into the same lists as alone.

        Returns rows and scores, (q, k) each, and of which query they may not be right: (q,).
        """
        rows, scores = np.empty((len(queries), k), dtype=np.int64), np.empty((len(queries), k), dtype=np.float32)
        is_cut = np.empty(len(queries), dtype=np.bool_)
        for start in range(0, len(queries), QUERIES):
            part = slice(start, min(start + QUERIES, len(queries)))
            lists = None if hidden is None else hidden.block(part.start, part.stop)
            rows[part], scores[part], is_cut[part] = self._search_block(queries[part], k, lists, depth)
        return rows, scores, is_cut

    def _search_block(self, queries: Vectors, k: int, hidden: CSR | None, depth: Depth) -> tuple[Rows, Scores, Mask]:
        rows, scores = np.empty((len(queries), k), dtype=np.int64), np.empty((len(queries), k), dtype=np.float32)
        is_cut = np.empty(len(queries), dtype=np.bool_)
        lengths = np.zeros(len(queries), dtype=np.int64) if hidden is None else hidden.lengths
        met = MET * k + lengths
        wide = np.array([self._first_width(depth, some) for some in met.tolist()])
        left = np.arange(len(queries))
        nearness = queries @ self._columns + self._spreads
        while len(left):
            width = int(wide[left].min())
            own = left[wide[left] == width]
            first = nearness[own].argpartition(-width, axis=1)[:, -width:]
            ready = (self.counts[first].sum(axis=1) >= met[own]) | (width == len(self.numbers))
            wide[own[~ready]] = min(2 * width, len(self.numbers))
            some, first = own[ready], first[ready]
            if len(some):
                lists = None if hidden is None else hidden.take(some)
                rows[some], scores[some], is_cut[some] = self._in_two_looks(
                    queries[some], nearness[some], first, k=k, hidden=lists, depth=depth
                )
            left = left[np.isin(left, some, invert=True)]
        return rows, scores, is_cut

    def _in_two_looks(
        self, queries: Vectors, nearness: Scores, first: Rows, *, k: int, hidden: CSR | None, depth: Depth
    ) -> tuple[Rows, Scores, Mask]:
        """As `search_many`, for the lists (q, p) of a first look."""
        longest = 0 if hidden is None else int(hidden.lengths.max(initial=0))
        wanted = min(math.ceil(depth.factor * k) + 1 + longest, self._count)
        rows, scores, lowest = self._look(queries, first, wanted)
        rows, scores = hide(rows, scores, hidden)
        rows, scores = exact.best_of(rows, scores, k)
        np.put_along_axis(nearness, first, -np.inf, axis=1)
        further = nearness >= np.where(rows[:, -1] >= 0, scores[:, -1] - np.float32(depth.reach), -2)[:, None]
        again = np.flatnonzero(further.any(axis=1))
        if len(again):
            late, late_scores, least = self._look(queries[again], padded(further[again]), wanted)
            lowest[again] = np.maximum(lowest[again], least)
            late, late_scores = hide(late, late_scores, None if hidden is None else hidden.take(again))
            rows[again], scores[again] = exact.best_of(
                np.concatenate([rows[again], late], axis=1), np.concatenate([scores[again], late_scores], axis=1), k
            )
        return rows, scores, (rows[:, -1] < 0) | (scores[:, -1] <= lowest)

    def _look(self, queries: Vectors, chosen: Rows, wanted: int) -> tuple[Rows, Scores, Scores]:
        """The kept rows of some lists that are best by their codes, with the scores of their whole vectors.

        queries: (q, d). chosen: (q, p), -1 for none.
        Returns rows and scores, (q, c) each, row -1 and score -inf for none, c at least `wanted` if there are so many;
        and the lowest score of each query, -inf if all that is kept in its lists is there: (q,).
        """
        owners, places = (chosen >= 0).nonzero()
        lists = chosen[owners, places]
        if self._is_sparse(lists):
            owners = owners.repeat(self.counts[lists])
            counts = np.bincount(owners, minlength=len(queries))
            rows = np.full((len(queries), int(counts.max())), -1, dtype=np.int64)
            rows[owners, exact.places(owners, counts)] = self._kept_of(lists)
            return rows, exact.score(queries, self._lists.vectors, rows), np.full(len(queries), -np.inf, np.float32)
        numbers = np.where(chosen < 0, -1, self.numbers.take(chosen))
        # Codes of what is left of an item without its centroid need the score of that.
        near = np.zeros(numbers.shape, dtype=np.float32)
        if self._needs_near:
            near = np.take_along_axis(queries @ self._lists.centroids.T, numbers, axis=1)
        rows = search_lists(self._lists.ivf, queries, wanted, numbers, near, self._parameters, self._selector)
        scores = exact.score(queries, self._lists.vectors, rows)
        return rows, scores, scores.min(axis=1)
