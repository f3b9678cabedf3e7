"""Open the index of a bundle: index.faiss, index.json, added vectors and removed rows."""

from pathlib import Path
from typing import Any, Final

import numpy as np

from retrieval.bundle.layout import ADDED_VECTORS, INDEX, INDEX_FACTS, REMOVED
from retrieval.bundle.reader import Bundle
from retrieval.catalog.items import Catalog, read_array
from retrieval.common.errors import BundleError
from retrieval.index.factory import IndexSpec, SearchParams
from retrieval.index.index import Index

FORMAT_VERSION: Final = 1


def read_facts(bundle: Bundle) -> dict[str, Any]:
    """Read index.json. Raises BundleError if there is no index, or it has another pair id or format version."""
    folder = bundle.path
    if not bundle.has(INDEX_FACTS) or not bundle.has(INDEX):
        raise BundleError(f'{folder}: has no index; build one with "twotower index build {folder}"')
    facts: dict[str, Any] = bundle.read_json(INDEX_FACTS)
    try:
        version, pair_id = facts["format_version"], facts["pair_id"]
    except (KeyError, TypeError) as error:
        raise BundleError(
            f'{folder / INDEX_FACTS}: does not describe an index; rebuild with "twotower index build {folder}"'
        ) from error
    if version != FORMAT_VERSION:
        raise BundleError(
            f"{folder / INDEX_FACTS}: format version {version}, this program reads {FORMAT_VERSION}; "
            f'rebuild with "twotower index build {folder}"'
        )
    if pair_id != bundle.pair_id:
        raise BundleError(
            f"{folder}: item vectors come from model {pair_id}, the towers are {bundle.pair_id}; "
            f'rebuild with "twotower index build {folder}"'
        )
    return facts


def open_index(bundle: Bundle) -> Index:
    """Open the index of a bundle, memory-mapped; its rows are those of the bundle's `Catalog`.

    Raises:
        BundleError: if a file is damaged or belongs to another model.
    """
    facts = read_facts(bundle)
    source = bundle.path / INDEX_FACTS
    try:
        factory = str(facts["factory"])
        spec = IndexSpec(str(facts["kind"]), "" if factory == "Flat" else factory)
        params = SearchParams.from_json(facts["parameters"])
        dim, built = int(facts["dim"]), int(facts["built"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BundleError(f'{source}: has unexpected content ({error}); rebuild with "twotower index build"') from error
    added = bundle.load(ADDED_VECTORS, read_array) if bundle.has(ADDED_VECTORS) else np.empty((0, dim), np.float32)
    removed = bundle.load(REMOVED, read_array) if bundle.has(REMOVED) else np.empty(0, np.int64)

    def load(path: Path) -> Index:
        return Index.load(path, spec, params=params, added=added, removed=removed)

    index = bundle.load(INDEX, load)
    if len(index.base) != built:
        raise BundleError(
            f"{bundle.path / INDEX}: holds {len(index.base)} vectors, {INDEX_FACTS} says {built}; rebuild it"
        )
    return index


def open_both(bundle: Bundle) -> tuple[Index, Catalog]:
    """Open the index and the catalogue of a bundle. Raises BundleError if their rows do not match."""
    index, catalog = open_index(bundle), Catalog(bundle)
    if index.height != catalog.height:
        raise BundleError(
            f"{bundle.path}: the index has {index.height} rows, the catalogue {catalog.height}; "
            f'rebuild with "twotower index build {bundle.path}"'
        )
    return index, catalog
