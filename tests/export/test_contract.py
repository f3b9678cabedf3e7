"""Each clause of the contract of the files, broken in a graph that was right."""

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import helper

from export.contract import check_graph, problems
from export.onnx_nodes import serialized
from retrieval.common.errors import ExportError


@pytest.fixture
def model(bundle_path: Path) -> onnx.ModelProto:
    return onnx.load(str(bundle_path / "item_tower.onnx"))


def ir(model: onnx.ModelProto) -> None:
    model.ir_version = 10


def opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 17


def ml_opset(model: onnx.ModelProto) -> None:
    model.opset_import[1].version = 4


def twice(model: onnx.ModelProto) -> None:
    model.opset_import.append(model.opset_import[0])


def foreign_domain(model: onnx.ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def einsum(model: onnx.ModelProto) -> None:
    model.graph.node[-1].op_type = "Einsum"


def notes(model: onnx.ModelProto) -> None:
    entry = model.graph.node[0].metadata_props.add()
    entry.key, entry.value = "pkg.torch.onnx.stack_trace", "File somewhere"


def doc(model: onnx.ModelProto) -> None:
    model.doc_string = "made by"


def path(model: onnx.ModelProto) -> None:
    model.graph.node[0].name = "/home/somebody/towers.py"


def default(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))


def external(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].data_location = onnx.TensorProto.EXTERNAL


def metadata(model: onnx.ModelProto) -> None:
    entry = model.metadata_props.add()
    entry.key, entry.value = "author", "somebody"


def unconnected(model: onnx.ModelProto) -> None:
    model.graph.node[-1].input[0] = "nowhere"


BROKEN: list[tuple[Callable[[onnx.ModelProto], None], str]] = [
    (ir, "IR version 10, expected 8"),
    (opset, "opset ai.onnx 17, expected 18"),
    (ml_opset, "opset ai.onnx.ml 4, expected 3"),
    (twice, "are named twice"),
    (foreign_domain, "opset com.microsoft 1, expected none"),
    (einsum, "operator ai.onnx.Einsum is not one that every runtime"),
    (notes, "carries notes"),
    (doc, "carries notes"),
    (path, "looks like a local path"),
    (default, "is an input too"),
    (external, "weights are in another file"),
    (metadata, "metadata other than the pair id"),
    (unconnected, "not a valid graph"),
]


@pytest.mark.parametrize(("spoil", "message"), BROKEN, ids=lambda value: getattr(value, "__name__", ""))
def test_a_broken_clause_is_named(
    model: onnx.ModelProto, spoil: Callable[[onnx.ModelProto], None], message: str
) -> None:
    assert not list(problems(model))
    spoil(model)
    with pytest.raises(ExportError, match=rf"item_tower.onnx: .*{message}"):
        check_graph(model, name="item_tower.onnx")


def test_every_file_of_a_bundle_keeps_it(bundle_path: Path) -> None:
    for file in bundle_path.glob("*.onnx"):
        model = onnx.load(str(file))
        check_graph(model, name=file.name, hashes=file.name != "item_tower.onnx")
        assert serialized(model) == file.read_bytes()
