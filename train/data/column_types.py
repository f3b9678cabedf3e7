"""Give a column the type it is to have: ids, numbers, flags, times, lists, vectors. Columnar; errors name the row."""

from typing import Final

import polars as pl

from retrieval.common.errors import DataError

EXACT_INTEGER: Final = 2**53  # above, a float no longer tells one integer from the next
BLANK_WORDS: Final = ("", "na", "n/a", "nan", "null", "none")  # a missing number, as spreadsheets and pandas write it

_WHOLE: Final = r"^-?(0|[1-9]\d*)$"
_FLOAT: Final = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"


def natural(series: pl.Series) -> pl.Series:
    """A text column as whole numbers or numbers, if all its values are; "007" stays text, blanks are null."""
    if series.dtype != pl.String:
        return series
    filled = series.drop_nulls()
    if filled.is_empty():
        return series
    if filled.str.contains(_WHOLE).all() and (filled.str.len_bytes() <= 18).all():
        return series.cast(pl.Int64)
    words = series.str.strip_chars()
    blank = words.str.to_lowercase().is_in(BLANK_WORDS)
    numeric = words.set(blank.fill_null(False), None) if blank.any() else words
    some = numeric.drop_nulls()
    if some.is_empty() or not some.str.contains(_FLOAT).all() or some.str.contains(r"^[+-]?0\d").any():
        return series
    if some.str.contains(_WHOLE).all() and (some.str.len_bytes() <= 18).all():
        return numeric.cast(pl.Int64)
    return numeric.cast(pl.Float64)


def ids(series: pl.Series, *, where: str, text: bool = False) -> pl.Series:
    """A column of ids as text: 1, "1" and the 1.0 of a float column are one id; spaces around it do not count.

    text: the column is from a file without types; one whose values all look like floats is a float column.
    Returns String; null where a float column or a typed file has a gap.
    Raises DataError, naming `where` and the row, on an empty id, a NUL, or a float too large to be exact.
    """
    if series.dtype in (pl.Categorical, pl.Enum):
        series = series.cast(pl.String)
    if series.dtype.is_float() and (series.fill_nan(None).abs() > EXACT_INTEGER).any():
        raise DataError(
            f"{where}: ids above {EXACT_INTEGER} in a column of floats have lost digits; "
            "store them as whole numbers or text"
        )
    if not are_words(series.dtype):
        raise DataError(f"{where}: ids are of type {series.dtype}, expected text or whole numbers")
    if series.dtype != pl.String:
        return words(series)
    distinct = series.unique()
    floats = text and _is_float_text(distinct)
    if not floats and text and series.null_count():
        raise DataError(f"{where}: row {_first(series.is_null())} has no id; fill it in or drop the row")
    blank = distinct.str.strip_chars() == ""
    if not floats and blank.any():
        row = _first(series.str.strip_chars() == "")
        raise DataError(f"{where}: the id of row {row} is empty; fill it in or drop the row")
    if distinct.str.contains("\0", literal=True).any():
        row = _first(series.str.contains("\0", literal=True))
        raise DataError(f"{where}: the id of row {row} contains a NUL character; remove it")
    return words(series, text=text)


def are_words(dtype: pl.DataType) -> bool:
    """Whether `words` takes a column of this type: all but lists, structs, bytes and spans of time."""
    if dtype.is_numeric() or dtype in (pl.String, pl.Categorical, pl.Enum, pl.Boolean, pl.Null):
        return True
    return dtype in (pl.Date, pl.Datetime, pl.Time)


def words(series: pl.Series, *, text: bool = False) -> pl.Series:
    """A column as text, by the rule of `ids`; null where it is missing or blank. Returns String."""
    if series.dtype.is_decimal():  # 5.00 is the 5 of a database
        return series.cast(pl.String).str.replace(r"\.0*$", "")
    if series.dtype.is_float():
        series = series.fill_nan(None)
        whole = pl.col("value").cast(pl.Int64, strict=False)
        is_whole = (pl.col("value") == pl.col("value").floor()) & (pl.col("value").abs() < 2.0**63)
        chosen = pl.when(is_whole).then(whole.cast(pl.String)).otherwise(pl.col("value").cast(pl.String))
        return series.to_frame("value").select(chosen.alias(series.name)).to_series()
    if series.dtype != pl.String:
        return series.cast(pl.String)
    # Values repeat: only the distinct ones are looked at, and most often none of them changes.
    distinct = series.unique().drop_nulls()
    clean = distinct.str.strip_chars()
    if text and _is_float_text(distinct):
        clean = clean.str.replace(r"\.0*$", "")
    clean = clean.replace("", None)
    changed = distinct.filter(clean.ne_missing(distinct))
    if changed.is_empty():
        return series
    return series.replace(changed, clean.filter(clean.ne_missing(distinct)))


def _is_float_text(values: pl.Series) -> bool:
    """Whether these are the values of a float column, written as text: numbers and blanks, with a point somewhere."""
    filled = values.drop_nulls().str.strip_chars()
    filled = filled.filter(filled != "")
    points = filled.str.contains(".", literal=True)
    return bool(points.any() and filled.str.contains(_FLOAT).all())


def _first(mask: pl.Series) -> int:
    """The row of a file, counted from 1 without its header, where a mask is first true."""
    return int(mask.fill_null(False).arg_max() or 0) + 1


def numbers(series: pl.Series, *, where: str) -> pl.Series:
    """A column as Float64; null where it is missing, blank, NaN or infinite.

    Raises DataError, naming `where`, the row and the value, on text where a number is due.
    """
    if series.dtype in (pl.Boolean, pl.Null) or series.dtype.is_numeric():
        result = series.cast(pl.Float64)
    elif series.dtype in (pl.String, pl.Categorical, pl.Enum):
        stripped = series.cast(pl.String).str.strip_chars()
        blank = stripped.str.to_lowercase().is_in(BLANK_WORDS).fill_null(True)
        result = stripped.cast(pl.Float64, strict=False)
        wrong = result.is_null() & ~blank
        if wrong.any():
            row = _first(wrong)
            raise DataError(f'{where}: row {row} is "{stripped[row - 1]}", expected a number')
    else:
        raise DataError(f"{where}: the column is of type {series.dtype}, expected numbers")
    return (
        result.to_frame("n").select(pl.when(pl.col("n").is_finite()).then(pl.col("n")).alias(series.name)).to_series()
    )


_FLAGS: Final = {
    "true": True,
    "1": True,
    "1.0": True,
    "yes": True,
    "false": False,
    "0": False,
    "0.0": False,
    "no": False,
}


def flags(series: pl.Series, *, where: str) -> pl.Series:
    """A column of true and false, 1 and 0, yes and no as Boolean; false where it is missing.

    Raises DataError, naming `where`, the row and the value, on anything else.
    """
    words = series.cast(pl.String).str.strip_chars().str.to_lowercase().replace("", None)
    result = words.replace_strict(list(_FLAGS), list(_FLAGS.values()), default=None, return_dtype=pl.Boolean)
    wrong = result.is_null() & words.is_not_null()
    if wrong.any():
        row = _first(wrong)
        raise DataError(f'{where}: row {row} is "{words[row - 1]}", expected true or false')
    return result.fill_null(False).alias(series.name)


_TIME_FORMATS: Final = ("%Y-%m-%d %H:%M:%S%.f%#z", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y-%m-%d")


def times(series: pl.Series, *, where: str) -> pl.Series:
    """A column of times as Int64: a number as it is (fractions cut), a date or an ISO string as epoch seconds.

    A time without a zone is in UTC. Null where it is missing.
    Raises DataError, naming `where`, the row and the value, where it is neither a number nor a date.
    """
    if series.dtype == pl.String:
        series = natural(series)
    if series.dtype.is_integer() or series.dtype == pl.Null:
        return series.cast(pl.Int64)
    if series.dtype.is_float():
        if series.is_infinite().any():
            raise DataError(f"{where}: row {_first(series.is_infinite())} is infinite, expected a time")
        return series.fill_nan(None).floor().cast(pl.Int64)
    if series.dtype in (pl.Date, pl.Datetime):
        return series.dt.epoch("s").cast(pl.Int64)
    if series.dtype != pl.String:
        raise DataError(f"{where}: the column is of type {series.dtype}, expected numbers, dates or ISO text")
    stripped = series.str.strip_chars()
    tidy = stripped.str.replace(r"[Tt]", " ").str.replace(r"[Zz]$", "+00:00").str.replace_all("/", "-")
    parsed = pl.Series([None] * len(series), dtype=pl.Int64)
    for form in _TIME_FORMATS:
        if parsed.null_count():
            some = tidy.str.to_datetime(form, time_unit="ms", strict=False, ambiguous="earliest").dt.epoch("s")
            parsed = parsed.zip_with(parsed.is_not_null(), some.cast(pl.Int64))
    blank = stripped.str.to_lowercase().is_in(BLANK_WORDS).fill_null(True)
    wrong = parsed.is_null() & ~blank
    if wrong.any():
        row = _first(wrong)
        raise DataError(f'{where}: row {row} is "{stripped[row - 1]}", expected a number, a date or an ISO time')
    return parsed.alias(series.name)


def lists(series: pl.Series, *, separator: str | None, where: str) -> pl.Series:
    """A column as List(String), order kept, blanks dropped; an empty list where it is missing.

    Raises DataError, naming `where`, on text without a separator.
    """
    if isinstance(series.dtype, pl.Array):
        series = series.arr.to_list()
    if isinstance(series.dtype, pl.List):
        flat = series.to_frame("word").with_row_index("row").explode("word")
        flat = flat.with_columns(words(flat.get_column("word"))).drop_nulls("word")
    elif series.dtype == pl.String and separator is not None:
        flat = series.str.split(separator).to_frame("word").with_row_index("row").explode("word")
        flat = flat.with_columns(pl.col("word").str.strip_chars().replace("", None)).drop_nulls("word")
    elif series.dtype == pl.Null:
        return pl.Series(series.name, [[]] * len(series), dtype=pl.List(pl.String))
    else:
        raise DataError(f'{where}: the column holds {series.dtype}, not lists; say how to split it: separator = "|"')
    grouped = flat.group_by("row", maintain_order=True).agg("word")
    rows = pl.DataFrame({"row": pl.Series(range(len(series)), dtype=pl.UInt32)})
    joined = rows.join(grouped, on="row", how="left", maintain_order="left").get_column("word")
    return joined.fill_null([]).cast(pl.List(pl.String)).alias(series.name)


def vectors(series: pl.Series, *, size: int, where: str) -> pl.Series:
    """A column as List(Float32) of one size; null where it is missing. Text such as "[0.1, 0.2]" is split.

    Raises DataError, naming `where` and the row, on another size or on text that is not numbers.
    """
    if isinstance(series.dtype, pl.Array):
        series = series.arr.to_list()
    if series.dtype == pl.String:
        bare = series.str.strip_chars("[]() ").str.replace_all(r"[,;\s]+", " ").replace("", None)
        parts = bare.str.split(" ")
        cast = parts.cast(pl.List(pl.Float32), strict=False)
        wrong = parts.is_not_null() & cast.list.eval(pl.element().is_null().any()).list.first().fill_null(False)
        if wrong.any():
            raise DataError(f"{where}: row {_first(wrong)} is not a list of numbers")
        series = cast
    if series.dtype == pl.Null:
        return series.cast(pl.List(pl.Float32))
    if not isinstance(series.dtype, pl.List) or not series.dtype.inner.is_numeric():
        raise DataError(f"{where}: the column is of type {series.dtype}, expected lists of {size} numbers")
    lengths = series.list.len()
    if (lengths != size).any():
        row = _first(lengths != size)
        raise DataError(f"{where}: row {row} has {lengths[row - 1]} numbers, expected {size}")
    return series.cast(pl.List(pl.Float32))
