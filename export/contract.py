"""What every exported file must be, whatever was trained; `twotower index verify` asks it again of a bundle."""

import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import onnx
from onnx import checker, shape_inference

from export.graph import IR_VERSION, ML_OPSET, OPSET
from export.onnx_nodes import serialized
from export.parity import survives_empty_batch
from export.retrieve_graph import SINGLE_FILE
from retrieval.bundle.reader import Bundle
from retrieval.common.errors import BundleError, ExportError
from retrieval.features.schema import Feature

# Operators that ran in every runtime, at no rows and no columns too. Einsum is not among them: it kills the process
# at no rows. A new one is added here when the runtimes' tests have passed with it.
# fmt: off
OPERATORS: Final = frozenset({
    "Add", "And", "Cast", "Clip", "Concat", "Cos", "Div", "Equal", "Erf", "Expand", "Floor", "Gather",
    "GatherElements", "Gemm", "Identity", "IsInf", "IsNaN", "LayerNormalization", "Less", "MatMul", "Max", "Min",
    "Mod", "Mul", "Neg", "Not", "Or", "Pad", "Pow", "Range", "Reciprocal", "ReduceL2", "ReduceMax", "ReduceMean",
    "ReduceSum", "Relu", "Reshape", "ScatterElements", "Shape", "Sigmoid", "Sin", "Slice", "Softmax", "Split",
    "Sqrt", "Squeeze", "Sub", "Tanh", "TopK", "Transpose", "Unsqueeze", "Where",
})
# fmt: on
ML_OPERATORS: Final = frozenset({"LabelEncoder"})
ORT_OPERATORS: Final = frozenset({"MurmurHash3"})  # only of a feature of kind hash
ALLOWED: Final = {"": OPERATORS, "ai.onnx.ml": ML_OPERATORS, "com.microsoft": ORT_OPERATORS}
VERSIONS: Final = {"": OPSET, "ai.onnx.ml": ML_OPSET, "com.microsoft": 1}

LOCAL_PATH: Final = re.compile(r"(^|[\s\"'(])(/[\w.-]+){2,}|[A-Za-z]:\\|site-packages|\.py\b")


def check_graph(model: onnx.ModelProto, *, name: str, hashes: bool = False) -> None:
    """Check a graph against the contract. hashes: whether it may hold onnxruntime's own hash operator.

    Raises ExportError that names the file and what is wrong with it.
    """
    for problem in problems(model, hashes=hashes):
        raise ExportError(f"{name}: {problem}")


def checked(model: onnx.ModelProto, name: str, features: Sequence[Feature]) -> bytes:
    """The bytes of a graph that keeps the contract and lives through an empty batch. Raises ExportError if it does not.

    features: the inputs of its tower.
    """
    check_graph(model, name=name, hashes=_hashes(features))
    content = serialized(model)
    with tempfile.TemporaryDirectory(prefix="twotower-") as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        survives_empty_batch(path)
    return content


def problems(model: onnx.ModelProto, *, hashes: bool = False) -> Iterator[str]:
    """What is wrong with a graph, the most telling first."""
    yield from _versions(model, hashes=hashes)
    graph = model.graph
    for node in graph.node:
        if node.op_type not in ALLOWED.get(node.domain, ()):
            yield f"operator {node.domain or 'ai.onnx'}.{node.op_type} is not one that every runtime was seen to run"
        if node.metadata_props or node.doc_string:
            yield f"node {node.name} carries notes"
        for text in (node.name, *node.input, *node.output):
            if text not in {put.name for put in graph.input} and LOCAL_PATH.search(text):
                yield f"{text!r} looks like a local path"
    shared = {put.name for put in graph.input} & {tensor.name for tensor in graph.initializer}
    if shared:
        # A default for an input: Python honours it, Node ignores what it is given, the browser throws.
        yield f"initialiser {sorted(shared)[0]!r} is an input too"
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in graph.initializer):
        yield "weights are in another file"
    if model.doc_string or graph.doc_string or model.functions or graph.metadata_props:
        yield "the graph carries notes or functions"
    if {entry.key for entry in model.metadata_props} - {"pair_id"}:
        yield "metadata other than the pair id"
    try:
        checker.check_model(model, full_check=True)
        shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    except (checker.ValidationError, shape_inference.InferenceError) as error:
        yield f"not a valid graph ({str(error).strip().splitlines()[0]})"


def _versions(model: onnx.ModelProto, *, hashes: bool) -> Iterator[str]:
    if model.ir_version != IR_VERSION:
        yield f"IR version {model.ir_version}, expected {IR_VERSION}"
    domains = [entry.domain for entry in model.opset_import]
    if len(set(domains)) < len(domains):
        yield f"opsets {domains} are named twice"
    expected = {domain: version for domain, version in VERSIONS.items() if domain != "com.microsoft" or hashes}
    found = {entry.domain: entry.version for entry in model.opset_import}
    for domain, version in found.items():
        if expected.get(domain) != version:
            yield f"opset {domain or 'ai.onnx'} {version}, expected {expected.get(domain, 'none')}"


def verify_graphs(bundle: Bundle) -> None:
    """Check the graphs of a bundle. Raises BundleError that names the file."""
    files = {tower.file: tower.inputs for tower in (bundle.schema.user, bundle.schema.item)}
    if bundle.has(SINGLE_FILE):
        files[SINGLE_FILE] = bundle.schema.user.inputs
    for name, features in files.items():
        _verify_file(bundle.file(name), hashes=_hashes(features))


def _hashes(features: Sequence[Feature]) -> bool:
    return any(feature.kind == "hash" for feature in features)


def _verify_file(path: Path, *, hashes: bool) -> None:
    try:
        check_graph(onnx.load(str(path)), name=str(path), hashes=hashes)
        survives_empty_batch(path)
    except ExportError as error:
        raise BundleError(f"{error}; export it again") from error
    except Exception as error:  # protobuf's own, of a file that is not a graph
        raise BundleError(f"{path}: not an ONNX file ({type(error).__name__})") from error
