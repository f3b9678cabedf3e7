"""`retrieve.onnx`: the whole of retrieval in one file. A user's features in, item ids out."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from export.onnx_nodes import Nodes
from export.precision import Precision, int8_rows
from retrieval.common.errors import ExportError
from retrieval.features.schema import OUTPUT_NAME, Feature

SINGLE_FILE: Final = "retrieve.onnx"
MAX_ITEMS: Final = 100_000  # 27 MB and 2 to 11 ms a query; past that an index is the better answer
EXCLUDE, K, IDS, SCORES = "exclude", "k", "ids", "scores"

Vectors = npt.NDArray[np.float32]


def retrieve_graph(
    user: onnx.ModelProto, features: Sequence[Feature], ids: Sequence[str], vectors: Vectors, *, precision: Precision
) -> onnx.ModelProto:
    """Join the user tower with a catalogue.

    user: a tower as exported, with the precision it has; features: its inputs. ids: (n,); vectors: (n, dim), unit rows.
    The graph takes the tower's inputs, `exclude` string (N, E) and `k` int64 (1,), and gives `ids` string (N, K) and
    `scores` float32 (N, K), K = k but at least 0 and at most n, best first, equal scores by the order of `ids`. The
    history is excluded too. Where fewer than K items are left, the tail is "" with score -inf.
    Raises ExportError if there are more than MAX_ITEMS items or an input of the tower has one of these names.
    """
    if len(ids) > MAX_ITEMS:
        raise ExportError(
            f"{SINGLE_FILE}: {len(ids):,} items, at most {MAX_ITEMS:,} fit one file; "
            "leave --single-file out and use the index"
        )
    for feature in features:
        if feature.name in (EXCLUDE, K, IDS, SCORES):
            raise ExportError(
                f'{SINGLE_FILE}: a feature cannot be named "{feature.name}", which is an input of this file'
            )
    nodes = Nodes("top")
    seen = _seen(nodes, features, ids)
    scores = _scores(nodes, vectors, seen, precision=precision)
    _best(nodes, scores, ids)
    graph = helper.make_graph(
        [*user.graph.node, *nodes.nodes],
        "retrieve",
        [
            *user.graph.input,
            helper.make_tensor_value_info(EXCLUDE, TensorProto.STRING, ["N", "E"]),
            helper.make_tensor_value_info(K, TensorProto.INT64, [1]),
        ],
        [
            helper.make_tensor_value_info(IDS, TensorProto.STRING, ["N", "K"]),
            helper.make_tensor_value_info(SCORES, TensorProto.FLOAT, ["N", "K"]),
        ],
        [*user.graph.initializer, *nodes.initializers],
    )
    model = helper.make_model(
        graph, opset_imports=user.opset_import, ir_version=user.ir_version, producer_name=user.producer_name
    )
    model.metadata_props.extend(user.metadata_props)
    return model


def _seen(nodes: Nodes, features: Sequence[Feature], ids: Sequence[str]) -> str:
    """Columns of the catalogue to leave out: int64 (N + 1, S + 1), len(ids) where a text is no item."""
    texts = [EXCLUDE, *(feature.name for feature in features if feature.kind == "history")]
    text = nodes.add("Concat", *texts, axis=1) if len(texts) > 1 else EXCLUDE
    columns = nodes.look_up(text, ids, range(len(ids)), default=len(ids))
    # One more row, so that there is always one (TopK kills some runtimes without), one more column likewise.
    return nodes.add("Pad", columns, nodes.constant([0, 0, 1, 1]), nodes.constant(len(ids)))


def _scores(nodes: Nodes, vectors: Vectors, seen: str, *, precision: Precision) -> str:
    """Inner products, -inf where seen: (N + 1, n + 1). The last column stands for no item, and is always seen."""
    table = np.concatenate([vectors, np.zeros((1, vectors.shape[1]), dtype=np.float32)])
    padded = nodes.add("Pad", OUTPUT_NAME, nodes.constant([0, 0, 1, 0]), nodes.constant(0.0, np.float32))
    if precision == "int8":
        whole, scale = int8_rows(table)
        weights = nodes.add("Cast", nodes.constant(whole.T, np.int8, name="items/int8"), to=TensorProto.FLOAT)
        product = nodes.add("MatMul", padded, weights)
        product = nodes.add("Mul", product, nodes.constant(scale.T, np.float32, name="items/scale"))
    elif precision == "fp16":
        half = nodes.constant(table.T, np.float16, name="items/float16")
        product = nodes.add("MatMul", padded, nodes.add("Cast", half, to=TensorProto.FLOAT))
    else:
        product = nodes.add("MatMul", padded, nodes.constant(table.T, np.float32, name="items"))
    never = nodes.add("Expand", nodes.constant(-np.inf, np.float32), nodes.add("Shape", seen))
    return nodes.add("ScatterElements", product, seen, never, axis=1)


def _best(nodes: Nodes, scores: str, ids: Sequence[str]) -> None:
    """The k best of each row, in two outputs."""
    count = len(ids)
    k = nodes.add("Min", nodes.add("Max", K, nodes.constant([0])), nodes.constant([count]))
    # TopK of none is left to no runtime: at least one is taken, and cut off again.
    some = nodes.add("Max", k, nodes.constant([1]))
    columns = nodes.add("TopK", scores, some, outputs=2)
    values = nodes.nodes[-1].output[0]
    starts, ends, axes = (
        nodes.constant([0, 0]),
        nodes.add("Concat", nodes.constant([-1]), k, axis=0),
        nodes.constant([0, 1]),
    )
    values = nodes.add("Slice", values, starts, ends, axes, output=SCORES)
    columns = nodes.add("Slice", columns, starts, ends, axes)
    none = nodes.add("IsInf", values)
    columns = nodes.add("Where", none, nodes.constant(count), columns)
    nodes.add("Gather", nodes.constant([*ids, ""], object, name="items/ids"), columns, output=IDS)


def stored(vectors: Vectors, precision: Precision) -> Vectors:
    """Vectors as the file holds them. vectors: (n, dim)."""
    if precision == "int8":
        whole, scale = int8_rows(vectors)
        return whole.astype(np.float32) * scale
    return vectors.astype(np.float16).astype(np.float32) if precision == "fp16" else vectors
