"""Item features as rows of EASE's regression: a row says which items share a value, as a user's which were taken."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from scipy import sparse

from retrieval.features.schema import Feature
from train.features.kinds import KINDS


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
    blocks += [KINDS[feature.kind].item_rows(np.asarray(values[feature.name])) for feature in features]
    return sparse.csr_array(sparse.vstack(blocks, format="csr"), dtype=np.float32)
