"""Tuning: choose the cheapest search parameters that reach a recall, measured on users' vectors."""

import time
from dataclasses import dataclass
from typing import Any, Final

from retrieval.common.arrays import Vectors
from retrieval.index import exact
from retrieval.index.factory import DEFAULT_PARAMS, SearchParams, search_grid
from retrieval.index.index import Index

K: Final = 10
DEEP_K: Final = 100
MARGIN: Final = 0.002  # above the requested recall, so that other users reach it too


@dataclass(frozen=True, slots=True)
class Tuned:
    """What tuning found.

    Attributes:
        params: The chosen search parameters.
        recall: recall@10 against exact search, on queries that were not used to choose.
        curve: Recall and time of the parameters that were tried with the chosen k_factor, for `index.json`.
    """

    params: SearchParams
    recall: float
    curve: list[dict[str, Any]]


def sample_size(count: int) -> int:
    """Number of queries to tune an index of `count` rows with: each takes an exact search."""
    return 2_000 if count <= 300_000 else 1_000


def tune(index: Index, queries: Vectors, *, recall: float) -> Tuned:
    """Choose search parameters on half of the queries, and measure their recall on the other half.

    Args:
        index: The index to tune; not modified.
        queries: (q, d) float32 unit vectors in random order.
        recall: Requested recall@10 against exact search.

    Returns:
        The cheapest parameters that reach the recall; if none do, those that come nearest.
    """
    if index.spec.is_flat or len(queries) == 0:
        return Tuned(DEFAULT_PARAMS, 1.0, [])
    half = max(1, len(queries) // 2)
    choosing = _Evaluator(index, queries[:half])
    measured = _grid_search(index, choosing, min(recall + MARGIN, 1.0))
    reaching = [params for params in measured if measured[params][0] >= min(recall + MARGIN, 1.0)]
    if reaching:
        chosen = min(reaching, key=lambda params: measured[params][1])
    else:
        chosen = max(measured, key=lambda params: measured[params][0])
    curve = [
        {
            **params.to_json(),
            "recall@10": round(found, 4),
            "recall@100": round(choosing.measure(params, k=DEEP_K)[0], 4),
            "us_per_query": round(seconds * 1e6, 1),
        }
        for params, (found, seconds) in measured.items()
        if params.k_factor == chosen.k_factor
    ]
    checking = _Evaluator(index, queries[half:] if half < len(queries) else queries)
    return Tuned(chosen, checking.measure(chosen)[0], curve)


def _grid_search(index: Index, choosing: "_Evaluator", recall: float) -> dict[SearchParams, tuple[float, float]]:
    """Recall and CPU seconds per query of parameters: for each k_factor, until the recall is reached."""
    measured: dict[SearchParams, tuple[float, float]] = {}
    done: set[float] = set()
    for params in search_grid(index.spec, index.structure):
        if params.k_factor in done:
            continue
        measured[params] = choosing.measure(params)
        if measured[params][0] >= recall:
            done.add(params.k_factor)
            if params.nprobe is None:
                break
    return measured


class _Evaluator:
    """Queries with their exact results."""

    def __init__(self, index: Index, queries: Vectors) -> None:
        self._index = index
        self._queries = queries
        self._depth = min(DEEP_K, index.count)
        self._scores = exact.top_k(queries, index.base, k=self._depth)[1]

    def measure(self, params: SearchParams, *, k: int = K) -> tuple[float, float]:
        """Recall@k, where equal scores count as found, and CPU seconds per query."""
        k = min(k, self._depth)
        started = time.process_time()
        scores = self._index.search(self._queries, k=k, params=params)[1]
        seconds = (time.process_time() - started) / len(self._queries)
        return float((scores >= self._scores[:, k - 1 : k]).mean()), seconds
