"""Smaller files: fp16 weights, int8 rows of tables. Arithmetic stays float32.

Activations are never quantised: that makes a vector depend on the others in its batch, by 0.016 when measured.
"""

from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, numpy_helper

from export.onnx_nodes import Nodes

Precision = Literal["fp32", "fp16", "int8"]
PRECISIONS: Final[tuple[Precision, ...]] = ("fp32", "fp16", "int8")

SMALL: Final = 64  # elements: a tensor of fewer saves nothing, and a mean or a scale must stay exact
FP16_MAX: Final = 65504.0
INT8_MAX: Final = 127
SCALES: Final = (1.0, 0.95, 0.9, 0.85, 0.8)  # of the row's largest value: clipping one value may serve the row


def lighter(model: onnx.ModelProto, precision: Precision) -> onnx.ModelProto:
    """The same graph with its weights stored in fewer bits. The input is not modified."""
    out = onnx.ModelProto()
    out.CopyFrom(model)
    if precision == "fp32":
        return out
    tables = _tables(model.graph) if precision == "int8" else set()
    nodes = Nodes("light")
    kept = []
    renamed: dict[str, str] = {}
    for tensor in model.graph.initializer:
        if tensor.name in tables:
            kept += _int8_rows(tensor)
        elif _fits_half(tensor):
            half = numpy_helper.to_array(tensor).astype(np.float16)
            kept.append(numpy_helper.from_array(half, tensor.name))
            renamed[tensor.name] = nodes.add("Cast", tensor.name, to=TensorProto.FLOAT, output=f"{tensor.name}/float32")
        else:
            kept.append(tensor)
    body: list[onnx.NodeProto] = []
    for node in out.graph.node:
        if node.op_type == "Gather" and node.input[0] in tables:
            body += _gather_int8(node)
        else:
            node.input[:] = [renamed.get(name, name) for name in node.input]
            body.append(node)
    plain = [*nodes.nodes, *body]
    del out.graph.node[:], out.graph.initializer[:]
    out.graph.node.extend(plain)
    out.graph.initializer.extend(kept)
    return out


def _fits_half(tensor: onnx.TensorProto) -> bool:
    """Whether a weight is worth storing in half the bits, and can be."""
    if tensor.data_type != TensorProto.FLOAT or int(np.prod(tensor.dims)) < SMALL:
        return False
    return bool(np.abs(numpy_helper.to_array(tensor)).max() <= FP16_MAX)


def _tables(graph: onnx.GraphProto) -> set[str]:
    """Weights of which rows are looked up and nothing else is done."""
    looked_up = {node.input[0] for node in graph.node if node.op_type == "Gather" and _axis(node) == 0}
    for node in graph.node:
        others = node.input[1:] if node.op_type == "Gather" and _axis(node) == 0 else node.input
        looked_up -= set(others)
    large = {t.name for t in graph.initializer if t.data_type == TensorProto.FLOAT and len(t.dims) == 2}
    return looked_up & {t.name for t in graph.initializer if t.name in large and int(np.prod(t.dims)) >= SMALL}


def _axis(node: onnx.NodeProto) -> int:
    return next((int(attribute.i) for attribute in node.attribute if attribute.name == "axis"), 0)


def _int8_rows(tensor: onnx.TensorProto) -> list[onnx.TensorProto]:
    rows, scales = int8_rows(numpy_helper.to_array(tensor))
    return [
        numpy_helper.from_array(rows, f"{tensor.name}/int8"),
        numpy_helper.from_array(scales, f"{tensor.name}/scale"),
    ]


def _gather_int8(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Gather(table, rows) -> Cast(Gather(int8, rows)) * Gather(scale, rows)."""
    nodes = Nodes(f"light/{node.output[0]}")
    table, rows = node.input
    whole = nodes.add("Cast", nodes.add("Gather", f"{table}/int8", rows), to=TensorProto.FLOAT)
    scale = nodes.add("Gather", f"{table}/scale", rows)
    nodes.add("Mul", whole, scale, output=node.output[0])
    return nodes.nodes


def int8_rows(table: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Rows as whole numbers and a scale each: the scale, of a few, that leaves the smallest squared error.

    table: (n, d). Returns (n, d) int8 and (n, 1) float32; a row of zeros has scale 0.
    """
    largest = np.abs(table).max(axis=1, keepdims=True)
    best = np.zeros(table.shape, dtype=np.int8)
    best_scale = np.zeros_like(largest)
    best_error = np.full_like(largest, np.inf)
    for share in SCALES:
        scale = (largest * share / INT8_MAX).astype(np.float32)
        whole = np.clip(np.rint(table / np.where(scale > 0, scale, 1)), -INT8_MAX, INT8_MAX)
        error = np.square(whole * scale - table).sum(axis=1, keepdims=True)
        better = error < best_error
        best = np.where(better, whole, best).astype(np.int8)
        best_scale = np.where(better, scale, best_scale)
        best_error = np.where(better, error, best_error)
    return best, best_scale.astype(np.float32)
