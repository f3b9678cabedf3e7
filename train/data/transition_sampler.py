"""Teacher: what simple counts expect next, to be learned beside what did come next.

A sparse history says little about the many items that could have followed; a count of what follows what, over all
histories, says more. The pair is drawn to items sampled from it as well as to the true next one (distillation,
arXiv 1503.02531, with the teacher's distribution sampled, so that it costs no more than a second target).
"""

from typing import Final

import numpy as np
from scipy import sparse

from train.data.batches import Histories, Rows

DECAY: Final = 0.7  # an item one place older counts so much of what it did
LAST: Final = 10  # how many of the newest items are looked at
POPULARITY: Final = 0.2  # power of the frequency of what is found that a count is divided by
BLOCK: Final = 65_536  # states that are drawn for at once: what that takes stays in the cache
NOTHING: Final = -1  # where nothing is expected


class Teacher:
    """Draws items from what the counts expect after each item of the histories.

    frequency: (items,) float32, about how often each is drawn.
    """

    def __init__(self, matrix: sparse.csr_array) -> None:
        """matrix: (items, items), how strongly the column is expected after the row; not negative."""
        self._columns = np.append(matrix.indices.astype(np.int64), NOTHING)
        self._starts = matrix.indptr.astype(np.int64)
        self._running = np.append(0.0, np.cumsum(matrix.data, dtype=np.float64))
        self._mass = np.diff(self._running[self._starts])  # of each row
        expected = self._mass @ matrix  # unnormalised; near enough to how often an item is drawn
        self.frequency = (expected / max(expected.sum(), 1e-9)).astype(np.float32)

    def draw(self, histories: Histories, *, generator: np.random.Generator) -> Rows:
        """An item row expected after each item of the histories and those before it: (n,), NOTHING where none is."""
        items = histories.items
        before = np.arange(len(items)) - np.repeat(histories.starts[:-1], histories.lengths)
        drawn = np.empty(len(items), np.int64)
        for start in range(0, len(items), BLOCK):
            place = np.arange(start, min(start + BLOCK, len(items)))
            weight = np.empty((LAST, len(place)))
            for age in range(LAST):
                own = self._mass[items[np.maximum(place - age, 0)]] * DECAY**age
                weight[age] = np.where(age <= before[place], own, 0.0)
            weight = weight.cumsum(axis=0, out=weight)
            total = weight[-1]
            at = (weight <= generator.random(len(place)) * total).sum(axis=0)  # the age of the item that tells
            read = items[place - np.minimum(at, before[place])]
            first, last = self._starts[read], self._starts[read + 1]
            low, high = self._running[first], self._running[last]
            point = low + generator.random(len(place)) * (high - low)
            entry = np.clip(np.searchsorted(self._running, point, side="right") - 1, first, last - 1)
            drawn[place] = np.where(total > 0, self._columns[entry], NOTHING)
        return drawn
