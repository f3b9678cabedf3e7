"""Lookup: ids and their records in one memory-mapped file, so that a query opens in no time and reads only its hits.

`items.parquet` says the same for everyone else; this file is made from it, and holds no more than it.

The layout, little-endian: 8 bytes of magic; n, size of the ids, size of the records as int64; (n + 1) int64 offsets of
ids; (n + 1) int64 offsets of records; n int64 rows in the order of the ids' bytes; the ids in UTF-8; the records, each
a JSON object.
"""

import itertools
import json
import mmap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from retrieval.common.arrays import Rows
from retrieval.common.errors import BundleError

MAGIC: Final = b"TTLOOK1\n"
HEADER_BYTES: Final = 32
FEW: Final = 64  # ids looked up by bisection before a dictionary of all of them is worth its making
BISECTED: Final = 50  # a dictionary entry costs about a fiftieth of a bisection
SMALL: Final = 5_000  # so few ids that the dictionary is made at once


class RecordStore:
    """Row <-> id, and row -> record. Safe to share between threads."""

    def __init__(self, buffer: "memoryview | bytes", *, source: str) -> None:
        """Use `RecordStore.open`. Raises BundleError that names `source` if the buffer is not a lookup."""
        self._buffer = memoryview(buffer)
        damaged = BundleError(f'{source}: not a lookup of ids; make it again with "twotower index build"')
        if len(self._buffer) < HEADER_BYTES or bytes(self._buffer[:8]) != MAGIC:
            raise damaged
        count, id_bytes, record_bytes = (int(size) for size in np.frombuffer(buffer, "<i8", 3, offset=8))
        if count < 0 or HEADER_BYTES + 8 * (3 * count + 2) + id_bytes + record_bytes != len(self._buffer):
            raise damaged
        self._count = count
        place = HEADER_BYTES
        self._id_ends: Rows = np.frombuffer(buffer, "<i8", count + 1, offset=place)
        self._record_ends: Rows = np.frombuffer(buffer, "<i8", count + 1, offset=place + 8 * (count + 1))
        self._order: Rows = np.frombuffer(buffer, "<i8", count, offset=place + 16 * (count + 1))
        place += 8 * (3 * count + 2)
        self._ids = self._buffer[place : place + id_bytes]
        self._records = self._buffer[place + id_bytes :]
        self._rows: dict[str, int] | None = None
        self._all: list[str] | None = None
        self._asked = 0

    @classmethod
    def open(cls, path: Path) -> "RecordStore":
        """Map a file into memory; its pages are shared between processes."""
        with path.open("rb") as file:
            if path.stat().st_size < HEADER_BYTES:
                return cls(b"", source=str(path))
            return cls(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)), source=str(path))

    def __len__(self) -> int:
        return self._count

    def id(self, row: int) -> str:
        """The id at a row, 0 <= row < len."""
        if self._all is not None:
            return self._all[row]
        return str(self._ids[self._id_ends[row] : self._id_ends[row + 1]], "utf-8")

    def ids(self) -> list[str]:
        """All ids by row."""
        if self._all is not None:
            return self._all
        whole, ends = bytes(self._ids), self._id_ends.tolist()
        return [whole[start:end].decode() for start, end in itertools.pairwise(ends)]

    def record(self, row: int) -> dict[str, Any]:
        """The columns of a row, without its id."""
        content: dict[str, Any] = json.loads(bytes(self._records[self._record_ends[row] : self._record_ends[row + 1]]))
        return content

    def row(self, wanted: str) -> int | None:
        """The row of an id, or None."""
        rows = self._rows
        if rows is None:
            self._asked += 1
            if self._asked <= FEW and self._count > SMALL:
                return self._bisect(wanted)
            self._all = self.ids()
            rows = self._rows = {name: row for row, name in enumerate(self._all)}
        return rows.get(wanted)

    def rows(self, wanted: Sequence[str]) -> list[int | None]:
        """The row of each id, or None. A few among many are bisected, however often that is asked."""
        if self._rows is None and len(wanted) * BISECTED < self._count:
            return [self._bisect(name) for name in wanted]
        return [self.row(name) for name in wanted]

    def beginning(self, text: str, *, count: int) -> list[int]:
        """Rows of the ids that begin with a text, in the order of their bytes; at most `count`."""
        key = text.encode(errors="replace")
        low, high = 0, self._count
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if self._id_bytes(int(self._order[middle])) < key else (low, middle)
        rows: list[int] = self._order[low : low + count].tolist()
        return list(itertools.takewhile(lambda row: self._id_bytes(row).startswith(key), rows))

    def _id_bytes(self, row: int) -> bytes:
        return bytes(self._ids[self._id_ends[row] : self._id_ends[row + 1]])

    def _bisect(self, wanted: str) -> int | None:
        try:
            key = wanted.encode()
        except UnicodeEncodeError:
            return None
        low, high = 0, self._count
        while low < high:
            middle = (low + high) // 2
            row = int(self._order[middle])
            found = self._id_bytes(row)
            if found == key:
                return row
            low, high = (middle + 1, high) if found < key else (low, middle)
        return None


def write(path: Path, ids: Sequence[str], records: Iterable[bytes]) -> None:
    """Write a lookup.

    ids: distinct, valid Unicode. records: a JSON object for each, in UTF-8; taken one at a time.
    """
    id_blob = [name.encode() for name in ids]
    order = sorted(range(len(ids)), key=id_blob.__getitem__)
    record_blob = list(records)
    assert len(record_blob) == len(id_blob)
    with path.open("wb") as file:
        file.write(MAGIC)
        sizes = [len(ids), sum(map(len, id_blob)), sum(map(len, record_blob))]
        file.write(np.array(sizes, "<i8").tobytes())
        file.write(_ends(id_blob).tobytes())
        file.write(_ends(record_blob).tobytes())
        file.write(np.array(order, "<i8").tobytes())
        file.writelines(_joined(id_blob))
        file.writelines(_joined(record_blob))


def _joined(pieces: list[bytes], *, step: int = 65_536) -> Iterator[bytes]:
    """Few large writes instead of many small ones."""
    for start in range(0, len(pieces), step):
        yield b"".join(pieces[start : start + step])


def _ends(pieces: list[bytes]) -> Rows:
    ends = np.zeros(len(pieces) + 1, "<i8")
    np.cumsum([len(piece) for piece in pieces], out=ends[1:])
    return ends
