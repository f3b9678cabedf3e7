"""Tables -> what a dataset is made of: the columns of the interactions that are used, users and items a row an id."""

from collections.abc import Sequence

import polars as pl

from retrieval.common.console import note
from retrieval.common.errors import DataError, nearest
from retrieval.features.columns import flags, ids, numbers, times
from retrieval.features.schema import Feature, Side
from retrieval.features.tables import Table, read_table
from train.config.load import Config
from train.data.tables import series


def interactions(table: Table, config: Config) -> pl.DataFrame:
    """The columns that are used, checked: user and item (String), value, time, negative, and split if one says it."""
    data = config.data
    size = table.table.num_rows
    columns = []
    for side, name in (("user", data.user), ("item", data.item)):
        column = table.column(name, what=f"data.{side}")
        columns.append(series(ids(column, where=f'{table.path}: column "{name}"', text=table.text), side))
    if data.value is None:
        columns.append(pl.repeat(None, size, dtype=pl.Float32, eager=True).alias("value"))
    else:
        values = numbers(table.column(data.value, what="data.value"), where=f'{table.path}: column "{data.value}"')
        columns.append(series(values, "value").cast(pl.Float32))
    if data.time is None:
        columns.append(pl.repeat(None, size, dtype=pl.Int64, eager=True).alias("time"))
    else:
        moments = times(table.column(data.time, what="data.time"), where=f'{table.path}: column "{data.time}"')
        columns.append(series(moments, "time"))
    if data.negative is None:
        columns.append(pl.repeat(False, size, dtype=pl.Boolean, eager=True).alias("negative"))
    else:
        where = f'{table.path}: column "{data.negative}"'
        marks = flags(table.column(data.negative, what="data.negative"), where=where)
        columns.append(series(marks, "negative").fill_null(False))
    if config.split.kind == "column":
        columns.append(series(table.column(config.split.column, what="split.column"), "split"))
    frame = pl.DataFrame(columns)
    incomplete = frame.get_column("user").is_null() | frame.get_column("item").is_null()
    if incomplete.any():
        note(f"{table.path}: {incomplete.sum():,} rows have no user or no item; they are left out")
        frame = frame.filter(~incomplete)
    if frame.height == 0:
        raise DataError(f"{table.path}: no row has both a user and an item")
    return frame


def entities(config: Config, side: Side, *, seen: pl.Series) -> pl.DataFrame:
    """The table of users or items, one row an id, extended by ids that only the interactions have."""
    data = config.data
    name, key = (data.users, data.user) if side == "user" else (data.items, data.item)
    features = [feature for feature in config.features(side) if feature.kind != "history"]
    distinct = seen.unique(maintain_order=True).alias(key)
    if name is None:
        for feature in features:
            if feature.name != key:
                raise DataError(
                    f'{config.source}: {side} feature "{feature.name}" needs a table of {side}s; '
                    f"set data.{side}s, or drop the feature"
                )
        return distinct.to_frame()
    table = read_table(config.table(name))
    frame = _columns(table, config, side, key, features)
    new = distinct.filter(~distinct.is_in(frame.get_column(key).implode()))
    if len(new):
        note(f"{table.path}: {len(new):,} of {len(distinct):,} {side}s of the interactions are not in it")
    return pl.concat([frame, new.to_frame()], how="diagonal") if len(new) else frame


def _columns(table: Table, config: Config, side: Side, key: str, features: Sequence[Feature]) -> pl.DataFrame:
    """A table of users or items with its columns typed: the id, the title, then the others in their order."""
    data = config.data
    own = (data.users_id if side == "user" else data.items_id) or key
    what = f"data.{side}" if own == key else f"data.{side}s_id"
    names = series(ids(table.column(own, what=what), where=f'{table.path}: column "{own}"', text=table.text), key)
    repeated = names.filter(names.is_duplicated() & names.is_not_null())
    if len(repeated):
        raise DataError(
            f'{table.path}: {side} id "{repeated[0]}" occurs more than once ({repeated.n_unique():,} such ids); '
            "keep one row an id"
        )
    columns = {key: names}
    title = data.title if side == "item" else None
    if title is not None and title != key:
        if title not in table.columns:
            raise DataError(f'{table.path}: no column "{title}" (data.title){nearest(title, table.columns)}')
        columns[title] = _other(table, title)
    for feature in features:
        if feature.name == key:
            continue
        if feature.name not in table.columns:
            raise DataError(
                f'{config.source}: {side} feature "{feature.name}" is not a column of {table.path}'
                f"{nearest(feature.name, table.columns)}"
            )
        where = f'{table.path}: column "{feature.name}"'
        column = feature.type.convert(feature, table.table.column(feature.name), where=where)
        columns[feature.name] = series(column, feature.name)
    history = config.history.name if side == "user" and config.history is not None else None
    for other in table.columns:
        if other not in columns and other not in (own, history):
            columns[other] = _other(table, other)
    first = [key, *([title] if title is not None and title != key else [])]
    rest = [name for name in table.columns if name in columns and name not in first]
    frame = pl.DataFrame([columns[name] for name in [*first, *rest]])
    if names.null_count():
        note(f"{table.path}: {names.null_count():,} rows have no {side} id; they are left out")
        frame = frame.filter(names.is_not_null())
    return frame


def _other(table: Table, name: str) -> pl.Series:
    """A column that is only shown and filtered by: as it is, if Parquet can hold it."""
    column = series(table.typed(name), name)
    if column.dtype == pl.Null or isinstance(column.dtype, pl.Categorical | pl.Enum):
        return column.cast(pl.String)
    return column
