"""(R'R + ridge)^-1 as a map of vectors, for sparse rows R: exact where it is small, else found by iteration."""

from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from scipy import sparse

DIRECT = 4_000  # height of a matrix that is inverted as it is, rows or items, whichever are fewer: seconds
TOLERANCE = 3e-3  # share of a vector that may be left, where the inverse is found by iteration
STEPS = 40  # of that iteration, at most
ROUNDS = 4  # of subspace iteration

Floats = npt.NDArray[np.floating]


class Leading(NamedTuple):
    """The largest eigenvectors of R'R. basis: (items, k) orthonormal; values: (k,), the largest first."""

    basis: Floats
    values: Floats


class Inverse(Protocol):
    """The map, and its diagonal."""

    @property
    def diagonal(self) -> Floats:
        """(items,)."""

    def __call__(self, vectors: Floats) -> Floats:
        """(items, n) -> (items, n)."""


def leading(rows: sparse.csr_array, *, width: int, generator: np.random.Generator) -> Leading:
    """Find about the largest eigenvectors by subspace iteration (arXiv 0909.4061, algorithm 4.4).

    rows: (m, items). width: how many; all, where there are fewer items.
    """
    back = rows.T.tocsr()
    basis = generator.standard_normal((rows.shape[1], min(width, rows.shape[1]))).astype(rows.dtype)
    for _ in range(ROUNDS):
        basis = np.linalg.qr(back @ (rows @ basis))[0]
    values, turn = np.linalg.eigh(basis.T @ (back @ (rows @ basis)))  # ascending
    return Leading(basis @ turn[:, ::-1], np.maximum(values[::-1], 0))


def inverse(rows: sparse.csr_array, ridge: float, known: Leading | None, *, generator: np.random.Generator) -> Inverse:
    """rows: (m, items). known: of these rows, found if None; what the iteration leans on, where there is one."""
    if min(rows.shape) <= DIRECT:
        return Direct(rows, ridge)
    return Iterated(rows, ridge, known or leading(rows, width=64, generator=generator), generator=generator)


class Direct:
    """By rows where they are fewer than the items: (R'R + r)^-1 = (1 - R' (R R' + r)^-1 R) / r."""

    def __init__(self, rows: sparse.csr_array, ridge: float) -> None:
        height, items = rows.shape
        rows = rows.astype(np.float64)
        self.ridge, self.rows, self.back = ridge, rows, rows.T.tocsr()
        self.by_rows = height <= items
        gram = (rows @ self.back if self.by_rows else self.back @ rows).toarray()
        self.core = np.linalg.inv(gram + ridge * np.eye(len(gram)))

    @cached_property
    def diagonal(self) -> Floats:
        if not self.by_rows:
            return np.diag(self.core).copy()
        explained = np.zeros(self.rows.shape[1])
        for start in range(0, len(explained), 1024):
            part = self.rows[:, start : start + 1024].toarray()  # (rows, block)
            explained[start : start + 1024] = (part * (self.core @ part)).sum(axis=0)
        found: Floats = (1 - explained) / self.ridge
        return found

    def __call__(self, vectors: Floats) -> Floats:
        out: Floats = (
            (vectors - self.back @ (self.core @ (self.rows @ vectors))) / self.ridge
            if self.by_rows
            else self.core @ vectors
        )
        return out


class Iterated:
    """By conjugate gradients on all columns at once, which `known` makes short: what it spans is solved at once.

    The diagonal is estimated from random signs z, as the mean of z * P z (Bekas, Kokiopoulou and Saad 2007), of what
    `known` does not tell.
    """

    def __init__(self, rows: sparse.csr_array, ridge: float, known: Leading, *, generator: np.random.Generator) -> None:
        self.rows, self.back, self.ridge, self.known = rows, rows.T.tocsr(), rows.dtype.type(ridge), known
        self.generator = generator
        # What an eigenvector's share of a vector is divided by, less what everything is.
        self.gain = (1 / (known.values + self.ridge) - 1 / self.ridge).astype(rows.dtype)[:, None]  # (k, 1)

    @cached_property
    def diagonal(self) -> Floats:
        signs = self.generator.choice(np.array([-1, 1], self.rows.dtype), self.known.basis.shape)  # (items, k)
        told = 1 / self.ridge + np.square(self.known.basis) @ self.gain[:, 0]  # (items,)
        estimate = told + (signs * (self(signs) - self._nearly(signs))).mean(axis=1)
        # Between what no other item and what all others could explain.
        found: Floats = np.clip(estimate, 1e-3 / self.ridge, 1 / self.ridge)
        return found

    def _nearly(self, vectors: Floats) -> Floats:
        basis = self.known.basis
        out: Floats = vectors / self.ridge + basis @ (self.gain * (basis.T @ vectors))
        return out

    def __call__(self, vectors: Floats) -> Floats:
        vectors = vectors.astype(self.rows.dtype, copy=False)
        enough = TOLERANCE**2 * np.maximum(np.square(vectors).sum(axis=0), 1e-30)
        solved, left = np.zeros_like(vectors), vectors.copy()
        step = near = self._nearly(left)
        weight = (left * near).sum(axis=0)
        for _ in range(STEPS):
            made = self.back @ (self.rows @ step) + self.ridge * step
            length = weight / np.maximum((step * made).sum(axis=0), 1e-30)
            solved += length * step
            left -= length * made
            if (np.square(left).sum(axis=0) <= enough).all():
                break
            near = self._nearly(left)
            before, weight = weight, (left * near).sum(axis=0)
            step = near + (weight / np.maximum(before, 1e-30)) * step
        return solved
