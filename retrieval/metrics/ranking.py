"""How good answers are: the rank of every item that a user went on to choose, and what follows from ranks and lists.

Ranks are over the whole catalogue less what is excluded, and an item with the same score as the target counts as
ranked above it: a model that scores all items alike finds nothing.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from retrieval.common.arrays import Rows, Scores
from retrieval.common.csr import CSR

PerUser = npt.NDArray[np.float64]
# (start, stop) -> a fresh (stop - start, items) array of float32 or float64, which the caller may overwrite.
ScoreBlock = Callable[[int, int], npt.NDArray[np.floating]]

BLOCK_BYTES: Final = 64 << 20  # scores in memory at a time; two or three times as much is in use at the peak
NEVER: Final = 1 << 40  # the rank of a truth that cannot be found: excluded, or scored -inf or NaN
FEW_TRUTHS: Final = 24  # up to here comparing the row once per truth is faster than sorting it


class Ranking(NamedTuple):
    """What one pass over all scores leaves.

    ranks: (truths,) int64, 1 is best, in the order of the truth's `indices`.
    lists: (users, k) int64, the best rows, best first, -1 where fewer are left.
    """

    ranks: Rows
    lists: Rows


def ranks(
    queries: npt.NDArray[np.float32],
    items: npt.NDArray[np.float32],
    truth: CSR,
    seen: CSR,
    *,
    block_bytes: int = BLOCK_BYTES,
) -> Rows:
    """The rank of each truth item among all items by inner product, ties against it.

    queries: (users, dim); items: (n, dim); truth and seen: a list of item rows for each user.
    Items of `seen` are left out; a truth that is in `seen`, or whose score is NaN, has rank NEVER.
    Returns (truths,) int64, 1 = best, in the order of `truth.indices`.
    """
    columns = np.ascontiguousarray(items.T)

    def score(start: int, stop: int) -> Scores:
        return queries[start:stop] @ columns  # (users of the block, n)

    return rank_all(score, items=len(items), truth=truth, seen=seen, block_bytes=block_bytes).ranks


def rank_all(
    score: ScoreBlock,
    *,
    items: int,
    truth: CSR,
    seen: CSR,
    k: int = 0,
    block_bytes: int = BLOCK_BYTES,
) -> Ranking:
    """Ranks of the truth and the k best of every user, a block of users at a time.

    score: gives the scores of users start .. stop - 1, one column an item; higher is better.
    """
    assert truth.height == seen.height
    users = truth.height
    k = min(k, items)
    step = max(1, block_bytes // (4 * max(items, 1)))
    all_ranks = np.empty(len(truth.indices), dtype=np.int64)
    lists = np.full((users, k), -1, dtype=np.int64)
    for start in range(0, users, step):
        stop = min(start + step, users)
        scores = score(start, stop)
        assert scores.shape == (stop - start, items)
        hidden = seen.block(start, stop)
        if np.isnan(scores.sum()):  # a sum is NaN where any score is, and costs a fifth of looking at each
            scores[np.isnan(scores)] = -np.inf
        scores[hidden.owners(), hidden.indices] = -np.inf
        wanted = truth.block(start, stop)
        all_ranks[truth.indptr[start] : truth.indptr[stop]] = _rank_block(scores, wanted)
        if k:
            lists[start:stop] = best(scores, k=k)
    return Ranking(all_ranks, lists)


def _rank_block(scores: npt.NDArray[np.floating], truth: CSR) -> Rows:
    """Number of items that score at least as much as each truth, itself included: its rank, ties against it."""
    targets = scores[truth.owners(), truth.indices]
    found = np.empty(len(targets), dtype=np.int64)
    for row, (start, stop) in enumerate(pairwise(truth.indptr.tolist())):
        if stop - start > FEW_TRUTHS:
            ordered = np.sort(scores[row])
            found[start:stop] = len(ordered) - np.searchsorted(ordered, targets[start:stop], side="left")
            continue
        for place in range(start, stop):  # one row at a time: thrice as fast as counting along an axis
            found[place] = np.count_nonzero(scores[row] >= targets[place])
    found[targets == -np.inf] = NEVER
    return found


def best(scores: npt.NDArray[np.floating], *, k: int) -> Rows:
    """The k largest of each row, best first, equal scores by lower column; -1 in place of what scores -inf.

    scores: (rows, columns), without NaN; k <= columns.
    """
    rows, columns = scores.shape
    if rows == 0 or k == 0:
        return np.empty((rows, k), dtype=np.int64)
    # A few more than k, so that ties at the edge are rarely cut; where they are, the row is looked through.
    spare = min(k + 8, columns)
    if spare < columns:
        found = np.argpartition(scores, columns - spare, axis=1)[:, columns - spare :]
        found.sort(axis=1)
    else:
        found = np.broadcast_to(np.arange(columns), (rows, columns))
    values = np.take_along_axis(scores, found, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")[:, :k]
    lists = np.take_along_axis(found, order, axis=1).astype(np.int64, copy=False)
    kept = np.take_along_axis(values, order, axis=1)
    if spare < columns:
        for row in np.flatnonzero((kept[:, -1] == values.min(axis=1)) & (kept[:, -1] > -np.inf)):
            above = kept[row] > kept[row, -1]
            equal = np.flatnonzero(scores[row] == kept[row, -1])
            lists[row, ~above] = equal[: k - np.count_nonzero(above)]
    lists[kept == -np.inf] = -1
    return lists


def recall(ranks: Rows, truth: CSR, *, k: int) -> PerUser:
    """Share of a user's truth that is among the first k. (users,); NaN for a user without truth."""
    return _share(_sums(ranks <= k, truth), truth.lengths.astype(np.float64))


def hit_rate(ranks: Rows, truth: CSR, *, k: int) -> PerUser:
    """1 where any of a user's truth is among the first k, else 0."""
    return _known(_sums(ranks <= k, truth) > 0, truth)


def ndcg(ranks: Rows, truth: CSR, *, k: int) -> PerUser:
    """Discounted gain 1 / log2(1 + rank) of the first k, over that of the best possible order.

    Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques", TOIS 20(4), 2002; binary relevance.
    """
    gains = np.where(ranks <= k, 1.0 / np.log2(1.0 + ranks), 0.0)
    wanted = np.minimum(truth.lengths, k)
    ideal = np.concatenate([[0.0], np.cumsum(1.0 / np.log2(2.0 + np.arange(wanted.max(initial=0))))])
    return _share(_sums(gains, truth), ideal[wanted])


def mrr(ranks: Rows, truth: CSR, *, k: int) -> PerUser:
    """1 / rank of the first of a user's truth, 0 where it comes after k."""
    first = np.full(truth.height, np.iinfo(np.int64).max)
    np.minimum.at(first, truth.owners(), ranks)
    return _known(np.where(first <= k, 1.0 / first, 0.0), truth)


def exceeds_chance(gain: PerUser, *, errors: float = 1.0) -> bool:
    """Whether the mean of a gain by user is more than so many of its standard errors over the users."""
    return bool(gain.mean() > errors * gain.std() / np.sqrt(len(gain)))


def _sums(values: npt.NDArray[Any], truth: CSR) -> PerUser:
    return np.bincount(truth.owners(), weights=values, minlength=truth.height).astype(np.float64, copy=False)


def _known(values: npt.NDArray[Any], truth: CSR) -> PerUser:
    known: PerUser = np.where(truth.lengths > 0, values.astype(np.float64), np.nan)
    return known


def _share(part: PerUser, whole: PerUser) -> PerUser:
    shares = np.full(len(part), np.nan)
    np.divide(part, whole, out=shares, where=whole > 0)
    return shares


def coverage(lists: Rows, *, items: int) -> float:
    """Share of the catalogue that is in at least one list. lists: (users, k), -1 for nothing."""
    return len(np.unique(lists[lists >= 0])) / items if items else 0.0


def novelty(lists: Rows, *, popularity: Rows, users: int) -> float:
    """Mean self-information of what is recommended, log2(users / users who have it), in bits.

    popularity: (items,) how many users have each item in training; one that nobody has counts as had by one.
    Zhou et al., "Solving the apparent diversity-accuracy dilemma of recommender systems", PNAS 107(10), 2010.
    """
    shown = lists[lists >= 0]
    if len(shown) == 0:
        return 0.0
    return float(np.log2(max(users, 1) / np.maximum(popularity, 1))[shown].mean())


def gini(lists: Rows, *, items: int) -> float:
    """How unevenly recommendations fall on items: 0 all alike, towards 1 all on one item."""
    shares = np.sort(np.bincount(lists[lists >= 0], minlength=items).astype(np.float64))
    total = shares.sum()
    if items == 0 or total == 0:
        return 0.0
    # Mean absolute difference over twice the mean, from the sorted values.
    weights = 2.0 * np.arange(1, items + 1) - items - 1
    return float((weights @ shares) / (items * total))
