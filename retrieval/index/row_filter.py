"""Selection: the rows that a search may find, and what is made of them once and used by every search after."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import faiss
import numpy as np
import numpy.typing as npt

from retrieval.index.factory import SearchParams
from retrieval.index.filtered_ivf import Kept
from retrieval.index.ivf import Lists

Vectors = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

FEW_KEPT: Final = 4_000  # so few rows are gathered and multiplied, exactly (docs/experiments/performance.md)
FEW_OF: Final = 125  # or one row in so many: lists take longer, the more there is
MOST_GATHERED: Final = 8_000


@dataclass(frozen=True)
class RowFilter:
    """The rows that a search may find. Made by `Index.select`, good for that state of the index.

    mask: (height,) or None if every row may be found. count: how many may.
    """

    mask: Mask | None
    count: int
    height: int
    _base: Vectors = field(repr=False)
    _added: Vectors = field(repr=False)
    _lists: Callable[[], Lists | None] = field(repr=False)

    @property
    def share(self) -> float:
        return self.count / self.height if self.height else 0.0

    @cached_property
    def is_few(self) -> bool:
        """Whether they are so few that they are gathered."""
        return self.mask is not None and self.count <= few_kept(self.height)

    @property
    def size_bytes(self) -> int:
        """The most that it takes once it has been searched: bits for each row, and what is gathered of those kept."""
        if self.mask is None:
            return 0
        gathered = self.count * (8 + 4 * self._base.shape[1]) if self.is_few else 4 * self.count
        return 2 * self.height + gathered

    @cached_property
    def rows(self) -> Rows:
        """The rows, rising."""
        return np.arange(self.height) if self.mask is None else np.flatnonzero(self.mask)

    @cached_property
    def vectors(self) -> Vectors:
        """Vectors of those rows: (count, d)."""
        split = np.searchsorted(self.rows, len(self._base))
        return np.concatenate([self._base[self.rows[:split]], self._added[self.rows[split:] - len(self._base)]])

    @cached_property
    def base_mask(self) -> Mask | None:
        return None if self.mask is None else self.mask[: len(self._base)]

    @cached_property
    def added_mask(self) -> Mask | None:
        return None if self.mask is None else self.mask[len(self._base) :]

    @cached_property
    def parameters(self) -> dict[tuple[SearchParams, float], Any]:
        """What FAISS takes for searches among these rows: made once, since making takes longer than a search."""
        return {}

    @cached_property
    def probing_parameters(self) -> dict[int, Any]:
        """The same for searches of chosen lists, by their number."""
        return {}

    @cached_property
    def by_list(self) -> Kept:
        """The same rows, list by list. Only where the structure has lists."""
        lists = self._lists()
        assert lists is not None
        assert self.base_mask is not None
        return Kept(lists, self.base_mask)

    @cached_property
    def selector(self) -> Any:
        """For FAISS; it keeps a reference to the bits."""
        return (
            None if self.base_mask is None else faiss.IDSelectorBitmap(np.packbits(self.base_mask, bitorder="little"))
        )


def few_kept(height: int) -> int:
    """How many rows of so many are few."""
    return max(FEW_KEPT, min(height // FEW_OF, MOST_GATHERED))
