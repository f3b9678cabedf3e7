"""Aligned text tables for a terminal."""

import unicodedata
from collections.abc import Sequence
from typing import Final

WIDEST: Final = 36


def width(text: str) -> int:
    """Columns that a text takes on a terminal: wide characters take two, combining ones none."""
    return sum(
        0 if unicodedata.combining(mark) else 2 if unicodedata.east_asian_width(mark) in "WF" else 1 for mark in text
    )


def cut(text: str, most: int = WIDEST) -> str:
    """A text on one line, at most `most` columns wide."""
    text = " ".join(text.split())
    if width(text) <= most:
        return text
    while width(text) > most - 1:
        text = text[:-1]
    return text + "…"


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[bool] = ()) -> str:
    """Rows under a header, columns two spaces apart. right: which columns are numbers."""
    cells = [[cut(cell) for cell in row] for row in (header, *rows)]
    widths = [max(width(row[column]) for row in cells) for column in range(len(header))]
    right = right or [False] * len(header)
    lines = []
    for row in cells:
        padded = []
        for cell, size, to_right in zip(row, widths, right, strict=True):
            space = " " * (size - width(cell))
            padded.append(space + cell if to_right else cell + space)
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)
