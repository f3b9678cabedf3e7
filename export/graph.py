"""A tower -> one ONNX graph: raw features in, unit vector out."""

import copy
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

import onnx
import torch
from onnx import TensorProto, compose, helper
from torch import Tensor, nn

from export.onnx_nodes import Nodes
from retrieval.common.errors import ExportError
from retrieval.features.schema import OUTPUT_NAME, Feature
from train.features.kinds import KINDS, Fitted

OPSET: Final = 18
ML_OPSET: Final = 3
IR_VERSION: Final = 8  # the newest that onnxruntime 1.17 reads without complaint

EXAMPLE_ROWS: Final = 3  # 1 would become a constant of the graph
EXAMPLE_WIDTH: Final = 2  # of the first list, each further one is wider: the exporter takes equal widths for one axis


class _Core(nn.Module):
    """A tower that takes its inputs by position: the exporter orders a dict's keys as it likes."""

    def __init__(self, tower: nn.Module, features: Sequence[Feature]) -> None:
        super().__init__()
        self.tower = tower
        self.names = [feature.name for feature in features]

    def forward(self, columns: list[Tensor]) -> Tensor:
        vectors: Tensor = self.tower(dict(zip(self.names, columns, strict=True)))
        return vectors


def tower_graph(tower: nn.Module, features: Sequence[Feature], fitted: Mapping[str, Fitted]) -> onnx.ModelProto:
    """Export a tower. The same weights give the same bytes.

    tower: takes name -> Tensor as `Preprocess.encode` gives them; not modified.
    fitted: what each feature was fitted to, by name.
    Raises ExportError on a name that the graph cannot carry, or if torch cannot export the tower.
    """
    _check_names(features)
    core = compose.add_prefix(_core_graph(tower, features, fitted), "core/")
    dim = core.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    nodes: list[onnx.NodeProto] = []
    initializers = []
    taken: dict[str, str] = {}
    for position, (feature, value) in enumerate(zip(features, core.graph.input, strict=True)):
        before = Nodes(f"raw/{position}")
        name = KINDS[feature.kind].graph(before, feature, fitted.get(feature.name))
        nodes += before.nodes
        initializers += before.initializers
        taken[value.name] = name
    taken[core.graph.output[0].name] = OUTPUT_NAME
    nodes += [_plain(node, taken) for node in core.graph.node]
    initializers += core.graph.initializer
    graph = helper.make_graph(
        nodes,
        "tower",
        [_input(feature, position) for position, feature in enumerate(features)],
        [helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.FLOAT, ["N", dim])],
        initializers,
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)]
    if any(feature.kind == "hash" for feature in features):
        opsets.append(helper.make_opsetid("com.microsoft", 1))
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="twotower")


def _check_names(features: Sequence[Feature]) -> None:
    seen: set[str] = set()
    for feature in features:
        if feature.name in seen:
            raise ExportError(f'two features are named "{feature.name}"; rename one')
        if feature.name == OUTPUT_NAME or feature.name.startswith(("raw/", "core/")):
            raise ExportError(f'a feature cannot be named "{feature.name}": the graph uses the name itself; rename it')
        seen.add(feature.name)


def _input(feature: Feature, position: int) -> onnx.ValueInfoProto:
    kind = {"string": TensorProto.STRING, "float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE}[feature.dtype]
    # Two lists of a tower differ in width, so each has a symbol of its own.
    shape = [f"L{position}" if axis == "L" else axis for axis in feature.shape]
    return helper.make_tensor_value_info(feature.name, kind, shape)


def _plain(node: onnx.NodeProto, renamed: Mapping[str, str]) -> onnx.NodeProto:
    """A node with its values renamed and without the exporter's notes: stack traces, with paths of this machine."""
    plain = onnx.NodeProto()
    plain.CopyFrom(node)
    plain.ClearField("metadata_props")
    plain.ClearField("doc_string")
    plain.input[:] = [renamed.get(name, name) for name in node.input]
    plain.output[:] = [renamed.get(name, name) for name in node.output]
    return plain


def _core_graph(tower: nn.Module, features: Sequence[Feature], fitted: Mapping[str, Fitted]) -> onnx.ModelProto:
    """The tower alone, from rows to vectors."""
    # A LightningModule's own to_onnx neither copies nor calls eval().
    core = _Core(copy.deepcopy(tower).cpu().float().eval(), features)
    rows = torch.export.Dim("rows")
    columns, shapes = [], []
    width = EXAMPLE_WIDTH
    for position, feature in enumerate(features):
        axes = {0: rows}
        if feature.is_list:
            axes[1] = torch.export.Dim(f"width{position}", max=feature.max_length)
            columns.append(torch.ones(EXAMPLE_ROWS, width, dtype=torch.int64))
            width += 1
        else:
            missing = feature.type.missing(feature, EXAMPLE_ROWS)
            encoded = KINDS[feature.kind].encode(feature, fitted.get(feature.name), missing)
            columns.append(torch.from_numpy(encoded))
        shapes.append(axes)
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                core,
                (columns,),
                dynamo=True,
                dynamic_shapes=(shapes,),
                opset_version=OPSET,
                external_data=False,
                # Not the final name: "embedding" is also what the exporter calls a value of its own, and the file
                # would be written, and invalid.
                output_names=["vector"],
                verbose=False,
            )
    except Exception as error:  # torch.onnx raises what its parts raise
        lines = str(error).strip().splitlines()
        raise ExportError(f"torch cannot export the tower ({lines[0] if lines else type(error).__name__})") from error
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    found = {entry.domain: entry.version for entry in model.opset_import}
    if found != {"": OPSET}:
        raise ExportError(f"torch exported opsets {found}, asked for {OPSET} alone; use the torch of constraints.txt")
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter speaks of torchvision, of its own deprecated calls and of axis names; none is the user's."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
