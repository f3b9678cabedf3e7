"""HeldOut: what a training kept back to be judged by, read from its prepared folder, columnar throughout."""

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from retrieval.bundle import layout
from retrieval.bundle.layout import SPLITS
from retrieval.common import csr
from retrieval.common.arrays import Rows
from retrieval.common.csr import CSR
from retrieval.common.errors import BundleError
from retrieval.evaluation.baselines.base import Training

StageName = Literal["valid", "test"]

# Rows of these splits are known at a stage: input, and left out of the ranking.
KNOWN: Final[dict[StageName, tuple[str, ...]]] = {
    "valid": ("train", "valid-fold-in"),
    "test": ("train", "valid", "test-fold-in"),
}


class Stage(NamedTuple):
    """The users with something to be found, and what is known of them.

    rows: (n,) user rows, rising. histories: their known items before the first of the truth, oldest first.
    truth: what is to be found. seen: all that is known of them, left out of the ranking.
    """

    name: StageName
    rows: Rows
    histories: CSR
    truth: CSR
    seen: CSR

    def sample(self, count: int, *, seed: int) -> "Stage":
        """At most `count` of the users, drawn at random."""
        if count >= len(self.rows):
            return self
        kept = np.sort(np.random.default_rng(seed).choice(len(self.rows), count, replace=False))
        return Stage(self.name, self.rows[kept], self.histories.take(kept), self.truth.take(kept), self.seen.take(kept))


@dataclass(frozen=True)
class HeldOut:
    """A prepared dataset as evaluation needs it. Rows are those of `users` and `items`.

    users, items: tables, the id column first. config: as the training resolved it.
    """

    users: Any
    items: Any
    config: dict[str, Any]
    _user: Rows = field(repr=False)
    _item: Rows = field(repr=False)
    _split: npt.NDArray[np.int8] = field(repr=False)
    _time: npt.NDArray[np.float64] | None = field(repr=False)
    _value: npt.NDArray[np.float64] | None = field(repr=False)

    @classmethod
    def read(cls, folder: Path) -> "HeldOut":
        """Read a prepared folder. Raises BundleError that names the file: it is not there, or does not read."""
        users = _read(folder / layout.USERS)
        items = _read(folder / layout.ITEMS)
        rows = _read(folder / layout.INTERACTIONS)
        try:
            config = json.loads((folder / layout.CONFIG).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise BundleError(f"{folder / layout.CONFIG}: does not read ({error}); train again") from error
        where = str(folder / layout.INTERACTIONS)
        return cls(
            users=users,
            items=items,
            config=config,
            _user=_rows_of(rows, "user", users.column(0), where=where),
            _item=_rows_of(rows, "item", items.column(0), where=where),
            _split=_rows_of(rows, "split", pa.chunked_array([list(SPLITS)]), where=where).astype(np.int8),
            _time=_floats(rows, "time"),
            _value=_floats(rows, "value"),
        )

    @property
    def item_count(self) -> int:
        return int(self.items.num_rows)

    @property
    def user_count(self) -> int:
        return int(self.users.num_rows)

    @cached_property
    def item_ids(self) -> list[str]:
        ids: list[str] = self.items.column(0).to_pylist()
        return ids

    @cached_property
    def training(self) -> Training:
        """The training rows of all users."""
        mask = self._of("train")
        times = None if self._time is None else self._time[mask]
        return Training(self._lists(mask), self.item_count, times)

    @cached_property
    def popularity(self) -> Rows:
        """How many users have each item in training: (items,)."""
        return self.training.histories.counts(self.item_count)

    def best_stage(self) -> Stage:
        """The test, or the validation where there is none. Raises BundleError where nothing is held out."""
        for name in ("test", "valid"):
            if self._of(name).any():
                return self.stage(name)
        raise BundleError(
            f'{self.config.get("source", "the config")}: the split "{self.split_kind}" holds nothing out, so there is '
            "nothing to evaluate; train with another split.kind first"
        )

    @property
    def split_kind(self) -> str:
        return str(self.config.get("split", {}).get("kind", "unknown"))

    def stage(self, name: StageName) -> Stage:
        """Who is to be judged at a stage, with what is known of them."""
        wanted, known = self._of(name), self._of(*KNOWN[name])
        before = known
        if self._time is not None:
            # Rows are in order of time within a user: what counts as history comes before the first of the truth.
            place = np.arange(len(wanted))
            first = np.full(self.user_count, len(wanted))
            np.minimum.at(first, self._user[wanted], place[wanted])
            before = known & (place < first[self._user])
        rows = np.unique(self._user[wanted])
        return Stage(
            name,
            rows,
            self._lists(before).take(rows),
            self._lists(wanted).take(rows),
            self._lists(known).take(rows),
        )

    def values(self, *names: str) -> tuple[Rows, Rows, npt.NDArray[np.float64]]:
        """User rows, item rows and values of the interactions of some splits that have a value."""
        assert self._value is not None
        mask = self._of(*names) & np.isfinite(self._value)
        return self._user[mask], self._item[mask], self._value[mask]

    @property
    def has_values(self) -> bool:
        return self._value is not None

    def span(self) -> tuple[float, float] | None:
        """The first and the last time of all interactions, or None without times."""
        if self._time is None:
            return None
        return float(np.nanmin(self._time)), float(np.nanmax(self._time))

    def counts(self) -> dict[str, int]:
        """How many interactions each split has."""
        found = np.bincount(self._split, minlength=len(SPLITS))
        return {name: int(count) for name, count in zip(SPLITS, found, strict=True) if count}

    def users_with(self, rows: Rows, histories: CSR, *, feature: str | None, longest: int | None) -> Any:
        """The table of some users, with their histories as a list column of ids, oldest first.

        feature: the name of that column, None for no history; longest: only the newest that many.
        """
        table = self.users.take(pa.array(rows))
        if feature is None:
            return table
        if longest is not None:
            histories = histories.newest(longest)
        names = self.items.column(0).combine_chunks().cast(pa.string()).take(pa.array(histories.indices))
        lists = pa.ListArray.from_arrays(pa.array(histories.indptr, pa.int32()), names)
        if feature in table.column_names:
            table = table.drop_columns([feature])
        return table.append_column(feature, lists)

    def _of(self, *names: str) -> npt.NDArray[np.bool_]:
        return np.isin(self._split, [SPLITS.index(name) for name in names])

    def _lists(self, mask: npt.NDArray[np.bool_]) -> CSR:
        return csr.from_pairs(self._user[mask], self._item[mask], height=self.user_count)


def _read(path: Path) -> Any:
    if not path.is_file():
        raise BundleError(f"{path}: there is no such file; evaluation needs what training held out, so train first")
    try:
        return pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise BundleError(f"{path}: does not read as Parquet ({str(error).splitlines()[0][:200]})") from error


def _rows_of(table: Any, name: str, ids: Any, *, where: str) -> Rows:
    """The positions in `ids` of a column of ids. Raises BundleError where one is not among them."""
    if name not in table.column_names:
        raise BundleError(f'{where}: has no column "{name}"; train again')
    column = table.column(name)
    values = pa.array(ids.combine_chunks().cast(pa.string()))
    if pa.types.is_dictionary(column.type):
        coded = column.unify_dictionaries().combine_chunks()
        if isinstance(coded, pa.ChunkedArray):
            coded = pa.concat_arrays(coded.chunks) if coded.num_chunks else pa.array([], column.type)
        places = pc.index_in(coded.dictionary.cast(pa.string()), value_set=values)
        found = places.take(coded.indices)
    else:
        found = pc.index_in(column.cast(pa.string()), value_set=values).combine_chunks()
    if found.null_count:
        raise BundleError(f'{where}: column "{name}" has ids that are not in the table of them; train again')
    return np.asarray(found.to_numpy(zero_copy_only=False)).astype(np.int64)


def _floats(table: Any, name: str) -> npt.NDArray[np.float64] | None:
    """A column with NaN for null; None where it has no value at all."""
    if name not in table.column_names or table.column(name).null_count == table.num_rows:
        return None
    values = table.column(name).cast(pa.float64()).combine_chunks().to_numpy(zero_copy_only=False)
    return np.asarray(values, dtype=np.float64)
