"""Text output: aligned tables, JSON Lines and CSV."""

import csv
import io
import json
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal

Format = Literal["table", "json", "csv"]
FORMATS: Final = ("table", "json", "csv")

CELL_WIDTH: Final = 48
ID: Final = "id"  # a column of this name is never cut
NARROW: Final = 22  # width of a text column on a narrow terminal
GAP: Final = "  "


def json_line(content: Any) -> str:
    """One line of JSON. Raises ValueError on NaN; use null instead."""
    return json.dumps(content, ensure_ascii=False, allow_nan=False)


def csv_lines(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """CSV with a header. Lists are joined by "|"; a missing value is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([[cell(value) for value in row] for row in rows])
    return text.getvalue()


def text_table(
    header: Sequence[str],
    rows: Sequence[Sequence[Any]],
    *,
    right: Sequence[bool] | None = None,
    cell_width: int = CELL_WIDTH,
    width: int | None = None,
) -> str:
    """Align rows under a header, two spaces between columns.

    Args:
        header: Names of the columns.
        rows: As many cells each as the header.
        right: Which columns are aligned to the right. Default: those that hold only numbers and missing values.
        cell_width: Widest cell; longer texts are cut.
        width: Width of the terminal. Wide text columns, except `id`, shrink to NARROW to fit; then the last columns
            are left out, down to three.

    Returns:
        The lines, without a newline at the end.
    """
    cells = [[clipped(cell(value), cell_width) for value in row] for row in rows]
    if right is None:
        right = [all(isinstance(row[at], int | float) or row[at] is None for row in rows) for at in range(len(header))]
    widths = [max([display_width(name), *(display_width(row[at]) for row in cells)]) for at, name in enumerate(header)]
    if width is not None:
        widths = _fitted(header, widths, right, width)
    lines = [
        GAP.join(
            _padded(clipped(text, columns), columns, right=is_right)
            for text, columns, is_right in zip(row, widths, right, strict=False)
        ).rstrip()
        for row in [list(header), *cells]
    ]
    return "\n".join(lines)


def _fitted(header: Sequence[str], widths: Sequence[int], right: Sequence[bool], width: int) -> list[int]:
    """Widths of the first columns, as many as fit."""
    least = [
        full if is_right or name == ID else min(full, max(NARROW, display_width(name)))
        for name, full, is_right in zip(header, widths, right, strict=True)
    ]
    shown = 0
    room = width + len(GAP)
    while shown < len(header) and room >= least[shown] + len(GAP):
        room -= least[shown] + len(GAP)
        shown += 1
    shown = max(shown, min(3, len(header)))
    fitted = least[:shown]
    # Widen the narrowest column that is still cut, until no room is left.
    while room > 0 and (cut := [at for at in range(shown) if fitted[at] < widths[at]]):
        fitted[min(cut, key=fitted.__getitem__)] += 1
        room -= 1
    return fitted


def cell(value: Any) -> str:
    """A value as text: "" for missing, 1977 for 1977.0, lists joined by "|"."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else f"{value:.6g}"
    if isinstance(value, list):
        return "|".join(cell(entry) for entry in value)
    return value if isinstance(value, str) else str(value)


def display_width(text: str) -> int:
    """Columns that a text takes on a terminal: two for wide characters, none for combining marks."""
    if text.isascii():
        return len(text)
    return sum(_char_width(char) for char in text)


def _char_width(char: str) -> int:
    if unicodedata.combining(char) or unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def clipped(text: str, widest: int) -> str:
    """The text on one line, control characters replaced by dots, cut to `widest` columns."""
    text = "".join("·" if unicodedata.category(char) == "Cc" else char for char in text)
    if display_width(text) <= widest:
        return text
    room, start = widest - 1, ""
    for char in text:
        room -= _char_width(char)
        if room < 0:
            break
        start += char
    return start + "…"


def _padded(text: str, width: int, *, right: bool) -> str:
    space = " " * (width - display_width(text))
    return space + text if right else text + space
