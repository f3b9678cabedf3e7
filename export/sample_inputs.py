"""Samples: batches that try a tower, ordinary and hostile alike; the same seed gives the same ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from retrieval.features.records import Batch
from retrieval.features.schema import Feature
from retrieval.features.vocabulary import Vocabulary
from train.features.kinds import Fitted, Scaler

Padding = Literal["left", "right", "scattered"]

# Not known to any vocabulary but by design: emoji, CJK, combining marks, right to left, quotes, blanks, a long one.
STRANGE_TEXT: Final = ("👩🏽‍🚀", "映画", "e\u0301", "فيلم", '"quoted"', " ", "\t\n", "x" * 100, "-1", "nan")
STRANGE_NUMBERS: Final = (np.nan, np.inf, -np.inf, 1e38, -1e38, 3.4028235e38, -3.4028235e38, 1e-45, 0.0, -0.0)
MISSING_SHARE: Final = 0.2
STRANGE_SHARE: Final = 0.2
DEFAULT_WIDTH: Final = 8  # where no list of the tower has a max_length


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampler:
    """Makes batches for one tower.

    fitted: What each feature was fitted to, by name: samples are drawn from a vocabulary or around a mean.
    """

    features: Sequence[Feature]
    fitted: Mapping[str, Fitted]

    @property
    def max_length(self) -> int:
        return max((f.max_length for f in self.features if f.max_length is not None), default=DEFAULT_WIDTH)

    @property
    def has_lists(self) -> bool:
        return any(feature.is_list for feature in self.features)

    def widths(self) -> tuple[int, ...]:
        """List lengths about every limit of the graph."""
        longest = self.max_length
        return (0, 1, longest - 1, longest, longest + 1, 4 * longest) if self.has_lists else (0,)

    def batch(self, rows: int, width: int, *, seed: int, padding: Padding = "right") -> Batch:
        """Named arrays as the graph takes them: rows of all kinds, lists of at most `width` entries."""
        random = np.random.default_rng([seed, rows, width])
        return {f.name: self._column(f, rows, width, random, padding) for f in self.features}

    def missing(self, rows: int, width: int) -> Batch:
        """Everything missing."""
        return {
            f.name: np.full((rows, *_sizes(f, width)), "" if f.is_text else np.nan, object if f.is_text else f.dtype)
            for f in self.features
        }

    def _column(
        self, feature: Feature, rows: int, width: int, random: np.random.Generator, padding: Padding
    ) -> npt.NDArray[np.generic]:
        if feature.is_list:
            texts = self._texts(feature, rows * width, random).reshape(rows, width)
            return _padded(texts, random.integers(0, width + 1, rows), padding)
        if feature.is_text:
            return self._texts(feature, rows, random)
        return self._floats(feature, (rows, *feature.shape[1:]), random)

    def _texts(self, feature: Feature, count: int, random: np.random.Generator) -> npt.NDArray[np.object_]:
        fitted = self.fitted.get(feature.name)
        ids = fitted.ids if isinstance(fitted, Vocabulary) else ()
        kind = random.random(count)
        known = random.integers(0, max(len(ids), 1), count)
        strange = random.integers(0, len(STRANGE_TEXT), count)
        texts = np.empty(count, dtype=object)
        for row in range(count):
            if kind[row] < MISSING_SHARE:
                texts[row] = ""
            elif kind[row] < MISSING_SHARE + STRANGE_SHARE or not ids:
                texts[row] = STRANGE_TEXT[strange[row]]
            else:
                texts[row] = ids[known[row]]
        return texts

    def _floats(
        self, feature: Feature, shape: tuple[int | str, ...], random: np.random.Generator
    ) -> npt.NDArray[np.floating]:
        fitted = self.fitted.get(feature.name)
        mean, std = (fitted.mean, fitted.std) if isinstance(fitted, Scaler) else (0.0, 1.0)
        values = random.normal(mean, std, shape).astype(feature.dtype)  # type: ignore[arg-type]
        strange = random.choice(np.asarray(STRANGE_NUMBERS, dtype=feature.dtype), values.shape)
        return np.where(random.random(values.shape) < STRANGE_SHARE, strange, values)


def _sizes(feature: Feature, width: int) -> tuple[int, ...]:
    return tuple(width if axis == "L" else int(axis) for axis in feature.shape[1:])


def _padded(
    texts: npt.NDArray[np.object_], lengths: npt.NDArray[np.int64], padding: Padding
) -> npt.NDArray[np.object_]:
    """Blank all but `lengths` entries of each row, at the side that is padded. texts: (n, L). Returns (n, L)."""
    place = np.arange(texts.shape[1])[None, :]
    if padding == "scattered":  # as they come: the missing among the others
        return texts
    kept = place < lengths[:, None] if padding == "right" else place >= texts.shape[1] - lengths[:, None]
    return np.where(kept, texts, "")
