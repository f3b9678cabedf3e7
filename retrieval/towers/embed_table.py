"""Vectors of a table, written a block at a time."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from retrieval.bundle.layout import ITEMS, USERS
from retrieval.bundle.reader import Bundle
from retrieval.common.arrays import Vectors
from retrieval.common.console import progress
from retrieval.common.errors import DataError, QueryError
from retrieval.common.files import atomic_write
from retrieval.features.columns import words
from retrieval.features.schema import Side
from retrieval.features.tables import blocks
from retrieval.towers.tower import Tower, open_tower

OUTPUTS: Final = (".npy", ".parquet", ".jsonl")
BLOCK_ROWS: Final = 16_384


def embed_file(folder: Path, *, side: Side, source: Path, output: Path) -> int:
    """Embed the rows of a table in their order; the output appears when it is whole. Returns how many rows.

    output: .npy holds (n, dim) float32; .parquet and .jsonl hold `id` and `embedding`. The id is the column that is
        called as in the bundle, else the first of the table.
    """
    if output.suffix not in OUTPUTS:
        raise DataError(f"{output}: not a kind of output by its suffix; expected {', '.join(OUTPUTS)}")
    with Bundle.open(folder) as bundle:
        tower = open_tower(bundle, side)
        ids = ITEMS if side == "item" else USERS
        id_name = pq.read_schema(bundle.file(ids)).names[0] if bundle.has(ids) else None
    types = {feature.name: pa.float64() for feature in tower.inputs if feature.kind == "number"}
    if id_name is not None:
        types.setdefault(id_name, pa.string())
    if output.parent.is_file() or not output.parent.exists():
        raise DataError(f"{output}: there is no folder {output.parent}")
    with atomic_write(output) as staged:
        return _write(staged, output.suffix, _embedded(tower, source, types, id_name), tower.dim)


def _embedded(tower: Tower, source: Path, types: dict[str, Any], id_name: str | None) -> Iterator[tuple[Any, Vectors]]:
    """The ids and the vectors of each block."""
    total = 0
    if source.suffix == ".parquet" and source.is_file():
        total = pq.read_metadata(source).num_rows
    found = blocks(source, rows=BLOCK_ROWS, features=tower.inputs, types=types)
    names = {feature.name for feature in tower.inputs}
    for block in progress(found, label="Embedding", total=total, size=BLOCK_ROWS) if total else found:
        if not names & set(block.column_names):
            raise QueryError(
                f"{source}: has none of the tower's columns {', '.join(sorted(names))}; "
                f"found {', '.join(block.column_names)}"
            )
        try:
            yield block.column(id_name if id_name in block.column_names else 0), tower.embed_table(block)
        except QueryError as error:
            raise QueryError(f"{source}: {error}") from error


def _write(path: Path, suffix: str, embedded: Iterator[tuple[Any, Vectors]], dim: int) -> int:
    if suffix == ".npy":
        return _write_npy(path, embedded, dim)
    if suffix == ".jsonl":
        count = 0
        with path.open("w", encoding="utf-8") as file:
            for column, vectors in embedded:
                for value, vector in zip(words(column.combine_chunks()).to_pylist(), vectors, strict=True):
                    numbers = [float(str(number)) for number in vector]
                    file.write(json.dumps({"id": value, "embedding": numbers}, ensure_ascii=False) + "\n")
                count += len(vectors)
        return count
    schema = pa.schema([("id", pa.string()), ("embedding", pa.list_(pa.float32(), dim))])
    count = 0
    with pq.ParquetWriter(path, schema) as writer:
        for column, vectors in embedded:
            lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), dim)
            writer.write_table(pa.table([words(column.combine_chunks()), lists], schema=schema))
            count += len(vectors)
    return count


def _write_npy(path: Path, embedded: Iterator[tuple[Any, Vectors]], dim: int) -> int:
    """The header comes last, when the number of rows is known; its place is kept free."""
    count = 0
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, _header(1 << 40, dim))
        start = file.tell()
        for _, vectors in embedded:
            file.write(np.ascontiguousarray(vectors, dtype="<f4").tobytes())
            count += len(vectors)
        file.seek(0)
        np.lib.format.write_array_header_1_0(file, _header(count, dim))
        assert file.tell() == start
    return count


def _header(count: int, dim: int) -> dict[str, Any]:
    return {"descr": "<f4", "fortran_order": False, "shape": (count, dim)}
