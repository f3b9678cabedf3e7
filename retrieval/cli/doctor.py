"""`doctor`: versions, hardware, optional extras, and whether a bundle opens."""

import os
import platform
from collections.abc import Iterator
from importlib import metadata, util
from pathlib import Path
from typing import Final

import click

from retrieval.common.extras import EXTRAS

BASE: Final = ("numpy", "onnxruntime", "faiss-cpu", "pyarrow", "click")
THREAD_VARIABLES: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
NAME_WIDTH: Final = 12


@click.command(epilog="Example: twotower doctor artifacts/demo")
@click.argument("folder", metavar="[DIR]", required=False, type=click.Path(path_type=Path))
def doctor(folder: Path | None) -> None:
    """Show versions, threads, memory and optional extras. With DIR, check that the bundle opens and answers."""
    for name, value in [*environment(), *extras()]:
        click.echo(f"{name:<{NAME_WIDTH}}{value}")
    if folder is not None:
        click.echo(f"{'bundle':<{NAME_WIDTH}}{check_bundle(folder)}")


def environment() -> Iterator[tuple[str, str]]:
    """Names and values of the interpreter, the base packages and the machine."""
    yield "twotower", metadata.version("twotower")
    yield "Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    yield "packages", ", ".join(_version(name) for name in BASE)
    limits = ", ".join(f"{name}={os.environ[name]}" for name in THREAD_VARIABLES if name in os.environ)
    yield "threads", f"{_processors()} of {os.cpu_count()} processors available" + (f" ({limits})" if limits else "")
    yield "memory", _memory()


def extras() -> Iterator[tuple[str, str]]:
    """A line for each extra: its packages and versions, or what it adds and how to install it."""
    for name, extra in EXTRAS.items():
        missing = [package for module, package in extra.packages.items() if util.find_spec(module) is None]
        if not missing:
            yield name, "installed: " + ", ".join(_version(package) for package in extra.packages.values())
        else:
            yield name, f'missing {", ".join(missing)}; pip install "twotower[{name}]" adds {extra.adds}'


def check_bundle(folder: Path) -> str:
    """Open a bundle and answer one query. Raises BundleError if it is missing, damaged or incomplete."""
    from retrieval.retriever import Query, Retriever  # loads faiss and onnxruntime

    with Retriever.open(folder) as retriever:
        retriever.query([Query()], k=1)
        return f"{folder} opens and answers: {retriever.index.count:,} items, model {retriever.pair_id}"


def _version(package: str) -> str:
    try:
        return f"{package} {metadata.version(package)}"
    except metadata.PackageNotFoundError:
        return f"{package} (not installed)"


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory() -> str:
    try:
        page = os.sysconf("SC_PAGE_SIZE")
        total, free = os.sysconf("SC_PHYS_PAGES") * page, os.sysconf("SC_AVPHYS_PAGES") * page
    except (AttributeError, ValueError, OSError):  # not on every system
        return "unknown"
    return f"{total / 1e9:.1f} GB, {free / 1e9:.1f} GB free"
