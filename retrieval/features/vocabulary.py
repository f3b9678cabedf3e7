"""Vocabulary: id <-> row. Row 0 is missing, row 1 is unknown, ids follow from row 2."""

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from retrieval.common.errors import DataError

MISSING: Final = 0
UNKNOWN: Final = 1
FIRST: Final = 2


def check_id(value: str, *, where: str) -> None:
    """Refuse an id that some runtime would misread: empty, with NUL (cut short in JavaScript), a lone surrogate.

    Raises DataError that names `where`.
    """
    if value == "":
        raise DataError(f"{where}: an id is empty; fill it in or drop the row")
    if "\0" in value:
        raise DataError(f"{where}: id {value!r} contains a NUL character; remove it")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{where}: id {value!r} contains a lone surrogate; it is not valid Unicode") from error


class Vocabulary:
    """The known values of a feature, in a fixed order."""

    def __init__(self, ids: Iterable[str], *, where: str = "vocabulary") -> None:
        """Raises DataError on a duplicate, an empty id, a NUL or a lone surrogate, naming `where`."""
        self.ids: tuple[str, ...] = tuple(ids)
        self._rows: dict[str, int] = {"": MISSING}
        for row, value in enumerate(self.ids, start=FIRST):
            check_id(value, where=where)
            if value in self._rows:
                raise DataError(f'{where}: "{value}" occurs twice')
            self._rows[value] = row

    def __len__(self) -> int:
        """Number of rows, the two reserved ones included: the height of an embedding table."""
        return len(self.ids) + FIRST

    def __contains__(self, value: object) -> bool:
        return value in self._rows and value != ""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self.ids == other.ids

    __hash__ = None  # type: ignore[assignment]  # equal by content, too large to hash

    def row(self, value: str) -> int:
        """Row of one value; "" is MISSING, a value that is not known is UNKNOWN."""
        return self._rows.get(value, UNKNOWN)

    def rows(self, values: Sequence[str]) -> npt.NDArray[np.int64]:
        """Rows of many values. values: (n,) str. Returns (n,) int64."""
        get = self._rows.get
        return np.fromiter((get(value, UNKNOWN) for value in values), dtype=np.int64, count=len(values))

    def id(self, row: int) -> str | None:
        """The id at a row; None at MISSING and UNKNOWN. Raises IndexError outside the vocabulary."""
        if row < 0:
            raise IndexError(f"row {row} is negative")
        return self.ids[row - FIRST] if row >= FIRST else None
