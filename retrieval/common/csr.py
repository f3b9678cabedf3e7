"""CSR: a list of rows per row, as two flat arrays; what users saw, what they went on to choose, what is excluded."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from retrieval.common.arrays import Rows


class CSR(NamedTuple):
    """Lists of item rows, one a user: list i is `indices[indptr[i]:indptr[i + 1]]`, in an order of its own.

    indptr: (n + 1,) int64, from 0, never falling; indices: (indptr[-1],) int64.
    """

    indptr: Rows
    indices: Rows

    @property
    def height(self) -> int:
        """The number of lists."""
        return len(self.indptr) - 1

    @property
    def lengths(self) -> Rows:
        """How long each list is: (n,) int64."""
        return np.diff(self.indptr)

    def list(self, row: int) -> Rows:
        """List `row`, a view."""
        return self.indices[self.indptr[row] : self.indptr[row + 1]]

    def block(self, start: int, stop: int) -> "CSR":
        """Lists start .. stop - 1; `indices` is a view."""
        indptr = self.indptr[start : stop + 1]
        return CSR(indptr - indptr[0], self.indices[indptr[0] : indptr[-1]])

    def owners(self) -> Rows:
        """The list that each entry of `indices` is in: (indptr[-1],) int64."""
        return np.repeat(np.arange(self.height), self.lengths)

    def ages(self) -> Rows:
        """How far each entry is from the end of its list: 0 for the last (the newest of a history)."""
        return np.repeat(self.indptr[1:], self.lengths) - 1 - np.arange(len(self.indices))

    def take(self, rows: Rows) -> "CSR":
        """The lists at `rows`, in that order; a row may come more than once."""
        lengths = self.lengths[rows]
        indptr = _indptr(lengths)
        offsets = np.repeat(self.indptr[:-1][rows] - indptr[:-1], lengths)
        return CSR(indptr, self.indices[offsets + np.arange(indptr[-1])])

    def newest(self, count: int) -> "CSR":
        """The last `count` entries of each list, in their order."""
        return CSR(_indptr(np.minimum(self.lengths, count)), self.indices[self.ages() < count])

    def mapped(self, places: Rows) -> "CSR":
        """Every entry as its place, those whose place is negative left out. places: (size,), one a row."""
        at = places[self.indices]
        kept = at >= 0
        return from_pairs(self.owners()[kept], at[kept], height=self.height)

    def counts(self, size: int) -> Rows:
        """How often each of `size` rows occurs in all lists: (size,) int64."""
        return np.bincount(self.indices, minlength=size).astype(np.int64, copy=False)


def _indptr(lengths: Rows) -> Rows:
    indptr = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=indptr[1:])
    return indptr


def from_pairs(owners: npt.NDArray[np.integer], members: npt.NDArray[np.integer], *, height: int) -> CSR:
    """Gather (owner, member) pairs into a list per owner, each in the order of the pairs.

    owners, members: (n,) integers, 0 <= owner < height.
    """
    assert len(owners) == len(members)
    indptr = _indptr(np.bincount(owners, minlength=height).astype(np.int64, copy=False))
    indices: Rows = members.astype(np.int64)
    if len(owners) > 1 and (owners[1:] < owners[:-1]).any():
        indices = indices[np.argsort(owners, kind="stable")]
    return CSR(indptr, indices)


def from_lists(lists: Iterable[Sequence[int] | Rows]) -> CSR:
    """One list a row, from a few Python lists."""
    arrays = [np.asarray(entry, dtype=np.int64) for entry in lists]
    if len(arrays) == 1:
        return CSR(np.array([0, len(arrays[0])]), arrays[0])
    lengths = np.array([len(entry) for entry in arrays], dtype=np.int64)
    return CSR(_indptr(lengths), np.concatenate([*arrays, np.empty(0, dtype=np.int64)]))


def empty(height: int) -> CSR:
    """Nothing for anyone."""
    return CSR(np.zeros(height + 1, dtype=np.int64), np.empty(0, dtype=np.int64))


def merge(first: CSR, second: CSR) -> CSR:
    """Both lists of each row, the first's entries before the second's."""
    assert first.height == second.height
    owners = np.concatenate([first.owners(), second.owners()])
    return from_pairs(owners, np.concatenate([first.indices, second.indices]), height=first.height)
