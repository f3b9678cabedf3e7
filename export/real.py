"""The real users and items of a training, as the towers take them: what smaller weights are measured on."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from retrieval import prepared
from retrieval.records import Batch, batch_of_table
from retrieval.schema import Feature


def items_table(training: Path) -> pa.Table:
    """Every item of a training; the id column first."""
    return pl.read_parquet(training / prepared.ITEMS).to_arrow()


def titles(training: Path, table: pa.Table) -> list[str]:
    """What each item of the training is called: its title, its id where it has none."""
    name = json.loads((training / prepared.CONFIG).read_text(encoding="utf-8"))["data"].get("title")
    ids: list[str] = table.column(0).cast(pa.string()).to_pylist()
    if name not in table.column_names:
        return ids
    texts = table.column(name).cast(pa.string()).to_pylist()
    return [text or own for text, own in zip(texts, ids, strict=True)]


def users_table(training: Path, history: Feature | None, *, limit: int) -> pa.Table:
    """Users of a training, spread evenly over the table, at most `limit`; with all their items, oldest first."""
    users = pl.read_parquet(training / prepared.USERS)
    kept = np.unique(np.linspace(0, len(users) - 1, min(limit, len(users))).astype(np.int64))
    users = users[kept]
    if history is None:
        return users.to_arrow()
    interactions = pl.read_parquet(training / prepared.INTERACTIONS, columns=["user", "item"]).cast(pl.String)
    lists = interactions.group_by("user", maintain_order=True).agg(pl.col("item").alias(history.name))
    name = users.columns[0]
    users = users.drop(history.name, strict=False).with_columns(pl.col(name).cast(pl.String))
    return users.join(lists, left_on=name, right_on="user", how="left", maintain_order="left").to_arrow()


def batches(features: Sequence[Feature], table: pa.Table, *, rows: int = 256) -> list[Batch]:
    """A table in batches of at most `rows` rows."""
    return [batch_of_table(features, table.slice(start, rows)) for start in range(0, table.num_rows, rows)]
