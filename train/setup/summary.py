"""What is in a dataset, as text: sizes, sparsity, span of time, features, the first rows."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import polars as pl

from retrieval.bundle.layout import SPLITS
from retrieval.common.text_table import text_table
from retrieval.features.columns import date_of
from retrieval.features.schema import SIDES, Feature, Side
from train.data.dataset import Dataset
from train.setup.infer import share

CELL_WIDTH: Final = 36


def report(dataset: Dataset, *, rows: int = 5) -> str:
    """The whole report; the first `rows` users and items at its end."""
    parts = [str(dataset.config.source), _sizes(dataset), _features(dataset)]
    for side in SIDES:
        frame = dataset.users if side == "user" else dataset.items
        parts.append(f"{side}s, the first {min(rows, frame.height)} of {frame.height:,}\n" + _head(frame, rows))
    return "\n\n".join(parts)


def _sizes(dataset: Dataset) -> str:
    interactions, data = dataset.interactions, dataset.config.data
    total = interactions.height
    lines = []
    for side in SIDES:
        frame = dataset.users if side == "user" else dataset.items
        counts = interactions.get_column(side).value_counts().get_column("count").to_numpy()
        lines.append(
            (
                f"{side}s",
                f"{frame.height:,}",
                f"{len(counts):,} with interactions; {counts.mean():.1f} each, median {np.median(counts):.0f}, "
                f"{counts.min():,} to {counts.max():,}",
            )
        )
    cells = dataset.users.height * dataset.items.height
    lines.append(("interactions", f"{total:,}", f"{1 - total / cells:.2%} of all pairs are empty"))
    if dataset.duplicates:
        lines.append(("repeats", f"{dataset.duplicates:,}", "of a user and an item, left out; the last is kept"))
    if data.value is not None:
        value = interactions.get_column("value")
        lines.append(("value", data.value, _range(value)))
    if data.time is not None:
        lines.append(("time", data.time, _span(interactions.get_column("time"))))
    if dataset.order_test.repeats is not None:
        read = "sequences" if dataset.order_test.informative else "sets"
        text = f"as often as by chance the same items follow each other; histories are read as {read}"
        lines.append(("order", f"{dataset.order_test.repeats:.2f} x", text))
    counted = dict(interactions.get_column("split").cast(pl.String).value_counts().iter_rows())
    held = ", ".join(f"{counted[name]:,} {name}" for name in SPLITS if name in counted)
    lines.append(("split", dataset.config.split.kind, held))
    label, middle = (max(len(line[column]) for line in lines) for column in (0, 1))
    return "\n".join(f"{name:<{label}}  {short:>{middle}}  {long}" for name, short, long in lines)


def _span(times: pl.Series) -> str:
    known = times.drop_nulls()
    if known.is_empty():
        return "all missing"
    missing = f", {times.null_count() / len(times):.1%} missing" if times.null_count() else ""
    first, last = int(known.to_numpy().min()), int(known.to_numpy().max())
    return f"{date_of(first)} to {date_of(last)}{missing}"


def _range(series: pl.Series) -> str:
    known = series.drop_nulls().cast(pl.Float64)
    if known.is_empty():
        return "all missing"
    values = known.to_numpy()
    missing = f", {series.null_count() / len(series):.1%} missing" if series.null_count() else ""
    return f"{values.min():g} to {values.max():g}, mean {values.mean():.4g}{missing}"


def _features(dataset: Dataset) -> str:
    rows = [_feature(dataset, side, feature) for side in SIDES for feature in dataset.config.features(side)]
    header = ("tower", "feature", "kind", "missing", "vocabulary", "values")
    return text_table(header, rows, right=(False, False, False, True, True, False), cell_width=CELL_WIDTH)


def _feature(dataset: Dataset, side: Side, feature: Feature) -> Sequence[str]:
    frame = dataset.users if side == "user" else dataset.items
    if feature.kind == "history":
        counts = dataset.interactions.get_column("user").value_counts().get_column("count")
        empty = 1 - len(counts) / frame.height
        size = len(dataset.preprocess.vocabulary(side, feature.name).ids)
        return (side, feature.name, feature.kind, f"{empty:.1%}", f"{size:,}", f"the newest {feature.max_length}")
    column = frame.get_column(feature.name)
    absent = column.is_null()
    if feature.kind == "categories":
        absent = column.list.len().fill_null(0) == 0
    missing = f"{share(absent):.1%}"
    if feature.kind == "number":
        return (side, feature.name, feature.kind, missing, "", _range(column).split(",")[0])
    if feature.kind == "vector":
        return (side, feature.name, feature.kind, missing, "", f"{feature.size} numbers")
    if feature.kind == "hash":
        return (side, feature.name, feature.kind, missing, "", f"{feature.buckets:,} buckets")
    known = dataset.preprocess.vocabulary(side, feature.name).ids
    return (side, feature.name, feature.kind, missing, f"{len(known):,}", ", ".join(known[:4]))


def _head(frame: pl.DataFrame, rows: int) -> str:
    first = frame.head(rows)
    cells = [[_shown(value) for value in row] for row in first.iter_rows()]
    right = [dtype.is_numeric() for dtype in frame.dtypes]
    return text_table(frame.columns, cells, right=right, cell_width=CELL_WIDTH)


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return "|".join(_shown(entry) for entry in value[:8]) + ("…" if len(value) > 8 else "")
    return str(value)
