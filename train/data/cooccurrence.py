"""Counts of what follows what, and of what is taken together, in the histories."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy import sparse

from train.data.batches import Histories

Floats = npt.NDArray[np.floating]

FADE = 0.9  # a pair one place further apart counts so much of what it did
FEATURES = 3.0  # interactions that the features of an item count for, beside those that it has


def follows(
    histories: Histories, *, catalogue: int, window: int, both: bool, read: float = 0.5, found: float = 0.5
) -> sparse.csr_array:
    """How strongly item j is expected after item i: (catalogue, catalogue) float32.

    window: pairs up to so many places apart count, FADE^(gap - 1) each.
    both: what came before counts as what came after, so that the matrix is symmetric where `read` equals `found`.
    read, found: powers of the frequency of i and of j that a count is divided by.
    """
    owner = np.repeat(np.arange(len(histories.users)), histories.lengths)
    total = sparse.csr_array((catalogue, catalogue), dtype=np.float32)
    for gap in range(1, min(window, len(owner) - 1) + 1):
        same = np.flatnonzero(owner[gap:] == owner[:-gap])
        pairs = (histories.items[same], histories.items[same + gap])
        weight = np.full(len(same), FADE ** (gap - 1), np.float32)
        total = total + sparse.coo_array((weight, pairs), shape=(catalogue, catalogue)).tocsr()
    if both:
        total = total + total.T
    counts = np.maximum(np.bincount(histories.items, minlength=catalogue), 1).astype(np.float32)
    scaled = sparse.diags_array(counts**-read) @ total @ sparse.diags_array(counts**-found)
    return sparse.csr_array(scaled, dtype=np.float32)


def near(histories: Histories, alike: sparse.csr_array, *, window: int) -> Callable[[Floats], Floats]:
    """What stands near in the histories or is alike by its features: multiplies by a symmetric (items, items) matrix.

    The pairs of `follows`, in both directions, and beside them what items share, as much of it as comes with `FEATURES`
    interactions; over the roots of what both items have of either. So an item that many took is told by who took it,
    one that nobody took by what it is made of. A value counts by its inverse document frequency.
    alike: (rows, items), see `likeness`.
    """
    catalogue = alike.shape[1]
    pairs = follows(histories, catalogue=catalogue, window=window, both=True, read=0, found=0)
    taken = np.bincount(histories.items, minlength=catalogue).astype(np.float32)
    each = float(pairs.sum()) / max(len(histories.items), 1)  # what an interaction comes with
    extent = np.abs(alike)
    size = np.maximum(extent.sum(axis=1), 1)  # (rows,)
    weight = (np.maximum(np.log(catalogue / size), 0) / size).astype(np.float32)[:, None]
    reach = (extent.T @ (weight[:, 0] * extent.sum(axis=1)))[:, None]  # (items, 1)
    told = reach[:, 0] > 0
    share = (FEATURES * each / np.where(reach > 0, reach, np.inf)) ** 0.5  # (items, 1)
    scale = (np.maximum(taken + FEATURES * told, 1) ** -0.5)[:, None]
    share, scale = share.astype(np.float32), scale.astype(np.float32)
    transposed = alike.T.tocsr()

    def product(vectors: Floats) -> Floats:
        scaled = scale * vectors
        found: Floats = scale * (pairs @ scaled + share * (transposed @ (weight * (alike @ (share * scaled)))))
        return found

    return product


def together(histories: Histories, *, catalogue: int) -> Callable[[Floats], Floats]:
    """What is taken by the same users, whatever the order: multiplies by a symmetric (catalogue, catalogue) matrix.

    Entry i, j: the users of both, each counting 1 / items of the user, over the root of the users of i times those of
    j. The matrix is never made: it would be nearly full.
    """
    ones = np.ones(len(histories.items), np.float32)
    taken = sparse.csr_array((ones, histories.items, histories.starts), shape=(len(histories.users), catalogue))
    counts = np.maximum(np.bincount(histories.items, minlength=catalogue), 1).astype(np.float32)
    scale = (counts**-0.5)[:, None]  # (catalogue, 1)
    share = (1 / histories.lengths.astype(np.float32))[:, None]  # (users, 1)
    transposed = taken.T.tocsr()

    def product(vectors: Floats) -> Floats:
        found: Floats = scale * (transposed @ (share * (taken @ (scale * vectors))))
        return found

    return product
