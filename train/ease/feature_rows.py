"""What items have in common by their features, as rows beside the users' rows: a user who took all of a genre."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from scipy import sparse

from retrieval.features.schema import Feature
from retrieval.features.vocabulary import FIRST
from train.config.load import Config
from train.data.datamodule import DataModule

BINS = 20  # of a number, with about as many items each
DIRECTIONS = 32  # of a vector, those in which the items differ most

Floats = npt.NDArray[np.floating]


def likeness_of(data: DataModule, config: Config) -> sparse.csr_array:
    """The likeness of a dataset's items, by all features but the item itself."""
    own = [feature for feature in config.item_features if feature.name != config.data.item]
    given = {name: values.numpy() for name, values in data.items.items()}
    return likeness(own, given, items=len(next(iter(given.values()))))


def likeness(
    features: Sequence[Feature], values: Mapping[str, npt.NDArray[np.generic]], *, items: int
) -> sparse.csr_array:
    """One row a value of a feature, with 1 where an item has it; of a vector one row a direction.

    features: without the one that is the item itself. values: as `Preprocess.encode_table` gives them. A row that
    says the same of all items, or something of one only, is left out. Returns (rows, items) float32.
    """
    blocks = [sparse.csr_array((0, items), dtype=np.float32)]
    for feature in features:
        given = np.asarray(values[feature.name])
        if feature.kind == "vector":
            blocks.append(sparse.csr_array(_directions(given.astype(np.float64))))
            continue
        if feature.kind == "number":
            given = _bins(given.astype(np.float64))
        entries = given.reshape(items, -1)  # (items, 1 or the longest list)
        owners, places = np.nonzero(entries >= FIRST)
        rows = entries[owners, places] - FIRST
        height = int(rows.max(initial=-1)) + 1
        block = sparse.csr_array((np.ones(len(rows), np.float32), (rows, owners)), shape=(height, items))
        block.data = np.minimum(block.data, 1)  # a value that a list has twice
        counts = np.diff(block.indptr)
        blocks.append(block[np.flatnonzero((counts > 1) & (counts < items))])
    return sparse.csr_array(sparse.vstack(blocks, format="csr"), dtype=np.float32)


def _bins(numbers: Floats) -> npt.NDArray[np.int64]:
    """The bin of each number, from FIRST; 0 where it is not finite."""
    known = np.isfinite(numbers)
    if not known.any():
        return np.zeros(len(numbers), np.int64)
    edges = np.unique(np.quantile(numbers[known], np.linspace(0, 1, BINS + 1)[1:-1]))
    return np.where(known, FIRST + np.searchsorted(edges, np.where(known, numbers, 0), side="right"), 0)


def _directions(vectors: Floats) -> npt.NDArray[np.float32]:
    """Unit vectors less their mean, turned to where they differ most. (items, size) -> (directions, items)."""
    finite = np.isfinite(vectors).all(axis=1, keepdims=True)
    length = np.linalg.norm(np.where(finite, vectors, 0), axis=1)
    known: npt.NDArray[np.bool_] = length > 0
    unit = np.where(known[:, None], vectors / np.where(known, length, 1)[:, None], 0)
    if known.any():
        unit[known] -= unit[known].mean(axis=0)
    turn = np.linalg.eigh(unit.T @ unit)[1][:, ::-1][:, :DIRECTIONS]
    return np.asarray((unit @ turn).T, np.float32)
