"""Tower: one ONNX graph, records -> vectors."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnxruntime as ort

from retrieval.common.arrays import Vectors
from retrieval.common.errors import BundleError, QueryError, nearest
from retrieval.features.records import Batch, Record, batch_of, batch_of_table
from retrieval.features.schema import OUTPUT_NAME, Feature, Side, TowerSchema

if TYPE_CHECKING:
    import pyarrow as pa

    from retrieval.bundle.reader import Bundle
    from retrieval.bundle.writer import Draft


BLOCK: Final = 256  # rows a call: memory grows with rows times list length (5,000 x 50 in one call takes 2 GB)
ONNX_TYPES: Final = {"float32": "tensor(float)", "float64": "tensor(double)", "string": "tensor(string)"}


class Tower:
    """A tower of a bundle, ready to embed. Safe to share between threads."""

    def __init__(
        self, path: Path, schema: TowerSchema, *, dim: int, pair_id: str | None = None, threads: int = 0
    ) -> None:
        """Load the graph.

        threads: of one call; 0 leaves it to onnxruntime.
        Raises BundleError that names the file: it does not load, its inputs are not those of the schema, or it
        belongs to another pair than `pair_id`.
        """
        self.path = path
        self.schema = schema
        self.dim = dim
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        try:
            self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises a dozen unrelated classes
            if not path.exists():
                raise BundleError(f"{path}: there is no such file") from error
            raise BundleError(f"{path}: onnxruntime cannot load it ({_first_line(error)})") from error
        self._check(pair_id)

    def _check(self, pair_id: str | None) -> None:
        found = {put.name: put.type for put in self._session.get_inputs()}
        expected = {feature.name: ONNX_TYPES[feature.dtype] for feature in self.schema.inputs}
        if found != expected:
            raise BundleError(f"{self.path}: takes {found}, schema.json says {expected}; it is of another model")
        outputs = {put.name: put.shape for put in self._session.get_outputs()}
        if OUTPUT_NAME not in outputs or outputs[OUTPUT_NAME][-1] != self.dim:
            raise BundleError(f'{self.path}: gives {outputs}, expected "{OUTPUT_NAME}" of width {self.dim}')
        own = self._session.get_modelmeta().custom_metadata_map.get("pair_id")
        if pair_id is not None and own != pair_id:
            raise BundleError(
                f"{self.path}: belongs to model {own}, the bundle is of {pair_id}; export both towers again"
            )

    @property
    def inputs(self) -> tuple[Feature, ...]:
        return self.schema.inputs

    def embed(self, records: Sequence[Record]) -> Vectors:
        """Vectors of records. Returns (n, dim) float32, unit rows. Raises QueryError as `batch_of` does."""
        blocks = [records[start : start + BLOCK] for start in range(0, len(records), BLOCK)]
        return self._stack([self._run(batch_of(self.inputs, block)) for block in blocks])

    def embed_table(self, table: "pa.Table") -> Vectors:
        """Vectors of a table's rows. Returns (n, dim) float32, unit rows. Raises QueryError that names the column."""
        blocks = [table.slice(start, BLOCK) for start in range(0, table.num_rows, BLOCK)]
        return self._stack([self._run(batch_of_table(self.inputs, block)) for block in blocks])

    def embed_batch(self, batch: Batch) -> Vectors:
        """Vectors of named arrays, as `schema.json` describes them. Returns (n, dim) float32, unit rows.

        Raises QueryError that names the input: missing, unknown, of another dtype, rank or number of rows.
        """
        rows = self._checked_rows(batch)
        blocks = [slice(start, start + BLOCK) for start in range(0, rows, BLOCK)]
        return self._stack([self._run({name: array[block] for name, array in batch.items()}) for block in blocks])

    def _checked_rows(self, batch: Batch) -> int:
        names = [feature.name for feature in self.inputs]
        for name in batch:
            if name not in names:
                raise QueryError(f'the tower has no input "{name}"{nearest(name, names)}')
        rows: int | None = None
        for feature in self.inputs:
            array = batch.get(feature.name)
            if array is None:
                raise QueryError(
                    f'input "{feature.name}" is not there; every input is required, missing has a sentinel'
                )
            kinds = "OUT" if feature.is_text else "f"
            if array.dtype.kind not in kinds or not (feature.is_text or array.dtype == feature.dtype):
                raise QueryError(f'input "{feature.name}": expected {feature.dtype}, found {array.dtype}')
            if array.ndim != len(feature.shape) or (feature.kind == "vector" and array.shape[1] != feature.size):
                raise QueryError(
                    f'input "{feature.name}": expected shape {list(feature.shape)}, found {list(array.shape)}'
                )
            if rows is not None and array.shape[0] != rows:
                raise QueryError(f'input "{feature.name}": {array.shape[0]} rows, the inputs before it have {rows}')
            rows = array.shape[0]
        return rows or 0

    def _run(self, batch: Batch) -> Vectors:
        try:
            vectors: Vectors = self._session.run([OUTPUT_NAME], batch)[0]
        except Exception as error:
            raise QueryError(f"{self.path.name}: {_first_line(error)}") from error
        return vectors

    def _stack(self, blocks: list[Vectors]) -> Vectors:
        # No rows, no call: some runtimes die of an empty batch in the kernels of a foreign graph.
        if not blocks:
            return np.empty((0, self.dim), dtype=np.float32)
        return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)


def open_tower(bundle: "Bundle | Draft", side: Side, *, threads: int = 0) -> Tower:
    """Load a tower of a bundle or a draft and check that it belongs to the pair; see `Tower`."""
    schema = bundle.schema
    own = schema.tower(side)
    return bundle.load(own.file, lambda path: Tower(path, own, dim=schema.dim, pair_id=schema.pair_id, threads=threads))


def _first_line(error: Any) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
