"""Lists: which lists of an IVF a filtered search looks into.

FAISS looks into the lists nearest to the query by their centroids, whatever a filter leaves in them: under an attribute
that follows the geometry those may hold nothing while the answer lies further on. Here each list is judged by what is
kept in it: the mean of that, and how far it spreads. A search takes the best lists until some items are met, sees how
good they are, and then takes every list that may hold a better one. So it looks further exactly where it must.
"""

import math
from functools import cached_property
from typing import Any, Final

import faiss
import numpy as np
import numpy.typing as npt

from retrieval import exact
from retrieval.probing import search_lists

Vectors = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

SAMPLE: Final = 16  # kept items of a list that its mean is taken of
SPREADS: Final = 2.0  # a list is as near as its mean and so many standard deviations
REACH: Final = 0.12  # how much less near a list with an answer may be than that answer; where it was not measured
MET: Final = 20  # kept items per wanted one that the first look must meet
COPIED: Final = 65_536  # so many kept items are copied list by list, when the filter is first asked for
LONG: Final = 32  # kept items of a list from which on the copy is faster than gathering
# Nanoseconds, as measured (docs/performance.md); only their relation matters.
GATHERED_NS: Final = 55  # a kept item, gathered and multiplied
COPIED_NS: Final = 12  # the same from a copy that holds it beside its neighbours
SCANNED_NS: Final = 6  # any item of a list, by its code
CALL_NS: Final = 5_000  # asking FAISS, and scoring its candidates anew


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
        self._lists = lists
        self._rows = lists.rows[kept]
        self._count = len(self._rows)
        so_far = np.concatenate([[0], np.cumsum(kept)])
        counts = np.diff(so_far[lists.ends], prepend=0)
        self.numbers: Rows = np.flatnonzero(counts)  # (f,): of the lists in which something is kept
        self.counts: Rows = counts[self.numbers]
        self._copy = lists.vectors[self._rows] if self._count <= COPIED else None
        # What gathering what is kept of a list takes above scanning the list.
        gathering = GATHERED_NS if self._copy is None else COPIED_NS
        self._gathering = gathering * self.counts - SCANNED_NS * lists.sizes[self.numbers]
        self._ends = np.cumsum(self.counts)
        self._means, self._spreads = self._shape()
        self._selector = faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))
        self._parameters: dict[int, Any] = {}

    def _shape(self) -> tuple[Vectors, Scores]:
        """Of each list the mean of what is kept, by a sample: (f, d); and SPREADS standard deviations of it: (f,)."""
        taken = np.minimum(self.counts, SAMPLE)
        ends = np.cumsum(taken)
        starts = ends - taken
        place = np.arange(taken.sum()) - np.repeat(starts, taken)
        spaced = place * np.repeat(self.counts, taken) // np.repeat(taken, taken)
        sample = self._lists.vectors[self._rows[np.repeat(self._ends - self.counts, taken) + spaced]]
        means = np.add.reduceat(sample, starts, axis=0) / taken[:, None].astype(np.float32)
        # Of unit vectors: the squared distance from their mean is what its square lacks to 1. (t / (t - 1) makes the
        # variance of a sample that of what it was drawn from.)
        left = np.maximum(1.0 - (means * means).sum(axis=1), 0.0) * taken / np.maximum(taken - 1, 1)
        spreads = SPREADS * np.sqrt(np.where(taken > 1, left, 0.0) / means.shape[1])
        return np.ascontiguousarray(means), spreads.astype(np.float32)

    def nearness(self, query: Vectors) -> Scores:
        """How good an item of each list may be for a query (d,). Returns (f,)."""
        return self._means @ query + self._spreads

    def search(
        self, query: Vectors, *, k: int, hidden: Rows, probes: int, factor: float, reach: float
    ) -> tuple[Rows, Scores, bool]:
        """The best kept rows of the lists worth looking into.

        query: (1, d). hidden: rows that may not be found. probes, factor: of an unfiltered search.
        reach: lists that are less near than the k-th best row by more than this are passed over.
        Returns rows (c,) and their scores, in no order, at least the k best of those lists unless there are fewer; and
        whether others that score alike may have been cut off.
        """
        nearness = self.nearness(query[0])
        first, bound = self._first(nearness, probes, MET * k + len(hidden))
        rows, scores, is_cut = self._look(query, first, k, hidden, factor)
        least = scores.min() if len(scores) >= k else -np.inf  # no worse ones than the k-th are among them
        further = ((nearness >= least - reach) & (nearness < bound)).nonzero()[0]
        if len(further):
            late, late_scores, late_cut = self._look(query, further, k, hidden, factor)
            rows, scores = np.concatenate([rows, late]), np.concatenate([scores, late_scores])
            is_cut = is_cut or late_cut
        return rows, scores, is_cut

    def _first(self, nearness: Scores, probes: int, met: int) -> tuple[Rows, np.float32]:
        """The lists to look into at first, and how near they are: `probes` of them, and they hold `met` kept rows."""
        lists = len(nearness)
        wide = max(probes, math.ceil(met * lists / self._count))
        while wide < lists:
            bound: np.float32 = np.partition(nearness, lists - wide)[lists - wide]
            first = (nearness >= bound).nonzero()[0]
            if self.counts[first].sum() >= met:
                return first, bound
            wide *= 2
        return np.arange(lists), nearness.min()

    def _look(self, query: Vectors, chosen: Rows, k: int, hidden: Rows, factor: float) -> tuple[Rows, Scores, bool]:
        """The k best kept rows of some lists, all that score like the k-th among them. As `search` returns."""
        if self._gathering[chosen].sum() <= CALL_NS:
            rows, is_whole = self._gathered(query, chosen, k + len(hidden)), True
        else:
            kept = int(self.counts[chosen].sum())
            wanted = min(math.ceil(factor * k) + 1 + len(hidden), kept)
            rows, is_whole = self._scanned(query, chosen, wanted), wanted == kept
        scores = exact.score(query, self._lists.vectors, rows[None])[0]
        lowest = -np.inf if is_whole else scores.min()
        rows, scores = _best(rows, scores, k + len(hidden))
        if len(hidden):
            seen = np.isin(rows, hidden)
            rows, scores = _best(rows[~seen], scores[~seen], k)
        return rows, scores, bool(not is_whole and (len(scores) < k or scores.min() <= lowest))

    def _gathered(self, query: Vectors, chosen: Rows, wanted: int) -> Rows:
        """The kept rows of some lists: all, or at least those that may be among the best `wanted`."""
        ends = self._ends[chosen]
        parts = [slice(*ends) for ends in zip((ends - self.counts[chosen]).tolist(), ends.tolist(), strict=True)]
        rows = np.concatenate([self._rows[part] for part in parts])
        if self._copy is not None and len(rows) > max(2 * wanted, LONG * len(parts)):
            rough = np.concatenate([self._copy[part] @ query[0] for part in parts])
            rows = rows[rough >= np.partition(rough, len(rough) - wanted)[len(rough) - wanted] - exact.SLACK]
        return rows.astype(np.int64)

    def _scanned(self, query: Vectors, chosen: Rows, wanted: int) -> Rows:
        """The kept rows of some lists that are best by their codes. wanted: at most as many as are kept there."""
        numbers = self.numbers[chosen]
        near = self._lists.centroids[numbers] @ query[0]
        rows: Rows = search_lists(
            self._lists.ivf, query, wanted, numbers[None], near[None], self._parameters, self._selector
        )[0]
        return rows


def _best(rows: Rows, scores: Scores, k: int) -> tuple[Rows, Scores]:
    """The k best and all that score like the k-th."""
    if len(scores) <= k:
        return rows, scores
    good = scores >= np.partition(scores, len(scores) - k)[len(scores) - k]
    return rows[good], scores[good]
