"""Feature kinds for training and export: the twins of `retrieval.features.kinds`.

A kind is fitted on the training rows, encodes the graph's inputs as what a tower takes, makes the module that embeds
them, and writes the same encoding as ONNX nodes. Export compares both encodings on ordinary and hostile inputs.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from einops import rearrange
from scipy import sparse
from torch import Tensor, nn

from retrieval.features.schema import Feature
from retrieval.features.vocabulary import FIRST, MISSING, UNKNOWN, Vocabulary
from train.data.tables import words

Array: TypeAlias = npt.NDArray[Any]
Rows: TypeAlias = npt.NDArray[np.int64]

CLAMP_Z: Final = 10.0  # standard deviations: one absurd number must not drown every other feature
CLAMP_VECTOR: Final = 1e15  # its square summed over a vector still fits float32
NO_DIRECTION: Final = 1e-12  # length below which a vector has none
REGRESSION_UNITS: Final = 16  # hidden units of a number that a regression in closed form sets
NUMBER_BINS: Final = 20  # quantile bins of a number, as rows of EASE
VECTOR_DIRECTIONS: Final = 32  # principal directions of a vector, as rows of EASE


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaler:
    """Mean and standard deviation of a number over the training rows; a constant has deviation 1."""

    mean: float
    std: float


Fitted: TypeAlias = Scaler | Vocabulary | None


class TrainedKind(ABC):
    """A kind of feature in training and export."""

    name: ClassVar[str]

    def fit(self, feature: Feature, column: pl.Series, *, where: str) -> Fitted:  # noqa: ARG002
        """What the encoding needs to know of the training rows. column: As prepared, one value for each row."""
        return None

    @abstractmethod
    def encode(self, feature: Feature, fitted: Fitted, values: Array) -> Array:
        """The array that the graph takes -> the array that the tower takes. The input is not modified."""

    @abstractmethod
    def encode_column(self, feature: Feature, fitted: Fitted, column: pl.Series) -> Array:
        """A prepared column -> the array that the tower takes, as `encode` gives it."""

    @abstractmethod
    def embedding(self, feature: Feature, fitted: Fitted, dim: int) -> nn.Module:
        """The module that makes (n, dim) of an encoded batch."""

    def drop(self, values: Tensor, share: float) -> Tensor:  # noqa: ARG002
        """In training, make a random share of the values unknown or missing, so that these are trained."""
        return values

    def item_rows(self, values: Array) -> sparse.csr_array:
        """Which items share a value: (rows, items) float32, rows for EASE. values: Encoded, one for each item."""
        return sparse.csr_array((0, len(values)), dtype=np.float32)

    @abstractmethod
    def graph(self, nodes: Any, feature: Feature, fitted: Fitted) -> str:
        """Write `encode` as ONNX nodes. nodes: `export.onnx_nodes.Nodes`. Returns the value that the tower takes."""


class Number(TrainedKind):
    """Standardised in the tower, which also reads whether it is missing."""

    name = "number"

    def fit(self, feature: Feature, column: pl.Series, *, where: str) -> Scaler:  # noqa: ARG002
        return fit_scaler(column)

    def encode(self, feature: Feature, fitted: Fitted, values: Array) -> Array:  # noqa: ARG002
        return np.asarray(values, np.float32)

    def encode_column(self, feature: Feature, fitted: Fitted, column: pl.Series) -> Array:  # noqa: ARG002
        return column.cast(pl.Float32).fill_null(float("nan")).to_numpy()

    def embedding(self, feature: Feature, fitted: Fitted, dim: int) -> nn.Module:  # noqa: ARG002
        assert isinstance(fitted, Scaler)
        return NumberEmbedding(fitted, dim)

    def item_rows(self, values: Array) -> sparse.csr_array:
        return _shared_values(_quantile_bins(values.astype(np.float64)))

    def graph(self, nodes: Any, feature: Feature, fitted: Fitted) -> str:  # noqa: ARG002
        return feature.name


class Category(TrainedKind):
    """A row of a vocabulary."""

    name = "category"

    def fit(self, feature: Feature, column: pl.Series, *, where: str) -> Fitted:  # noqa: ARG002
        return Vocabulary(_by_count(words(column)), where=where)

    def encode(self, feature: Feature, fitted: Fitted, values: Array) -> Array:
        flat = np.asarray(values, object).ravel().tolist()
        return self._rows(feature, fitted, flat).reshape(np.shape(values))

    def _rows(self, feature: Feature, fitted: Fitted, values: list[str]) -> Rows:  # noqa: ARG002
        assert isinstance(fitted, Vocabulary)
        return fitted.rows(values)

    def encode_column(self, feature: Feature, fitted: Fitted, column: pl.Series) -> Array:  # noqa: ARG002
        assert isinstance(fitted, Vocabulary)
        return _vocabulary_rows(words(column), fitted)

    def height(self, feature: Feature, fitted: Fitted) -> int:  # noqa: ARG002
        """Rows of the embedding table, the two reserved ones included."""
        assert isinstance(fitted, Vocabulary)
        return len(fitted)

    def embedding(self, feature: Feature, fitted: Fitted, dim: int) -> nn.Module:
        return CategoryEmbedding(self.height(feature, fitted), dim)

    def drop(self, values: Tensor, share: float) -> Tensor:
        return drop(drop(values, share / 2, to=UNKNOWN), share / 2, to=MISSING)

    def item_rows(self, values: Array) -> sparse.csr_array:
        return _shared_values(values)

    def graph(self, nodes: Any, feature: Feature, fitted: Fitted) -> str:
        assert isinstance(fitted, Vocabulary)
        rows = [MISSING, *range(FIRST, len(fitted))]
        found: str = nodes.look_up(feature.name, ["", *fitted.ids], rows, default=UNKNOWN)
        return found


class Hash(Category):
    """A row chosen by MurmurHash3 (x86, 32 bits, seed 0) of the UTF-8 bytes; "" is missing."""

    name = "hash"

    def fit(self, feature: Feature, column: pl.Series, *, where: str) -> Fitted:  # noqa: ARG002
        return None

    def _rows(self, feature: Feature, fitted: Fitted, values: list[str]) -> Rows:  # noqa: ARG002
        return self.hash_rows(feature, values)

    def encode_column(self, feature: Feature, fitted: Fitted, column: pl.Series) -> Array:  # noqa: ARG002
        filled = words(column).fill_null("")
        names = filled.unique()
        rows = pl.Series(self.hash_rows(feature, names.to_list()))
        found = filled.replace_strict(names, rows, return_dtype=pl.Int64)
        return found.cast(pl.Int64).to_numpy()  # of no rows polars keeps the type

    @staticmethod
    def hash_rows(feature: Feature, values: Iterable[str]) -> Rows:
        from sklearn.utils import murmurhash3_32

        assert feature.buckets is not None
        buckets = feature.buckets
        rows = [
            FIRST + murmurhash3_32(value, seed=0, positive=True) % buckets if value else MISSING for value in values
        ]
        return np.asarray(rows, np.int64)

    def height(self, feature: Feature, fitted: Fitted) -> int:  # noqa: ARG002
        assert feature.buckets is not None
        return feature.buckets + FIRST

    def graph(self, nodes: Any, feature: Feature, fitted: Fitted) -> str:  # noqa: ARG002
        from onnx import TensorProto

        assert feature.buckets is not None
        code = nodes.add("MurmurHash3", feature.name, domain="com.microsoft", positive=1, seed=0)
        whole = nodes.add("Cast", code, to=TensorProto.INT64)
        row = nodes.add("Add", nodes.add("Mod", whole, nodes.constant(feature.buckets)), nodes.constant(FIRST))
        # There is no Equal of strings before opset 19.
        present = nodes.look_up(feature.name, [""], [0], default=1)
        product: str = nodes.add("Mul", row, present)
        return product


class Categories(Category):
    """Rows of a vocabulary, padded with the row of missing."""

    name = "categories"

    def fit(self, feature: Feature, column: pl.Series, *, where: str) -> Fitted:  # noqa: ARG002
        return Vocabulary(_by_count(column.explode()), where=where)

    def encode_column(self, feature: Feature, fitted: Fitted, column: pl.Series) -> Array:  # noqa: ARG002
        assert isinstance(fitted, Vocabulary)
        return _padded_rows(column, fitted)

    def embedding(self, feature: Feature, fitted: Fitted, dim: int) -> nn.Module:
        return CategoriesEmbedding(self.height(feature, fitted), dim)

    def drop(self, values: Tensor, share: float) -> Tensor:
        """values: (n, length). Single entries become unknown, or a whole list missing."""
        dropped = torch.where(values != MISSING, drop(values, share / 2, to=UNKNOWN), values)
        emptied = torch.rand(len(values), 1, device=values.device) < share / 2
        return dropped.masked_fill(emptied, MISSING)

    def graph(self, nodes: Any, feature: Feature, fitted: Fitted) -> str:
        rows = super().graph(nodes, feature, fitted)
        # A missing entry is put in front of each list, so that no kernel meets a list of length 0.
        padded: str = nodes.add("Pad", rows, nodes.constant([0, 1, 0, 0]), nodes.constant(MISSING))
        return padded


class History(Categories):
    """Rows of the item vocabulary, newest first, cut to `max_length`. `Preprocess` fits it: it holds every item."""

    name = "history"

    def encode(self, feature: Feature, fitted: Fitted, values: Array) -> Array:
        assert feature.max_length is not None
        return compact_history(super().encode(feature, fitted, values), feature.max_length)

    def encode_column(self, feature: Feature, fitted: Fitted, column: pl.Series) -> Array:
        assert feature.max_length is not None
        return compact_history(super().encode_column(feature, fitted, column), feature.max_length)

    def graph(self, nodes: Any, feature: Feature, fitted: Fitted) -> str:
        assert feature.max_length is not None
        return newest_first(nodes, Category.graph(self, nodes, feature, fitted), max_length=feature.max_length)


class Vector(TrainedKind):
    """Scaled to unit length in the tower."""

    name = "vector"

    def encode(self, feature: Feature, fitted: Fitted, values: Array) -> Array:  # noqa: ARG002
        return np.asarray(values, np.float32)

    def encode_column(self, feature: Feature, fitted: Fitted, column: pl.Series) -> Array:  # noqa: ARG002
        assert feature.size is not None
        filler = pl.Series([[float("nan")] * feature.size], dtype=pl.List(pl.Float32))
        filled = column.zip_with(column.is_not_null(), filler)
        flat = filled.explode().fill_null(float("nan")).to_numpy()
        return flat.reshape(len(column), feature.size).astype(np.float32, copy=False)

    def embedding(self, feature: Feature, fitted: Fitted, dim: int) -> nn.Module:  # noqa: ARG002
        assert feature.size is not None
        return VectorEmbedding(feature.size, dim)

    def item_rows(self, values: Array) -> sparse.csr_array:
        return sparse.csr_array(_principal_directions(values.astype(np.float64)))

    def graph(self, nodes: Any, feature: Feature, fitted: Fitted) -> str:  # noqa: ARG002
        return feature.name


class Time(TrainedKind):
    """Hour of the day and day of the week as sine and cosine, the age as a number, and whether it is missing.

    Encoded as (n, 6) float32. The hour and the day are those of UTC.
    """

    name = "time"
    DAY_S: ClassVar = 86_400.0
    WEEK_S: ClassVar = 604_800.0

    def fit(self, feature: Feature, column: pl.Series, *, where: str) -> Scaler:  # noqa: ARG002
        return fit_scaler(self._seconds(column))

    @staticmethod
    def _seconds(column: pl.Series) -> pl.Series:
        """Seconds since 1970 as Float64."""
        if column.dtype.is_temporal():
            return column.cast(pl.Datetime("us")).dt.epoch("us").cast(pl.Float64) / 1e6
        return column.cast(pl.Float64).fill_nan(None)

    def encode(self, feature: Feature, fitted: Fitted, values: Array) -> Array:  # noqa: ARG002
        assert isinstance(fitted, Scaler)
        finite = np.isfinite(values)
        seconds = np.where(finite, values, 0.0)
        parts = []
        for period in (self.DAY_S, self.WEEK_S):
            turns = seconds / period
            angle = ((turns - np.floor(turns)) * (2 * np.pi)).astype(np.float32)
            parts += [np.sin(angle), np.cos(angle)]
        z = ((seconds - fitted.mean) / fitted.std).clip(-CLAMP_Z, CLAMP_Z)
        encoded = np.stack([*parts, z], axis=-1) * finite[:, None]  # (n, 5), zeros where missing
        return np.concatenate([encoded, ~finite[:, None]], axis=1).astype(np.float32)

    def encode_column(self, feature: Feature, fitted: Fitted, column: pl.Series) -> Array:
        return self.encode(feature, fitted, self._seconds(column).fill_null(float("nan")).to_numpy())

    def embedding(self, feature: Feature, fitted: Fitted, dim: int) -> nn.Module:  # noqa: ARG002
        return DenseEmbedding(6, dim)

    def graph(self, nodes: Any, feature: Feature, fitted: Fitted) -> str:
        from onnx import TensorProto

        assert isinstance(fitted, Scaler)

        def double(value: float) -> str:
            name: str = nodes.constant(value, np.float64)
            return name

        missing = nodes.add("Or", nodes.add("IsNaN", feature.name), nodes.add("IsInf", feature.name))
        seconds = nodes.add("Where", missing, double(0.0), feature.name)
        parts = []
        for period in (self.DAY_S, self.WEEK_S):
            turns = nodes.add("Div", seconds, double(period))
            turn = nodes.add("Sub", turns, nodes.add("Floor", turns))
            angle = nodes.add("Cast", nodes.add("Mul", turn, double(2 * np.pi)), to=TensorProto.FLOAT)
            parts += [nodes.add("Sin", angle), nodes.add("Cos", angle)]
        z = nodes.add("Div", nodes.add("Sub", seconds, double(fitted.mean)), double(fitted.std))
        parts.append(nodes.add("Cast", nodes.add("Clip", z, double(-CLAMP_Z), double(CLAMP_Z)), to=TensorProto.FLOAT))
        flag = nodes.add("Cast", missing, to=TensorProto.FLOAT)
        known = nodes.add("Cast", nodes.add("Not", missing), to=TensorProto.FLOAT)
        axis = nodes.constant([1])
        columns = [nodes.add("Unsqueeze", nodes.add("Mul", part, known), axis) for part in parts]
        encoded: str = nodes.add("Concat", *columns, nodes.add("Unsqueeze", flag, axis), axis=1)
        return encoded


KINDS: Final[Mapping[str, TrainedKind]] = {
    kind.name: kind for kind in (Number(), Category(), Categories(), History(), Vector(), Hash(), Time())
}


class DenseEmbedding(nn.Module):
    """Numbers through a small network: (n, width) -> (n, dim)."""

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, dim)
        self.out = nn.Linear(dim, dim)

    def inputs(self, values: Tensor) -> Tensor:
        """What the network reads of encoded values: (n, width)."""
        return values

    def forward(self, values: Tensor) -> Tensor:
        """values: As encoded. Returns (n, dim)."""
        out: Tensor = self.out(self._activations(values))
        return out

    def _activations(self, values: Tensor) -> Tensor:
        """The inputs of the output layer: (n, dim)."""
        return nn.functional.relu(self.hidden(self.inputs(values)))

    def design_matrix(self, values: Tensor) -> sparse.csr_array:
        """The inputs of the output layer that a regression sets: (n, hidden units)."""
        return sparse.csr_array(self._activations(values)[:, :REGRESSION_UNITS].numpy())

    def set_output(self, coefficients: Tensor) -> None:
        """coefficients: (columns of the design matrix, dim)."""
        set_linear(self.out, coefficients)


class NumberEmbedding(DenseEmbedding):
    """A number, standardised where it is finite, and whether it was missing. Takes (n,) float32."""

    mean: Tensor
    std: Tensor

    def __init__(self, scaler: Scaler, dim: int) -> None:
        super().__init__(2, dim)
        self.register_buffer("mean", torch.tensor(scaler.mean, dtype=torch.float32))
        # A constant feature has no spread to divide by.
        self.register_buffer("std", torch.tensor(scaler.std if scaler.std > 1e-12 else 1.0, dtype=torch.float32))

    def inputs(self, values: Tensor) -> Tensor:
        return standardised(values, self.mean, self.std)


def standardised(values: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Standard deviations from the mean, 0 where a number is not finite, and whether it was not: (n,) -> (n, 2)."""
    missing = values.isnan() | values.isinf()
    z = (torch.where(missing, mean, values) - mean) / std
    return torch.stack([z.clamp(-CLAMP_Z, CLAMP_Z), missing.to(z.dtype)], dim=-1)


class CategoryEmbedding(nn.Embedding):
    """A learned vector for each row of the vocabulary; the rows of missing and unknown are learned like any other."""

    def __init__(self, height: int, dim: int) -> None:
        super().__init__(height, dim)
        nn.init.normal_(self.weight, std=dim**-0.5)

    def design_matrix(self, rows: Tensor) -> sparse.csr_array:
        """One-hot rows: (n, height)."""
        shape = (len(rows), self.num_embeddings)
        return sparse.csr_array((np.ones(len(rows), np.float32), (np.arange(len(rows)), rows.numpy())), shape=shape)

    def set_output(self, coefficients: Tensor) -> None:
        """coefficients: (height, dim)."""
        self.weight.copy_(coefficients)


class CategoriesEmbedding(CategoryEmbedding):
    """The mean over the entries of a list that are not padding; an empty list is the row of missing."""

    def forward(self, rows: Tensor) -> Tensor:
        """rows: (n, length) int64. Returns (n, dim)."""
        present = (rows != MISSING).to(self.weight.dtype)  # (n, length)
        total = (super().forward(rows) * rearrange(present, "n l -> n l 1")).sum(dim=1)  # (n, dim)
        count = present.sum(dim=1, keepdim=True)  # (n, 1)
        return total / count.clamp(min=1) + self.weight[MISSING] * (count == 0)

    def design_matrix(self, rows: Tensor) -> sparse.csr_array:
        """The share of each value in its list; an empty list is the row of missing. (n, height)."""
        entries = np.pad(rows.numpy(), ((0, 0), (0, 1)))
        present = entries != MISSING
        present[:, -1] = ~present.any(axis=1)
        owners, places = np.nonzero(present)
        share = (1 / present.sum(axis=1)[owners]).astype(np.float32)
        shape = (len(entries), self.num_embeddings)
        return sparse.csr_array((share, (owners, entries[owners, places])), shape=shape)


class VectorEmbedding(nn.Module):
    """A given vector, at unit length so that its scale cannot matter, through a linear map."""

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.out = nn.Linear(size, dim)

    def forward(self, vectors: Tensor) -> Tensor:
        """vectors: (n, size) float32, any; all NaN where missing. Returns (n, dim)."""
        out: Tensor = self.out(unit(finite(vectors)))
        return out

    def design_matrix(self, vectors: Tensor) -> sparse.csr_array:
        """The unit vectors: (n, size)."""
        return sparse.csr_array(unit(finite(vectors)).numpy())

    def set_output(self, coefficients: Tensor) -> None:
        """coefficients: (size, dim)."""
        set_linear(self.out, coefficients)


def set_linear(layer: nn.Linear, coefficients: Tensor) -> None:
    """Let a layer multiply its first inputs by the coefficients, and ignore the others and its bias."""
    layer.weight.zero_()
    layer.weight[:, : len(coefficients)] = coefficients.T
    layer.bias.zero_()


def finite(vectors: Tensor) -> Tensor:
    """0 where a number is not finite, and none so large that its square is not."""
    return torch.where(vectors.isnan() | vectors.isinf(), 0.0, vectors).clamp(-CLAMP_VECTOR, CLAMP_VECTOR)


def unit(vectors: Tensor) -> Tensor:
    """Scale rows to unit length. vectors: (..., dim); a row of zeros, which has no direction, takes the first axis."""
    norm = vectors.norm(dim=-1, keepdim=True)
    none = norm < NO_DIRECTION
    first = torch.eye(1, vectors.shape[-1], dtype=vectors.dtype, device=vectors.device)[0]  # (dim,)
    scaled: Tensor = (vectors + none * first) / torch.where(none, 1.0, norm)
    return scaled


def drop(values: Tensor, share: float, *, to: int) -> Tensor:
    """Replace a random share of the entries. values: any shape, not modified."""
    if share <= 0:
        return values
    return values.masked_fill(torch.rand(values.shape, device=values.device) < share, to)


def fit_scaler(column: pl.Series) -> Scaler:
    """Fit on the values that are not null."""
    from sklearn.preprocessing import StandardScaler  # a second of import that `inspect` and `query` never need

    known = column.cast(pl.Float64).drop_nulls().to_numpy()
    if known.size == 0:
        return Scaler(mean=0.0, std=1.0)
    fitted = StandardScaler().fit(known[:, None])  # (n, 1)
    return Scaler(mean=float(fitted.mean_[0]), std=float(fitted.scale_[0]))


def compact_history(rows: Rows, max_length: int) -> Rows:
    """Turn histories around: newest first, padding (row 0) closed up and moved to the end, cut to `max_length`.

    rows: (n, L) int64, oldest first, 0 anywhere. Returns (n, min(L, max_length)).
    """
    newest = rows[:, ::-1]
    order = np.argsort(newest == MISSING, axis=1, kind="stable")  # False sorts first: padding moves to the end
    return np.ascontiguousarray(np.take_along_axis(newest, order, axis=1)[:, :max_length])


def newest_first(nodes: Any, rows: str, *, max_length: int) -> str:
    """`compact_history` as ONNX nodes. (N, L) -> (N, min(L + 1, max_length)).

    Cut here and not in the tower: attention would cost the square of a hostile list's length.
    """
    # TopK kills the process where there are no rows (onnxruntime 1.30), so it gets one more, taken away below.
    padded = nodes.add("Pad", rows, nodes.constant([1, 1, 0, 0]), nodes.constant(MISSING))  # (N + 1, L + 1)
    width = nodes.add("Shape", padded, start=1, end=2)
    age = nodes.add("Range", nodes.constant(0), nodes.add("Squeeze", width), nodes.constant(1))
    absent = nodes.add("Equal", padded, nodes.constant(MISSING))
    score = nodes.add("Where", absent, nodes.constant(-1), age)
    kept = nodes.add("Min", width, nodes.constant([max_length]))
    newest = nodes.add("TopK", score, kept, outputs=2)
    taken = nodes.add("GatherElements", padded, newest, axis=1)
    cut: str = nodes.add("Slice", taken, nodes.constant([1]), nodes.constant([2**62]), nodes.constant([0]))
    return cut


def _by_count(column: pl.Series) -> list[str]:
    """Distinct values, the most frequent first, equal counts in order of the value."""
    counts = column.drop_nulls().alias("word").value_counts(name="n")
    return counts.sort(["n", "word"], descending=[True, False]).get_column("word").to_list()


def _vocabulary_rows(column: pl.Series, vocabulary: Vocabulary) -> Rows:
    if not vocabulary.ids:
        return np.where(column.is_null().to_numpy(), MISSING, UNKNOWN).astype(np.int64)
    known = pl.Series(vocabulary.ids, dtype=pl.String)
    rows = pl.Series(range(FIRST, len(vocabulary)), dtype=pl.Int64)
    found = column.replace_strict(known, rows, default=UNKNOWN, return_dtype=pl.Int64)
    return found.zip_with(column.is_not_null() & (column != ""), pl.Series([MISSING], dtype=pl.Int64)).to_numpy()


def _padded_rows(column: pl.Series, vocabulary: Vocabulary) -> Rows:
    """Lists of text -> rows, padded to the longest. Returns (n, L) int64."""
    lengths = column.list.len().fill_null(0).to_numpy().astype(np.int64)
    result = np.full((len(column), int(lengths.max(initial=0))), MISSING, np.int64)
    flat = column.filter(pl.Series(lengths > 0)).explode()
    result[np.arange(result.shape[1]) < lengths[:, None]] = _vocabulary_rows(flat, vocabulary)
    return result


def _shared_values(values: Rows) -> sparse.csr_array:
    """A row for each value that several items share but not all. values: (items,) or (items, length), from FIRST."""
    items = len(values)
    entries = values.reshape(items, -1)
    owners, places = np.nonzero(entries >= FIRST)
    rows = entries[owners, places] - FIRST
    height = int(rows.max(initial=-1)) + 1
    matrix = sparse.csr_array((np.ones(len(rows), np.float32), (rows, owners)), shape=(height, items))
    matrix.data = np.minimum(matrix.data, 1)  # a value that a list holds twice
    counts = np.diff(matrix.indptr)
    return sparse.csr_array(matrix[np.flatnonzero((counts > 1) & (counts < items))])


def _quantile_bins(numbers: npt.NDArray[np.float64]) -> Rows:
    """The bin of each number, from FIRST; 0 where it is not finite."""
    known = np.isfinite(numbers)
    if not known.any():
        return np.zeros(len(numbers), np.int64)
    edges = np.unique(np.quantile(numbers[known], np.linspace(0, 1, NUMBER_BINS + 1)[1:-1]))
    return np.where(known, FIRST + np.searchsorted(edges, np.where(known, numbers, 0), side="right"), 0)


def _principal_directions(vectors: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Centred unit vectors in their principal directions. (items, size) -> (directions, items)."""
    known = np.isfinite(vectors).all(axis=1, keepdims=True)
    length = np.linalg.norm(np.where(known, vectors, 0), axis=1)
    nonzero: npt.NDArray[np.bool_] = length > 0
    scaled = np.where(nonzero[:, None], vectors / np.where(nonzero, length, 1)[:, None], 0)
    if nonzero.any():
        scaled[nonzero] -= scaled[nonzero].mean(axis=0)
    rotation = np.linalg.eigh(scaled.T @ scaled)[1][:, ::-1][:, :VECTOR_DIRECTIONS]
    return np.asarray((scaled @ rotation).T, np.float32)
