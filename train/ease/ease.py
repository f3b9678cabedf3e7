"""EASE, factored into item vectors of a few hundred dimensions.

EASE (Steck 2019, arXiv 1905.03375) predicts what a user takes from what the user took, by a linear model without
self-similarity: scores are ``R B`` for the users x items matrix R, with

    P = (R'R + ridge I)^-1
    B = I - P diag(P)^-1

A tower cannot hold the items x items matrix B, so B is cut to a rank: the directions kept are those along which the
predictions ``R B`` vary most (reduced-rank regression, Izenman 1975). The result is two vectors for each item: what it
adds to a user's vector (`source`) and what it is found by (`target`), so that ``source @ target.T`` approximates B.
"""

from functools import cached_property
from typing import Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from scipy import sparse
from sklearn.utils.extmath import randomized_svd

from retrieval.common.csr import CSR
from train.data.batches import Histories

# A user's row of R is divided by (number of its items)^(LENGTH_EXPONENT / 2): a user who took everything says little of
# each item.
LENGTH_EXPONENT: Final = 0.5
# In choosing directions an item's predictions are divided by (number of its users)^POPULARITY_EXPONENT. Otherwise all
# directions describe the few items that everybody takes.
POPULARITY_EXPONENT: Final = 0.2
MAX_INTERACTIONS: Final = 3_000_000  # above this, EASE is fitted on a random sample of the users
MAX_USERS: Final = 300_000
DENSE_ITEMS: Final = 4_000  # up to this many items R'R is inverted as a dense matrix, which takes seconds
EXTRA_DIRECTIONS: Final = 16  # beyond those wanted, so that those wanted converge (arXiv 0909.4061, section 4.4)
SUBSPACE_ROUNDS: Final = 2
CG_STEPS: Final = 40
CG_TOLERANCE: Final = 3e-3  # residual norm over the norm of the right-hand side

Floats = npt.NDArray[np.floating]
Vectors = npt.NDArray[np.float32]


class EaseFactors(NamedTuple):
    """EASE as vectors of items.

    source: (items, dim) float32, what an item adds to the vector of a user who took it.
    target: (items, dim) float32 unit vectors, what an item is found by.
    """

    source: Vectors
    target: Vectors


def interaction_matrix(histories: Histories, *, items: int, seed: int) -> sparse.csr_array:
    """The (users, items) float32 matrix R with 1 where a user took an item.

    Above `MAX_INTERACTIONS` or `MAX_USERS` it holds a random sample of the users, drawn with `seed`.
    """
    ones = np.ones(len(histories.items), np.float32)
    matrix = sparse.csr_array((ones, histories.items, histories.starts), shape=(len(histories.users), items))
    if matrix.nnz > MAX_INTERACTIONS or matrix.shape[0] > MAX_USERS:
        order = np.random.default_rng(seed).permutation(matrix.shape[0])[:MAX_USERS]
        count = int(np.searchsorted(np.cumsum(np.diff(matrix.indptr)[order]), MAX_INTERACTIONS, side="right"))
        matrix = matrix[np.sort(order[: max(count, 1)])]
    return matrix


def fit_ease(
    interactions: sparse.csr_array,
    features: sparse.csr_array,
    *,
    dim: int,
    ridge: float,
    feature_weight: float,
    seed: int,
) -> EaseFactors:
    """Fit EASE and cut it to the dimensions of a tower.

    Args:
        interactions: (users, items) float32, 1 where a user took an item.
        features: (rows, items) float32, see `feature_rows`; further rows of the regression.
        dim: Length of the vectors. One dimension makes targets unit vectors, dim - 1 hold directions.
        ridge: L2 regularisation of the regression.
        feature_weight: Weight of the feature rows beside the users' rows; 0 leaves them out.
        seed: Of the random projections. The same seed gives the same factors.

    Returns:
        Factors with unit targets. ``source[history].sum(0) @ target.T`` ranks items as the cut B does.

    """
    rows = _weighted_rows(interactions, features, feature_weight)
    rank = min(dim - 1 + EXTRA_DIRECTIONS, *rows.shape)
    _, singular, transposed = randomized_svd(rows, rank, n_iter=4, random_state=seed)
    basis = np.ascontiguousarray(transposed.T)  # (items, rank)
    inverse: GramInverse = (
        DenseInverse(rows, ridge)
        if rows.shape[1] <= DENSE_ITEMS
        else IterativeInverse(rows, ridge, basis=basis, eigenvalues=singular**2, seed=seed)
    )
    diagonal = inverse.diagonal[:, None]
    users_of_item = np.maximum(np.bincount(interactions.indices, minlength=rows.shape[1]), 1)
    level = (users_of_item**-POPULARITY_EXPONENT).astype(np.float32)[:, None]  # (items, 1)
    transposed_interactions = interactions.T.tocsr()

    def levelled_weights(vectors: Floats) -> Floats:
        """B diag(level) vectors."""
        levelled = level * vectors
        return levelled - inverse(levelled / diagonal)

    for _ in range(SUBSPACE_ROUNDS):
        predicted = transposed_interactions @ (interactions @ levelled_weights(basis))
        basis = np.linalg.qr(level * (predicted - inverse(predicted) / diagonal))[0]
    source = levelled_weights(basis)
    predictions = interactions @ source  # (users, rank)
    rotation = np.linalg.eigh(predictions.T @ predictions)[1][:, ::-1][:, : dim - 1]
    return _with_unit_targets(source @ rotation, basis @ rotation / level, dim=dim)


def _weighted_rows(
    interactions: sparse.csr_array, features: sparse.csr_array, feature_weight: float
) -> sparse.csr_array:
    """The rows of the regression, each times the root of its weight: users first, then features."""
    lengths = np.maximum(np.diff(interactions.indptr), 1)
    usual = lengths.mean()
    scale = (lengths / usual) ** (-LENGTH_EXPONENT / 2)
    weighted = [sparse.diags_array(scale.astype(np.float32)) @ interactions]
    if feature_weight and features.shape[0]:
        lengths = np.maximum(np.asarray(features.power(2).sum(axis=1), np.float64), 1e-12)
        scale = np.sqrt(feature_weight) * (lengths / usual) ** (-LENGTH_EXPONENT / 2)
        weighted.append(sparse.diags_array(scale.astype(np.float32)) @ features)
    return sparse.csr_array(sparse.vstack(weighted, format="csr"), dtype=np.float32)


def user_vectors(factors: EaseFactors, history: CSR, *, recency_decay: float) -> Vectors:
    """Vectors of users, not scaled to unit length.

    Args:
        factors: Of the items.
        history: Item rows of each user, oldest first.
        recency_decay: An item counts recency_decay ** (number of newer items in the history).

    Returns:
        (users, dim) float32.

    """
    weight = np.float32(recency_decay) ** history.ages().astype(np.float32)
    matrix = sparse.csr_array((weight, history.indices, history.indptr), (history.height, len(factors.source)))
    vectors: Vectors = matrix @ factors.source
    return vectors


def _with_unit_targets(source: Floats, target: Floats, *, dim: int) -> EaseFactors:
    """Scale both, and fill the last dimension of the targets so that they are unit vectors.

    Sources are 0 there, so inner products keep their order. source, target: (items, at most dim - 1).
    """
    items, rank = target.shape
    full_source, full_target = np.zeros((2, items, dim), np.float32)
    full_source[:, :rank] = source / max(float(np.linalg.norm(source, axis=1).max(initial=0)), 1e-12)
    full_target[:, :rank] = target / max(float(np.linalg.norm(target, axis=1).max(initial=0)), 1e-12)
    full_target[:, -1] = np.sqrt(np.maximum(1 - np.square(full_target).sum(axis=1), 0))
    return EaseFactors(full_source, full_target)


class GramInverse(Protocol):
    """P = (R'R + ridge I)^-1 as a linear map, with its diagonal."""

    @property
    def diagonal(self) -> Floats:
        """(items,)."""

    def __call__(self, vectors: Floats) -> Floats:
        """P vectors. (items, n) -> (items, n)."""


class DenseInverse:
    """P as a dense matrix."""

    def __init__(self, rows: sparse.csr_array, ridge: float) -> None:
        gram = (rows.T @ rows).toarray().astype(np.float64)
        gram[np.diag_indices_from(gram)] += ridge
        self._matrix = np.linalg.inv(gram).astype(np.float32)

    @property
    def diagonal(self) -> Floats:
        return self._matrix.diagonal()

    def __call__(self, vectors: Floats) -> Floats:
        product: Floats = self._matrix @ vectors
        return product


class IterativeInverse:
    """P by conjugate gradients on all columns at once, for catalogues whose R'R does not fit in memory.

    The leading eigenvectors of R'R precondition it: what they span is solved exactly, the rest as if R'R were 0.
    """

    def __init__(self, rows: sparse.csr_array, ridge: float, *, basis: Floats, eigenvalues: Floats, seed: int) -> None:
        """basis: (items, n) leading eigenvectors of R'R with their eigenvalues (n,)."""
        self._rows, self._transposed, self._ridge, self._basis = rows, rows.T.tocsr(), np.float32(ridge), basis
        self._correction = (1 / (eigenvalues + ridge) - 1 / ridge).astype(np.float32)[:, None]  # (n, 1)
        self._seed = seed

    @cached_property
    def diagonal(self) -> Floats:
        """Exact within the span of the basis; beyond, the mean of z * P z for random signs z (Bekas et al. 2007)."""
        generator = np.random.default_rng(self._seed)
        signs = generator.choice(np.array([-1, 1], np.float32), self._basis.shape)
        spanned = 1 / self._ridge + np.square(self._basis) @ self._correction[:, 0]
        estimate = spanned + (signs * (self(signs) - self._precondition(signs))).mean(axis=1)
        # P's diagonal lies in (0, 1 / ridge]; an estimate near 0 would divide by noise.
        clipped: Floats = np.clip(estimate, 1e-3 / self._ridge, 1 / self._ridge)
        return clipped

    def _precondition(self, vectors: Floats) -> Floats:
        product: Floats = vectors / self._ridge + self._basis @ (self._correction * (self._basis.T @ vectors))
        return product

    def __call__(self, vectors: Floats) -> Floats:
        vectors = vectors.astype(np.float32, copy=False)
        tolerance = CG_TOLERANCE**2 * np.maximum(np.square(vectors).sum(axis=0), 1e-30)
        solution, residual = np.zeros_like(vectors), vectors.copy()
        direction = preconditioned = self._precondition(residual)
        energy = (residual * preconditioned).sum(axis=0)
        for _ in range(CG_STEPS):
            product = self._transposed @ (self._rows @ direction) + self._ridge * direction
            step = energy / np.maximum((direction * product).sum(axis=0), 1e-30)
            solution += step * direction
            residual -= step * product
            if (np.square(residual).sum(axis=0) <= tolerance).all():
                break
            preconditioned = self._precondition(residual)
            previous, energy = energy, (residual * preconditioned).sum(axis=0)
            direction = preconditioned + (energy / np.maximum(previous, 1e-30)) * direction
        return solution
