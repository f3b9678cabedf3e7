"""Exact search: blocked products and top-k in numpy, and the one way in which a score is computed.

A product of two float32 matrices rounds differently with the number of rows beside it. So that an answer does not
depend on the batch it came in, products only find candidates; their scores are computed one pair at a time by the
same routine that every FAISS index uses for whole vectors. Equal scores go by lower row.
"""

from typing import Final

import faiss
import numpy as np
import numpy.typing as npt

from retrieval.csr import CSR

Vectors = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

SPARE: Final = 8  # candidates beyond k: enough unless many items score alike
SLACK: Final = 2e-6  # more than a float32 product of unit vectors can be off (measured below 4e-7 at 64 dimensions)
GROUP: Final = 32  # rows that share one maximum
QUERIES: Final = 256  # queries multiplied at a time
FEW_QUERIES: Final = 4  # up to here one after the other is faster
BLOCK: Final = 8192  # items multiplied at a time
LOWEST: Final = np.finfo(np.float32).min


def score(queries: Vectors, items: Vectors, rows: Rows) -> Scores:
    """Inner products as every answer reports them.

    queries: (q, d) and items: (n, d), contiguous; rows: (q, c) of items, -1 for none.
    Returns (q, c) float32, -inf where there is none.
    """
    rows = np.ascontiguousarray(rows, dtype=np.int64)
    scores = np.empty(rows.shape, dtype=np.float32)
    assert queries.flags.c_contiguous
    assert items.flags.c_contiguous
    pointer = faiss.swig_ptr
    faiss.fvec_inner_products_by_idx(
        pointer(scores), pointer(queries), pointer(items), pointer(rows), items.shape[1], *rows.shape
    )
    return scores


def best_first(rows: Rows, scores: Scores, *, k: int) -> tuple[Rows, Scores]:
    """The k best candidates of each query, equal scores by lower row; what is not there stands last.

    rows: (q, c), -1 with score -inf where there is none. Returns (q, k); the tail is row -1, score -inf.
    """
    order = np.lexsort((rows, -scores), axis=1)[:, :k]
    at = np.arange(len(rows))[:, None]
    rows, scores = rows[at, order], scores[at, order]
    short = k - rows.shape[1]
    if short > 0:
        rows = np.pad(rows, ((0, 0), (0, short)), constant_values=-1)
        scores = np.pad(scores, ((0, 0), (0, short)), constant_values=-np.inf)
    return rows, scores


def top_k(
    queries: Vectors,
    items: Vectors,
    *,
    k: int,
    exclude: CSR | None = None,
    keep: Mask | None = None,
    block: int = BLOCK,
) -> tuple[Rows, Scores]:
    """The k items with the largest inner product per query.

    queries: (q, d) float32; items: (n, d) float32; unit rows.
    exclude: a list of item rows per query that may not be found; keep: (n,) the items that may, for all queries.
    Returns rows (q, k) int64 and scores (q, k) float32, best first, equal scores by lower row. Where fewer than k are
    left the tail is row -1 with score -inf.
    """
    queries, items = np.ascontiguousarray(queries), np.ascontiguousarray(items)
    all_rows = np.full((len(queries), k), -1, dtype=np.int64)
    all_scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
    if k == 0 or len(items) == 0:
        return all_rows, all_scores
    if len(queries) <= FEW_QUERIES:
        for query in range(len(queries)):
            hidden = None if exclude is None else exclude.list(query)
            all_rows[query], all_scores[query] = _top_of_one(queries[query], items, k, hidden, keep)
        return all_rows, all_scores
    for start in range(0, len(queries), QUERIES):
        part = slice(start, min(start + QUERIES, len(queries)))
        lists = None if exclude is None else exclude.block(part.start, part.stop)
        all_rows[part], all_scores[part] = _top_of_many(queries[part], items, k, lists, keep, block)
    return all_rows, all_scores


def _top_of_one(query: Vectors, items: Vectors, k: int, exclude: Rows | None, keep: Mask | None) -> tuple[Rows, Scores]:
    """As top_k, for a single query (d,). Returns (k,) each."""
    rough = _rough(query, items, exclude, keep)
    rows = np.flatnonzero(rough >= _threshold(rough, k + SPARE) - SLACK)
    scores = score(query[None], items, rows[None])
    best, best_scores = best_first(rows[None], scores, k=k)
    return best[0], best_scores[0]


def _rough(query: Vectors, items: Vectors, exclude: Rows | None, keep: Mask | None) -> Scores:
    """Products with all items, -inf for those that may not be found."""
    rough: Scores = items @ query
    if keep is not None:
        rough[~keep] = -np.inf
    if exclude is not None:
        rough[exclude] = -np.inf
    return rough


def _threshold(rough: Scores, wanted: int) -> np.float32:
    """A value that at least `wanted` of the products reach, and not many more, if there are as many above -inf."""
    whole = len(rough) // GROUP * GROUP
    candidates = rough
    if whole >= 4 * GROUP * wanted:
        # A maximum of a group is a product too: as many groups as wanted reach the value, so as many products do.
        candidates = rough[:whole].reshape(-1, GROUP).max(axis=1)
    if len(candidates) <= wanted:
        return LOWEST
    return max(np.partition(candidates, len(candidates) - wanted)[len(candidates) - wanted], LOWEST)


def _top_of_many(
    queries: Vectors, items: Vectors, k: int, exclude: CSR | None, keep: Mask | None, block: int
) -> tuple[Rows, Scores]:
    """As top_k, for queries that are multiplied at once."""
    found = _Found(len(queries), k + SPARE)
    hidden = _by_row(exclude) if exclude is not None else None
    columns = np.ascontiguousarray(queries.T)
    space = np.empty((min(block, len(items)), len(queries)), dtype=np.float32)
    for start in range(0, len(items), block):
        some = items[start : start + block]
        products = np.matmul(some, columns, out=space[: len(some)])  # (items of the block, q)
        if keep is not None:
            products[~keep[start : start + block]] = -np.inf
        if hidden is not None:
            low, high = np.searchsorted(hidden[0], [start, start + block])
            products[hidden[0][low:high] - start, hidden[1][low:high]] = -np.inf
        found.take(products, start)
    found.settle()
    rough = found.scores
    best, scores = best_first(found.rows, score(queries, items, found.rows), k=k)
    # Where the last candidate is as good as the k-th, others as good may have been cut off: look at all of those.
    full = rough[:, -1] > -np.inf
    for query in np.flatnonzero(full & (rough[:, -1] >= scores[:, k - 1] - SLACK)):
        own = None if exclude is None else exclude.list(int(query))
        every = _rough(queries[query], items, own, keep)
        rows = np.flatnonzero(every >= scores[query, k - 1] - SLACK)[None]
        (best[query],), (scores[query],) = best_first(rows, score(queries[query][None], items, rows), k=k)
    return best, scores


def _by_row(lists: CSR) -> tuple[Rows, Rows]:
    """Entries of the lists by rising item row: their rows and the queries they belong to."""
    order = np.argsort(lists.indices, kind="stable")
    return lists.indices[order], lists.owners()[order]


class _Found:
    """The best candidates so far of each query, by rough score; row -1 with score -inf where there is none.

    What blocks yield is sorted in when the number of blocks has doubled: until then it only has to reach what was best
    at the last sorting, which lets no more than twice the best through.
    """

    def __init__(self, queries: int, wanted: int) -> None:
        self._pending: list[tuple[Rows, Rows, Scores]] = []
        self._blocks = 0
        self.rows = np.full((queries, wanted), -1, dtype=np.int64)
        self.scores = np.full((queries, wanted), -np.inf, dtype=np.float32)

    def take(self, products: Scores, start: int) -> None:
        """Look at the products (items, q) of the items from row `start` on.

        Only groups of rows whose maximum reaches what is already held are looked into: after the first blocks that
        is a handful, so that most products are read once, for the maximum.
        """
        height, queries = products.shape
        wanted = self.scores.shape[1]
        groups = -(-height // GROUP)
        if groups * GROUP != height:
            rest = np.full((groups * GROUP - height, queries), -np.inf, dtype=np.float32)
            products = np.concatenate([products, rest])
        grouped = products.reshape(groups, GROUP, queries)
        highest = grouped.max(axis=1)  # (groups, q)
        least = self.scores[:, -1]
        if groups > wanted and least.min(initial=0) == -np.inf:
            # As many groups as wanted reach this value, so at least as many items do.
            least = np.maximum(least, np.partition(highest, groups - wanted, axis=0)[groups - wanted])
        least = np.maximum(least - SLACK, LOWEST)
        group, query = np.nonzero(highest >= least)
        inside = grouped[group, :, query]  # (candidate groups, GROUP)
        entry, offset = np.nonzero(inside >= least[query, None])
        self._pending.append((query[entry], start + group[entry] * GROUP + offset, inside[entry, offset]))
        self._blocks += 1
        if self._blocks & (self._blocks - 1) == 0:
            self.settle()

    def settle(self) -> None:
        """Sort in what the last blocks have yielded."""
        queries, wanted = self.scores.shape
        owners = np.concatenate([np.repeat(np.arange(queries), wanted), *(part[0] for part in self._pending)])
        rows = np.concatenate([self.rows.ravel(), *(part[1] for part in self._pending)])
        scores = np.concatenate([self.scores.ravel(), *(part[2] for part in self._pending)])
        self._pending = []
        order = np.lexsort((rows, -scores, owners))
        owners = owners[order]
        place = np.arange(len(owners)) - np.searchsorted(owners, np.arange(queries))[owners]
        kept = order[place < wanted]
        self.rows = rows[kept].reshape(queries, wanted)
        self.scores = scores[kept].reshape(queries, wanted)
