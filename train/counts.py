"""Counts of what follows what in the histories."""

import numpy as np
from scipy import sparse

from train.batches import Histories

FADE = 0.9  # a pair one place further apart counts so much of what it did
POPULARITY = 0.5  # power of each item's frequency that a count is divided by


def follows(histories: Histories, *, catalogue: int, window: int) -> sparse.csr_array:
    """How strongly two items stand together: (catalogue, catalogue) float32, symmetric.

    window: pairs up to so many places apart count, FADE^(gap - 1) each; divided by (users(i) users(j))^POPULARITY.
    """
    owner = np.repeat(np.arange(len(histories.users)), histories.lengths)
    total = sparse.csr_array((catalogue, catalogue), dtype=np.float32)
    for gap in range(1, min(window, len(owner) - 1) + 1):
        same = np.flatnonzero(owner[gap:] == owner[:-gap])
        pairs = (histories.items[same], histories.items[same + gap])
        weight = np.full(len(same), FADE ** (gap - 1), np.float32)
        total = total + sparse.coo_array((weight, pairs), shape=(catalogue, catalogue)).tocsr()
    counts = np.maximum(np.bincount(histories.items, minlength=catalogue), 1).astype(np.float32)
    scale = sparse.diags_array(counts**-POPULARITY)
    return sparse.csr_array(scale @ (total + total.T) @ scale, dtype=np.float32)
