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
    """A number of bytes: 4GB, 500MB, 1000000."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)i?B?\s*", str(value), re.IGNORECASE)
        if match is None:
            self.fail(f'"{value}" is not a size; write it as 4GB or 500MB', param, ctx)
        return int(float(match[1]) * UNITS[match[2].upper()])


@click.group(epilog="Example: twotower index build artifacts/demo")
def index() -> None:
    """Build, update and check the index of a bundle."""


@index.command(epilog="Example: twotower index build artifacts/demo --kind auto --recall 0.99")
@click.argument("folder", metavar="DIR", type=FOLDER)
@click.option("--items", type=FOLDER, help="Table of items. Default: the items of the bundle.")
@click.option(
    "--kind",
    default="auto",
    show_default=True,
    metavar="KIND",
    help="Kind of index: auto, flat, ivf, pq or a FAISS factory string.",
)
@click.option(
    "--recall",
    type=click.FloatRange(0, 1, min_open=True),
    help="Target recall@10 against exact search; 1 is exact. Default: 0.95, exact below 20,000 items.",
)
@click.option("--memory", type=Size(), metavar="SIZE", help="Largest size of the index in memory, such as 4GB.")
@click.option("--seed", type=int, default=0, show_default=True, help="Random seed.")
def build(folder: Path, items: Path | None, kind: str, recall: float | None, memory: int | None, seed: int) -> None:
    """Embed the items with item_tower.onnx, then build and tune the index and measure its recall."""
    from retrieval.bundle.writer import publishing
    from retrieval.index.build import build_index

    _check_bundle(folder)
    with publishing(folder) as draft:
        build_index(draft, items=items, kind=kind, recall=recall, memory_bytes=memory, seed=seed)


@index.command(epilog="Example: twotower index add artifacts/demo --items new_items.jsonl")
@click.argument("folder", metavar="DIR", type=FOLDER)
@click.option("--items", type=FOLDER, required=True, help="Table of items; an existing item is replaced.")
def add(folder: Path, items: Path) -> None:
    """Add or replace items without retraining or rebuilding."""
    from retrieval.bundle.writer import publishing
    from retrieval.index.updates import add_items

    _check_bundle(folder)
    with publishing(folder) as draft:
        change = add_items(draft, items)
    note(f"{folder}: {_items(change.added)} added, {change.replaced:,} replaced")


@index.command(epilog="Example: twotower index remove artifacts/demo --ids gone.txt")
@click.argument("folder", metavar="DIR", type=FOLDER)
@click.option("--ids", metavar="FILE", required=True, help="File with one id per line; - is stdin.")
def remove(folder: Path, ids: str) -> None:
    """Remove items by id, so that they are no longer recommended."""
    from retrieval.bundle.writer import publishing
    from retrieval.index.updates import remove_items

    _check_bundle(folder)
    with publishing(folder) as draft:
        change = remove_items(draft, _read_ids(ids))
    unknown = f"; {change.unknown:,} not in the catalogue" if change.unknown else ""
    note(f"{folder}: {_items(change.removed)} removed{unknown}")


@index.command(epilog="Example: twotower index compact artifacts/demo")
@click.argument("folder", metavar="DIR", type=FOLDER)
@click.option("--seed", type=int, default=0, show_default=True, help="Random seed.")
def compact(folder: Path, seed: int) -> None:
    """Rebuild the index over the present items from their stored embeddings."""
    from retrieval.bundle.writer import publishing
    from retrieval.index.updates import compact as compact_items

    _check_bundle(folder)
    with publishing(folder) as draft:
        compact_items(draft, seed=seed)


@index.command(epilog="Example: twotower index info artifacts/demo")
@click.argument("folder", metavar="DIR", type=FOLDER)
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def info(folder: Path, as_json: bool) -> None:
    """Show the kind, size and measured recall of the index, its changes, and whether to rebuild it."""
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
    """Check the whole bundle: checksums, both towers, and that the index holds their embeddings."""
    from retrieval.verify import verify_bundle

    check_graphs = find_graph_check() if find_graph_check is not None else None
    for line in verify_bundle(folder, check_graphs=check_graphs):
        click.echo(line)


def _check_bundle(folder: Path) -> None:
    """Refuse a folder that is no bundle before writing a lock to it."""
    from retrieval.bundle.reader import Bundle

    Bundle.open(folder).close()


def _items(count: int) -> str:
    return "1 item" if count == 1 else f"{count:,} items"


def _read_ids(source: str) -> list[str]:
    if source != "-" and (not Path(source).exists() or Path(source).is_dir()):  # a pipe is fine
        raise DataError(f"{source}: no such file")
    try:
        text = sys.stdin.buffer.read().decode() if source == "-" else Path(source).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{source}: not UTF-8 ({error.reason} at byte {error.start})") from error
    return [line.strip() for line in text.removeprefix("\ufeff").splitlines() if line.strip()]
