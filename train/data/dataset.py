"""Dataset: tables -> users, items and interactions by row, split, with the preprocess fitted on what trains."""

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from retrieval.bundle import layout
from retrieval.common.console import note
from retrieval.common.errors import DataError
from retrieval.features.tables import read_table
from train.config.components import fits_values
from train.config.load import Config
from train.data import entities, splits
from train.data.impressions import match_to_choices
from train.data.order_test import OrderTest, run_order_test
from train.data.tables import write
from train.features import preprocess as preprocessing
from train.features.preprocess import Preprocess

PREPROCESS_NAME: Final = "preprocess.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """Prepared data.

    config: as it was read, with the length of the history filled in.
    users, items: row i is user or item row i; the id column first, the title next, then in the order of the file.
    interactions: user (UInt32 row), item (UInt32 row), value (Float32, null), time (Int64, null, by
        `columns.times`), split (`splits.SplitType`); sorted by user, time, order in the file; a pair of user and item
        once.
    impressions: user, item (UInt32 rows) of what was shown and not chosen, and choice, the position in `interactions`
        of what the user chose instead (`impressions.match_to_choices`), in the order of the file; empty if the config
        names no column that says it. No part of a history, of the truth or of what is excluded.
    duplicates: earlier interactions of a pair that were dropped.
    order_test: whether the order of the histories is informative.
    """

    config: Config
    users: pl.DataFrame
    items: pl.DataFrame
    interactions: pl.DataFrame
    preprocess: Preprocess
    impressions: pl.DataFrame
    duplicates: int
    order_test: OrderTest

    def rows(self, *names: str) -> pl.DataFrame:
        """The interactions of some splits, in order."""
        return self.interactions.filter(pl.col("split").is_in(list(names)))

    def fingerprint(self) -> str:
        """First 16 hex digits of sha256 over the interactions' ids, values, times and splits, and the impressions."""
        digest = hashlib.sha256()
        for frame in (self.users, self.items):
            digest.update("\0".join(frame.get_column(frame.columns[0]).to_list()).encode())
        for column in self.interactions.iter_columns():
            known = column.is_not_null()
            digest.update(known.to_numpy().tobytes())
            digest.update(column.to_physical().filter(known).to_numpy().tobytes())
        if self.impressions.height:
            digest.update(self.impressions.select("item", "choice").to_numpy().tobytes())
        return digest.hexdigest()[:16]

    def save(self, folder: Path) -> None:
        """Write config, tables and preprocess into a folder that exists: what evaluation and export read."""
        self.config.save(folder)
        (folder / PREPROCESS_NAME).write_text(
            json.dumps(self.preprocess.to_json(), ensure_ascii=False), encoding="utf-8"
        )
        write(self.users, folder / layout.USERS)
        write(self.items, folder / layout.ITEMS)
        named = self.interactions
        for side, frame in (("user", self.users), ("item", self.items)):
            id_of_row = frame.get_column(frame.columns[0])
            named = named.with_columns(id_of_row.gather(named.get_column(side)).cast(pl.Categorical).alias(side))
        dictionaries = named.with_columns(pl.col("split").cast(pl.String).cast(pl.Categorical))
        write(dictionaries, folder / layout.INTERACTIONS)


def prepare(config: Config, *, order_test: OrderTest | None = None) -> Dataset:
    """Read the tables of a config, check them, split them, fit the preprocess.

    order_test: of an earlier training; None to run it.
    Raises DataError that names file, column and row of what cannot be used.
    """
    data = config.data
    table = read_table(config.table(data.interactions))
    raw = entities.interactions(table, config)
    items = entities.entities(config, "item", seen=raw.get_column("item"))
    users = entities.entities(config, "user", seen=raw.get_column("user"))
    raw = raw.with_columns(
        pl.col(side).cast(pl.Enum(frame.get_column(frame.columns[0]))).to_physical().cast(pl.UInt32)
        for side, frame in (("user", users), ("item", items))
    )
    raw = raw.with_row_index("place")
    negative = raw.get_column("negative")
    shown, raw = raw.filter(negative), raw.filter(~negative)
    if raw.height == 0:
        raise DataError(f'{table.path}: column "{data.negative}" is true in every row; nothing was chosen')
    ordered = raw[_order(raw.get_column("user"), raw.get_column("time"))]
    last = _last_of_pair(ordered.get_column("user").to_numpy(), ordered.get_column("item").to_numpy())
    duplicates = int(np.count_nonzero(~last))
    if duplicates:
        note(f"{table.path}: {duplicates:,} interactions repeat a user and an item; the last of each is kept")
        ordered = ordered.filter(pl.Series(last))
    if ordered.get_column("user").n_unique() == 1:
        raise DataError(f"{table.path}: all interactions are of one user; there is nothing to learn from others")
    column = ordered.get_column("split") if "split" in ordered.columns else None
    split = splits.assign(ordered, split=config.split, column=column, where=str(table.path))
    interactions = ordered.select("user", "item", "value", "time").with_columns(split)
    impressions = match_to_choices(shown, ordered)
    if order_test is None:
        order_test = run_order_test(interactions, config)
        if order_test.timed and not order_test.informative:
            note(
                f"{table.path}: {_source(config)} is not informative (the same items follow each other "
                f"{order_test.repeats:.2f} times as often as by chance): histories are read as sets; "
                'force sequences with model.encoder = "attention"'
            )
    config = _with_history_length(config, interactions, ordered=order_test.informative)
    fitted = _preprocess(config, users, items, interactions)
    if fits_values(config.train.objective):
        _check_ratings(fitted, config, str(table.path))
    return Dataset(
        config=config,
        users=users,
        items=items,
        interactions=interactions,
        preprocess=fitted,
        impressions=impressions,
        duplicates=duplicates,
        order_test=order_test,
    )


def _preprocess(config: Config, users: pl.DataFrame, items: pl.DataFrame, interactions: pl.DataFrame) -> Preprocess:
    return preprocessing.fit(
        features={"user": config.user_features, "item": config.item_features},
        users=users,
        items=items,
        interactions=interactions,
    )


def _check_ratings(fitted: Preprocess, config: Config, where: str) -> None:
    """Raises DataError if there is nothing to fit a rating to."""
    if config.data.value is None:
        raise DataError(f'{where}: the objective "rating" fits the values of a column; name it by data.value')
    column = f'{where}: column "{config.data.value}"'
    if fitted.values is None:
        raise DataError(f'{column} has no value in the training rows; the objective "rating" has nothing to fit')
    if fitted.values.low == fitted.values.high:
        raise DataError(
            f'{column} is {fitted.values.low:g} in every training row; the objective "rating" has nothing to fit, '
            'try train.objective = "softmax"'
        )


def _order(users: pl.Series, times: pl.Series) -> npt.NDArray[np.int64]:
    """The order by user, time, row. Stable: equal times keep the order of the file; no time comes before any."""
    first, last = times.min(), times.max()
    if first is None or last is None:
        return np.argsort(users.to_numpy(), kind="stable")
    assert isinstance(first, int)
    assert isinstance(last, int)
    span = last - first + 2
    count = len(users) and int(users.to_numpy().max()) + 1
    if span * count < 2**63:  # one sort of one key, several times faster than two
        since = (times - first + 1).fill_null(0).to_numpy()
        return np.argsort(users.to_numpy().astype(np.int64) * span + since, kind="stable")
    return np.lexsort((times.fill_null(np.iinfo(np.int64).min).to_numpy(), users.to_numpy()))


def _last_of_pair(users: npt.NDArray[np.uint32], items: npt.NDArray[np.uint32]) -> npt.NDArray[np.bool_]:
    """Which rows are the last of their user and item."""
    pairs = users.astype(np.int64) * (int(items.max(initial=0)) + 1) + items
    order = np.argsort(pairs, kind="stable")
    grouped = pairs[order]
    last = np.ones(len(pairs), np.bool_)
    last[order[:-1]] = grouped[1:] != grouped[:-1]
    return last


HISTORY_LENGTHS: Final = (50, 100, 200)
UNORDERED_LENGTH: Final = 2_000


def history_length(counts: npt.NDArray[np.integer[Any]], *, ordered: bool = True) -> int:
    """How many of the newest items of a history count, if the config leaves it open.

    counts: interactions per user. ordered: false where no item is newer than another, so that any counts as much.
    Returns the least of `HISTORY_LENGTHS` that holds half of the histories whole; all, within reason, without order.
    """
    if not ordered:
        return int(np.clip(counts.max(initial=0), HISTORY_LENGTHS[0], UNORDERED_LENGTH))
    median = float(np.median(counts)) if len(counts) else 0.0
    return next((length for length in HISTORY_LENGTHS if length >= median), HISTORY_LENGTHS[-1])


def _source(config: Config) -> str:
    return "the order of the rows" if config.data.time is None else f'column "{config.data.time}"'


def _with_history_length(config: Config, interactions: pl.DataFrame, *, ordered: bool) -> Config:
    if config.history is None or config.history.max_length is not None:
        return config
    train = interactions.filter(pl.col("split") == "train").get_column("user")
    length = history_length(train.value_counts().get_column("count").to_numpy(), ordered=ordered)
    features = tuple(
        replace(feature, max_length=length) if feature.kind == "history" else feature
        for feature in config.user_features
    )
    return replace(config, user_features=features)
