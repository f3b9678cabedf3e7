"""The real users and items of a training, as the towers take them: what smaller weights are measured on."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from retrieval.bundle import layout
from retrieval.catalog import users
from retrieval.catalog.users import HISTORY
from retrieval.features.records import Batch, batch_of_table
from retrieval.features.schema import Feature


def items_table(training: Path) -> pa.Table:
    """Every item of a training; the id column first."""
    return pq.read_table(training / layout.ITEMS)


def titles(training: Path, table: pa.Table) -> list[str]:
    """What each item of the training is called: its title, its id where it has none."""
    name = json.loads((training / layout.CONFIG).read_text(encoding="utf-8"))["data"].get("title")
    ids: list[str] = table.column(0).cast(pa.string()).to_pylist()
    if name not in table.column_names:
        return ids
    texts = table.column(name).cast(pa.string()).to_pylist()
    return [text or own for text, own in zip(texts, ids, strict=True)]


def users_table(training: Path, history: Feature | None, *, limit: int) -> pa.Table:
    """Users of a training, spread evenly over the table, at most `limit`; with all their items, oldest first."""
    table = users.users_table(training, HISTORY if history is None else history.name)
    rows = np.unique(np.linspace(0, table.num_rows - 1, min(limit, table.num_rows)).astype(np.int64))
    return table.take(rows)


def batches(features: Sequence[Feature], table: pa.Table, *, rows: int = 256) -> list[Batch]:
    """A table in batches of at most `rows` rows."""
    return [batch_of_table(features, table.slice(start, rows)) for start in range(0, table.num_rows, rows)]
