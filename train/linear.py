"""A closed form to start from where order means nothing: EASE, factored into two towers.

EASE (Steck, arXiv 1905.03375) is the best linear map from what a user took to what the user takes, with nothing
explaining itself. Its matrix B, items by items, is never made: its largest singular vectors give what a history adds
up (`source`) and what an item is (`target`), so that source . target is B cut to the rank of the towers.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import sparse

from retrieval import metrics
from retrieval.csr import CSR
from train.batches import Histories

RIDGES = (30.0, 100.0, 300.0, 10.0)  # of the regression, the first where there is nothing to choose by
MOST = 6_000  # height of the matrix that is inverted, users or items, whichever are fewer: seconds
ROUNDS = 5  # of subspace iteration
SPARE = 16  # directions beside those wanted

Floats = npt.NDArray[np.float64]


class Factors(NamedTuple):
    """source: (items, dim), what an item adds to a user. target: (items, dim), unit rows, what an item is."""

    source: npt.NDArray[np.float32]
    target: npt.NDArray[np.float32]


def fits(users: int, items: int) -> bool:
    """Whether the closed form costs seconds."""
    return min(users, items) <= MOST


def factors(histories: Histories, *, catalogue: int, dim: int, ridge: float, generator: np.random.Generator) -> Factors:
    """EASE's matrix cut to rank dim - 1, with targets made unit: what a target's length lacks stands on an axis of
    its own, on which no source stands, so that cosines rank as the inner products do.
    """
    ones = np.ones(len(histories.items))
    taken = sparse.csr_array((ones, histories.items, histories.starts), shape=(len(histories.users), catalogue))
    inverse = _Inverse(taken, ridge)
    rank = min(dim - 1 + SPARE, catalogue)
    basis = generator.standard_normal((catalogue, rank))
    for _ in range(ROUNDS):
        basis = np.linalg.qr(inverse.map(inverse.map_back(basis)))[0]
    left, values, right = np.linalg.svd(inverse.map_back(basis).T, full_matrices=False)  # basis' B
    kept = min(dim - 1, len(values))
    # B is near basis left values right.
    source = (basis @ left[:, :kept]) * values[:kept]  # (items, kept)
    target = right[:kept].T  # (items, kept)
    length = np.linalg.norm(target, axis=1)
    target = target / max(float(length.max(initial=0)), 1e-12)
    lacking = np.sqrt(np.maximum(1 - np.square(target).sum(axis=1), 0))
    wide = np.zeros((2, catalogue, dim))
    wide[0, :, :kept] = source / max(float(np.linalg.norm(source, axis=1).max(initial=0)), 1e-12)
    wide[1, :, :kept] = target
    wide[1, :, dim - 1] = lacking
    return Factors(wide[0].astype(np.float32), wide[1].astype(np.float32))


def best_ridge(histories: Histories, *, catalogue: int, dim: int, history: CSR, wanted: CSR, seen: CSR) -> float:
    """The ridge whose factors find most of what the validated users went on to take.

    history, wanted, seen: their items before, what they took then, and what is not to be ranked.
    """
    if history.height == 0:
        return RIDGES[0]
    ones = np.ones(len(history.indices), np.float32)
    taken = sparse.csr_array((ones, history.indices, history.indptr), shape=(history.height, catalogue))
    found = {}
    for ridge in RIDGES:
        made = factors(histories, catalogue=catalogue, dim=dim, ridge=ridge, generator=np.random.default_rng(0))
        users = (taken @ made.source).astype(np.float32)
        ranks = metrics.ranks(users, made.target, wanted, seen)
        found[ridge] = float(np.nanmean(metrics.ndcg(ranks, wanted, k=100)))
    return max(found, key=lambda ridge: found[ridge])


class _Inverse:
    """B = I - P / diag(P) with P = (X'X + ridge I)^-1, as a map of vectors; by users where they are fewer."""

    def __init__(self, taken: sparse.csr_array, ridge: float) -> None:
        users, items = taken.shape
        self.ridge = ridge
        self.taken, self.back = taken, taken.T.tocsr()
        self.by_users = users <= items
        if self.by_users:
            # (X'X + r I)^-1 = (I - X' (X X' + r I)^-1 X) / r
            self.core = np.linalg.inv((taken @ self.back).toarray() + ridge * np.eye(users))
            explained = np.zeros(items)
            for start in range(0, items, 1024):
                part = self.taken[:, start : start + 1024].toarray()  # (users, block)
                explained[start : start + 1024] = (part * (self.core @ part)).sum(axis=0)
            self.diagonal = (1 - explained) / ridge
        else:
            self.core = np.linalg.inv((self.back @ taken).toarray() + ridge * np.eye(items))
            self.diagonal = np.diag(self.core).copy()

    def _p(self, vectors: Floats) -> Floats:
        if not self.by_users:
            return self.core @ vectors
        out: Floats = (vectors - self.back @ (self.core @ (self.taken @ vectors))) / self.ridge
        return out

    def map(self, vectors: Floats) -> Floats:
        """B vectors."""
        return vectors - self._p(vectors / self.diagonal[:, None])

    def map_back(self, vectors: Floats) -> Floats:
        """B' vectors."""
        return vectors - self._p(vectors) / self.diagonal[:, None]
