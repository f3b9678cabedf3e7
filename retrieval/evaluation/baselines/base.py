"""What every baseline is given and gives, and the sparse helpers that they share."""

from collections.abc import Mapping
from typing import Any, ClassVar, Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from scipy import sparse

from retrieval.common.arrays import Rows, Scores
from retrieval.common.csr import CSR
from retrieval.metrics.ranking import ScoreBlock

Settings = Mapping[str, float]
Choices = Mapping[str, tuple[float, ...]]

# 10^8 pairs of items bought together take about ten seconds and two gigabytes to count.
PAIR_LIMIT: Final = 100_000_000
DENSE_BYTES: Final = 1 << 30
DENSE_FROM: Final = 0.04  # share of cells filled from which a dense product is faster

# The newest item of a history counts 1, the one before it this much, and so on; 1 is no recency at all.
RECENCY: Final = (0.8, 1.0, 0.95, 0.9, 0.7, 0.6, 0.5)


class Training(NamedTuple):
    """What a baseline is fitted on: the training rows, and nothing else.

    histories: each user's items, oldest first. times: aligned with `histories.indices`, or None where there are none.
    """

    histories: CSR
    items: int
    times: npt.NDArray[np.float64] | None = None


class Baseline(Protocol):
    """A simple model to be judged beside.

    choices: the settings that `tune` may try, each with its starting value first.
    """

    choices: ClassVar[Choices]

    def fit(self, training: Training) -> None:
        """Learn from training rows. What depends on settings is made, and kept, when first scored with them."""

    def score(self, histories: CSR, settings: Settings) -> Scores:
        """Score every item for users with these histories, oldest first: a fresh (users, items) array."""


def scorer(model: Baseline, histories: CSR, settings: Settings) -> ScoreBlock:
    """A baseline's scores a block of users at a time, as `metrics.rank_all` asks for them."""
    return lambda first, last: model.score(histories.block(first, last), settings)


def start(choices: Choices) -> dict[str, float]:
    """The starting settings: the first of each choice."""
    return {name: values[0] for name, values in choices.items()}


def incidence(histories: CSR, *, items: int) -> Any:
    """Users x items with ones, float32 scipy CSR."""
    ones = np.ones(len(histories.indices), dtype=np.float32)
    return sparse.csr_array((ones, histories.indices, histories.indptr), shape=(histories.height, items))


def recency_weights(histories: CSR, *, items: int, decay: float) -> Any:
    """Users x items, decay ** (distance from the newest), float32 scipy CSR."""
    weights = np.power(np.float32(decay), histories.ages().astype(np.float32))
    return sparse.csr_array((weights, histories.indices, histories.indptr), shape=(histories.height, items))


def bounded(histories: CSR, *, limit: int = PAIR_LIMIT) -> CSR:
    """The newest items of each history, as many as keep the pairs within histories below `limit`."""
    lengths = histories.lengths
    keep = int(lengths.max(initial=1))
    while keep > 2 and int((np.minimum(lengths, keep) ** 2).sum()) > limit:
        keep = keep * 4 // 5
    return histories.newest(keep)


def packed(matrix: Any) -> Any:
    """The matrix as the faster of the two kinds: dense where it is full enough and not too large."""
    rows, columns = matrix.shape
    full = matrix.nnz > DENSE_FROM * rows * columns
    return matrix.toarray() if full and 4 * rows * columns <= DENSE_BYTES else matrix


def product(weights: Any, matrix: Any) -> Scores:
    """Weights (users, n) sparse times matrix (n, items), dense or sparse: a dense float32 array."""
    scores = weights @ matrix
    dense: Scores = np.asarray(scores.toarray() if sparse.issparse(scores) else scores, dtype=np.float32)
    return dense


def power(counts: Rows, exponent: float) -> npt.NDArray[np.float32]:
    """Counts ** -exponent, and 0 where the count is."""
    safe = np.maximum(counts, 1).astype(np.float32)
    return np.where(counts > 0, safe ** np.float32(-exponent), np.float32(0))
