"""`index build | add | remove | compact | info | verify`: parse, call one function, print."""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from retrieval.common.console import note
from retrieval.common.errors import DataError
from retrieval.common.text_table import json_line

if TYPE_CHECKING:
    from retrieval.bundle.reader import Bundle

FOLDER: Final = click.Path(path_type=Path)
UNITS: Final = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


class Size(click.ParamType):  # type: ignore[type-arg]  # generic to the checker, not when run
    """An amount of memory: 4GB, 500MB, 1000000."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)i?B?\s*", str(value), re.IGNORECASE)
        if match is None:
            self.fail(f'"{value}" is not an amount of memory; write it as 4GB or 500MB', param, ctx)
        return int(float(match[1]) * UNITS[match[2].upper()])


@click.group(epilog="Example: twotower index build artifacts/demo")
def index() -> None:
    """Build, change and check the index of a bundle."""


@index.command(epilog="Example: twotower index build artifacts/demo --kind auto --recall 0.99")
@click.argument("folder", metavar="DIR", type=FOLDER)
@click.option("--items", type=FOLDER, help="A table of items. Default: the items that the bundle has.")
@click.option(
    "--kind", default="auto", show_default=True, metavar="KIND", help="auto, flat, ivf, pq or a FAISS factory string."
)
@click.option(
    "--recall",
    type=click.FloatRange(0, 1, min_open=True),
    help="Recall@10 to reach, against exact search; 1 is exact. Default: 0.95, exact below 20,000 items.",
)
@click.option(
    "--memory", type=Size(), metavar="SIZE", help="Most memory that the searched structure may take, such as 4GB."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the training sample.")
def build(folder: Path, items: Path | None, kind: str, recall: float | None, memory: int | None, seed: int) -> None:
    """Embed the items through item_tower.onnx; build, tune and measure the index."""
    from retrieval.bundle.writer import publishing
    from retrieval.index.build import build_index

    _must_be(folder)
    with publishing(folder) as draft:
        build_index(draft, items=items, kind=kind, recall=recall, memory_bytes=memory, seed=seed)


@index.command(epilog="Example: twotower index add artifacts/demo --items new_items.jsonl")
@click.argument("folder", metavar="DIR", type=FOLDER)
@click.option("--items", type=FOLDER, required=True, help="A table of items; an item that is there is replaced.")
def add(folder: Path, items: Path) -> None:
    """Add items, or replace them, without training or building anew."""
    from retrieval.bundle.writer import publishing
    from retrieval.index.updates import add_items

    _must_be(folder)
    with publishing(folder) as draft:
        change = add_items(draft, items)
    note(f"{folder}: {_items(change.added)} added, {change.replaced:,} replaced")


@index.command(epilog="Example: twotower index remove artifacts/demo --ids gone.txt")
@click.argument("folder", metavar="DIR", type=FOLDER)
@click.option("--ids", metavar="FILE", required=True, help="A file with an id a line; - is stdin.")
def remove(folder: Path, ids: str) -> None:
    """Remove items by id: they are no longer recommended."""
    from retrieval.bundle.writer import publishing
    from retrieval.index.updates import remove_items

    _must_be(folder)
    with publishing(folder) as draft:
        change = remove_items(draft, _read_ids(ids))
    unknown = f"; {change.unknown:,} not in the catalogue" if change.unknown else ""
    note(f"{folder}: {_items(change.removed)} removed{unknown}")


@index.command(epilog="Example: twotower index compact artifacts/demo")
@click.argument("folder", metavar="DIR", type=FOLDER)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the training sample.")
def compact(folder: Path, seed: int) -> None:
    """Rebuild the index over the present items, from the vectors it holds: nothing is embedded again."""
    from retrieval.bundle.writer import publishing
    from retrieval.index.updates import compact as compact_items

    _must_be(folder)
    with publishing(folder) as draft:
        compact_items(draft, seed=seed)


@index.command(epilog="Example: twotower index info artifacts/demo")
@click.argument("folder", metavar="DIR", type=FOLDER)
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def info(folder: Path, as_json: bool) -> None:
    """Show the index: its kind, size, measured recall and changes, and whether to rebuild it."""
    from retrieval.bundle.reader import Bundle
    from retrieval.index.storage import read_facts
    from retrieval.verify import describe

    with Bundle.open(folder) as bundle:
        facts = {**read_facts(bundle), "generation": bundle.generation}
        click.echo(json_line(facts) if as_json else describe(bundle, facts), nl=as_json)


@index.command(epilog="Example: twotower index verify artifacts/demo")
@click.argument("folder", metavar="DIR", type=FOLDER)
@click.pass_obj
def verify(find_graph_check: "Callable[[], Callable[[Bundle], None] | None] | None", folder: Path) -> None:
    """Check the whole bundle: every byte, both towers, and that the index holds their vectors."""
    from retrieval.verify import verify_bundle

    check_graphs = find_graph_check() if find_graph_check is not None else None
    for line in verify_bundle(folder, check_graphs=check_graphs):
        click.echo(line)


def _must_be(folder: Path) -> None:
    """Refuse a folder that is no bundle before a lock or a file is made in it."""
    from retrieval.bundle.reader import Bundle

    Bundle.open(folder).close()


def _items(count: int) -> str:
    return "1 item" if count == 1 else f"{count:,} items"


def _read_ids(source: str) -> list[str]:
    if source != "-" and (not Path(source).exists() or Path(source).is_dir()):  # a pipe is fine
        raise DataError(f"{source}: there is no such file")
    try:
        text = sys.stdin.buffer.read().decode() if source == "-" else Path(source).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{source}: is not UTF-8 ({error.reason} at byte {error.start})") from error
    return [line.strip() for line in text.removeprefix("\ufeff").splitlines() if line.strip()]
