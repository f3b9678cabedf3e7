"""RowFilter: the rows that a search may find, with what searches derive from them once and share."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import faiss
import numpy as np

from retrieval.common.arrays import Mask, Rows, Vectors
from retrieval.index.factory import SearchParams, faiss_parameters
from retrieval.index.filtered_ivf import FilteredLists, InvertedLists

MAX_PARAMETERS: Final = 1_024
GATHERED_BYTES: Final = 2_000_000  # passing vectors that are gathered and searched exactly: 8,000 of 64 dimensions


@dataclass(frozen=True)
class RowFilter:
    """The rows that a search may find; made by `Index.select` and valid until the index changes.

    Attributes:
        mask: (height,) bool, or None if every row may be found.
        count: Number of rows that may be found.
        height: Number of rows of the index, removed ones included.
    """

    mask: Mask | None
    count: int
    height: int
    _base: Vectors = field(repr=False)
    _added: Vectors = field(repr=False)
    _lists: Callable[[], InvertedLists | None] = field(repr=False)
    _parameters: dict[tuple[SearchParams, float], Any] = field(default_factory=dict, init=False, repr=False)

    @property
    def share(self) -> float:
        """Share of all rows that may be found."""
        return self.count / self.height if self.height else 0.0

    @property
    def is_small(self) -> bool:
        """Whether the rows are few enough to gather their vectors."""
        return self.mask is not None and self.count * 4 * self._base.shape[1] <= GATHERED_BYTES

    @property
    def size_bytes(self) -> int:
        """Memory that the filter takes at most once it has been searched."""
        if self.mask is None:
            return 0
        vectors = self.count * 4 * int(self._base.shape[1]) if self.is_small else 0
        return 2 * self.height + 8 * self.count + vectors

    @cached_property
    def rows(self) -> Rows:
        """The rows that may be found, ascending: (count,)."""
        return np.arange(self.height) if self.mask is None else np.flatnonzero(self.mask)

    @cached_property
    def vectors(self) -> Vectors:
        """Vectors of `rows`: (count, d)."""
        split = np.searchsorted(self.rows, len(self._base))
        return np.concatenate([self._base[self.rows[:split]], self._added[self.rows[split:] - len(self._base)]])

    @property
    def base_mask(self) -> Mask | None:
        """The mask of the rows that the structure holds."""
        return None if self.mask is None else self.mask[: len(self._base)]

    @property
    def added_mask(self) -> Mask | None:
        """The mask of the rows that were added later."""
        return None if self.mask is None else self.mask[len(self._base) :]

    @cached_property
    def lists(self) -> FilteredLists:
        """The rows of each list that may be found; only for a structure with lists."""
        lists = self._lists()
        assert lists is not None
        assert self.base_mask is not None
        return FilteredLists(lists, self._base, self.base_mask)

    def parameters(self, structure: Any, params: SearchParams, k_factor: float) -> Any:
        """FAISS search parameters with this filter; kept, because making them takes as long as a search."""
        made = self._parameters.get((params, k_factor))
        if made is None:
            if len(self._parameters) >= MAX_PARAMETERS:
                self._parameters.clear()
            made = faiss_parameters(structure, params, k_factor=k_factor, selector=self.selector)
            self._parameters[params, k_factor] = made
        return made

    @cached_property
    def selector(self) -> Any:
        """The FAISS selector of the rows, None for all. It keeps a reference to its bitmap."""
        return (
            None if self.base_mask is None else faiss.IDSelectorBitmap(np.packbits(self.base_mask, bitorder="little"))
        )
