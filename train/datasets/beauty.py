"""Amazon Beauty, 5-core, as prepared for S3-Rec: two gzipped CSV files -> a dataset folder."""

import gzip
import io

import polars as pl

from retrieval.features.schema import Feature
from train.config.load import CONFIG_NAME
from train.config.render import render
from train.datasets.archive import Source
from train.datasets.dataset_folder import TABLES, Folder


def read(source: Source) -> Folder:
    """Interactions (user_id, item_id, position) and items (item_id, attributes joined by "|")."""
    interactions = pl.read_csv(io.BytesIO(gzip.decompress(source.read("interactions.csv.gz"))))
    items = pl.read_csv(io.BytesIO(gzip.decompress(source.read("items.csv.gz"))), infer_schema=False)
    items = items.with_columns(pl.col("attributes").str.split("|"))
    users = interactions.select("user_id").unique(maintain_order=True)
    config = render(
        heading="Amazon Beauty, 5-core: what 22,363 people bought, in order. Item attributes have no names.",
        data={**TABLES, "time": "position"},
        features={
            "user": [Feature(name="history", kind="history")],
            "item": [Feature(name="item_id", kind="category"), Feature(name="attributes", kind="categories")],
        },
    )
    tables = {"interactions": interactions.select("user_id", "item_id", "position"), "items": items, "users": users}
    return Folder(tables=tables, configs={CONFIG_NAME: config})
