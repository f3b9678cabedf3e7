"""Counts of items that follow each other, or that the same users have, in the histories."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy import sparse

from train.data.batches import Histories

Floats = npt.NDArray[np.floating]

FADE = 0.9  # weight of a pair relative to one that is a place nearer
FEATURES = 3.0  # number of interactions that the features of an item count for


def pair_counts(histories: Histories, *, catalogue: int, window: int) -> sparse.csr_array:
    """Count how often two items are at most `window` places apart, with weight FADE^(distance - 1).

    Returns:
        (catalogue, catalogue) float32, symmetric.
    """
    owner = np.repeat(np.arange(len(histories.users)), histories.lengths)
    total = sparse.csr_array((catalogue, catalogue), dtype=np.float32)
    for gap in range(1, min(window, len(owner) - 1) + 1):
        same = np.flatnonzero(owner[gap:] == owner[:-gap])
        pairs = (histories.items[same], histories.items[same + gap])
        weight = np.full(len(same), FADE ** (gap - 1), np.float32)
        total = total + sparse.coo_array((weight, pairs), shape=(catalogue, catalogue)).tocsr()
    return sparse.csr_array(total + total.T, dtype=np.float32)


def windowed(histories: Histories, feature_rows: sparse.csr_array, *, window: int) -> Callable[[Floats], Floats]:
    """Relate items that are near each other in the histories or have features in common.

    The matrix is the sum of the `pair_counts` and of the feature values that two items share, where the
    features of an item weigh as much as `FEATURES` interactions. Both are divided by the roots of the items' totals. So
    a frequent item is related by its interactions, a new one by its features. A feature value is weighted by its
    inverse document frequency.

    Args:
        histories: Of all users.
        feature_rows: (values, items), see `train.ease.feature_rows`.
        window: Maximum distance of a pair.

    Returns:
        A function that multiplies (items, n) by the symmetric (items, items) matrix.
    """
    catalogue = feature_rows.shape[1]
    pairs = pair_counts(histories, catalogue=catalogue, window=window)
    frequency = np.bincount(histories.items, minlength=catalogue).astype(np.float32)
    per_interaction = float(pairs.sum()) / max(len(histories.items), 1)  # pairs
    magnitude = np.abs(feature_rows)
    size = np.maximum(magnitude.sum(axis=1), 1)  # (values,)
    weight = (np.maximum(np.log(catalogue / size), 0) / size).astype(np.float32)[:, None]
    total = (magnitude.T @ (weight[:, 0] * magnitude.sum(axis=1)))[:, None]  # (items, 1)
    has_features = total[:, 0] > 0
    share = (FEATURES * per_interaction / np.where(total > 0, total, np.inf)) ** 0.5  # (items, 1)
    scale = (np.maximum(frequency + FEATURES * has_features, 1) ** -0.5)[:, None]
    share, scale = share.astype(np.float32), scale.astype(np.float32)
    transposed = feature_rows.T.tocsr()

    def product(vectors: Floats) -> Floats:
        scaled = scale * vectors
        shared = share * (transposed @ (weight * (feature_rows @ (share * scaled))))
        found: Floats = scale * (pairs @ scaled + shared)
        return found

    return product


def by_user(histories: Histories, *, catalogue: int) -> Callable[[Floats], Floats]:
    """Relate items that the same users have, whatever the order.

    Entry i, j of the matrix is the number of users of both, each weighted by 1 / (number of the user's items), divided
    by the root of the number of users of i times that of j. The matrix is nearly full and is never built.

    Returns:
        A function that multiplies (catalogue, n) by the symmetric (catalogue, catalogue) matrix.
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
