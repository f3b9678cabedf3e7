"""Kept: which lists of an IVF a filtered search looks into.

FAISS looks into the lists nearest to the query by their centroids, whatever a filter leaves in them: under an attribute
that follows the geometry those may hold nothing while the answer lies further on. Here each list is judged by what is
kept in it: how much, its mean, and how far it spreads. To a query the scores of a list's items are taken to be normal,
so lists tell how good their best items are likely to be, and the nearest lists together how good the k-th best of all
is. A search looks into every list whose best item may be as good as that: further where much is cut away.
"""

import math
from statistics import NormalDist
from typing import Any, Final, NamedTuple

import faiss
import numpy as np
import numpy.typing as npt

from retrieval.common.csr import CSR, from_pairs
from retrieval.index import exact
from retrieval.index.alone import best_pairs, columns_of, in_order
from retrieval.index.candidates import hide, padded
from retrieval.index.ivf import Lists
from retrieval.index.probing import multiply_some, parameters_of, search_lists, swig_ptr

Vectors = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

SAMPLE: Final = 32  # kept items of a list that its shape is taken of
FIRST: Final = 16  # lists, or more for many, that tell how good the k-th best is likely to be
STEPS: Final = 5  # of the best k; each stands for a share of them
REACH: Final = 0.1  # how much less good the best of a list may be than the k-th best; where it was not measured
SPARSE: Final = 0.06  # of lists: where fewer are kept, they are looked at one by one instead of scanning the lists
QUERIES: Final = 1_024  # that are compared with all lists at a time
ALIKE: Final = 64  # queries whose kept rows are gathered at a time
TIED: Final = 8  # times as many candidates where those did not tell which of equals are the k best
WANTED_KEPT: Final = 16
_DEVIATIONS: Final = np.linspace(-6, 6, 241)
_LOG_SHARES: Final = -np.log([NormalDist().cdf(-deviation) for deviation in _DEVIATIONS])

find_best = faiss.knn_inner_product


class Depth(NamedTuple):
    """How far a filtered search looks.

    factor: candidates per wanted item. reach: lists whose best item is likely to be less good than the k-th best by
    more than this are passed over.
    """

    factor: float
    reach: float


class Kept:
    """The lists of which a filter leaves something, and what it leaves."""

    def __init__(self, lists: Lists, mask: Mask) -> None:
        kept = mask[lists.rows]
        so_far = np.concatenate([[0], np.cumsum(kept)])
        counts = np.diff(so_far[lists.ends], prepend=0)
        self.numbers: Rows = np.flatnonzero(counts)  # (f,): of the lists in which something is kept
        self.counts: Rows = counts[self.numbers]
        self._lists = lists
        self._mask = mask
        self._excess = self.counts - SPARSE * lists.sizes[self.numbers]  # negative where little is kept
        self._may_gather = bool((self._excess < 0).any())
        self._rows = lists.rows[kept] if self._may_gather else lists.rows[:0]
        self._starts = np.cumsum(self.counts) - self.counts
        self._count = int(self.counts.sum())
        means, self._spreads = self._shape(lists.rows[kept])
        self._lifts = self._spreads * above(0.5 / self.counts)
        self._shapes = np.column_stack([means, self._lifts])  # (f, d + 1): a query with a 1 behind it gives nearness
        self._columns = np.ascontiguousarray(self._shapes.T)
        self._pointers = swig_ptr(self._shapes), swig_ptr(lists.vectors)
        self._below: dict[int, Scores] = {}
        self._no_near = np.zeros(len(lists.sizes), dtype=np.float32)
        self._needs_near = bool(lists.ivf.by_residual)
        self._selector = faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))
        self._parameters: dict[int, Any] = {}

    def _shape(self, rows: npt.NDArray[np.int32]) -> tuple[Vectors, Scores]:
        """Of each list the mean of what is kept, by a sample: (f, d); and the standard deviation of scores: (f,).

        rows: all that are kept, list by list.
        """
        taken = np.minimum(self.counts, SAMPLE)
        starts = np.cumsum(taken) - taken
        place = np.arange(taken.sum()) - np.repeat(starts, taken)
        spaced = place * np.repeat(self.counts, taken) // np.repeat(taken, taken)
        sample = self._lists.vectors[rows[np.repeat(self._starts, taken) + spaced]]
        means: Vectors = np.add.reduceat(sample, starts, axis=0)
        means /= taken[:, None]
        # Of unit vectors: the squared distance from their mean is what its square lacks to 1. (t / (t - 1) makes the
        # variance of a sample that of what it was drawn from.)
        left = np.maximum(1.0 - (means * means).sum(axis=1), 0.0) * taken / np.maximum(taken - 1, 1)
        spreads = np.sqrt(np.where(taken > 1, left, 0.0) / means.shape[1])
        return means, spreads.astype(np.float32)

    def nearness(self, queries: Vectors) -> Scores:
        """How good the best item of each list is likely to be for queries (q, d). Returns (q, f)."""
        near: Scores = queries @ self._columns[:-1]
        near += self._lifts
        return near

    def _likely(self, near: Scores, lists: Rows, wanted: int) -> Scores:
        """How good the best `wanted` of some lists are likely to be, at least, -inf if those have not so many.

        near and lists: (q, w). Returns (q,).
        """
        steps = min(wanted, STEPS)
        below = self._below.get(wanted)
        if below is None:
            if len(self._below) >= WANTED_KEPT:
                self._below.clear()
            share = wanted / steps / self.counts[:, None]  # (f, 1): of a list, that one step stands for
            places = np.arange(steps)
            scores = self._spreads[:, None] * above(np.minimum((places + 0.5) * share, 1.0)) - self._lifts[:, None]
            below = self._below[wanted] = np.where((places + 1) * share <= 1.0, scores, np.float32(-np.inf))
        scores = (below.take(lists, axis=0) + near[:, :, None]).reshape(len(near), -1)
        likely: Scores = np.partition(scores, -steps, axis=1)[:, -steps]
        return likely

    def _first(self, wanted: int) -> int:
        """How many lists are asked at first how good the best `wanted` are: some, of which a part has enough."""
        return min(max(FIRST, math.ceil(4 * wanted * len(self.counts) / self._count)), len(self.counts))

    def _near_one(self, query: Vectors, wanted: int, reach: float) -> Rows:
        """The lists that a query (1, d) looks into: (p,)."""
        pointer = swig_ptr
        height, width = self._shapes.shape
        asked = np.empty((1, width), dtype=np.float32)
        asked[0, :-1], asked[0, -1] = query[0], 1.0
        first = self._first(wanted)
        while True:
            near, lists = np.empty((1, first), dtype=np.float32), np.empty((1, first), dtype=np.int64)
            find_best(pointer(asked), self._pointers[0], width, 1, height, first, pointer(near), pointer(lists))
            least = self._likely(near, lists, wanted).item() - reach
            if least > -math.inf or first == height:
                break
            first = min(4 * first, height)
        if near.item(-1) < least:
            return lists[0, : np.count_nonzero(near >= least)]
        further: Rows = (self._shapes @ asked[0] >= least).nonzero()[0]
        return further

    def search_one(self, query: Vectors, *, k: int, hidden: Rows, depth: Depth) -> tuple[Rows, Scores] | None:
        """The best kept rows of the lists worth looking into.

        query: (1, d). hidden: rows that may not be found.
        Returns rows and scores, (1, k) each, best first, equal scores by lower row. None if there are fewer, or others
        that score like the last may have been cut off.
        """
        if len(hidden):
            hidden = hidden[self._mask[hidden]]
        chosen = self._near_one(query, rivals(k, len(hidden)), depth.reach)
        if self._may_gather and np.add.reduce(self._excess.take(chosen)) < 0:
            rows = self._kept_of(chosen)[None]
            return _best_one(rows, exact.score(query, self._lists.vectors, rows), hidden, k=k, is_whole=True)
        found = None
        for times in (1, TIED):
            if found is None:
                rows, scores = self._scan_one(query, chosen, self._candidates(k, len(hidden), depth, times))
                found = _best_one(rows, scores, hidden, k=k, is_whole=False)
        return found

    def _candidates(self, k: int, hidden: int, depth: Depth, times: int) -> int:
        return min((math.ceil(depth.factor * k) + 1 + hidden) * times, self._count)

    def _scan_one(self, query: Vectors, chosen: Rows, wanted: int) -> tuple[Rows, Scores]:
        """As `_scan` for one query (1, d) and lists (p,)."""
        pointer = swig_ptr
        numbers = self.numbers.take(chosen)
        scores, rows = np.empty((1, wanted), dtype=np.float32), np.empty((1, wanted), dtype=np.int64)
        near = self._lists.centroids[numbers] @ query[0] if self._needs_near else self._no_near
        asked, places, found = pointer(query), pointer(scores), pointer(rows)
        made = parameters_of(len(numbers), self._parameters, self._selector)
        self._lists.ivf.search_preassigned_c(
            1, asked, wanted, pointer(numbers), pointer(near), places, found, False, made
        )
        multiply_some(places, asked, self._pointers[1], found, query.shape[1], 1, wanted)
        return rows, scores

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
        if hidden is not None:
            passing = self._mask[hidden.indices]
            hidden = from_pairs(hidden.owners()[passing], hidden.indices[passing], height=hidden.height)
        for start in range(0, len(queries), QUERIES):
            part = slice(start, min(start + QUERIES, len(queries)))
            lists = None if hidden is None else hidden.block(part.start, part.stop)
            rows[part], scores[part], is_cut[part] = self._search_block(queries[part], k, lists, depth)
        return rows, scores, is_cut

    def _search_block(self, queries: Vectors, k: int, hidden: CSR | None, depth: Depth) -> tuple[Rows, Scores, Mask]:
        rows, scores = np.empty((len(queries), k), dtype=np.int64), np.empty((len(queries), k), dtype=np.float32)
        is_cut = np.empty(len(queries), dtype=np.bool_)
        chosen = self._near_many(queries, k, hidden, depth.reach)
        is_sparse = np.where(chosen >= 0, self._excess[chosen], 0.0).sum(axis=1) < 0
        few = np.flatnonzero(is_sparse)
        few = few[np.count_nonzero(chosen[few] >= 0, axis=1).argsort()]  # those that look at as much go together
        for start in range(0, len(few), ALIKE):
            some = few[start : start + ALIKE]
            lists = None if hidden is None else hidden.take(some)
            found = hide(*self._gather(queries[some], chosen[some]), lists)
            rows[some], scores[some] = exact.best_of(*found, k)
            is_cut[some] = rows[some, -1] < 0
        some = np.flatnonzero(~is_sparse)
        for times in (1, TIED):
            if len(some) == 0:
                break
            lists = None if hidden is None else hidden.take(some)
            longest = 0 if lists is None else int(lists.lengths.max(initial=0))
            found = self._scan(queries[some], chosen[some], self._candidates(k, longest, depth, times))
            lowest = found[1].min(axis=1)
            rows[some], scores[some] = exact.best_of(*hide(*found, lists), k)
            is_cut[some] = (rows[some, -1] < 0) | (scores[some, -1] <= lowest)
            some = some[is_cut[some]]
        return rows, scores, is_cut

    def _near_many(self, queries: Vectors, k: int, hidden: CSR | None, reach: float) -> Rows:
        """The lists that each query (q, d) looks into: (q, p), -1 for none."""
        near = self.nearness(queries)
        lengths = [0] * len(queries) if hidden is None else hidden.lengths.tolist()
        wanted = np.array([rivals(k, length) for length in lengths])
        least = np.full(len(queries), -np.inf, dtype=np.float32)
        for some in np.unique(wanted).tolist():
            left, first = np.flatnonzero(wanted == some), self._first(some)
            while len(left):
                lists = near[left].argpartition(-first, axis=1)[:, -first:]
                least[left] = self._likely(np.take_along_axis(near[left], lists, axis=1), lists, some)
                left = left[np.isneginf(least[left])] if first < near.shape[1] else left[:0]
                first = min(4 * first, near.shape[1])
        return padded(near >= (least - np.float32(reach))[:, None], near.argmax(axis=1))

    def _gather(self, queries: Vectors, chosen: Rows) -> tuple[Rows, Scores]:
        """All kept rows of some lists, with their scores. chosen: (q, p), -1 for none. Returns (q, c) each."""
        owners, places = (chosen >= 0).nonzero()
        lists = chosen[owners, places]
        owners = owners.repeat(self.counts[lists])
        counts = np.bincount(owners, minlength=len(queries))
        rows = np.full((len(queries), int(counts.max())), -1, dtype=np.int64)
        rows[owners, exact.places(owners, counts)] = self._kept_of(lists)
        return rows, exact.score(queries, self._lists.vectors, rows)

    def _scan(self, queries: Vectors, chosen: Rows, wanted: int) -> tuple[Rows, Scores]:
        """The `wanted` kept rows of some lists that are best by their codes, with the scores of their whole vectors.

        queries: (q, d). chosen: (q, p), -1 for none. Returns (q, wanted) each, row -1 and score -inf for none.
        """
        numbers = np.where(chosen < 0, -1, self.numbers.take(chosen))
        # Codes of what is left of an item without its centroid need the score of that.
        near = np.zeros(numbers.shape, dtype=np.float32)
        if self._needs_near:
            near = np.take_along_axis(queries @ self._lists.centroids.T, numbers, axis=1)
        rows = search_lists(self._lists.ivf, queries, wanted, numbers, near, self._parameters, self._selector)
        return rows, exact.score(queries, self._lists.vectors, rows)


def _best_one(rows: Rows, scores: Scores, hidden: Rows, *, k: int, is_whole: bool) -> tuple[Rows, Scores] | None:
    """The k best of candidates (1, c) that are not hidden: (1, k) each. None if these do not tell.

    is_whole: whether there are no others as good.
    """
    found = in_order(rows, scores, k=k) if len(hidden) == 0 else None
    if found is not None:
        return found
    pairs = best_pairs(rows[0], scores[0], hidden.tolist(), k=k, is_whole=is_whole)
    return None if pairs is None or len(pairs) < k else columns_of(pairs, k=k)


def rivals(k: int, hidden: int) -> int:
    """How many rows lists are chosen for: all that are hidden may be better. Rounded, since each number is prepared."""
    return k if hidden == 0 else 1 << (k + hidden - 1).bit_length()


def above(shares: npt.NDArray[np.floating]) -> Scores:
    """How many standard deviations above the mean so large a share of a normal distribution begins."""
    found: Scores = np.interp(-np.log(shares), _LOG_SHARES, _DEVIATIONS).astype(np.float32)
    return found
