"""MMR: re-rank the best candidates for diversity by maximal marginal relevance.

Carbonell and Goldstein, "The use of MMR, diversity-based reranking for reordering documents and producing summaries",
SIGIR 1998: each next item maximises `weight * score - (1 - weight) * (greatest similarity to the items before it)`.
Here `diversity` is 1 - weight: 0 keeps the order by score, 1 considers only the similarity.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from retrieval.common.arrays import Vectors

Order = npt.NDArray[np.int64]

CANDIDATES_PER_ITEM: Final = (
    10  # beyond some times k, candidates are too far from the user to be worth their difference
)
LEAST_CANDIDATES: Final = 50


def candidates(k: int) -> int:
    """Number of candidates to re-rank for k items."""
    return max(k * CANDIDATES_PER_ITEM, LEAST_CANDIDATES)


def reorder(scores: npt.NDArray[np.float32], vectors: Vectors, *, k: int, diversity: float) -> Order:
    """Choose k candidates.

    Args:
        scores: (c,) float32, best first.
        vectors: (c, d) float32 unit vectors.
        k: Number of candidates to choose.
        diversity: 0 to 1.

    Returns:
        Positions of the chosen candidates, (min(k, c),) int64, in order; ties by the better score.
    """
    relevance = (1.0 - diversity) * scores.astype(np.float64)
    closest = np.full(len(scores), -np.inf)
    open_ = np.ones(len(scores), dtype=np.bool_)
    chosen: list[int] = []
    for _ in range(min(k, len(scores))):
        penalty = diversity * np.where(np.isfinite(closest), closest, 0.0)
        at = int(np.argmax(np.where(open_, relevance - penalty, -np.inf)))
        chosen.append(at)
        open_[at] = False
        closest = np.maximum(closest, vectors @ vectors[at])
    return np.array(chosen, dtype=np.int64)
