"""Preprocess: raw features -> what a tower takes. Fitted on training rows, written into the graph by export.

`encode` is the reference for the exported graph: it takes the arrays that the graph takes. `encode_table` is its
columnar twin for training; a test holds them equal.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from retrieval.common.errors import DataError, TrainError
from retrieval.features.kinds import OPTIONS
from retrieval.features.schema import SIDES, Feature, Side
from retrieval.features.vocabulary import Vocabulary
from train.features.kinds import KINDS, Fitted, Scaler

Batch = dict[str, npt.NDArray[Any]]

FORMAT_VERSION: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Lowest and highest value (rating) of the training interactions."""

    low: float
    high: float


class Preprocess:
    """What the features of both sides were fitted to.

    values: the range of the interactions' values, None where there are none.
    """

    def __init__(
        self,
        *,
        features: Mapping[Side, tuple[Feature, ...]],
        fitted: Mapping[Side, Mapping[str, Fitted]],
        values: Range | None,
    ) -> None:
        """fitted: By feature. The vocabulary of a history holds every item in the order of the items table."""
        self._features = dict(features)
        self._fitted = {side: dict(fitted[side]) for side in SIDES}
        self.values = values

    def features(self, side: Side) -> tuple[Feature, ...]:
        return self._features[side]

    def fitted(self, side: Side, name: str) -> Fitted:
        """What a feature was fitted to."""
        return self._fitted[side].get(name)

    def vocabulary(self, side: Side, name: str) -> Vocabulary:
        """The vocabulary of a feature of a kind that has one."""
        fitted = self.fitted(side, name)
        assert isinstance(fitted, Vocabulary)
        return fitted

    def encode(self, side: Side, raw: Mapping[str, npt.NDArray[Any]]) -> Batch:
        """The arrays that the graph takes -> the arrays that the tower takes. The input is not modified.

        raw: As `Feature.dtype` and `Feature.shape` say; NaN, "" and lists padded with "" are missing, a history is
            oldest first.

        Returns:
            number and vector float32 unscaled (the tower scales); category and hash int64 (n,); categories int64
            (n, L); history int64 (n, min(L, max_length)), newest first, zeros after.

        """
        return {
            feature.name: KINDS[feature.kind].encode(feature, self.fitted(side, feature.name), raw[feature.name])
            for feature in self._features[side]
        }

    def encode_table(self, side: Side, table: pl.DataFrame) -> Batch:
        """A table of `Dataset` -> the arrays that the tower takes, as `encode` gives them.

        A history is encoded where the table has it as a column of lists, and left out where it has not.
        """
        batch: Batch = {}
        for feature in self._features[side]:
            if feature.name in table.columns:
                kind, column = KINDS[feature.kind], table.get_column(feature.name)
                batch[feature.name] = kind.encode_column(feature, self.fitted(side, feature.name), column)
            else:
                assert feature.kind == "history", feature
        return batch

    def to_json(self) -> dict[str, Any]:
        sides: dict[str, Any] = {}
        for side in SIDES:
            entries = []
            for feature in self._features[side]:
                entry: dict[str, Any] = {"name": feature.name, "kind": feature.kind, **feature.options}
                fitted = self.fitted(side, feature.name)
                if isinstance(fitted, Scaler):
                    entry |= {"mean": fitted.mean, "std": fitted.std}
                elif isinstance(fitted, Vocabulary):
                    entry["vocabulary"] = list(fitted.ids)
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
            fitted: dict[Side, dict[str, Fitted]] = {side: {} for side in SIDES}
            for side in SIDES:
                for entry in content[side]:
                    name = entry["name"]
                    if "mean" in entry:
                        fitted[side][name] = Scaler(mean=float(entry["mean"]), std=float(entry["std"]))
                    if "vocabulary" in entry:
                        fitted[side][name] = Vocabulary(entry["vocabulary"], where=f"{source}: {name}")
                features[side] = tuple(
                    Feature(**{name: entry[name] for name in ("name", "kind", *OPTIONS) if name in entry})
                    for entry in content[side]
                )
            values = content["values"]
            limits = None if values is None else Range(low=float(values[0]), high=float(values[1]))
            return cls(features=features, fitted=fitted, values=limits)
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
    """Fit every feature on the users and items that have training rows.

    users, items, interactions: as in `Dataset`. Only the history's vocabulary holds every item, since an item that is
    new can be embedded from its features.
    """
    train = interactions.filter(pl.col("split") == "train")
    fitted: dict[Side, dict[str, Fitted]] = {side: {} for side in SIDES}
    tables: dict[Side, pl.DataFrame] = {"user": users, "item": items}
    for side, whole in tables.items():
        present = np.zeros(whole.height, np.bool_)
        present[train.get_column(side).to_numpy()] = True
        table = whole.filter(pl.Series(present))
        for feature in features[side]:
            where = f'{side} feature "{feature.name}"'
            if feature.kind == "history":
                ids = items.get_column(items.columns[0]).to_list()
                fitted[side][feature.name] = Vocabulary(ids, where=where)
            else:
                column = table.get_column(feature.name)
                fitted[side][feature.name] = KINDS[feature.kind].fit(feature, column, where=where)
    return Preprocess(features=features, fitted=fitted, values=_fit_range(train.get_column("value")))


def _fit_range(values: pl.Series) -> Range | None:
    from sklearn.preprocessing import MinMaxScaler

    known = values.drop_nulls().to_numpy()
    if known.size == 0:
        return None
    fitted = MinMaxScaler().fit(known[:, None].astype(np.float64))
    return Range(low=float(fitted.data_min_[0]), high=float(fitted.data_max_[0]))
