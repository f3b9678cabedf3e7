"""Preprocess: raw features -> what a tower takes. Fitted on training rows, baked into the graph.

`encode` is the reference for the exported graph: it takes the arrays that the graph takes. `encode_table` is its
columnar twin for training; a test holds them equal.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from retrieval.common.errors import DataError, TrainError
from retrieval.features.schema import OPTIONS, SIDES, Feature, Side
from retrieval.features.vocabulary import FIRST, MISSING, UNKNOWN, Vocabulary
from train.data.tables import words

Batch = dict[str, npt.NDArray[Any]]

FORMAT_VERSION: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaler:
    """Mean and standard deviation of a number over the training rows; a constant has deviation 1."""

    mean: float
    std: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Lowest and highest value (rating) of the training interactions."""

    low: float
    high: float


class Preprocess:
    """What each feature of each side was fitted to.

    numbers: a Scaler per number. vocabularies: a Vocabulary per category, categories and history; that of the history
    holds every item, in the order of the items table, so row = item row + 2.
    values: the range of the interactions' values, None where there are none.
    """

    def __init__(
        self,
        *,
        features: Mapping[Side, tuple[Feature, ...]],
        numbers: Mapping[Side, Mapping[str, Scaler]],
        vocabularies: Mapping[Side, Mapping[str, Vocabulary]],
        values: Range | None,
    ) -> None:
        self._features = dict(features)
        self._numbers = {side: dict(numbers[side]) for side in SIDES}
        self._vocabularies = {side: dict(vocabularies[side]) for side in SIDES}
        self.values = values

    def features(self, side: Side) -> tuple[Feature, ...]:
        return self._features[side]

    def scaler(self, side: Side, name: str) -> Scaler:
        return self._numbers[side][name]

    def vocabulary(self, side: Side, name: str) -> Vocabulary:
        return self._vocabularies[side][name]

    def encode(self, side: Side, raw: Mapping[str, npt.NDArray[Any]]) -> Batch:
        """The arrays that the graph takes -> the arrays that the tower takes. The input is not modified.

        raw: number float32 (n,), NaN missing; category and hash str (n,), "" missing; categories and history str
            (n, L), "" anywhere as padding, a history oldest first; vector float32 (n, size), NaN missing.
        Returns number and vector float32 unscaled (the tower scales); category and hash int64 (n,); categories int64
            (n, L); history int64 (n, K), newest first, compacted, K = min(L, max_length), zeros after.
        """
        batch: Batch = {}
        for feature in self._features[side]:
            values = raw[feature.name]
            if not feature.is_text:
                batch[feature.name] = np.asarray(values, np.float32)
                continue
            flat = np.asarray(values, object).ravel().tolist()
            if feature.kind == "hash":
                assert feature.buckets is not None
                rows = hash_rows(flat, feature.buckets)
            else:
                rows = self._vocabularies[side][feature.name].rows(flat)
            rows = rows.reshape(np.shape(values))
            if feature.kind == "history":
                assert feature.max_length is not None
                rows = compact_history(rows, feature.max_length)
            batch[feature.name] = rows
        return batch

    def encode_table(self, side: Side, table: pl.DataFrame) -> Batch:
        """A table of `Dataset` -> the arrays that the tower takes, as `encode` gives them.

        A history is encoded where the table has it as a column of lists, and left out where it has not.
        """
        batch: Batch = {}
        for feature in self._features[side]:
            if feature.name not in table.columns:
                assert feature.kind == "history", feature
                continue
            column = table.get_column(feature.name)
            if feature.kind == "number":
                batch[feature.name] = column.cast(pl.Float32).fill_null(float("nan")).to_numpy()
            elif feature.kind == "vector":
                batch[feature.name] = _vectors(column, feature)
            elif feature.kind == "category":
                batch[feature.name] = _rows(words(column), self._vocabularies[side][feature.name])
            elif feature.kind == "hash":
                assert feature.buckets is not None
                filled = words(column).fill_null("")
                names = filled.unique()
                rows = pl.Series(hash_rows(names.to_list(), feature.buckets))
                found = filled.replace_strict(names, rows, return_dtype=pl.Int64)
                batch[feature.name] = found.cast(pl.Int64).to_numpy()  # of no rows polars keeps the type
            else:
                padded = _padded(column, self._vocabularies[side][feature.name])
                if feature.kind == "history":
                    assert feature.max_length is not None
                    padded = compact_history(padded, feature.max_length)
                batch[feature.name] = padded
        return batch

    def to_json(self) -> dict[str, Any]:
        sides: dict[str, Any] = {}
        for side in SIDES:
            entries = []
            for feature in self._features[side]:
                entry: dict[str, Any] = {"name": feature.name, "kind": feature.kind, **feature.options}
                if feature.name in self._numbers[side]:
                    scaler = self._numbers[side][feature.name]
                    entry |= {"mean": scaler.mean, "std": scaler.std}
                if feature.name in self._vocabularies[side]:
                    entry["vocabulary"] = list(self._vocabularies[side][feature.name].ids)
                entries.append(entry)
            sides[side] = entries
        values = None if self.values is None else [self.values.low, self.values.high]
        return {"format_version": FORMAT_VERSION, **sides, "values": values}

    @classmethod
    def from_json(cls, content: Any, *, source: str) -> "Preprocess":
        """Read what `to_json` wrote. Raises TrainError, naming `source`, where it is not that."""
        try:
            if content["format_version"] != FORMAT_VERSION:
                raise TrainError(f"{source}: format version {content['format_version']!r}, expected {FORMAT_VERSION}")
            features: dict[Side, tuple[Feature, ...]] = {}
            numbers: dict[Side, dict[str, Scaler]] = {side: {} for side in SIDES}
            vocabularies: dict[Side, dict[str, Vocabulary]] = {side: {} for side in SIDES}
            for side in SIDES:
                for entry in content[side]:
                    name = entry["name"]
                    if "mean" in entry:
                        numbers[side][name] = Scaler(mean=float(entry["mean"]), std=float(entry["std"]))
                    if "vocabulary" in entry:
                        vocabularies[side][name] = Vocabulary(entry["vocabulary"], where=f"{source}: {name}")
                features[side] = tuple(
                    Feature(**{name: entry[name] for name in ("name", "kind", *OPTIONS) if name in entry})
                    for entry in content[side]
                )
            values = content["values"]
            limits = None if values is None else Range(low=float(values[0]), high=float(values[1]))
            return cls(features=features, numbers=numbers, vocabularies=vocabularies, values=limits)
        except (KeyError, TypeError, ValueError, IndexError, DataError) as error:
            raise TrainError(
                f"{source}: not a preprocess file ({type(error).__name__}: {error}); train again"
            ) from error


def fit(
    *,
    features: Mapping[Side, tuple[Feature, ...]],
    users: pl.DataFrame,
    items: pl.DataFrame,
    interactions: pl.DataFrame,
) -> Preprocess:
    """Fit scalers and vocabularies on what takes part in training.

    users, items, interactions: as in `Dataset`. Only users and items of `train` rows are looked at; only the history's
    vocabulary holds every item, since an item that is new can be embedded from its features.
    """
    train = interactions.filter(pl.col("split") == "train")
    numbers: dict[Side, dict[str, Scaler]] = {side: {} for side in SIDES}
    vocabularies: dict[Side, dict[str, Vocabulary]] = {side: {} for side in SIDES}
    for side, whole in (("user", users), ("item", items)):
        present = np.zeros(whole.height, np.bool_)
        present[train.get_column(side).to_numpy()] = True
        table = whole.filter(pl.Series(present))
        for feature in features[side]:  # type: ignore[index]
            where = f'{side} feature "{feature.name}"'
            if feature.kind == "history":
                ids = items.get_column(items.columns[0]).to_list()
                vocabularies["user"][feature.name] = Vocabulary(ids, where=where)
            elif feature.kind == "number":
                numbers[side][feature.name] = _fit_number(table.get_column(feature.name))  # type: ignore[index]
            elif feature.kind in ("category", "categories"):
                column = table.get_column(feature.name)
                found = column.explode() if feature.kind == "categories" else words(column)
                vocabularies[side][feature.name] = Vocabulary(_by_count(found), where=where)  # type: ignore[index]
    return Preprocess(
        features=features, numbers=numbers, vocabularies=vocabularies, values=_fit_range(train.get_column("value"))
    )


def _fit_number(column: pl.Series) -> Scaler:
    from sklearn.preprocessing import StandardScaler  # a second of import that `inspect` and `query` never need

    known = column.cast(pl.Float64).drop_nulls().to_numpy()
    if known.size == 0:
        return Scaler(mean=0.0, std=1.0)
    fitted = StandardScaler().fit(known[:, None])  # (n, 1)
    return Scaler(mean=float(fitted.mean_[0]), std=float(fitted.scale_[0]))


def _fit_range(values: pl.Series) -> Range | None:
    from sklearn.preprocessing import MinMaxScaler

    known = values.drop_nulls().to_numpy()
    if known.size == 0:
        return None
    fitted = MinMaxScaler().fit(known[:, None].astype(np.float64))
    return Range(low=float(fitted.data_min_[0]), high=float(fitted.data_max_[0]))


def _by_count(column: pl.Series) -> list[str]:
    """Distinct values, the most frequent first, equal counts in order of the value."""
    counts = column.drop_nulls().alias("word").value_counts(name="n")
    return counts.sort(["n", "word"], descending=[True, False]).get_column("word").to_list()


def compact_history(rows: npt.NDArray[np.int64], max_length: int) -> npt.NDArray[np.int64]:
    """Turn histories around: newest first, padding (row 0) closed up and moved to the end, cut to `max_length`.

    rows: (n, L) int64, oldest first, 0 anywhere. Returns (n, min(L, max_length)).
    """
    newest = rows[:, ::-1]
    order = np.argsort(newest == MISSING, axis=1, kind="stable")  # False sorts first: padding moves to the end
    return np.ascontiguousarray(np.take_along_axis(newest, order, axis=1)[:, :max_length])


def hash_rows(values: Iterable[str], buckets: int) -> npt.NDArray[np.int64]:
    """Row of each text by MurmurHash3 (x86, 32 bits, seed 0) of its UTF-8 bytes; "" is missing. Returns (n,)."""
    from sklearn.utils import murmurhash3_32

    rows = [FIRST + murmurhash3_32(value, seed=0, positive=True) % buckets if value else MISSING for value in values]
    return np.asarray(rows, np.int64)


def _rows(column: pl.Series, vocabulary: Vocabulary) -> npt.NDArray[np.int64]:
    if not vocabulary.ids:
        return np.where(column.is_null().to_numpy(), MISSING, UNKNOWN).astype(np.int64)
    known = pl.Series(vocabulary.ids, dtype=pl.String)
    rows = pl.Series(range(FIRST, len(vocabulary)), dtype=pl.Int64)
    found = column.replace_strict(known, rows, default=UNKNOWN, return_dtype=pl.Int64)
    return found.zip_with(column.is_not_null() & (column != ""), pl.Series([MISSING], dtype=pl.Int64)).to_numpy()


def _padded(column: pl.Series, vocabulary: Vocabulary) -> npt.NDArray[np.int64]:
    """Lists of text -> rows, padded to the longest. Returns (n, L) int64."""
    lengths = column.list.len().fill_null(0).to_numpy().astype(np.int64)
    result = np.full((len(column), int(lengths.max(initial=0))), MISSING, np.int64)
    flat = column.filter(pl.Series(lengths > 0)).explode()
    result[np.arange(result.shape[1]) < lengths[:, None]] = _rows(flat, vocabulary)
    return result


def _vectors(column: pl.Series, feature: Feature) -> npt.NDArray[np.float32]:
    assert feature.size is not None
    filler = pl.Series([[float("nan")] * feature.size], dtype=pl.List(pl.Float32))
    filled = column.zip_with(column.is_not_null(), filler)
    flat = filled.explode().fill_null(float("nan")).to_numpy()
    return flat.reshape(len(column), feature.size).astype(np.float32, copy=False)
