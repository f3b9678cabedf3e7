"""Describe a bundle, and check that it is complete and consistent."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from retrieval.bundle.layout import GOLDEN, INDEX, INDEX_FACTS, ITEMS, ITEMS_LOOKUP
from retrieval.bundle.reader import Bundle
from retrieval.common.errors import BundleError
from retrieval.common.text_table import text_table
from retrieval.features.schema import SIDES
from retrieval.index.storage import open_both
from retrieval.index.updates import state
from retrieval.towers.golden_cases import TOLERANCE, check_golden
from retrieval.towers.tower import Tower, open_tower

CHECKED_ITEMS: Final = 64


def describe(bundle: Bundle, facts: dict[str, Any]) -> str:
    """The text that `index info` prints."""
    recall = facts["recall"]
    size = sum(entry.size for entry in bundle.manifest.files.values())
    lines = [
        ("bundle", f"{bundle.path}, generation {bundle.generation}, {size / 1e6:,.1f} MB"),
        ("model", facts["pair_id"]),
        ("items", f"{facts['count']:,} of dimension {facts['dim']}"),
        ("kind", f"{facts['kind']} ({facts['factory']})"),
        ("parameters", ", ".join(f"{name} {value:g}" for name, value in facts["parameters"].items()) or "none"),
        (
            "recall@10",
            "1 (exact)"
            if facts["kind"] == "flat"
            else f"{recall['measured']:.4f} (asked {recall['asked']:g}) on {recall['on']}",
        ),
        ("changes", state(facts)),
    ]
    text = "".join(f"{name:<12}{value}\n" for name, value in lines)
    if facts["curve"]:
        names = list(facts["curve"][0])
        text += "\n" + text_table(names, [[point.get(name) for name in names] for point in facts["curve"]]) + "\n"
    return text


def verify_bundle(folder: Path, *, check_graphs: Callable[[Bundle], None] | None = None) -> Iterator[str]:
    """Check a bundle.

    Args:
        folder: The artifact folder.
        check_graphs: Checks the ONNX graphs and raises BundleError. Serving cannot: it takes the package onnx.

    Yields:
        One line for each check that passed.

    Raises:
        BundleError: at the first check that fails; the message names the file.
    """
    with Bundle.open(folder, verify="full") as bundle:
        for name in sorted(bundle.names):
            bundle.file(name)
        yield f"{len(bundle.names)} files have their published content (generation {bundle.generation})"
        towers = {side: open_tower(bundle, side) for side in SIDES}
        yield f"both towers load and belong to model {bundle.pair_id}"
        if bundle.has(GOLDEN):
            yield f"the towers reproduce {check_golden(bundle, towers)} golden embeddings"
            if check_graphs is None:
                yield "the ONNX graphs were not checked: onnx is not installed"
            else:
                check_graphs(bundle)
                yield "the ONNX graphs follow the contract"
        if bundle.has(INDEX_FACTS):
            yield _check_index(bundle, towers["item"])
        else:
            yield "there is no index"


def _check_index(bundle: Bundle, tower: Tower) -> str:
    """Embed some items again and compare them with the index. Raises BundleError."""
    import pyarrow.parquet as pq

    index, catalog = open_both(bundle)
    lengths = np.linalg.norm(index.base.astype(np.float64), axis=1)
    if len(lengths) and np.abs(lengths - 1).max() > 1e-3:
        raise BundleError(f"{bundle.path / INDEX}: holds vectors whose length is not 1; rebuild it")
    rows = np.linspace(0, len(index.base) - 1, min(CHECKED_ITEMS, len(index.base))).astype(np.int64)
    items = bundle.load(ITEMS, lambda path: pq.read_table(path, memory_map=True).take(rows))
    ids = items.column(0).to_pylist()
    if ids != [catalog.id(row) for row in rows.tolist()]:
        raise BundleError(f"{bundle.path / ITEMS}: its rows differ from those of {ITEMS_LOOKUP}; rebuild the index")
    apart = np.abs(tower.embed_table(items) - index.vectors(rows)).max(initial=0)
    if apart > TOLERANCE:
        raise BundleError(
            f"{bundle.path / INDEX}: its vectors differ from those of item_tower.onnx by up to {apart:.2g}; "
            f'rebuild with "twotower index build {bundle.path}"'
        )
    return f"the index holds {index.count:,} items; {len(rows)} of them match the item tower"
