"""A map of item embeddings: two principal components, coloured by the attribute that they explain best."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from retrieval.common.arrays import Rows
from retrieval.evaluation.content_knn import texts_of
from retrieval.evaluation.held_out import HeldOut

POINTS: Final = 2_000  # items drawn: the most popular, whose vectors saw most data
GROUPS: Final = 7  # values with their own colour
OTHER: Final = "other"
MIN_SHARE: Final = 0.2  # of items that need one of those values


class ItemMap(NamedTuple):
    """Points of the map.

    Attributes:
        rows: (n,) int64 rows of the items.
        places: (n, 2) coordinates.
        explained: Share of the variance along the two components.
        attribute: The item feature that colours the points, if one explains them.
        groups: A label for each point.
        between: Share of the variance, over all dimensions, between the groups.
    """

    rows: Rows
    places: npt.NDArray[np.float64]
    explained: float
    attribute: str | None
    groups: Sequence[str]
    between: float


def item_map(held: HeldOut, vectors: npt.NDArray[np.float32]) -> ItemMap:
    """Draw the most popular items. vectors: (items, dim), NaN rows for items without a vector."""
    known = np.flatnonzero(~np.isnan(vectors[:, 0]))
    rows = np.sort(known[np.argsort(-held.popularity[known], kind="stable")[:POINTS]])
    centred = vectors[rows].astype(np.float64)
    centred -= centred.mean(axis=0) if len(rows) else 0
    spread = float((centred**2).sum())
    if len(rows) < 3 or spread == 0 or vectors.shape[1] < 2:
        return ItemMap(rows, np.zeros((len(rows), 2)), 0.0, None, [""] * len(rows), 0.0)
    # Principal components: eigenvectors of the covariance, largest last.
    strengths, directions = np.linalg.eigh(centred.T @ centred)
    places = centred @ directions[:, [-1, -2]]
    labelled = _attributes(held, rows)
    between = {name: _between(centred, groups) / spread for name, groups in labelled.items()}
    best = max(between, key=lambda name: between[name]) if between else None
    return ItemMap(
        rows,
        places,
        float(strengths[-2:].sum() / spread),
        best,
        labelled[best] if best is not None else [""] * len(rows),
        between[best] if best is not None else 0.0,
    )


def _between(centred: npt.NDArray[np.float64], groups: Sequence[str]) -> float:
    """Sum of squares between groups."""
    names, codes = np.unique(np.array(groups), return_inverse=True)
    counts = np.bincount(codes)
    sums = np.zeros((len(names), centred.shape[1]))
    np.add.at(sums, codes, centred)
    return float(((sums**2).sum(axis=1) / counts).sum())


def _attributes(held: HeldOut, rows: Rows) -> dict[str, list[str]]:
    """Item features that split the items into a few groups: name -> label of each item."""
    found = {}
    for feature in held.config.get("item", {}).get("features", []):
        name, kind = feature["name"], feature["kind"]
        if name not in held.items.column_names or name == held.items.column_names[0]:
            continue
        values = held.items.column(name).take(rows).to_pylist()
        groups = _labels(kind, values, feature)
        if groups is not None:
            found[name] = groups
    return found


def _labels(kind: str, values: Sequence[Any], feature: Mapping[str, Any]) -> list[str] | None:
    if kind == "number":
        return _ranges(values)
    if kind not in ("category", "categories"):
        return None
    lists = [texts_of(value, feature.get("separator")) for value in values]
    counts = Counter(text for texts in lists for text in texts)
    shown = [text for text, _ in counts.most_common(GROUPS)]
    # The rarest of an item's values: the most common ones say least.
    groups = [next((text for text in reversed(shown) if text in texts), OTHER) for texts in lists]
    named = sum(group != OTHER for group in groups)
    return groups if len(shown) > 1 and named >= MIN_SHARE * len(groups) else None


def _ranges(values: Sequence[Any]) -> list[str] | None:
    """Numbers as five ranges with equally many items."""
    numbers = np.array([np.nan if value is None else float(value) for value in values])
    known = numbers[np.isfinite(numbers)]
    if len(known) < MIN_SHARE * len(numbers) or len(np.unique(known)) < 5:
        return None
    edges = np.unique(np.quantile(known, np.linspace(0, 1, 6)))
    if len(edges) < 3:
        return None
    codes = np.clip(np.searchsorted(edges, numbers, side="right") - 1, 0, len(edges) - 2)  # NaN: above all
    # Named by the values inside: an edge belongs to the range above it.
    inside = [numbers[(codes == code) & np.isfinite(numbers)] for code in range(len(edges) - 1)]
    ends = [(part.min(), part.max()) if len(part) else (0.0, 0.0) for part in inside]
    names = [f"{low:g}" if low == high else f"{low:g} to {high:g}" for low, high in ends]
    return [names[code] if np.isfinite(number) else OTHER for code, number in zip(codes, numbers, strict=True)]
