"""Output: answers as an aligned table, JSON Lines or CSV."""

import csv
import io
import json
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal

Format = Literal["table", "json", "csv"]
FORMATS: Final = ("table", "json", "csv")

WIDEST_CELL: Final = 48
ID: Final = "id"
NARROW: Final = 22  # what a column of text keeps on a narrow terminal
GAP: Final = "  "


def json_line(content: Any) -> str:
    """One line of JSON. Raises ValueError on NaN, which must have become null before."""
    return json.dumps(content, ensure_ascii=False, allow_nan=False)


def csv_lines(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """CSV with a header; lists are joined by "|", missing is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([[cell(value) for value in row] for row in rows])
    return text.getvalue()


def table(header: Sequence[str], rows: Sequence[Sequence[Any]], *, width: int) -> str:
    """Aligned columns, numbers to the right, no wider than the terminal.

    Long texts but ids give way first, down to NARROW; columns that do not fit even so are left out.
    rows: as many cells each as the header.
    """
    cells = [[clipped(cell(value), WIDEST_CELL) for value in row] for row in rows]
    right = [all(isinstance(row[at], (int, float)) or row[at] is None for row in rows) for at in range(len(header))]
    widths = [max([display_width(name), *(display_width(row[at]) for row in cells)]) for at, name in enumerate(header)]
    least = [
        full if number or name == ID else min(full, max(NARROW, display_width(name)))
        for name, full, number in zip(header, widths, right, strict=True)
    ]
    shown = 0
    room = width + len(GAP)
    while shown < len(header) and room >= least[shown] + len(GAP):
        room -= least[shown] + len(GAP)
        shown += 1
    shown = max(shown, min(3, len(header)))
    taken = _shared(widths[:shown], least[:shown], room=max(room, 0))
    lines = [
        GAP.join(
            _padded(clipped(text, columns), columns, right=number)
            for text, columns, number in zip(row[:shown], taken, right, strict=False)
        ).rstrip()
        for row in [list(header), *cells]
    ]
    return "\n".join(lines) + "\n"


def _shared(full: Sequence[int], least: Sequence[int], *, room: int) -> list[int]:
    """Widths from the least on, the narrowest wish met first, until the room is used up."""
    taken = list(least)
    while room and (short := [at for at, wish in enumerate(full) if taken[at] < wish]):
        taken[min(short, key=taken.__getitem__)] += 1
        room -= 1
    return taken


def cell(value: Any) -> str:
    """A value as text: nothing for missing, 1977 for 1977.0, lists joined by "|"."""
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
    """Columns that a text takes on a terminal: two for wide characters, none for marks that combine."""
    if text.isascii():
        return len(text)
    return sum(_char_width(char) for char in text)


def _char_width(char: str) -> int:
    if unicodedata.combining(char) or unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def clipped(text: str, widest: int) -> str:
    """On one line, control characters shown as dots, cut to `widest` columns."""
    text = "".join("·" if unicodedata.category(char) == "Cc" else char for char in text)
    if display_width(text) <= widest:
        return text
    room, kept = widest - 1, ""
    for char in text:
        room -= _char_width(char)
        if room < 0:
            break
        kept += char
    return kept + "…"


def _padded(text: str, width: int, *, right: bool) -> str:
    space = " " * (width - display_width(text))
    return space + text if right else text + space
