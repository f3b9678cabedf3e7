"""What a person sees on stderr: notes, progress (a bar on a terminal, lines otherwise). Results go to stdout."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Final, TypeVar

import click

T = TypeVar("T")

LINE_EVERY_S: Final = 5.0

_level = 1  # 0 quiet, 1 normal, 2 verbose


def set_verbosity(*, quiet: bool = False, verbose: bool = False) -> None:
    """Set for the whole process: `quiet` wins over `verbose`."""
    global _level
    _level = 0 if quiet else 2 if verbose else 1


def is_quiet() -> bool:
    return _level == 0


def is_verbose() -> bool:
    return _level == 2


def note(message: str) -> None:
    """Tell the user something on stderr, unless quiet."""
    if _level >= 1:
        click.echo(message, err=True)


def detail(message: str) -> None:
    """Tell the user something on stderr that only `--verbose` asks for."""
    if _level >= 2:
        click.echo(message, err=True)


def progress(blocks: Iterable[T], *, label: str, total: int, size: int = 1) -> Iterator[T]:
    """Pass blocks through and show how far they are.

    total: number of units in all; size: units in a block (the last may hold fewer).
    A bar on a terminal; otherwise a line every few seconds, and none for what is done sooner.
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
    start = told = time.monotonic()
    done = 0
    for block in blocks:
        yield block
        done = min(done + size, total)
        now = time.monotonic()
        if now - told >= LINE_EVERY_S:
            told = now
            note(f"{label}: {done:,} of {total:,} ({done / (now - start):,.0f}/s)")
