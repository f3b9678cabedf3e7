"""A user tower learns items that came after its training: their vectors join the table that histories read."""

from typing import Any, Final

import numpy as np
import onnx
import pyarrow as pa
from onnx import TensorProto, numpy_helper

from export import golden_cases
from export.contract import checked
from export.parity import Vectors, session_of
from export.precision import int8_rows
from export.retrieve_file import TITLES, Catalogue, retrieve_file, titles_file
from export.retrieve_graph import SINGLE_FILE
from retrieval.bundle.layout import GOLDEN, SCHEMA, TRAINING
from retrieval.bundle.writer import Draft
from retrieval.common.console import note
from retrieval.common.errors import ExportError
from retrieval.features.records import batch_of
from retrieval.features.schema import Schema
from retrieval.index.build import live_items
from retrieval.towers.golden_cases import array_of

TABLE: Final = "item_vectors"  # of the user tower; its name in the graph ends so


def refresh_history(draft: Draft) -> int:
    """Append the items of a bundle that its user tower does not know. Returns how many.

    Nothing is trained: a vector is what the item tower makes of the item. The pair id stays, for vectors of users and
    items remain comparable; `golden.json` gets the new answers, and `retrieve.onnx`, where there is one, is made anew.
    Items removed from the bundle stay known to histories. Raises ExportError if the user tower reads no history.
    """
    schema = draft.schema
    history = schema.user.history
    if history is None:
        raise ExportError(f"{draft.folder}: the user tower reads no history, there is nothing to refresh")
    model = onnx.load(str(draft.file(schema.user.file)))
    known = _encoder(model, history.name)
    table = pa.concat_tables(list(live_items(draft)))
    item_tower = session_of(draft.file(schema.item.file))
    catalogue = Catalogue.of(table, item_tower, schema.item.inputs)
    new = [row for row, text in enumerate(catalogue.ids) if text not in known]
    if new:
        _append(model, history.name, [catalogue.ids[row] for row in new], catalogue.vectors[new])
    content = checked(model, schema.user.file, schema.user.inputs)
    if new:
        draft.write_bytes(schema.user.file, content)
        draft.write_bytes(GOLDEN, _golden(draft, content, [catalogue.ids[row] for row in new]))
    if draft.has(SINGLE_FILE):
        _retrieve(draft, schema, model, content, catalogue)
    note(f"{draft.folder}: {len(new):,} new items in histories, {len(known) - 1 + len(new):,} in all")
    return len(new)


def _encoder(model: onnx.ModelProto, name: str) -> dict[str, int]:
    """The rows of the texts that the history knows, the missing one among them."""
    node = _encoder_node(model, name)
    attributes = {attribute.name: attribute for attribute in node.attribute}
    keys = [text.decode() for text in attributes["keys_strings"].strings]
    return dict(zip(keys, attributes["values_int64s"].ints, strict=True))


def _encoder_node(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    found: list[onnx.NodeProto] = [
        node for node in model.graph.node if node.op_type == "LabelEncoder" and list(node.input) == [name]
    ]
    if not found:
        raise ExportError(f'the user tower does not look up "{name}"; export it again')
    return found[0]


def _append(model: onnx.ModelProto, name: str, ids: list[str], vectors: Vectors) -> None:
    """Give ids the rows that follow the table's last, and those rows their vectors. Modifies the model."""
    height = _append_rows(model, vectors)
    for attribute in _encoder_node(model, name).attribute:
        if attribute.name == "keys_strings":
            attribute.strings.extend(text.encode() for text in ids)
        elif attribute.name == "values_int64s":
            attribute.ints.extend(range(height, height + len(ids)))


def _append_rows(model: onnx.ModelProto, vectors: Vectors) -> int:
    """Append vectors to the table as it is stored, or, of towers side by side, each part to its own.

    Returns its height before.
    """
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    found = sorted(name for name in tensors if name.removesuffix("/int8").endswith(TABLE))  # in the order of the parts
    widths = [int(tensors[name].dims[1]) for name in found]
    if sum(widths) != vectors.shape[1]:
        raise ExportError(
            f"the user tower has tables of item vectors of lengths {widths}, expected {vectors.shape[1]} in all; "
            "export it again"
        )
    height = int(tensors[found[0]].dims[0])  # all have the same rows
    for name, part in zip(found, np.split(vectors, np.cumsum(widths)[:-1], axis=1), strict=True):
        rows = part / np.linalg.norm(part, axis=1, keepdims=True)  # histories read what is not weighed by its share
        if tensors[name].data_type == TensorProto.INT8:
            whole, scales = int8_rows(rows)
            _extend(tensors[name], whole)
            _extend(tensors[name.removesuffix("/int8") + "/scale"], scales)
        else:
            _extend(tensors[name], rows)
    return height


def _extend(tensor: onnx.TensorProto, rows: Any) -> None:
    before = numpy_helper.to_array(tensor)
    tensor.CopyFrom(numpy_helper.from_array(np.concatenate([before, rows.astype(before.dtype)]), tensor.name))


def _golden(draft: Draft, content: bytes, new: list[str]) -> bytes:
    """`golden.json` with the answers of the new tower, and a case of the new items."""
    schema = draft.schema
    assert schema.user.history is not None
    session = session_of(content)
    cases = draft.read_json(GOLDEN)
    lists = [new[:1], new[-2:], [*new[:3], ""]]
    batches = [batch_of(schema.user.inputs, [{schema.user.history.name: ids} for ids in lists])]
    batches += [
        {feature.name: array_of(feature, case["inputs"][feature.name]) for feature in schema.user.inputs}
        for case in cases["user"]
    ]
    cases["user"] = [golden_cases.case(session, batch) for batch in batches]
    return golden_cases.to_bytes(cases)


def _retrieve(draft: Draft, schema: Schema, model: onnx.ModelProto, content: bytes, catalogue: Catalogue) -> None:
    """Make `retrieve.onnx` of the refreshed tower and the items as they are now."""
    training = draft.folder / TRAINING
    whole, facts = retrieve_file(
        model,
        session_of(content),
        schema.user.inputs,
        catalogue,
        training,
        precision=schema.precision,  # type: ignore[arg-type]  # what export wrote
    )
    draft.write_bytes(SINGLE_FILE, whole)
    draft.write_bytes(TITLES, titles_file(schema.pair_id, catalogue, training))
    draft.write_json(SCHEMA, {**schema.to_json(), "single_file": facts})
