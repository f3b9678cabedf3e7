"""Soft targets: items sampled from counts of which item follows which (distillation).

A sparse history says little about the many items that could have followed; the counts over all histories say more. The
model is trained on items sampled from them as well as on the true next item (arXiv 1503.02531; sampling costs no more
than a second target).
"""

from typing import Final

import numpy as np
from scipy import sparse

from train.data.batches import Histories, Rows

DECAY: Final = 0.7  # weight of an item relative to the next newer one
LAST: Final = 10  # number of the newest items that are looked at
POPULARITY: Final = 0.2  # power of the frequency of the sampled item that divides its counts
BLOCK: Final = 65_536  # items that are sampled for at once, so that the arrays fit into the cache
NOTHING: Final = -1  # no soft target


class TransitionSampler:
    """Samples the items that the counts expect after each item of the histories.

    Attributes:
        frequency: (items,) float32, approximate share of the samples that each item is.
    """

    def __init__(self, matrix: sparse.csr_array) -> None:
        """Prepare sampling. matrix: (items, items), weight of the column after the row; not negative."""
        self._columns = np.append(matrix.indices.astype(np.int64), NOTHING)
        self._starts = matrix.indptr.astype(np.int64)
        self._running = np.append(0.0, np.cumsum(matrix.data, dtype=np.float64))
        self._mass = np.diff(self._running[self._starts])  # (items,), sum of each row
        expected = self._mass @ matrix
        self.frequency = (expected / max(expected.sum(), 1e-9)).astype(np.float32)

    def draw(self, histories: Histories, *, generator: np.random.Generator) -> Rows:
        """Sample one item after each item of the histories.

        Args:
            histories: Of all users.
            generator: Draws the samples.

        Returns:
            (n,) int64 item rows, NOTHING where the counts expect nothing.
        """
        items = histories.items
        before = np.arange(len(items)) - np.repeat(histories.starts[:-1], histories.lengths)  # (n,) older items
        drawn = np.empty(len(items), np.int64)
        for start in range(0, len(items), BLOCK):
            place = np.arange(start, min(start + BLOCK, len(items)))
            weight = np.empty((LAST, len(place)))  # of the item of each age
            for age in range(LAST):
                own = self._mass[items[np.maximum(place - age, 0)]] * DECAY**age
                weight[age] = np.where(age <= before[place], own, 0.0)
            weight = weight.cumsum(axis=0, out=weight)
            total = weight[-1]
            age_drawn = (weight <= generator.random(len(place)) * total).sum(axis=0)
            read = items[place - np.minimum(age_drawn, before[place])]
            first, last = self._starts[read], self._starts[read + 1]
            low, high = self._running[first], self._running[last]
            point = low + generator.random(len(place)) * (high - low)
            entry = np.clip(np.searchsorted(self._running, point, side="right") - 1, first, last - 1)
            drawn[place] = np.where(total > 0, self._columns[entry], NOTHING)
        return drawn
