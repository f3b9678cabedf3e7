"""What items are made of: their features as one sparse matrix, for a nearest-neighbour that needs no interactions."""

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from scipy import sparse

from retrieval.common.arrays import Rows, Scores
from retrieval.common.csr import CSR
from retrieval.evaluation.baselines.base import Choices, Settings, Training, product, recency_weights
from retrieval.evaluation.held_out import HeldOut

CLIP = 3.0  # standard deviations beyond which a number says no more


def content(held: HeldOut) -> Any | None:
    """Unit rows of the item tower's features, its id left out: (items, values) float32 scipy CSR; None without any.

    Categories and their lists count by inverse document frequency, numbers by how many standard deviations they are
    off, vectors as they are; every feature has the same weight.
    """
    blocks = []
    for feature in held.config.get("item", {}).get("features", []):
        name, kind = feature["name"], feature["kind"]
        if name == held.items.column_names[0] or name not in held.items.column_names:
            continue
        values = held.items.column(name).to_pylist()
        if kind == "number":
            blocks.append(_numbers(values))
        elif kind == "vector":
            rows = [value if value is not None else [0.0] * feature["size"] for value in values]
            blocks.append(_unit(sparse.csr_array(np.nan_to_num(np.array(rows, dtype=np.float32)))))
        elif kind in ("category", "categories", "hash"):
            blocks.append(_words(values, feature.get("separator")))
    if not blocks:
        return None
    return _unit(sparse.hstack(blocks, format="csr"))


def texts_of(value: Any, separator: str | None) -> list[str]:
    """The texts of a category or of a list of them, as a table holds it; none where it is missing."""
    if value is None:
        return []
    if isinstance(value, list):
        return [str(entry) for entry in value]
    return str(value).split(separator) if separator else [str(value)]


def _words(values: list[Any], separator: str | None) -> Any:
    codes: dict[str, int] = {}
    owners, members = [], []
    for row, value in enumerate(values):
        for text in texts_of(value, separator):
            owners.append(row)
            members.append(codes.setdefault(text, len(codes)))
    ones = np.ones(len(owners), dtype=np.float32)
    matrix = sparse.coo_array((ones, (owners, members)), shape=(len(values), max(len(codes), 1))).tocsr()
    matrix.data[:] = 1
    frequency = np.bincount(matrix.indices, minlength=matrix.shape[1])
    matrix.data *= np.log(len(values) / np.maximum(frequency, 1)).astype(np.float32)[matrix.indices]
    return _unit(matrix)


def _numbers(values: list[Any]) -> Any:
    numbers = np.array([np.nan if value is None else float(value) for value in values])
    known = np.isfinite(numbers)
    mean, spread = (numbers[known].mean(), numbers[known].std()) if known.any() else (0.0, 0.0)
    scaled = np.where(known, (numbers - mean) / (spread or 1.0), 0.0)
    return sparse.csr_array(np.clip(scaled, -CLIP, CLIP).astype(np.float32)[:, None] / CLIP)


def _unit(matrix: Any) -> Any:
    lengths = np.sqrt(matrix.multiply(matrix).sum(axis=1))
    scale: npt.NDArray[np.float32] = (1 / np.maximum(lengths, 1e-12)).astype(np.float32)
    return sparse.csr_array(sparse.diags_array(scale) @ matrix, dtype=np.float32)


class ContentKNN:
    """Score of an item: the sum of its cosines with the history's items, one of age a counting decay^a.

    matrix: as `content` makes it. among: the rows of the items to score.
    """

    choices: ClassVar[Choices] = {"decay": (1.0, 0.9, 0.8, 0.6)}

    def __init__(self, matrix: Any, among: Rows) -> None:
        self._matrix = matrix
        self._among = matrix[among].T.tocsr()

    def fit(self, training: Training) -> None:
        """Nothing to learn: items are what their features say."""

    def score(self, histories: CSR, settings: Settings) -> Scores:
        """Scores of the items `among`: (users, among)."""
        weights = recency_weights(histories, items=self._matrix.shape[0], decay=settings["decay"])
        return product(weights @ self._matrix, self._among)
