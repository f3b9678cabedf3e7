"""What a bundle is, in words, and whether it is whole."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from retrieval.bundle.reader import Bundle
from retrieval.catalog.items import ITEMS, ITEMS_LOOKUP
from retrieval.common.errors import BundleError
from retrieval.common.text_table import text_table
from retrieval.features.schema import SIDES
from retrieval.index.storage import FACTS, INDEX, open_both
from retrieval.index.updates import state
from retrieval.towers.golden_cases import GOLDEN, TOLERANCE, check_golden
from retrieval.towers.tower import Tower, open_tower

CHECKED_ITEMS: Final = 64


def describe(bundle: Bundle, facts: dict[str, Any]) -> str:
    """What `index info` prints."""
    recall = facts["recall"]
    size = sum(entry.size for entry in bundle.manifest.files.values())
    lines = [
        ("bundle", f"{bundle.path}, generation {bundle.generation}, {size / 1e6:,.1f} MB"),
        ("model", facts["pair_id"]),
        ("items", f"{facts['count']:,} of {facts['dim']} numbers"),
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


def verify_bundle(folder: Path) -> Iterator[str]:
    """Check a bundle: a line for each thing that is right, a BundleError naming the file at the first that is not."""
    with Bundle.open(folder, verify="full") as bundle:
        for name in sorted(bundle.names):
            bundle.file(name)
        yield f"{len(bundle.names)} files are as published (generation {bundle.generation})"
        towers = {side: open_tower(bundle, side) for side in SIDES}
        yield f"both towers load and are of model {bundle.pair_id}"
        if bundle.has(GOLDEN):
            yield f"{check_golden(bundle, towers)} golden inputs give their vectors"
            yield _check_contract(bundle)
        if bundle.has(FACTS):
            yield _check_index(bundle, towers["item"])
        else:
            yield "there is no index"


def _check_contract(bundle: Bundle) -> str:
    """Whether the graphs are what every client may rely on; that takes onnx, which serving does without."""
    try:
        contract = importlib.import_module("export.contract")
    except ImportError:
        return "the graphs' contract was not checked: onnx is not installed"
    contract.verify_graphs(bundle)
    return "the graphs keep the contract of the files"


def _check_index(bundle: Bundle, tower: Tower) -> str:
    """Whether rows of the index are the vectors that the item tower gives for those items."""
    import pyarrow.parquet as pq

    index, catalog = open_both(bundle)
    lengths = np.linalg.norm(index.base.astype(np.float64), axis=1)
    if len(lengths) and np.abs(lengths - 1).max() > 1e-3:
        raise BundleError(f"{bundle.path / INDEX}: holds vectors that are not of length 1; build it again")
    rows = np.linspace(0, len(index.base) - 1, min(CHECKED_ITEMS, len(index.base))).astype(np.int64)
    items = bundle.load(ITEMS, lambda path: pq.read_table(path, memory_map=True).take(rows))
    ids = items.column(0).to_pylist()
    if ids != [catalog.id(row) for row in rows.tolist()]:
        raise BundleError(f"{bundle.path / ITEMS}: its rows are not those of {ITEMS_LOOKUP}; build the index again")
    apart = np.abs(tower.embed_table(items) - index.vectors(rows)).max(initial=0)
    if apart > TOLERANCE:
        raise BundleError(
            f"{bundle.path / INDEX}: its vectors are not those of item_tower.onnx (apart by {apart:.2g}); "
            f'rebuild with "twotower index build {bundle.path}"'
        )
    return f"the index holds {index.count:,} items; {len(rows)} of them were embedded again and match"
