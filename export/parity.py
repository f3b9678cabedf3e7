"""Parity: what was exported is what was trained, or there is no export."""

import math
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import torch
from torch import nn

from export.sample_inputs import Padding, Sampler
from retrieval.common.errors import ExportError
from retrieval.features.records import Batch
from retrieval.features.schema import OUTPUT_NAME, Feature

Vectors = npt.NDArray[np.float32]

TOLERANCE: Final = 1e-5
BATCHES: Final = (0, 1, 2, 257)
PADDINGS: Final[tuple[Padding, ...]] = ("left", "right", "scattered")
MANY: Final = 100  # rows from which on one padding a list length is enough: the paddings take turns
SURVIVAL_S: Final = 60
RETRIEVED: Final = 20  # ids compared of an answer of retrieve.onnx

# A graph that divides by the number of rows does not raise at 0 rows, it kills the process.
_EMPTY_BATCH = """
import sys
import numpy as np
import onnxruntime as ort

TYPES = {
    "tensor(string)": object,
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
}
for path in sys.argv[1:]:
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    for width in (0, 3):
        feed = {}
        for put in session.get_inputs():
            shape = [axis if isinstance(axis, int) else width for axis in put.shape]
            dtype = TYPES[put.type]
            if put.name != "k":
                shape[0] = 0
            feed[put.name] = np.zeros(shape, dtype)
        for name, value in zip([put.name for put in session.get_outputs()], session.run(None, feed)):
            if value.shape[0] != 0:
                sys.exit(f"{name} has {value.shape[0]} rows")
"""


def survives_empty_batch(path: Path) -> None:
    """Run a graph on no rows, in a process of its own. Raises ExportError if that process dies."""
    command = [sys.executable, "-c", _EMPTY_BATCH, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SURVIVAL_S, check=False)
    if done.returncode < 0:
        raise ExportError(f"{path.name}: onnxruntime is killed by signal {-done.returncode} on an empty batch")
    if done.returncode > 0:
        lines = done.stderr.strip().splitlines()
        raise ExportError(f"{path.name}: onnxruntime fails on an empty batch ({lines[-1] if lines else 'no message'})")


def session_of(model: bytes | Path) -> ort.InferenceSession:
    """A session of one thread, so that sums are taken in one order."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    source = model if isinstance(model, bytes) else str(model)
    return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def check_parity(
    tower: nn.Module, encode: Callable[[Batch], Mapping[str, npt.NDArray[Any]]], path: Path, sampler: Sampler
) -> float:
    """Compare torch, through the Python vocabulary path, with onnxruntime, through the file, on every case.

    encode: raw named arrays -> what the tower takes. Returns the largest difference of a component.
    Raises ExportError that names the file and the case: they differ by more than TOLERANCE, or a vector is not of
    unit length, or the process dies.
    """
    survives_empty_batch(path)
    session = session_of(path)
    worst = 0.0
    for case, batch in cases(sampler):
        expected = torch_vectors(tower, encode(batch))
        found = session.run([OUTPUT_NAME], batch)[0]
        worst = max(worst, difference(expected, found, where=f"{path.name}: {case}"))
    return worst


def cases(sampler: Sampler) -> Iterator[tuple[str, Batch]]:
    """Every case that is compared, with what it is called in an error."""
    for turn, width in enumerate(sampler.widths()):
        for rows in BATCHES:
            paddings = PADDINGS if sampler.has_lists and rows < MANY else (PADDINGS[turn % len(PADDINGS)],)
            for padding in paddings:
                name = f"{rows} rows, lists of {width}, padding {padding}"
                yield name, sampler.batch(rows, width, seed=0, padding=padding)
        yield f"2 rows, all missing, lists of {width}", sampler.missing(2, width)


def torch_vectors(tower: nn.Module, rows: Mapping[str, npt.NDArray[Any]]) -> Vectors:
    with torch.no_grad():
        vectors: Vectors = tower({name: torch.from_numpy(array) for name, array in rows.items()}).numpy()
    return vectors


def difference(expected: Vectors, found: Vectors, *, where: str) -> float:
    """The largest difference of a component. Raises ExportError, naming `where`, past TOLERANCE or unit length."""
    if expected.shape != found.shape:
        raise ExportError(f"{where}: torch gives shape {expected.shape}, the file {found.shape}; nothing was written")
    if not found.size:
        return 0.0
    lengths = np.linalg.norm(found.astype(np.float64), axis=1)
    if not np.all(np.abs(lengths - 1) <= TOLERANCE):  # false for NaN too
        bad = float(lengths[np.argmax(~(np.abs(lengths - 1) <= TOLERANCE))])
        raise ExportError(f"{where}: a vector has length {bad:.6g}, expected 1; nothing was written")
    worst = float(np.abs(expected - found).max())
    if not worst <= TOLERANCE or math.isnan(worst):
        raise ExportError(
            f"{where}: torch and onnxruntime differ by {worst:.2g}, expected {TOLERANCE:g} at most; nothing was written"
        )
    return worst


def check_retrieve(
    session: ort.InferenceSession,
    user: ort.InferenceSession,
    ids: Sequence[str],
    vectors: Vectors,
    batches: Sequence[Batch],
    history: Feature | None,
) -> None:
    """Compare `retrieve.onnx` with an exact search, on batches of users and their own histories.

    ids: (n,); vectors: (n, dim), as the file holds them. Raises ExportError if an answer differs by more than rounding.
    """
    column = {text: place for place, text in enumerate(ids)}
    for batch in batches:
        exclude = np.full((len(next(iter(batch.values()))), 1), ids[0], dtype=object)
        found, scores = session.run(["ids", "scores"], {**batch, "exclude": exclude, "k": np.array([RETRIEVED])})
        products = user.run([OUTPUT_NAME], batch)[0] @ vectors.T  # (rows, n)
        for row, product in enumerate(products):
            texts = [ids[0], *(batch[history.name][row] if history else ())]
            product[[column[text] for text in texts if text in column]] = -np.inf
            best = np.sort(product)[::-1][:RETRIEVED]
            own = [product[column[text]] if text else -np.inf for text in found[row]]
            with np.errstate(invalid="ignore"):  # -inf less -inf
                off = np.abs(own - best) > TOLERANCE, np.abs(scores[row] - best) > TOLERANCE
            if np.any(off) or np.any(np.isinf(own) != np.isinf(best)):
                raise ExportError("retrieve.onnx: its answer differs from an exact search; nothing was written")
