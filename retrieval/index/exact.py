"""Exact search in numpy, and the only routine that computes a reported score.

The rounding of a float32 matrix product depends on the number of rows that are multiplied together. An answer must not
depend on its batch, so matrix products only find candidates. FAISS's inner product for single pairs computes their
scores; every FAISS index uses the same routine for full vectors. Ties are broken by the lower row.
"""

import math
from typing import Final

import faiss
import numpy as np

from retrieval.common.arrays import Mask, Rows, Scores, Vectors
from retrieval.common.csr import CSR

SLACK: Final = 2e-6  # rounding error of a product of unit vectors (measured below 4e-7 at 64 dimensions)
QUERIES: Final = 256  # queries in one matrix product
PRODUCTS: Final = 4_096 * QUERIES  # products in memory at a time: 4 MB
MAX_GROUP: Final = 64
LOWEST: Final = np.finfo(np.float32).min


def score(queries: Vectors, items: Vectors, rows: Rows) -> Scores:
    """Compute inner products of queries with some items.

    Args:
        queries: (q, d) float32, contiguous.
        items: (n, d) float32, contiguous.
        rows: (q, c) rows of items for each query, -1 for none.

    Returns:
        (q, c) float32, -inf where the row is -1.
    """
    assert queries.flags.c_contiguous
    assert items.flags.c_contiguous
    rows = np.ascontiguousarray(rows, dtype=np.int64)
    scores = np.empty(rows.shape, dtype=np.float32)
    pointer = faiss.swig_ptr
    faiss.fvec_inner_products_by_idx(
        pointer(scores), pointer(queries), pointer(items), pointer(rows), items.shape[1], *rows.shape
    )
    return scores


def score_vectors(query: Vectors, vectors: Vectors) -> Scores:
    """Inner products of a query (1, d) with vectors (n, d): (n,), the same bits as those of `score`."""
    scores: Scores = score(query, vectors, np.arange(len(vectors))[None])[0]
    return scores


def best_first(rows: Rows, scores: Scores, *, k: int) -> tuple[Rows, Scores]:
    """Sort the candidates of each query by falling score, ties by lower row, and keep the first k.

    Args:
        rows: (q, c) int64, -1 for none.
        scores: (q, c) float32, -inf where the row is -1.
        k: Number of candidates to keep.

    Returns:
        rows and scores, (q, k) each. Missing results are row -1 with score -inf.
    """
    if not (scores[:, :-1] > scores[:, 1:]).all():
        order = np.lexsort((rows, -scores), axis=1)[:, :k]
        at = np.arange(len(rows))[:, None]
        rows, scores = rows[at, order], scores[at, order]
    if rows.shape[1] < k:
        missing = ((0, 0), (0, k - rows.shape[1]))
        return np.pad(rows, missing, constant_values=-1), np.pad(scores, missing, constant_values=-np.inf)
    return rows[:, :k], scores[:, :k]


def best_candidates(rows: Rows, scores: Scores, *, k: int) -> tuple[Rows, Scores]:
    """The same as `best_first` for many candidates: sorts only those that reach the k-th best score."""
    if rows.shape[1] > 4 * k:
        at, columns = np.arange(len(rows))[:, None], _largest(scores, k)
        rows, scores = rows[at, columns], scores[at, columns]
    return best_first(rows, scores, k=k)


def exclude_rows(rows: Rows, scores: Scores, exclude: CSR | None) -> tuple[Rows, Scores]:
    """Replace excluded candidates by row -1 with score -inf. rows, scores: (q, c); exclude: one list per query."""
    if exclude is None or len(exclude.indices) == 0:
        return rows, scores
    height = max(int(rows.max(initial=0)), int(exclude.indices.max())) + 1
    is_excluded = np.isin(
        np.arange(len(rows))[:, None] * height + rows, exclude.owners() * height + exclude.indices
    ) & (rows >= 0)
    return np.where(is_excluded, -1, rows), np.where(is_excluded, np.float32(-np.inf), scores)


def top_k(
    queries: Vectors, items: Vectors, *, k: int, exclude: CSR | None = None, keep: Mask | None = None
) -> tuple[Rows, Scores]:
    """Find the k items with the largest inner product for each query.

    Matrix products give the largest product of every group of rows. Each of the k best groups holds a row at least as
    good as the worst of these maxima, so only groups that reach it can hold one of the k best rows, ties included.

    Args:
        queries: (q, d) float32 unit vectors.
        items: (n, d) float32 unit vectors.
        k: Number of items per query.
        exclude: Rows that each query must not find, one list per query.
        keep: (n,) bool, the rows that any query may find. Default: all.

    Returns:
        rows (q, k) int64 and scores (q, k) float32, best first, ties by lower row. Missing results are row -1 with
        score -inf.
    """
    queries, items = np.ascontiguousarray(queries), np.ascontiguousarray(items)
    all_rows = np.full((len(queries), k), -1, dtype=np.int64)
    all_scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
    if k == 0 or len(items) == 0:
        return all_rows, all_scores
    group = _group_size(len(items), k)
    for start in range(0, len(queries), QUERIES):
        part = queries[start : start + QUERIES]
        lists = None if exclude is None else exclude.block(start, start + len(part))
        block = _block_size(len(items), len(part), group)
        maxima = _group_maxima(part, items, group, block, keep, lists)
        groups = _largest(maxima, k, slack=SLACK)
        # Where many items score the same, many groups reach the k-th best: fewer queries at a time.
        step = max(PRODUCTS // (groups.shape[1] * group), 1)
        for at in range(0, len(part), step):
            some = slice(at, min(at + step, len(part)))
            hidden = None if lists is None else lists.block(some.start, some.stop)
            rows = _rows_of(groups[some], group, block, len(items), keep, hidden)
            done = slice(start + some.start, start + some.stop)
            all_rows[done], all_scores[done] = best_candidates(rows, score(part[some], items, rows), k=k)
    return all_rows, all_scores


def _largest(values: Scores, k: int, *, slack: float = 0.0) -> Rows:
    """Columns of the k largest values of each row, and of all that are less than the k-th by at most `slack`.

    values: (q, n). Returns (q, w), where w is the largest number of such values in a row; other rows get further ones.
    """
    if values.shape[1] <= k:
        return np.tile(np.arange(values.shape[1]), (len(values), 1))
    least = np.maximum(np.partition(values, -k, axis=1)[:, -k, None] - np.float32(slack), LOWEST)
    width = max(int((values >= least).sum(axis=1).max()), 1)
    return np.argpartition(values, -width, axis=1)[:, -width:]


def _group_size(items: int, k: int) -> int:
    """Rows in a group, a power of two: as many groups to compare as rows to score, about."""
    return min(1 << round(math.log2(max(math.sqrt(items / (2 * k)), 1.0))), MAX_GROUP)


def _block_size(items: int, queries: int, group: int) -> int:
    """Items in one matrix product, a multiple of the group size."""
    return min(max(PRODUCTS // (queries * group), 1), -(-items // group)) * group


def _group_maxima(
    queries: Vectors, items: Vectors, group: int, block: int, keep: Mask | None, exclude: CSR | None
) -> Scores:
    """Largest product of each group with each query, -inf where no row may be found: (q, groups).

    A block of items holds block / group groups. The rows of a group are that far apart, so maxima are taken over
    contiguous memory whatever the number of queries.
    """
    products = np.empty((len(queries), block), dtype=np.float32)
    maxima = []
    owners = None if exclude is None else exclude.owners()
    penalty = None if keep is None else np.where(keep, np.float32(0), np.float32(-np.inf))
    for start in range(0, len(items), block):
        part = items[start : start + block]
        np.matmul(queries, part.T, out=products[:, : len(part)])
        products[:, len(part) :] = -np.inf
        if penalty is not None:
            products[:, : len(part)] += penalty[start : start + block]
        if exclude is not None and owners is not None:
            inside = (exclude.indices >= start) & (exclude.indices < start + block)
            products[owners[inside], exclude.indices[inside] - start] = -np.inf
        maxima.append(products.reshape(len(queries), group, block // group).max(axis=1))
    return np.concatenate(maxima, axis=1)


def _rows_of(groups: Rows, group: int, block: int, items: int, keep: Mask | None, exclude: CSR | None) -> Rows:
    """Rows of the chosen groups (q, w) of each query: (q, w * group), -1 where a row may not be found."""
    stride = block // group
    first = groups // stride * block + groups % stride
    rows = first[:, :, None] + stride * np.arange(group)  # (q, w, group)
    rows[rows >= items] = -1
    if keep is not None:
        rows[~keep[rows]] = -1
    if exclude is not None:
        place = np.full((len(groups), -(-items // block) * stride), -1)  # of each group among the chosen ones
        np.put_along_axis(place, groups, np.arange(groups.shape[1])[None], axis=1)
        owners, within = exclude.owners(), exclude.indices % block
        chosen = place[owners, exclude.indices // block * stride + within % stride]
        found = chosen >= 0
        rows[owners[found], chosen[found], within[found] // stride] = -1
    return rows.reshape(len(groups), -1)
