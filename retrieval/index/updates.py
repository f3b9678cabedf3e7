"""Live items: add, replace, remove and compact, in a draft of a bundle.

The index that was built does not change. Added items and their vectors are stored in tables of their own, and rows of
removed or replaced items in a list. So the cost of a change grows with the changes since the last `compact`, not with
the catalogue.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from retrieval.bundle.layout import ADDED, ADDED_LOOKUP, ADDED_VECTORS, INDEX_FACTS, ITEMS, ITEMS_LOOKUP, REMOVED
from retrieval.bundle.reader import Bundle
from retrieval.bundle.writer import Draft
from retrieval.catalog import record_store
from retrieval.catalog.items import json_lines, read_array
from retrieval.catalog.record_store import RecordStore
from retrieval.common.arrays import Rows
from retrieval.common.errors import BundleError
from retrieval.features.tables import blocks
from retrieval.features.text import text_of
from retrieval.index.build import (
    BLOCK_ROWS,
    as_catalog,
    embed_items,
    index_vectors,
    live_items,
    refuse_duplicates,
    write_items,
)
from retrieval.index.storage import open_index, read_facts
from retrieval.towers.tower import open_tower

STALE_SHARE: Final = 0.1  # of the index, changed since it was built: rebuild from here on
STALE_COUNT: Final = 10_000  # added rows, which every query scans: rebuild from here on


@dataclass(frozen=True, slots=True)
class Change:
    """Numbers of items that were new, replaced, removed, and unknown."""

    added: int = 0
    replaced: int = 0
    removed: int = 0
    unknown: int = 0


def add_items(draft: Draft, items: Path) -> Change:
    """Embed items and add them; an item with a known id is replaced.

    Args:
        draft: The next generation of the bundle.
        items: A table with the id column of the catalogue and any of its other columns; missing ones are null.

    Raises:
        DataError: if the items cannot be used.
    """
    base = _base(draft)
    read_facts(base)
    schema = draft.schema
    like = pq.read_schema(draft.file(ITEMS))
    types = {
        field.name: field.type for field in like if field.name != like.names[0] and not pa.types.is_nested(field.type)
    }
    tower = open_tower(draft, "item")
    tables, vectors = [], []
    types[like.names[0]] = pa.string()
    for block in blocks(items, rows=BLOCK_ROWS, features=schema.item.inputs, types=types):
        table = as_catalog(block, schema.item, like=like, source=items)
        tables.append(table)
        vectors.append(embed_items(tower, table))
    new = pa.concat_tables(tables)
    ids = new.column(0).to_pylist()
    refuse_duplicates(ids, str(items))
    table, kept, old = _without(draft, ids)
    known = base.load(ITEMS_LOOKUP, RecordStore.open).rows(ids)
    before = _removed(draft)
    removed = np.union1d(before, [row for row in known if row is not None]).astype(np.int64)
    _stage(draft, pa.concat_tables([table, new]), np.concatenate([old, *vectors]), removed)
    replaced = len(removed) - len(before) + kept
    return Change(added=len(ids) - replaced, replaced=replaced)


def remove_items(draft: Draft, ids: Iterable[str]) -> Change:
    """Remove items by id, and count the unknown ids."""
    base = _base(draft)
    read_facts(base)
    store = base.load(ITEMS_LOOKUP, RecordStore.open)
    wanted = list(dict.fromkeys(name if store.row(name) is not None else text_of(name) for name in ids))
    table, gone, vectors = _without(draft, wanted)
    known = store.rows(wanted)
    before = _removed(draft)
    removed = np.union1d(before, [row for row in known if row is not None]).astype(np.int64)
    count = len(removed) - len(before) + gone
    if count:
        _stage(draft, table, vectors, removed)
    return Change(removed=count, unknown=len(wanted) - count)


def compact(draft: Draft, *, seed: int = 0) -> dict[str, Any]:
    """Rebuild the index over the items that can be found, without embedding them. Returns the content of index.json."""
    base = _base(draft)
    facts = read_facts(base)
    index = open_index(base)
    rows = np.setdiff1d(np.arange(index.height), index.removed)
    if len(rows) == 0:
        raise BundleError(f"{draft.folder}: every item is removed; add some before compacting")
    tables = list(live_items(draft))
    write_items(draft, pa.concat_tables(tables))
    kind = facts["kind"] if facts["kind"] not in ("flat", "ivf", "pq") else "auto"
    return index_vectors(draft, index.vectors(rows), kind=kind, recall=facts["asked"], seed=seed)


def state(facts: dict[str, Any]) -> str:
    """Describe in one line how much has changed since the index was built, and what to do."""
    changed = facts["added"] + facts["removed"]
    if not changed:
        return "none since the index was built"
    share = changed / max(1, facts["built"])
    changes = f"{facts['added']:,} added and {facts['removed']:,} removed since the index was built ({share:.1%} of it)"
    stale = share >= STALE_SHARE or facts["added"] >= STALE_COUNT
    return changes + ('; rebuild it with "twotower index compact"' if stale else "")


def _base(draft: Draft) -> Bundle:
    if draft.base is None:
        raise BundleError(f'{draft.folder}: not a bundle; make one with "twotower run CONFIG --out {draft.folder}"')
    return draft.base


def _removed(draft: Draft) -> Rows:
    return read_array(draft.file(REMOVED)) if draft.has(REMOVED) else np.empty(0, dtype=np.int64)


def _without(draft: Draft, ids: Iterable[str]) -> tuple[pa.Table, int, npt.NDArray[np.float32]]:
    """The items that were added before except some ids: table, number of dropped rows, vectors."""
    if not draft.has(ADDED):
        empty = pq.read_schema(draft.file(ITEMS)).empty_table()
        return empty, 0, np.empty((0, draft.schema.dim), dtype=np.float32)
    table, vectors = pq.read_table(draft.file(ADDED)), read_array(draft.file(ADDED_VECTORS))
    gone = set(ids)
    keep = np.array([name not in gone for name in table.column(0).to_pylist()], dtype=np.bool_)
    return table.filter(pa.array(keep)), int((~keep).sum()), vectors[keep]


def _stage(draft: Draft, table: pa.Table, vectors: npt.NDArray[np.float32], removed: Rows) -> None:
    """Stage the added items and the removed rows."""
    for name in (ADDED, ADDED_LOOKUP, ADDED_VECTORS, REMOVED):
        draft.remove(name)
    if table.num_rows:
        pq.write_table(table, draft.path(ADDED))
        record_store.write(
            draft.path(ADDED_LOOKUP), table.column(0).to_pylist(), json_lines(table, leave_out=table.column_names[:1])
        )
        np.save(draft.path(ADDED_VECTORS), np.ascontiguousarray(vectors), allow_pickle=False)
    if len(removed):
        np.save(draft.path(REMOVED), removed, allow_pickle=False)
    facts = draft.read_json(INDEX_FACTS)
    facts.update(count=facts["built"] - len(removed) + table.num_rows, added=table.num_rows, removed=len(removed))
    draft.write_json(INDEX_FACTS, facts)
