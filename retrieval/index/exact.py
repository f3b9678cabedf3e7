"""Exact search: blocked products and top-k in numpy, and the one way in which a score is computed.

A product of two float32 matrices rounds differently with the number of rows beside it. So that an answer does not
depend on the batch it came in, products only find candidates; their scores are computed one pair at a time by the
same routine that every FAISS index uses for whole vectors. Equal scores go by lower row.
"""

import math
from typing import Final

import faiss
import numpy as np
import numpy.typing as npt

from retrieval.common.csr import CSR

Vectors = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

SPARE: Final = 8  # candidates beyond k: enough unless many items score alike
SLACK: Final = 2e-6  # more than a float32 product of unit vectors can be off (measured below 4e-7 at 64 dimensions)
GROUP: Final = 32  # rows that share one maximum
QUERIES: Final = 256  # queries multiplied at a time
FEW_QUERIES: Final = 4  # up to here one after the other is faster
BLOCK: Final = 2048  # items multiplied at a time: their products stay in the cache until they are compared
LARGEST_GROUP: Final = 64
ROW_COST: Final = 2  # a row to score, over a maximum to compare, in time
CROWDED: Final = 8  # times as many candidates as wanted
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
    """As top_k, for queries that are multiplied at once.

    Of the products only the maximum of each group of rows is kept. The k best groups hold k rows at least, so every
    row that scores like the k-th best or better is in a group whose maximum reaches theirs: equals are never cut off.
    """
    group = _group_size(len(items), k)
    highest = _highest(queries, items, exclude, keep, block, group)  # (q, groups)
    groups = highest.shape[1]
    least = np.full(len(queries), LOWEST)
    if groups > k:
        least = np.maximum(np.partition(highest, groups - k, axis=1)[:, groups - k] - SLACK, LOWEST)
    owners, chosen = np.nonzero(highest >= least[:, None])
    counts = np.bincount(owners, minlength=len(queries))
    # Where very many items score alike, so many groups may hold them that one query at a time is better.
    crowded = counts > max(CROWDED * k, len(items) // (CROWDED * group))
    if crowded.any():
        owners, chosen = owners[~crowded[owners]], chosen[~crowded[owners]]
        counts[crowded] = 0
    rows = _rows_of(owners, chosen, counts, group, len(items))
    if keep is not None:
        rows[~keep[rows]] = -1
    if exclude is not None:
        _hide(rows, owners * groups + chosen, counts, exclude, group, groups)
    best, scores = best_of(rows, score(queries, items, rows), k)
    for query in np.flatnonzero(crowded):
        own = None if exclude is None else exclude.list(int(query))
        best[query], scores[query] = _top_of_one(queries[query], items, k, own, keep)
    return best, scores


def _group_size(items: int, k: int) -> int:
    """Rows that share a maximum: few groups are soon compared, but of the k best every row is scored."""
    best = math.sqrt(items / (ROW_COST * k))
    return min(max(1 << round(math.log2(max(best, 1.0))), 1), LARGEST_GROUP)


def _highest(
    queries: Vectors, items: Vectors, exclude: CSR | None, keep: Mask | None, block: int, group: int
) -> Scores:
    """The highest product of each group of `group` rows with each query, -inf where none may be found: (q, groups)."""
    block = max(block // group, 1) * group
    hidden = _by_row(exclude) if exclude is not None else None
    columns = np.ascontiguousarray(queries.T)
    space = np.empty((min(block, -(-len(items) // group) * group), len(queries)), dtype=np.float32)
    highest = np.empty((len(queries), -(-len(items) // group)), dtype=np.float32)
    for start in range(0, len(items), block):
        some = items[start : start + block]
        products = np.matmul(some, columns, out=space[: len(some)])  # (items of the block, q)
        if keep is not None:
            products[~keep[start : start + block]] = -np.inf
        if hidden is not None:
            low, high = np.searchsorted(hidden[0], [start, start + block])
            products[hidden[0][low:high] - start, hidden[1][low:high]] = -np.inf
        height = -(-len(some) // group)
        space[len(some) : height * group] = -np.inf  # the last group may have fewer rows
        maxima = space[: height * group].reshape(height, group, len(queries)).max(axis=1)
        highest[:, start // group : start // group + height] = maxima.T
    return highest


def _rows_of(owners: Rows, chosen: Rows, counts: Rows, group: int, height: int) -> Rows:
    """The rows of the chosen groups of each query, rising, -1 beyond: (q, most groups * group)."""
    width = int(counts.max(initial=1))
    table = np.full((len(counts), width), -1, dtype=np.int64)
    table[owners, places(owners, counts)] = chosen
    rows = table[:, :, None] * group + np.arange(group)
    rows[(table < 0)[:, :, None] | (rows >= height)] = -1
    return rows.reshape(len(counts), width * group)


def places(owners: Rows, counts: Rows) -> Rows:
    """Where each entry stands among those of its owner. owners: rising."""
    return np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts)


def _hide(rows: Rows, keys: Rows, counts: Rows, exclude: CSR, group: int, groups: int) -> None:
    """Turn candidates that may not be found into -1, in place.

    rows: as `_rows_of` gives them. keys: query * groups + group of the chosen groups, rising.
    """
    if len(keys) == 0:
        return
    owners = exclude.owners()
    wanted = owners * groups + exclude.indices // group
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    met = keys[at] == wanted
    place = at[met] - (np.cumsum(counts) - counts)[owners[met]]
    rows[owners[met], place * group + exclude.indices[met] % group] = -1


def best_of(rows: Rows, scores: Scores, k: int) -> tuple[Rows, Scores]:
    """As `best_first`, for many candidates: sorts only those that are as good as the k-th. Leaves `rows` as it is."""
    width = rows.shape[1]
    if width <= 2 * k:
        return best_first(rows, scores, k=k)
    least = np.maximum(np.partition(scores, width - k, axis=1)[:, width - k], LOWEST)
    owners, at = np.nonzero(scores >= least[:, None])
    counts = np.bincount(owners, minlength=len(rows))
    few = np.full((len(rows), max(k, int(counts.max(initial=0)))), -1, dtype=np.int64)
    few_scores = np.full(few.shape, -np.inf, dtype=np.float32)
    place = places(owners, counts)
    few[owners, place], few_scores[owners, place] = rows[owners, at], scores[owners, at]
    return best_first(few, few_scores, k=k)


def _by_row(lists: CSR) -> tuple[Rows, Rows]:
    """Entries of the lists by rising item row: their rows and the queries they belong to."""
    order = np.argsort(lists.indices, kind="stable")
    return lists.indices[order], lists.owners()[order]
