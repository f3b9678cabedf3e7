"""Golden cases: the inputs that `golden.json` holds, and whether the towers give the vectors it says."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from retrieval.bundle.layout import GOLDEN
from retrieval.bundle.reader import Bundle
from retrieval.common.errors import BundleError
from retrieval.features.schema import OUTPUT_NAME, SIDES, Feature, Side
from retrieval.towers.tower import Tower

TOLERANCE: Final = 1e-4  # of another processor's arithmetic, and of towers in half precision


def array_of(feature: Feature, values: list[Any]) -> npt.NDArray[Any]:
    """An input of a case as the tower takes it: nested lists, null for NaN; no rows and empty lists keep their shape.

    Returns an array of the feature's dtype, (n,) or (n, size), or object (n,) or (n, L) of str.
    """
    rows = len(values)
    if feature.is_text:
        width = (len(values[0]) if rows else 0,) if feature.is_list else ()
        return np.array(values, dtype=object).reshape(rows, *width)
    numbers = np.array(values, dtype=feature.dtype)  # null becomes NaN
    return numbers.reshape(rows, *feature.shape[1:])


def check_golden(bundle: Bundle, towers: Mapping[Side, Tower]) -> int:
    """Run every case through its tower. Returns how many vectors were compared.

    Raises BundleError that names the file and the case: it is of another model, or a vector differs.
    """
    golden = bundle.read_json(GOLDEN)
    source = bundle.path / GOLDEN
    if golden.get("pair_id") != bundle.pair_id:
        raise BundleError(f"{source}: of model {golden.get('pair_id')}, the bundle is of {bundle.pair_id}")
    compared = 0
    for side in SIDES:
        tower = towers[side]
        for number, case in enumerate(golden[side], start=1):
            batch = {feature.name: array_of(feature, case["inputs"][feature.name]) for feature in tower.inputs}
            found = tower.embed_batch(batch)
            expected = np.array(case[OUTPUT_NAME], dtype=np.float32).reshape(found.shape)
            if not np.allclose(found, expected, rtol=0, atol=TOLERANCE):
                raise BundleError(
                    f"{source}: {tower.path.name} gives other vectors than {side} case {number} says; "
                    "export the towers again"
                )
            compared += len(expected)
    return compared
