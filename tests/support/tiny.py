"""A whole bundle made by hand in milliseconds, without torch: two small graphs over a table of vectors."""

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
from onnx import TensorProto, helper, numpy_helper

from retrieval.bundle.writer import publishing
from retrieval.features.schema import Feature, Schema, TowerSchema
from retrieval.index.build import build_index

ITEM_INPUTS = (Feature(name="item_id", kind="category"), Feature(name="year", kind="number"))
USER_INPUTS = (Feature(name="history", kind="history", max_length=20), Feature(name="age", kind="number"))


def unit(rows: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Rows of length 1."""
    scaled: npt.NDArray[np.float32] = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return scaled


def item_table(items: int, dim: int, seed: int) -> npt.NDArray[np.float32]:
    """Vectors of items: even ones lie on one side of axis 0, odd ones on the other. (items, dim)"""
    table = np.random.default_rng(seed).normal(size=(items, dim)) * 0.5
    table[:, 0] = np.where(np.arange(items) % 2 == 0, 1.0, -1.0)
    return unit(table)


def tower_bytes(side: str, *, ids: list[str], table: npt.NDArray[np.float32], pair_id: str = "abc123abc123") -> bytes:
    """An ONNX graph: ids are looked up in the table (summed over a history), a number adds a little, then unit length.

    Row 0 of the inner table is missing, row 1 unknown, as in the real towers.
    """
    dim = table.shape[1]
    rest = np.zeros((2, dim), np.float32)
    weights = np.concatenate([rest, table])
    number = np.full((1, dim), 1e-4, np.float32)
    bias = np.full((dim,), 1e-3, np.float32)
    text, scalar = ("history", "age") if side == "user" else ("item_id", "year")
    encode = helper.make_node(
        "LabelEncoder",
        [text],
        ["rows"],
        domain="ai.onnx.ml",
        keys_strings=["", *ids],
        values_int64s=[0, *range(2, len(ids) + 2)],
        default_int64=1,
    )
    summed = (
        [helper.make_node("ReduceSum", ["looked_up", "one"], ["content"], keepdims=0)]
        if side == "user"
        else [helper.make_node("Identity", ["looked_up"], ["content"])]
    )
    nodes = [
        encode,
        helper.make_node("Gather", ["table", "rows"], ["looked_up"], axis=0),
        *summed,
        helper.make_node("IsNaN", [scalar], ["is_missing"]),
        helper.make_node("Where", ["is_missing", "zero", scalar], ["known"]),
        helper.make_node("Clip", ["known", "low", "high"], ["bounded"]),
        helper.make_node("Unsqueeze", ["bounded", "one"], ["tall"]),
        helper.make_node("MatMul", ["tall", "number"], ["shift"]),
        helper.make_node("Add", ["content", "shift"], ["shifted"]),
        helper.make_node("Add", ["shifted", "bias"], ["raw"]),
        helper.make_node("ReduceL2", ["raw", "one"], ["length"], keepdims=1),
        helper.make_node("Div", ["raw", "length"], ["embedding"]),
    ]
    initializers = [
        numpy_helper.from_array(weights, "table"),
        numpy_helper.from_array(number, "number"),
        numpy_helper.from_array(bias, "bias"),
        numpy_helper.from_array(np.array([1], np.int64), "one"),
        numpy_helper.from_array(np.array(0, np.float32), "zero"),
        numpy_helper.from_array(np.array(-100, np.float32), "low"),
        numpy_helper.from_array(np.array(100, np.float32), "high"),
    ]
    shape = ["N", "L"] if side == "user" else ["N"]
    graph = helper.make_graph(
        nodes,
        f"tiny_{side}",
        [
            helper.make_tensor_value_info(text, TensorProto.STRING, shape),
            helper.make_tensor_value_info(scalar, TensorProto.FLOAT, ["N"]),
        ],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", dim])],
        initializers,
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)],
        ir_version=8,
        producer_name="tiny",
    )
    helper.set_model_props(model, {"pair_id": pair_id})
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


def tiny_schema(dim: int, pair_id: str) -> Schema:
    return Schema(
        pair_id=pair_id,
        dim=dim,
        precision="fp32",
        opset=18,
        user=TowerSchema(file="user_tower.onnx", inputs=USER_INPUTS),
        item=TowerSchema(file="item_tower.onnx", inputs=ITEM_INPUTS),
        facts={},
    )


def items_of(ids: list[str]) -> pa.Table:
    """The catalogue: title, year (some missing), tags (a list), a date, and a column with a space in its name."""
    numbers = [int(item.lstrip("i")) for item in ids]
    return pa.table(
        {
            "item_id": ids,
            "title": [f"Film {number} – é" for number in numbers],
            "year": pa.array([1980.0 + number % 40 if number % 7 else None for number in numbers], pa.float64()),
            "tags": [
                ["even" if number % 2 == 0 else "odd"] + (["third"] if number % 3 == 0 else []) for number in numbers
            ],
            "released": pa.array([dt.date(1980 + number % 40, 1, 1 + number % 28) for number in numbers]),
            "play count": pa.array([number * 10 for number in numbers], pa.int64()),
        }
    )


def users_of(ids: list[str], users: int) -> pa.Table:
    """Users: u0, u2, ... have seen even items, the others odd ones; the last has seen nothing."""
    histories = [ids[user % 2 : 2 * (3 + user) : 2] for user in range(users - 1)]
    return pa.table(
        {
            "user_id": [f"u{user}" for user in range(users)],
            "age": pa.array([20.0 + user if user % 3 else None for user in range(users)], pa.float64()),
            "history": pa.array([*histories, []], pa.list_(pa.string())),
        }
    )


def write_tiny(
    folder: Path,
    *,
    items: int = 40,
    users: int = 6,
    dim: int = 8,
    seed: int = 0,
    pair_id: str = "abc123abc123",
    index: bool = True,
    kind: str = "auto",
    prefix: str = "i",
) -> Path:
    """Publish a bundle in `folder`, which need not be there. Items are i0, i1, ... by `prefix`; returns the folder."""
    ids = [f"{prefix}{number}" for number in range(items)]
    table = item_table(items, dim, seed)
    with publishing(folder) as draft:
        for side in ("user", "item"):
            draft.write_bytes(f"{side}_tower.onnx", tower_bytes(side, ids=ids, table=table, pair_id=pair_id))
        draft.write_json("schema.json", tiny_schema(dim, pair_id).to_json())
        pq.write_table(items_of(ids), draft.path("items.parquet"))
        pq.write_table(users_of(ids, users), draft.path("users.parquet"))
        if index:
            build_index(draft, kind=kind)
    return folder
