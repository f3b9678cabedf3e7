"""Notes and progress on stderr; results go to stdout."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Final, TypeVar

import click

T = TypeVar("T")

LINE_EVERY_S: Final = 5.0

_level = 1  # 0 quiet, 1 normal, 2 verbose


def set_verbosity(*, quiet: bool = False, verbose: bool = False) -> None:
    """Set the verbosity of the process; `quiet` wins over `verbose`."""
    global _level
    _level = 0 if quiet else 2 if verbose else 1


def is_quiet() -> bool:
    return _level == 0


def is_verbose() -> bool:
    return _level == 2


def note(message: str) -> None:
    """Print a note to stderr, unless --quiet."""
    if _level >= 1:
        click.echo(message, err=True)


def detail(message: str) -> None:
    """Print a detail to stderr with --verbose."""
    if _level >= 2:
        click.echo(message, err=True)


def progress(blocks: Iterable[T], *, label: str, total: int, size: int = 1) -> Iterator[T]:
    """Pass blocks through and show progress: a bar on a terminal, otherwise a line every LINE_EVERY_S seconds.

    Args:
        blocks: What to pass through.
        label: What is done.
        total: Number of units in all.
        size: Units in a block; the last one may hold fewer.
    """
    if _level == 0:
        yield from blocks
        return
    if sys.stderr.isatty():
        with click.progressbar(length=total, label=label, file=sys.stderr, show_pos=True) as bar:
            for block in blocks:
                yield block
                bar.update(min(size, total - bar.pos))
        return
    start = shown = time.monotonic()
    done = 0
    for block in blocks:
        yield block
        done = min(done + size, total)
        now = time.monotonic()
        if now - shown >= LINE_EVERY_S:
            shown = now
            note(f"{label}: {done:,} of {total:,} ({done / (now - start):,.0f}/s)")
