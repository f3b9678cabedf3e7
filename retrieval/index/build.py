"""Build an index: embed the items of a bundle, build and tune the index, and stage all files in a draft."""

import datetime as dt
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from retrieval.bundle.layout import (
    ADDED,
    ADDED_LOOKUP,
    ADDED_VECTORS,
    INDEX,
    INDEX_FACTS,
    ITEMS,
    ITEMS_LOOKUP,
    REMOVED,
    TRAINING,
    USERS,
    USERS_LOOKUP,
)
from retrieval.bundle.writer import Draft
from retrieval.catalog import record_store
from retrieval.catalog.items import json_lines, read_array
from retrieval.catalog.users import history_name, sample_users, users_table, write_users, write_users_lookup
from retrieval.common.arrays import Vectors
from retrieval.common.console import note, progress
from retrieval.common.errors import BundleError, DataError, nearest
from retrieval.features.columns import texts, words
from retrieval.features.kinds import SEPARATOR
from retrieval.features.schema import Schema, TowerSchema
from retrieval.features.tables import blocks
from retrieval.features.vocabulary import check_id
from retrieval.index.factory import DEFAULT_RECALL, choose
from retrieval.index.index import Index
from retrieval.index.storage import FORMAT_VERSION
from retrieval.index.tuning import sample_size, tune
from retrieval.towers.tower import Tower, open_tower

BLOCK_ROWS: Final = 65_536
UNIT_TOLERANCE: Final = 1e-3  # towers in half precision are within 2e-4


def publish_tables(draft: Draft, training: Path, *, users: bool = True) -> None:
    """Stage the items and users of a training folder.

    Args:
        draft: The next generation of the bundle.
        training: The training folder.
        users: Whether to include users; without them the bundle holds no personal data.

    Raises:
        DataError: if the training folder has no items.
    """
    source = training / ITEMS
    if not source.is_file():
        raise DataError(f'{source}: there is no such file; prepare the data with "twotower train"')
    table = pq.read_table(source)
    table = table.set_column(0, table.column_names[0], _id_column(table, source))
    for name in (ITEMS_LOOKUP, ADDED, ADDED_LOOKUP, ADDED_VECTORS, REMOVED, USERS, USERS_LOOKUP):
        draft.remove(name)
    write_items(draft, table)
    if users:
        write_users(draft, users_table(training, history_name(draft.schema)))


def build_index(
    draft: Draft,
    *,
    items: Path | None = None,
    kind: str = "auto",
    recall: float | None = None,
    memory_bytes: int | None = None,
    threads: int = 0,
    seed: int = 0,
) -> dict[str, Any]:
    """Embed the items, build an index over them, tune it, and stage it with the catalogue.

    Args:
        draft: The next generation of the bundle.
        items: A table of items; the id column has the same name as in the bundle, else it is the first. Default: the
            items of the bundle with all changes since, or those of its training folder.
        kind: See `factory.choose`.
        recall: See `factory.choose`.
        memory_bytes: See `factory.choose`.
        threads: Threads of the item tower, 0 for all cores.
        seed: Seed of the index and of the users that it is tuned on.

    Returns:
        The content of index.json.

    Raises:
        DataError: if the items cannot be used.
        BundleError: if the towers are damaged or give vectors whose length is not 1.
    """
    schema = draft.schema
    tower = open_tower(draft, "item", threads=threads)
    source, total = _source(draft, items)
    ids: list[str] = []
    records: list[bytes] = []
    staged = draft.path("items.part")
    named = str(items or draft.folder / ITEMS)
    id_name = pq.read_schema(draft.file(ITEMS)).names[0] if draft.has(ITEMS) else None
    with (
        _VectorFile(draft.path("vectors.part"), schema.dim) as vectors,
        _TableFile(staged, source=named, id_name=id_name) as table,
    ):
        for block in progress(source, label="Embedding items", total=total, size=BLOCK_ROWS) if total else source:
            whole = table.write(block, schema.item)
            ids += whole.column(0).to_pylist()
            records += json_lines(whole, leave_out=whole.column_names[:1])
            vectors.write(embed_items(tower, whole))
    refuse_duplicates(ids, named)
    staged.replace(draft.path(ITEMS))
    record_store.write(draft.path(ITEMS_LOOKUP), ids, records)
    if draft.has(USERS) and not draft.has(USERS_LOOKUP):
        write_users_lookup(draft, pq.read_table(draft.file(USERS)))
    facts = index_vectors(
        draft, vectors.read(), kind=kind, recall=recall, memory_bytes=memory_bytes, seed=seed, threads=threads
    )
    vectors.path.unlink()
    return facts


def index_vectors(
    draft: Draft,
    vectors: Vectors,
    *,
    kind: str,
    recall: float | None,
    memory_bytes: int | None = None,
    seed: int = 0,
    threads: int = 0,
) -> dict[str, Any]:
    """Build, tune and stage an index over the vectors (n, d) of all items. Returns the content of index.json."""
    schema = draft.schema
    count = len(vectors)
    chosen = choose(kind, count=count, dim=schema.dim, recall=recall, memory_bytes=memory_bytes)
    built = Index.build(vectors, chosen, seed=seed)
    queries, of_whom = _queries(draft, schema, vectors, seed=seed, threads=threads)
    target = 1.0 if chosen.is_flat else DEFAULT_RECALL if recall is None else recall
    tuned = tune(built, queries, recall=target)
    built.save(draft.path(INDEX))
    facts = {
        "format_version": FORMAT_VERSION,
        "pair_id": schema.pair_id,
        "kind": chosen.name,
        "factory": chosen.factory or "Flat",
        "parameters": tuned.params.to_json(),
        "dim": schema.dim,
        "count": count,
        "built": count,
        "added": 0,
        "removed": 0,
        "asked": recall,
        "recall": {"asked": target, "measured": round(tuned.recall, 4), "k": 10, "on": of_whom},
        "curve": tuned.curve,
        "created": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
    }
    draft.write_json(INDEX_FACTS, facts)
    for name in (ADDED, ADDED_LOOKUP, ADDED_VECTORS, REMOVED):
        draft.remove(name)
    note(summary(facts))
    return facts


def summary(facts: dict[str, Any]) -> str:
    """Describe an index in one line."""
    recall, parameters = facts["recall"], facts["parameters"]
    if facts["kind"] == "flat":
        return f"Index: {facts['count']:,} items, exact (flat)"
    shown = ", ".join(f"{name} {value:g}" for name, value in parameters.items() if value != 1.0)
    return (
        f"Index: {facts['count']:,} items, {facts['factory']}, {shown or 'default parameters'}: "
        f"recall@10 {recall['measured']:.3f} (asked {recall['asked']:g}) on {recall['on']}"
    )


def embed_items(tower: Tower, table: pa.Table) -> Vectors:
    """Embed a block of items: (n, d) float32. Raises BundleError unless every vector has length 1."""
    vectors = tower.embed_table(table)
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    wrong = np.flatnonzero(~(np.abs(lengths - 1.0) <= UNIT_TOLERANCE))
    if len(wrong):
        raise BundleError(
            f'{tower.path}: the vector of item "{table.column(0)[int(wrong[0])]}" has length {lengths[wrong[0]]:.4g}, '
            "expected 1; export the towers again"
        )
    return vectors


def refuse_duplicates(ids: Sequence[str], source: str) -> None:
    """Raise DataError if an id occurs twice."""
    if len(set(ids)) < len(ids):
        seen: set[str] = set()
        twice = next(name for name in ids if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise DataError(f'{source}: item "{twice}" occurs twice; keep one row of it')


def write_items(draft: Draft, table: pa.Table) -> None:
    """Stage the catalogue: a table whose first column holds the ids as text."""
    pq.write_table(table, draft.path(ITEMS), row_group_size=BLOCK_ROWS)
    ids = table.column(0).to_pylist()
    refuse_duplicates(ids, str(draft.folder / ITEMS))
    record_store.write(draft.path(ITEMS_LOOKUP), ids, json_lines(table, leave_out=table.column_names[:1]))


def as_catalog(table: pa.Table, tower: TowerSchema, *, like: pa.Schema | None = None, source: object) -> pa.Table:
    """Convert a table of items to the form of the catalogue: ids as text, lists for separated categories.

    Args:
        table: Items, the id column first unless `like` is given.
        tower: Schema of the item tower.
        like: Columns and types to convert to. Default: those of the table.
        source: Named in errors.

    Raises:
        DataError: names the source and the column.
    """
    if like is not None:
        table = _conform(table, like, source)
    table = table.set_column(0, table.column_names[0], _id_column(table, source))
    for feature in tower.inputs:
        if feature.kind == "categories" and feature.separator and feature.name in table.column_names:
            at = table.column_names.index(feature.name)
            if pa.types.is_string(table.schema.field(at).type):
                table = table.set_column(at, feature.name, _split(table.column(at), feature.separator))
    return table


def _id_column(table: pa.Table, source: object) -> Any:
    """The first column as ids. Raises DataError for a missing id, or one that an ONNX runtime would misread."""
    name = table.column_names[0]
    try:
        ids = words(table.column(0).combine_chunks())
    except TypeError as error:
        raise DataError(f'{source}: column "{name}" holds ids, {error}') from error
    if ids.null_count or pc.any(pc.equal(ids, "")).as_py() or pc.any(pc.match_substring(ids, "\0")).as_py():
        for value in ids.to_pylist():
            check_id(value or "", where=f'{source}, column "{name}"')
    return ids


def _find_ids(table: pa.Table, name: str, source: object) -> None:
    """Raise DataError if there is no id column."""
    if name not in table.column_names:
        raise DataError(f'{source}: the id column "{name}" is missing{nearest(name, table.column_names)}')


def _conform(table: pa.Table, like: pa.Schema, source: object) -> pa.Table:
    """The columns of `like` with its types: null where missing; other columns are dropped with a note."""
    _find_ids(table, like.names[0], source)
    further = [name for name in table.column_names if name not in like.names]
    if further:
        note(f"{source}: ignoring columns that the catalogue does not have: {', '.join(further)}")
    columns = []
    for field in like:
        if field.name not in table.column_names:
            columns.append(pa.nulls(table.num_rows, field.type))
            continue
        column = table.column(field.name).combine_chunks()
        try:
            columns.append(texts(column) if pa.types.is_string(field.type) else _cast(column, field.type))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, TypeError) as error:
            raise DataError(
                f'{source}: column "{field.name}" holds {_called(column.type)}, the catalogue has {_called(field.type)}'
            ) from error
    return pa.table(columns, names=like.names)


def _cast(column: Any, kind: Any) -> Any:
    if _is_list(kind) and pa.types.is_string(column.type):
        return _split(column, SEPARATOR).cast(kind)
    return column.cast(kind)


def _split(column: Any, separator: str) -> Any:
    """Split text into lists; "" is a missing list, not an empty one."""
    return pc.split_pattern(pc.if_else(pc.equal(column, ""), None, column), separator)


def _is_list(kind: Any) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _called(kind: Any) -> str:
    """The name of a type in messages."""
    if _is_list(kind):
        return f"lists of {_called(kind.value_type)}"
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return "text"
    if pa.types.is_integer(kind):
        return "whole numbers"
    return "numbers" if pa.types.is_floating(kind) else str(kind)


def _source(draft: Draft, items: Path | None) -> tuple[Iterator[pa.Table], int]:
    """Blocks of the items to index, and their approximate number."""
    if items is not None:
        total = pq.read_metadata(items).num_rows if items.suffix == ".parquet" and items.is_file() else 0
        like = pq.read_schema(draft.file(ITEMS)) if draft.has(ITEMS) else pa.schema([])
        text = {field.name for field in like if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)}
        text |= {feature.name for feature in draft.schema.item.inputs if feature.is_text} | set(like.names[:1])
        types = dict.fromkeys(text, pa.string())  # "007" is no number
        return blocks(items, rows=BLOCK_ROWS, features=draft.schema.item.inputs, types=types), total
    if draft.has(ITEMS):
        return live_items(draft), pq.read_metadata(draft.file(ITEMS)).num_rows
    prepared = draft.folder / TRAINING / ITEMS
    if prepared.is_file():
        return blocks(prepared, rows=BLOCK_ROWS), pq.read_metadata(prepared).num_rows
    raise DataError(f"{draft.folder}: has no {ITEMS}; name the table of items with --items")


def live_items(draft: Draft) -> Iterator[pa.Table]:
    """Blocks of the items that can be found, in the order of their rows: items of the index, then added items."""
    removed = read_array(draft.file(REMOVED)) if draft.has(REMOVED) else np.empty(0, dtype=np.int64)
    start = 0
    for block in blocks(draft.file(ITEMS), rows=BLOCK_ROWS):
        keep = np.ones(block.num_rows, dtype=np.bool_)
        keep[removed[(removed >= start) & (removed < start + block.num_rows)] - start] = False
        start += block.num_rows
        if keep.any():
            yield block if keep.all() else block.filter(pa.array(keep))
    if draft.has(ADDED):
        yield pq.read_table(draft.file(ADDED))


def _queries(draft: Draft, schema: Schema, vectors: Vectors, *, seed: int, threads: int) -> tuple[Vectors, str]:
    """Vectors to tune on, and a description of them: users, or mixtures of items where no users are known."""
    wanted = sample_size(len(vectors))
    users = sample_users(draft, schema, count=wanted, seed=seed)
    if users is not None:
        tower = open_tower(draft, "user", threads=threads)
        return tower.embed_table(users), f"{users.num_rows - users.num_rows // 2:,} users not used for tuning"
    random = np.random.default_rng(seed)
    rows = random.choice(len(vectors), size=(min(wanted, len(vectors)), 3))
    mixed = vectors[rows].sum(axis=1)  # a user who likes three random items
    mixed /= np.maximum(np.linalg.norm(mixed, axis=1, keepdims=True), 1e-6)
    return mixed.astype(np.float32), f"{len(mixed) - len(mixed) // 2:,} mixtures of three items (no users are known)"


class _VectorFile:
    """Vectors that are written in blocks and then memory-mapped, so that memory holds one block."""

    def __init__(self, path: Path, dim: int) -> None:
        self.path = path
        self._dim = dim
        self._rows = 0

    def __enter__(self) -> "_VectorFile":
        self._file = self.path.open("wb")
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, vectors: Vectors) -> None:
        self._file.write(np.ascontiguousarray(vectors).tobytes())
        self._rows += len(vectors)

    def read(self) -> Vectors:
        return np.memmap(self.path, dtype=np.float32, mode="r", shape=(self._rows, self._dim))


class _TableFile:
    """Blocks of items that are written to one Parquet file with the schema of the first block."""

    def __init__(self, path: Path, *, source: str, id_name: str | None) -> None:
        """source: named in errors. id_name: the id column; None for the first column."""
        self.path = path
        self._source = source
        self._id_name = id_name
        self._writer: pq.ParquetWriter | None = None

    def __enter__(self) -> "_TableFile":
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()

    def write(self, block: pa.Table, tower: TowerSchema) -> pa.Table:
        """Write a block in the form of the catalogue and return it."""
        if self._writer is None and self._id_name is not None:
            _find_ids(block, self._id_name, self._source)
            block = block.select([self._id_name, *[n for n in block.column_names if n != self._id_name]])
        like = None if self._writer is None else self._writer.schema
        table = as_catalog(block, tower, like=like, source=self._source)
        if self._writer is None:
            self._writer = pq.ParquetWriter(self.path, table.schema)
        self._writer.write_table(table)
        return table
