"""Convert the columns of a table: ids, text, numbers, flags, times, lists and vectors.

Training and serving both call these functions, so a value means the same to both. They take and return Arrow arrays
(or chunked arrays) and leave their input as it is. The same value is the same text in every format:

- spaces around text are removed, and text that is then empty is missing;
- 1, 1.0, "1" and "1.0" are one text, "1"; "007" stays "007";
- a number or a time is also missing where the cell is one of `BLANK_WORDS`, in any case.

Errors name `where` (file and column) and the row, counted from 1 without the header. `offset` is the number of rows
before the column, for a table that is read in blocks.
"""

import datetime as dt
import math
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from retrieval.common.errors import DataError
from retrieval.features.text import text_of

EXACT_INTEGER: Final = 2**53  # above, a float no longer tells one integer from the next
BLANK_WORDS: Final = ("", "na", "n/a", "nan", "null", "none")  # a missing number, as spreadsheets and pandas write it
FIRST_S: Final = 31_536_000  # 1971: a smaller time is a count or a position
LAST_S: Final = 7_258_118_400  # 2200

_INT64: Final = pa.int64()
_FLOAT: Final = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
_CODE: Final = r"^[+-]?(0[0-9]|9[3-9][0-9]{17}|[0-9]{20})"  # "007", and whole numbers beyond int64, are no floats
_WHOLE: Final = r"^(?:-?(0)|(-?[1-9][0-9]*))\.0+$"  # 1.0; in a replacement \1\2 is its whole part


def is_text(kind: pa.DataType) -> bool:
    """Whether a column of this type holds text."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def is_list(kind: pa.DataType) -> bool:
    """Whether a column of this type holds lists or vectors."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def is_number(kind: pa.DataType) -> bool:
    """Whether a column of this type holds numbers; booleans are none."""
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def is_word(kind: pa.DataType) -> bool:
    """Whether `words` takes a column of this type: all but lists, structs, bytes and durations."""
    if pa.types.is_dictionary(kind):
        return is_word(kind.value_type)
    moment = pa.types.is_date(kind) or pa.types.is_timestamp(kind) or pa.types.is_time(kind)
    return bool(is_text(kind) or is_number(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind) or moment)


def type_name(kind: pa.DataType) -> str:
    """A type in plain words, for an error."""
    if is_list(kind):
        return f"lists of {type_name(kind.value_type)}"
    names: tuple[tuple[Callable[[pa.DataType], bool], str], ...] = (
        (lambda kind: is_text(kind) or pa.types.is_dictionary(kind), "text"),
        (pa.types.is_integer, "whole numbers"),
        (is_number, "numbers"),
        (pa.types.is_boolean, "true and false"),
        (pa.types.is_date, "dates"),
        (pa.types.is_timestamp, "times"),
        (pa.types.is_nested, "objects"),
        (lambda kind: pa.types.is_binary(kind) or pa.types.is_large_binary(kind), "bytes"),
        (pa.types.is_duration, "durations"),
    )
    return next((name for test, name in names if test(kind)), str(kind))


def texts(column: Any) -> Any:
    """Write the values of a column as text; text itself stays as it is.

    Returns:
        A string column, null where a value is missing or NaN.

    Raises:
        TypeError: if the type is not one that `is_word` accepts.
    """
    kind = column.type
    if pa.types.is_string(kind):
        return column
    if not is_word(kind):
        raise TypeError(f"expected text, found {type_name(kind)}")
    if pa.types.is_dictionary(kind):
        return texts(column.cast(kind.value_type))
    if pa.types.is_decimal(kind):
        return pc.replace_substring_regex(column.cast(pa.string()), r"\.0*$", "")
    if pa.types.is_floating(kind):
        finite = pc.if_else(pc.is_nan(column), None, column)
        distinct = pc.unique(finite)
        written = pa.array([_float_text(value) for value in distinct], pa.string())
        return pc.take(written, pc.index_in(finite, value_set=distinct))
    return column.cast(pa.string())


def _float_text(value: Any) -> str | None:
    if not value.is_valid:
        return None
    number = value.as_py()
    # The shortest text of a float32 is that of its own precision: 0.1, not 0.10000000149011612.
    narrow = pa.types.is_float32(value.type) and math.isfinite(number)
    return text_of(float(str(np.float32(number)))) if narrow and not number.is_integer() else text_of(number)


def words(column: Any) -> Any:
    """A column as text by the rule of this module: no spaces around it, 1.0 is "1".

    Returns:
        A string column, null where a value is missing or blank.

    Raises:
        TypeError: if the type is not one that `is_word` accepts.
    """
    if not is_text(column.type) and not pa.types.is_dictionary(column.type):
        return texts(column)
    column = texts(column)
    distinct = pc.unique(column)  # values repeat, and most often none of them changes
    trimmed = pc.utf8_trim_whitespace(distinct)
    clean = pc.replace_substring_regex(trimmed, _WHOLE, r"\1\2")
    clean = pc.if_else(pc.equal(clean, ""), None, clean)
    if clean.equals(distinct):
        return column
    return pc.take(clean, pc.index_in(column, value_set=distinct))


def ids(column: Any, *, where: str, text: bool = False, offset: int = 0) -> Any:
    """A column of ids, by the rule of `words`.

    Args:
        column: Text, numbers, booleans or dates.
        where: File and column, for errors.
        text: Whether the file has no types (CSV). An id may be missing there only in a column of floats, as pandas
            writes whole numbers of which some are missing.
        offset: Rows of the table before this column.

    Returns:
        A string column, null where a column of floats or a file with types has no value.

    Raises:
        DataError: on an empty id, a NUL character, a float too large to be exact, or a type that holds no ids.
    """
    kind = column.type
    if pa.types.is_dictionary(kind):
        return ids(column.cast(kind.value_type), where=where, text=text, offset=offset)
    if pa.types.is_floating(kind):
        known = pc.if_else(pc.is_nan(column), None, column)
        if (pc.max(pc.abs(known)).as_py() or 0) > EXACT_INTEGER:
            raise DataError(
                f"{where}: ids above {EXACT_INTEGER} in a column of floats have lost digits; "
                "store them as whole numbers or text"
            )
    if not is_word(kind):
        raise DataError(f"{where}: ids are {type_name(kind)}, expected text or whole numbers")
    if not is_text(kind):
        return words(column)
    distinct = pc.unique(column)
    floats = text and _are_floats(distinct)
    if text and not floats and column.null_count:
        row = _first(pc.is_null(column), offset)
        raise DataError(f"{where}: row {row} has no id; fill it in or drop the row")
    if not floats and _any(pc.equal(pc.utf8_trim_whitespace(distinct), "")):
        row = _first(pc.equal(pc.utf8_trim_whitespace(column), ""), offset)
        raise DataError(f"{where}: the id of row {row} is empty; fill it in or drop the row")
    if _any(pc.match_substring(distinct, "\0")):
        row = _first(pc.match_substring(column, "\0"), offset)
        raise DataError(f"{where}: the id of row {row} contains a NUL character; remove it")
    return words(column)


def _are_floats(values: Any) -> bool:
    """Whether text is a column of floats: numbers and blanks, with a decimal point in at least one."""
    filled = pc.utf8_trim_whitespace(values).drop_null()
    filled = filled.filter(pc.not_equal(filled, ""))
    return _any(pc.match_substring(filled, ".")) and _all(pc.match_substring_regex(filled, _FLOAT))


def natural(column: Any) -> Any:
    """The values of a text column as whole numbers or numbers, if all of them are.

    "007" and whole numbers beyond int64 stay text, since a number would not give them back. Blanks become null.

    Returns:
        int64, float64, or the column as it is.
    """
    if not is_text(column.type) or column.null_count == len(column):
        return column
    sample = _filled(column[:100])  # a look at a few rows: a cast that fails is slow
    if not _all(pc.match_substring_regex(sample, _FLOAT)):
        return column
    fractions = _any(pc.match_substring_regex(sample, r"[.eE]"))
    whole = None if fractions else _cast(column, pa.int64())
    if whole is not None and _writes_back(whole, column):
        return whole
    filled = _filled(column)
    if filled.null_count == len(filled):
        return column
    whole = None if fractions else _cast(filled, pa.int64())
    if whole is not None and _writes_back(whole, filled):
        return whole
    number = _cast(filled, pa.float64())
    if number is None or not _all(pc.match_substring_regex(filled, _FLOAT)):
        return column
    return column if _any(pc.match_substring_regex(filled, _CODE)) else number


def natural_type(column: Any) -> pa.DataType:
    """The type that `natural` gives a text column; the null type if all values are blank."""
    kind = natural(column).type
    return pa.null() if is_text(kind) and _filled(column).null_count == len(column) else kind


def typed_column(column: Any, kind: pa.DataType, *, where: str, offset: int = 0) -> Any:
    """A column converted to a type, where values may be written as text or be of another type.

    Args:
        column: The column as it was read.
        kind: The type to convert to. Text also takes numbers, written by the rule of `texts`; lists stay as they are.
        where: File and column, for errors.
        offset: Rows of the table before this column.

    Raises:
        DataError: on a value that does not convert.
    """
    if column.type == kind or is_list(column.type) or (pa.types.is_null(kind) and is_text(column.type)):
        return column
    if pa.types.is_dictionary(kind):
        return typed_column(column, kind.value_type, where=where, offset=offset)
    if pa.types.is_integer(kind):
        return integers(column, where=where, kind=kind, offset=offset)
    if pa.types.is_floating(kind):
        return numbers(column, where=where, offset=offset).cast(kind)
    if pa.types.is_boolean(kind):
        return flags(column, where=where, offset=offset)
    try:
        return texts(column) if is_text(kind) else _filled(column).cast(kind) if is_text(column.type) else column
    except pa.ArrowInvalid:
        row, value = _unparsed(_filled(column), kind)
        raise DataError(f'{where}: row {row + offset} is "{value}", expected {type_name(kind)}') from None
    except TypeError as error:
        raise DataError(f"{where}: {error}") from error


def _cast(column: Any, kind: pa.DataType) -> Any | None:
    try:
        return column.cast(kind)
    except pa.ArrowInvalid:
        return None


def _writes_back(numbers: Any, column: Any) -> bool:
    """Whether numbers, written as text, are the text that they come from."""
    return _all(pc.equal(numbers.cast(pa.string()), column))


def _filled(column: Any) -> Any:
    """Text without spaces around it; null where it is one of the blank words."""
    bare = pc.utf8_trim_whitespace(texts(column))
    blank = pc.is_in(pc.utf8_lower(bare), value_set=pa.array(BLANK_WORDS))
    return pc.if_else(blank, None, bare)


def numbers(column: Any, *, where: str, offset: int = 0) -> Any:
    """A column of numbers.

    Args:
        column: Numbers, booleans or text.
        where: File and column, for errors.
        offset: Rows of the table before this column.

    Returns:
        A float64 column, null where a value is missing, blank, NaN or infinite.

    Raises:
        DataError: on text that is not a number, or a type that holds no numbers.
    """
    kind = column.type
    if pa.types.is_dictionary(kind):
        return numbers(column.cast(kind.value_type), where=where, offset=offset)
    if is_text(kind):
        result = _cast(column, pa.float64())
        if result is None:
            filled = _filled(column)
            result = _cast(filled, pa.float64())
            if result is None:
                row, value = _unparsed(filled, pa.float64())
                hint = "; write 1.25 for 1,25" if "," in value else ""
                raise DataError(f'{where}: row {row + offset} is "{value}", expected a number{hint}')
    elif is_number(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind):
        result = column.cast(pa.float64(), safe=False)
    else:
        raise DataError(f"{where}: the column holds {type_name(kind)}, expected numbers")
    return pc.if_else(pc.is_finite(result), result, None)


def integers(column: Any, *, where: str, kind: pa.DataType = _INT64, offset: int = 0) -> Any:
    """A column of whole numbers; 1990.0 is one too, as pandas writes them where some are missing.

    Args:
        column: Numbers, booleans or text.
        where: File and column, for errors.
        kind: The integer type to return.
        offset: Rows of the table before this column.

    Raises:
        DataError: on any other value, or one that `kind` does not hold.
    """
    if not (is_text(column.type) or pa.types.is_integer(column.type)):
        column = texts(numbers(column, where=where, offset=offset))
    result = _cast(column, kind)
    if result is None and is_text(column.type):
        column = pc.replace_substring_regex(_filled(column), _WHOLE, r"\1\2")
        result = _cast(column, kind)
    if result is None:
        row, value = _unparsed(column, kind)
        raise DataError(f'{where}: row {row + offset} is "{value}", expected a whole number ({kind})')
    return result


def _unparsed(column: Any, kind: pa.DataType) -> tuple[int, Any]:
    """The first row, counted from 1, with a value that a cast to `kind` refuses, and the value."""
    row = _first_refused(column, lambda part: _cast(part, kind))
    return row, column[row - 1].as_py()


def _first_refused(column: Any, convert: Callable[[Any], Any | None]) -> int:
    """The first row, counted from 1, whose value `convert` returns None for; by halving, since there is one."""
    start, end = 0, len(column)
    while end - start > 1:
        middle = (start + end) // 2
        if convert(column.slice(start, middle - start)) is None:
            end = middle
        else:
            start = middle
    return end


_FLAGS: Final = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def flags(column: Any, *, where: str, offset: int = 0) -> Any:
    """A column of true and false, 1 and 0, or yes and no.

    Returns:
        A boolean column; null where a value is missing.

    Raises:
        DataError: on any other value.
    """
    if pa.types.is_boolean(column.type):
        return column
    if not is_word(column.type):
        raise DataError(f"{where}: the column holds {type_name(column.type)}, expected true or false")
    filled = words(column)
    found = pc.index_in(pc.utf8_lower(filled), value_set=pa.array(list(_FLAGS)))
    wrong = pc.and_(pc.is_null(found), pc.is_valid(filled))
    if _any(wrong):
        row = _first(wrong, 0)
        raise DataError(f'{where}: row {row + offset} is "{filled[row - 1]}", expected true or false')
    return pc.take(pa.array(list(_FLAGS.values())), found)


def times(column: Any, *, where: str, offset: int = 0) -> Any:
    """A column of times.

    Args:
        column: Numbers, dates, times, or text with one of these; a date or a time as text is in ISO 8601.
        where: File and column, for errors.
        offset: Rows of the table before this column.

    Returns:
        An int64 column, null where a value is missing. Whole numbers stay as they are. Dates and times become seconds
        since 1970, in UTC where they name no zone; if one of them has a fraction of a second, all become milli-, micro-
        or nanoseconds, the coarsest that holds them. Floats with fractions become millionths.

    Raises:
        DataError: on a value that is none of these, or beyond int64.
    """
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    column = natural(column)
    kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_null(kind):
        result = _cast(column, pa.int64())
        if result is None:
            row = _first(pc.greater(column, pa.scalar(2**63 - 1, pa.uint64())), 0)
            raise DataError(_too_large(where, row + offset, column[row - 1]))
        return result
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return _float_times(column.cast(pa.float64(), safe=False), where=where, offset=offset)
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        return _epoch(column)
    if not is_text(kind):
        raise DataError(f"{where}: the column holds {type_name(kind)}, expected numbers, dates or ISO text")
    moments = _cast(column, pa.timestamp("us"))
    return _epoch(_moments(column, where=where, offset=offset) if moments is None else moments)


def _too_large(where: str, row: int, value: Any) -> str:
    return f"{where}: row {row} is {value}, too large for a time; expected a number below 2^63"


def _float_times(column: Any, *, where: str, offset: int) -> Any:
    """Floats as int64: millionths if one has a fraction, thousandths if millionths are beyond int64."""
    known = pc.if_else(pc.is_nan(column), None, column)
    infinite = pc.is_inf(known)
    if _any(infinite):
        raise DataError(f"{where}: row {_first(infinite, offset)} is infinite, expected a time")
    largest = pc.max(pc.abs(known)).as_py() or 0.0
    if largest >= 2.0**63:
        row = _first(pc.greater_equal(pc.abs(known), 2.0**63), 0)
        raise DataError(_too_large(where, row + offset, known[row - 1]))
    whole = _all(pc.equal(pc.floor(known), known))
    scale = 1 if whole else next(scale for scale in (10**6, 10**3, 1) if scale * largest < 2.0**63)
    return pc.floor(pc.add(pc.multiply(known, float(scale)), 0.5 if scale > 1 else 0.0)).cast(pa.int64())


def _epoch(moments: Any) -> Any:
    """Dates or timestamps as whole seconds since 1970, or in the coarsest unit that holds them all."""
    if pa.types.is_date(moments.type):
        return moments.cast(pa.timestamp("s")).cast(pa.int64())
    for unit in ("s", "ms", "us"):
        coarser = _cast(moments, pa.timestamp(unit, moments.type.tz))  # refused if it would cut a fraction
        if coarser is not None:
            return coarser.cast(pa.int64())
    return moments.cast(pa.int64())


def date_of(time: float) -> str:
    """The date of a time that `times` returned, in any of its units; the number itself if it is no time since 1971."""
    scale = next((scale for scale in (1, 10**3, 10**6) if abs(time) < 10**11 * scale), 10**9)
    seconds = time / scale
    if not FIRST_S < seconds < LAST_S:
        return f"{time:,.0f}"
    return dt.datetime.fromtimestamp(seconds, dt.UTC).date().isoformat()


def _moments(column: Any, *, where: str, offset: int) -> Any:
    """Text that is not plain ISO 8601 to Arrow (zones, slashes, single digits, blanks) as timestamps in UTC."""
    filled = _filled(column)
    moments = _iso_moments(filled)
    if moments is not None:
        return moments
    # Among dates a number is wrong too, but any other text is the better one to name.
    others = pc.if_else(pc.match_substring_regex(filled, r"^[+-]?[0-9]{1,18}(\.[0-9]*)?$"), None, filled)
    row = _first_refused(others if _iso_moments(others) is None else filled, _iso_moments)
    value = filled[row - 1].as_py()
    if value.lstrip("+-").isdigit() and len(value) > 18:
        raise DataError(_too_large(where, row + offset, value))
    raise DataError(f'{where}: row {row + offset} is "{value}", expected a number, a date or an ISO time')


def _iso_moments(text: Any) -> Any | None:
    """Dates and times as timestamps in UTC; None if one of them is neither."""
    for pattern, by in (
        (r"/", "-"),
        (r"-([0-9])\b", r"-0\1"),
        (r"^([0-9]{4}-[0-9]{2}-[0-9]{2})$", r"\1 00:00"),
        (r"^([0-9-]{10})[Tt]", r"\1 "),
        (r"(\.[0-9]{9})[0-9]+", r"\1"),
        (r"[Zz]$", "+00:00"),
        (r"( [0-9]{2}:[0-9]{2}[0-9:.]*)$", r"\1+00:00"),
    ):
        text = pc.replace_substring_regex(text, pattern, by)
    fine = _any(pc.match_substring_regex(text, r"\.[0-9]{7}"))  # nanoseconds end in the year 2262
    return _cast(text, pa.timestamp("ns" if fine else "us", "UTC"))


def lists(column: Any, *, separator: str | None, where: str) -> Any:
    """A column of lists of text, their parts by the rule of `words`.

    Args:
        column: Lists, or text that `separator` splits.
        separator: Splits text; None if the column must hold lists.
        where: File and column, for errors.

    Returns:
        A list<string> column: order kept, missing parts left out, an empty list where a value is missing.

    Raises:
        DataError: if the column holds neither lists nor text with a separator.
    """
    column = _one_chunk(column)
    kind = column.type
    if pa.types.is_null(kind):
        column = column.cast(pa.list_(pa.string()))
    elif is_text(kind) and separator is not None:
        column = pc.split_pattern(texts(column), separator)
    elif not is_list(kind):
        raise DataError(f'{where}: the column holds {type_name(kind)}, not lists; say how to split it: separator = "|"')
    flat = column.flatten()
    if not is_word(flat.type):
        raise DataError(f"{where}: the column holds {type_name(kind)}, expected lists of text")
    parts = words(flat)
    owners = pc.list_parent_indices(column).to_numpy(zero_copy_only=False)
    owners = owners[parts.is_valid().to_numpy(zero_copy_only=False)]
    return pa.ListArray.from_arrays(_offsets(np.bincount(owners, minlength=len(column))), parts.drop_null())


def _one_chunk(column: Any) -> Any:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _offsets(lengths: npt.NDArray[np.int64]) -> Any:
    """Where each list starts, and the end of the last."""
    return pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())


def vectors(column: Any, *, size: int, where: str, offset: int = 0) -> Any:
    """A column of vectors.

    Args:
        column: Lists of numbers, or text such as "[0.1, 0.2]".
        size: Numbers in each vector.
        where: File and column, for errors.
        offset: Rows of the table before this column.

    Returns:
        A list<float> column, null where a vector is missing; a number within a vector may be null too.

    Raises:
        DataError: on another size, or on values that are not numbers.
    """
    column = _one_chunk(column)
    kind = column.type
    if is_text(kind):
        bare = pc.replace_substring_regex(pc.utf8_trim(texts(column), "[]() \t"), r"[,;\s]+", " ")
        column = pc.split_pattern(pc.if_else(pc.equal(bare, ""), None, bare), " ")
    if pa.types.is_null(kind):
        return column.cast(pa.list_(pa.float32()))
    if not is_list(column.type) or not (is_text(kind) or is_number(kind.value_type)):
        raise DataError(f"{where}: the column holds {type_name(kind)}, expected lists of {size} numbers")
    lengths = pc.list_value_length(column)
    if pa.types.is_fixed_size_list(kind):  # a missing vector has values all the same
        lengths = pc.if_else(column.is_valid(), lengths, None)
    flat = column.flatten()
    values = _cast(flat, pa.float32()) if is_text(flat.type) else flat.cast(pa.float32(), safe=False)
    if values is None:
        row = pc.list_parent_indices(column)[_unparsed(flat, pa.float32())[0] - 1].as_py() + 1
        raise DataError(f"{where}: row {row + offset} is not a list of numbers")
    wrong = pc.not_equal(lengths, size)
    if _any(wrong):
        row = _first(wrong, 0)
        raise DataError(f"{where}: row {row + offset} has {lengths[row - 1]} numbers, expected {size}")
    sizes = pc.fill_null(lengths, 0).to_numpy(zero_copy_only=False)
    return pa.ListArray.from_arrays(_offsets(sizes), values, mask=column.is_null())


def _any(mask: Any) -> bool:
    return bool(pc.any(mask).as_py())


def _all(mask: Any) -> bool:
    return bool(pc.all(mask).as_py() is not False)


def _first(mask: Any, offset: int) -> int:
    """The first row, counted from 1, where a mask is true."""
    return int(pc.index(mask, True).as_py()) + 1 + offset
