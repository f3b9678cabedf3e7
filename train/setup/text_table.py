"""Aligned text tables for a terminal."""

from collections.abc import Sequence
from typing import Final

from retrieval.common.text_table import clipped, display_width

WIDEST: Final = 36  # columns that a cell takes at most


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[bool] = ()) -> str:
    """Rows under a header, columns two spaces apart. right: which columns are numbers."""
    cells = [[clipped(cell, WIDEST) for cell in row] for row in (header, *rows)]
    widths = [max(display_width(row[column]) for row in cells) for column in range(len(header))]
    right = right or [False] * len(header)
    lines = []
    for row in cells:
        padded = []
        for cell, size, to_right in zip(row, widths, right, strict=True):
            space = " " * (size - display_width(cell))
            padded.append(space + cell if to_right else cell + space)
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)
