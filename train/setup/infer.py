"""Guess what the columns of a table are, from their names and their values. Guesses are written down for a person."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl
import pyarrow as pa

from retrieval.common.errors import DataError
from retrieval.features.columns import ids, is_text, times
from retrieval.features.schema import Feature
from retrieval.features.tables import Table
from train.data.tables import series

# Words of a column's name that tell its role, best first.
USER_WORDS: Final = ("user", "customer", "member", "person", "visitor", "client", "reader", "viewer", "account", "uid")
ITEM_WORDS: Final = (
    "item", "movie", "film", "product", "article", "book", "song", "track", "video", "game", "sku", "asin", "isbn",
    "iid",
)  # fmt: skip
TIME_WORDS: Final = ("timestamp", "time", "datetime", "date", "when", "created", "at", "ts", "position", "day", "t")
VALUE_WORDS: Final = (
    "rating", "score", "stars", "value", "weight", "count", "quantity", "qty", "plays", "amount", "rate",
)  # fmt: skip
TITLE_WORDS: Final = ("title", "name", "label", "headline")
CODE_WORDS: Final = ("zip", "postcode", "postal", "code", "id", "phone", "isbn", "sku")
SEPARATORS: Final = ("|", ";", ",")

_DECIMAL_COMMA: Final = r"^\s*[+-]?\d[\d.]*(,\d+)?\s*$"  # 1,25 and 1.000,5

MOST_CATEGORIES: Final = 0.5  # distinct values a row, above which text is taken as free text


@dataclass(frozen=True, slots=True, kw_only=True)
class Guess:
    """A feature and what was seen of it; without a feature, why the column is left out."""

    column: str
    feature: Feature | None
    remark: str


_Take = Callable[[Feature, str], Guess]
_Leave = Callable[[str], Guess]


def tokens(name: str) -> list[str]:
    """The words of a column name: "User Id", "userId" and "user_id" all give user and id."""
    spaced = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", name)
    return [word for word in re.split(r"[^\w]+|_+", spaced.lower()) if word]


def _rank(name: str, words: Sequence[str]) -> int:
    """How well a name fits a role: 0 is best, len(words) is not at all. Plurals count."""
    found = tokens(name)
    singular = {word.removesuffix("s") for word in found} | set(found)
    return next((rank for rank, word in enumerate(words) if word in singular), len(words))


def by_name(names: Iterable[str], words: Sequence[str], *, prefer: Sequence[str] = ()) -> str | None:
    """The column whose name fits best; among equals one that also has a word of `prefer`, then the first."""
    ranked = [
        (_rank(name, words), not (set(tokens(name)) & set(prefer)), position, name)
        for position, name in enumerate(names)
    ]
    fitting = [entry for entry in ranked if entry[0] < len(words)]
    return min(fitting)[3] if fitting else None


def overlap(left: pl.Series, right: pl.Series) -> float:
    """Share of the distinct ids of the left that the right has too."""
    distinct = left.drop_nulls().unique()
    return share(distinct.is_in(right.drop_nulls().unique().implode()))


def share(mask: pl.Series) -> float:
    """Share of true among the values that are known; 0 of none."""
    known = mask.drop_nulls()
    return float(np.count_nonzero(known.to_numpy())) / len(known) if len(known) else 0.0


def id_series(table: Table, name: str) -> pl.Series | None:
    """A column as ids; None if it cannot be one: it has empty or unusable values, or fractions."""
    try:
        found = series(ids(table.table.column(name), where=name, text=table.text), name)
    except DataError:
        return None
    return None if found.str.contains(r"^-?\d+\.\d*[1-9]").any() else found


def key_of(table: Table, wanted: pl.Series, *, words: Sequence[str]) -> str | None:
    """The column of a table of users or items that holds the ids of the interactions: no value twice, most of them."""
    best: tuple[float, int, str] | None = None
    for name in table.columns:
        found = id_series(table, name)
        if found is None or found.drop_nulls().is_duplicated().any():
            continue
        share = overlap(wanted, found)
        candidate = (-round(share, 1), _rank(name, words), name)
        if share > 0 and (best is None or candidate < best):
            best = candidate
    return None if best is None else best[2]


def is_time(table: Table, name: str) -> bool:
    """Whether every value is a number, a date or an ISO time."""
    return _has_times(table.table.column(name))


def is_date(table: Table, name: str) -> bool:
    """Whether every value is a date or an ISO time."""
    column = table.typed(name)
    if pa.types.is_date(column.type) or pa.types.is_timestamp(column.type):
        return True
    return is_text(column.type) and _has_times(column)


def _has_times(column: Any) -> bool:
    try:
        found = times(column, where="")
    except DataError:
        return False
    return bool(found.null_count < len(found))


def feature_of(table: Table, name: str) -> Guess:
    """What kind of feature a column of users or items makes, if any."""
    column = series(table.typed(name), name)
    known = column.drop_nulls()
    missing = 1 - len(known) / len(column)
    gaps = f", {missing:.0%} missing" if missing >= 0.005 else ""

    def leave(why: str) -> Guess:
        return Guess(column=name, feature=None, remark=why)

    def take(feature: Feature, seen: str) -> Guess:
        return Guess(column=name, feature=feature, remark=seen + gaps)

    if known.is_empty():
        return leave("no value")
    if isinstance(column.dtype, pl.List | pl.Array):
        return _list_feature(name, known, take, leave)
    if column.dtype.is_numeric() and not set(tokens(name)) & set(CODE_WORDS):
        if known.n_unique() == 1:
            return leave("one value only")
        values = known.cast(pl.Float64).to_numpy()
        return take(Feature(name=name, kind="number"), f"{values.min():g} to {values.max():g}")
    if column.dtype == pl.Boolean:
        return take(Feature(name=name, kind="category"), "true or false")
    if is_date(table, name):
        return leave("dates; make a number of them, a year for example")
    if column.dtype in (pl.String, pl.Categorical, pl.Enum) or column.dtype.is_integer():
        return _text_feature(name, known.cast(pl.String), take, leave)
    return leave(f"of type {column.dtype}")


def _list_feature(name: str, known: pl.Series, take: _Take, leave: _Leave) -> Guess:
    inner = known.dtype.inner  # type: ignore[attr-defined]
    lengths = (known.arr.to_list() if isinstance(known.dtype, pl.Array) else known).list.len()
    if inner.is_float():
        if lengths.n_unique() == 1 and lengths[0]:
            return take(Feature(name=name, kind="vector", size=int(lengths[0])), f"{lengths[0]} numbers")
        return leave("lists of numbers of different lengths")
    if inner == pl.String or inner.is_integer():
        distinct = known.explode().drop_nulls().n_unique()
        return take(Feature(name=name, kind="categories"), f"{distinct:,} distinct")
    return leave(f"lists of type {inner}")


def _text_feature(name: str, known: pl.Series, take: _Take, leave: _Leave) -> Guess:
    size = _vector_size(known)
    if size is not None:
        return take(Feature(name=name, kind="vector", size=size), f"{size} numbers")
    if known.str.contains(_DECIMAL_COMMA).all() and known.str.contains(",", literal=True).any():
        return leave('numbers with a decimal comma, write 1.25 for 1,25; if they are lists, set separator = ","')
    for separator in SEPARATORS:
        parts = known.str.split(separator).explode().str.strip_chars()
        parts = parts.filter(parts != "")
        has_some = share(known.str.contains(separator, literal=True))
        # Words come back in a list of categories; in a sentence with commas most do not.
        if has_some >= 0.1 and parts.n_unique() <= MOST_CATEGORIES * len(parts):
            feature = Feature(name=name, kind="categories", separator=separator)
            return take(feature, f"{parts.n_unique():,} distinct")
    distinct = known.n_unique()
    if distinct == 1:
        return leave("one value only")
    if distinct > max(MOST_CATEGORIES * len(known), 2):
        return leave("free text, or an id of each row")
    return take(Feature(name=name, kind="category"), f"{distinct:,} distinct")


def _vector_size(known: pl.Series) -> int | None:
    """The length of "[0.1, 0.2, ...]", if all values are that."""
    if not known.str.contains(r"^\s*\[\s*-?[\d.eE+-]+(\s*[,; ]\s*-?[\d.eE+-]+)+\s*\]\s*$").all():
        return None
    lengths = known.str.count_matches(r"[\d.eE+-]+").unique()
    return int(lengths[0]) if len(lengths) == 1 else None
