"""Tuning: how hard an index must be searched for the recall that is asked, measured on users' vectors."""

import operator
import time
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import faiss
import numpy as np
import numpy.typing as npt

from retrieval.index import exact
from retrieval.index.arranging import can_arrange
from retrieval.index.factory import LEAST, SearchParams, efforts
from retrieval.index.guides import Guides, can_guide, fit
from retrieval.index.index import UNFILTERED_SHARE, Index, Mask
from retrieval.index.probing import looked_into
from retrieval.index.row_filter import few_kept

Vectors = npt.NDArray[np.float32]

K: Final = 10
DEEP: Final = 100
MARGIN: Final = 0.002  # above what is asked, for the half of the users that only check
FILTERED: Final = 200  # queries that are asked under filters
FILTER_MARGIN: Final = 0.008  # a filtered search may find so much less, on attributes made to be hard
REACHES: Final = tuple(round(0.005 * step, 3) for step in range(61))
LISTS_A_CLUSTER: Final = 4
GUIDED_PROBES: Final = 5  # below, guides to the lists do not help
MANY_ITEMS: Final = 400  # below, every query looks into the same number of lists: choosing takes as long as it saves


@dataclass(frozen=True, slots=True)
class Tuned:
    """What tuning found: the effort, and what `index.json` tells of it."""

    effort: SearchParams
    recall: float
    curve: list[dict[str, Any]]


def sample_size(count: int) -> int:
    """How many users' vectors are worth asking for, over an index of `count` rows: the truth takes a full scan."""
    return 2_000 if count <= 300_000 else 1_000


def tune(index: Index, queries: Vectors, *, recall: float) -> Tuned:
    """The cheapest effort whose recall@10 reaches what is asked, on half of the queries; measured on the other half.

    Where many lists must be looked into, the index is also guided to them by that half (see `retrieval.index.guides`).
    queries: (q, d) unit rows, q >= 1, in no order that means anything.
    """
    if index.kind.is_flat or len(queries) == 0:
        return Tuned(LEAST, 1.0, [])
    half = max(1, len(queries) // 2)
    choosing, checking = (
        _Truth(index, queries[:half]),
        _Truth(index, queries[half:] if half < len(queries) else queries),
    )
    wanted = min(recall + MARGIN, 1.0)
    tried = _sweep(efforts(index.kind, index.structure), choosing, wanted)
    chosen = _cheapest(tried, wanted)
    if index.lists is not None and (chosen.probes or 0) >= GUIDED_PROBES:
        guides = choosing.guides(recall=wanted)
        if guides is not None:
            index.guide(guides.vectors)
            choosing.near = guides.near
            tried = _sweep(efforts(index.kind, index.structure), choosing, wanted)
            chosen = _cheapest(tried, wanted)
    if index.lists is not None and (chosen.probes or 0) * index.lists.mean_size >= MANY_ITEMS:
        as_needed = efforts(index.kind, index.structure, gaps=choosing.gaps())
        tried = _sweep((effort for effort in as_needed if effort.factor == chosen.factor), choosing, wanted)
        chosen = _cheapest(tried, wanted)
    measured = checking.measure(chosen)[0]
    reach = _reach(index, queries[:FILTERED], chosen, recall=tried[chosen][0])
    curve = [
        {
            **effort.to_json(),
            "recall@10": round(found, 4),
            "recall@100": round(choosing.measure(effort, k=DEEP)[0], 4),
            "us_per_query": round(cost * 1e6, 1),
        }
        for effort, (found, cost) in tried.items()
        if effort.factor == chosen.factor
    ]
    if index.lists is not None and can_arrange(index.lists.ivf):
        index.arrange(*choosing.looks(chosen))
    return Tuned(replace(chosen, reach=reach), measured, curve)


def _sweep(
    ladder: Iterable[SearchParams], choosing: "_Truth", wanted: float
) -> dict[SearchParams, tuple[float, float]]:
    """Recall and cost of efforts, for each factor until the recall that is wanted is reached."""
    tried: dict[SearchParams, tuple[float, float]] = {}
    factor_done: set[float] = set()
    for effort in ladder:
        if effort.factor in factor_done:
            continue
        tried[effort] = choosing.measure(effort)
        if tried[effort][0] >= wanted:
            factor_done.add(effort.factor)
            if not (effort.probes or effort.beam):
                break
    return tried


def _cheapest(tried: dict[SearchParams, tuple[float, float]], wanted: float) -> SearchParams:
    """Of those that reach what is wanted; else the one that comes nearest."""
    by_cost = sorted(tried, key=lambda effort: tried[effort][1])
    reaching = [effort for effort in by_cost if tried[effort][0] >= wanted]
    return reaching[0] if reaching else max(tried, key=lambda effort: tried[effort][0])


def _reach(index: Index, queries: Vectors, effort: SearchParams, *, recall: float) -> float | None:
    """How far a filtered search must look to find as much as an unfiltered one, whatever the attribute.

    recall: of the unfiltered one. None if no filtered search goes by lists.
    """
    if index.lists is None or index.count * UNFILTERED_SHARE <= few_kept(index.height):
        return None
    trials = []
    for mask in _attributes(index, queries):
        among = index.select(mask)
        trials.append((among, exact.top_k(queries, index.base, k=K, keep=among.base_mask)[1][:, -1:]))

    def found(reach: float) -> list[float]:
        tried = replace(effort, reach=reach)
        return [
            float((index.search(queries, k=K, among=among, effort=tried)[1] >= least).mean()) for among, least in trials
        ]

    wanted = [min(recall, most) - FILTER_MARGIN for most in found(REACHES[-1])]
    at = bisect_left(REACHES, True, key=lambda reach: all(map(operator.ge, found(reach), wanted)))
    return REACHES[min(at, len(REACHES) - 1)]


def _attributes(index: Index, queries: Vectors) -> Iterator[Mask]:
    """What filters may keep, a fifth or more: items on one side, those least like an average user, whole clusters."""
    random = np.random.default_rng(0)
    share = max(0.2, 1.1 * few_kept(index.height) / len(index.base))
    for direction in (random.normal(size=index.dim).astype(np.float32), queries.mean(axis=0)):
        side = index.base @ direction
        yield side <= np.quantile(side, share)
    owner = _clusters(index, random)
    order = random.permutation(owner.max() + 1)
    enough = np.searchsorted(np.cumsum(np.bincount(owner)[order]), share * len(owner)) + 1
    yield np.isin(owner, order[:enough])


def _clusters(index: Index, random: np.random.Generator) -> npt.NDArray[np.int64]:
    """The cluster of each item, of clusters that are larger than lists and cross them."""
    assert index.lists is not None
    count = max(8, len(index.lists.sizes) // LISTS_A_CLUSTER)
    sample = np.sort(random.choice(len(index.base), min(len(index.base), 64 * count), replace=False))
    means = faiss.Kmeans(index.dim, count, niter=8, seed=0, spherical=True, min_points_per_centroid=1)
    means.train(index.base[sample])
    columns = np.ascontiguousarray(means.centroids.T)
    steps = range(0, len(index.base), 16_384)
    return np.concatenate([(index.base[start : start + 16_384] @ columns).argmax(axis=1) for start in steps])


class _Truth:
    """Queries and what exact search finds for them.

    near: (q, lists) if lists are chosen by what these queries taught: how near they would be by the others alone.
    """

    def __init__(self, index: Index, queries: Vectors) -> None:
        self.near: Vectors | None = None
        self._index = index
        self._queries = queries
        self._depth = min(DEEP, index.count)
        self._rows, self._scores = exact.top_k(queries, index.base, k=self._depth)

    def guides(self, *, recall: float) -> Guides | None:
        """Vectors to choose lists by, if the structure may take some and they are better than what it has."""
        lists = self._index.lists
        if lists is None or not can_guide(lists.ivf):
            return None
        return fit(lists, self._queries, self._rows[:, :K], recall=recall)

    def looks(self, effort: SearchParams) -> tuple[Vectors, Mask, Vectors]:
        """The queries, the lists that they look into (q, lists), and what an item must score to be among the first."""
        assert self._index.probing is not None
        near = self._queries @ self._index.probing.centroids.T if self.near is None else self.near
        return self._queries, looked_into(near, effort), self._scores[:, -1]

    def gaps(self) -> Vectors:
        """How much less near each list is than the nearest: (q, lists)."""
        assert self._index.probing is not None
        if self.near is None:
            return self._index.probing.gaps(self._queries)
        gaps: Vectors = self.near.max(axis=1, keepdims=True) - self.near
        return gaps

    def measure(self, effort: SearchParams, *, k: int = K) -> tuple[float, float]:
        """Recall@k against exact search, equal scores counting as equal, and CPU seconds a query."""
        k = min(k, self._depth)
        started = time.process_time()
        scores = self._index.search(self._queries, k=k, effort=effort)[1]
        cost = (time.process_time() - started) / len(self._queries)
        if self.near is None:
            return float((scores >= self._scores[:, k - 1 : k]).mean()), cost
        assert self._index.lists is not None
        looked = looked_into(self.near, effort)
        owners = self._index.lists.owners[self._rows[:, :k]]
        return float(np.take_along_axis(looked, owners, axis=1).mean()), cost
