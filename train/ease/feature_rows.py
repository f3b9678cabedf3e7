"""Item features as rows of EASE's regression: a row says which items share a value, as a user's which were taken."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import sparse

from retrieval.features.schema import Feature
from retrieval.features.vocabulary import FIRST

NUMBER_BINS: Final = 20  # quantile bins of a number
VECTOR_DIRECTIONS: Final = 32  # principal directions of a vector

Floats = npt.NDArray[np.floating]


def feature_rows(
    features: Sequence[Feature], values: Mapping[str, npt.NDArray[np.generic]], *, items: int
) -> sparse.csr_array:
    """One row for each value of a feature, with 1 where an item has it; for a vector one row a principal direction.

    Rows that hold for all items or for one only are left out: they relate no items.

    Args:
        features: Of the items, without the item id itself.
        values: Encoded columns by name, as `Preprocess.encode_table` returns them.
        items: Number of items.

    Returns:
        (rows, items) float32.

    """
    blocks = [sparse.csr_array((0, items), dtype=np.float32)]
    for feature in features:
        column = np.asarray(values[feature.name])
        if feature.kind == "vector":
            blocks.append(sparse.csr_array(_principal_directions(column.astype(np.float64))))
            continue
        if feature.kind == "number":
            column = _quantile_bins(column.astype(np.float64))
        entries = column.reshape(items, -1)  # (items, 1 or the longest list)
        owners, places = np.nonzero(entries >= FIRST)
        rows = entries[owners, places] - FIRST
        height = int(rows.max(initial=-1)) + 1
        block = sparse.csr_array((np.ones(len(rows), np.float32), (rows, owners)), shape=(height, items))
        block.data = np.minimum(block.data, 1)  # a value that a list holds twice
        counts = np.diff(block.indptr)
        blocks.append(block[np.flatnonzero((counts > 1) & (counts < items))])
    return sparse.csr_array(sparse.vstack(blocks, format="csr"), dtype=np.float32)


def _quantile_bins(numbers: Floats) -> npt.NDArray[np.int64]:
    """The bin of each number, from FIRST; 0 where it is not finite."""
    finite = np.isfinite(numbers)
    if not finite.any():
        return np.zeros(len(numbers), np.int64)
    edges = np.unique(np.quantile(numbers[finite], np.linspace(0, 1, NUMBER_BINS + 1)[1:-1]))
    return np.where(finite, FIRST + np.searchsorted(edges, np.where(finite, numbers, 0), side="right"), 0)


def _principal_directions(vectors: Floats) -> npt.NDArray[np.float32]:
    """Centred unit vectors in their principal directions. (items, size) -> (directions, items)."""
    finite = np.isfinite(vectors).all(axis=1, keepdims=True)
    length = np.linalg.norm(np.where(finite, vectors, 0), axis=1)
    nonzero: npt.NDArray[np.bool_] = length > 0
    unit = np.where(nonzero[:, None], vectors / np.where(nonzero, length, 1)[:, None], 0)
    if nonzero.any():
        unit[nonzero] -= unit[nonzero].mean(axis=0)
    rotation = np.linalg.eigh(unit.T @ unit)[1][:, ::-1][:, :VECTOR_DIRECTIONS]
    return np.asarray((unit @ rotation).T, np.float32)
