"""Fewer bits: how close the vectors stay, that no batch changes them, and that a bad loss is refused."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from export.contract import check_graph
from export.graph import tower_graph
from export.onnx_nodes import serialized
from export.parity import session_of
from export.precision import Precision, int8_rows, lighter
from export.precision_loss import measure, refuse_below_floor
from retrieval.bundle.reader import Bundle
from retrieval.common.errors import ExportError
from retrieval.features.schema import SIDES, Side
from retrieval.verify import verify_bundle
from tests.support.pairs import Pair, sampler

LIGHT: tuple[Precision, ...] = ("fp16", "int8")
FARTHEST = {"fp16": 2e-3, "int8": 3e-2}


@pytest.fixture(scope="module")
def graphs(pair: Pair) -> dict[Side, onnx.ModelProto]:
    samplers = {side: sampler(side) for side in SIDES}
    return {side: tower_graph(pair.tower(side), s.features, s.fitted) for side, s in samplers.items()}


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("precision", LIGHT)
def test_close_to_full_precision(graphs: dict[Side, onnx.ModelProto], side: Side, precision: Precision) -> None:
    light = lighter(graphs[side], precision)
    check_graph(light, name="light", hashes=side == "user")
    assert len(serialized(light)) < len(serialized(graphs[side]))
    batch = sampler(side).batch(50, 12, seed=1)
    full, found = (session_of(serialized(model)).run(None, batch)[0] for model in (graphs[side], light))
    assert 0 < np.abs(full - found).max() < FARTHEST[precision]
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("precision", LIGHT)
def test_no_vector_hangs_on_its_batch(graphs: dict[Side, onnx.ModelProto], precision: Precision) -> None:
    session = session_of(serialized(lighter(graphs["user"], precision)))
    batch = sampler("user").batch(9, 8, seed=2)
    together = session.run(None, batch)[0]
    for row in range(9):
        alone = session.run(None, {name: values[row : row + 1] for name, values in batch.items()})[0]
        np.testing.assert_allclose(alone[0], together[row], atol=1e-6)


def test_tables_are_int8_and_nothing_else_is(graphs: dict[Side, onnx.ModelProto]) -> None:
    light = lighter(graphs["user"], "int8")
    types = {t.name: t.data_type for t in light.graph.initializer}
    table = next(name for name in types if name.endswith("item_vectors/int8"))
    assert types[table] == onnx.TensorProto.INT8
    assert not {node.op_type for node in light.graph.node} & {
        "DynamicQuantizeLinear",
        "QuantizeLinear",
        "MatMulInteger",
    }


def test_int8_rows() -> None:
    table = np.array([[1, -0.5, 0.25], [0, 0, 0], [1e-30, 0, 0], [300, -300, 150]], dtype=np.float32)
    whole, scale = int8_rows(table)
    np.testing.assert_allclose(whole * scale, table, atol=1e-2 * np.abs(table).max(axis=1).max(), rtol=0.02)
    assert whole.dtype == np.int8
    assert scale.shape == (4, 1)
    assert scale[1] == 0


def test_loss_of_nothing_is_nothing() -> None:
    vectors = np.eye(4, dtype=np.float32)
    loss = measure({"user": vectors, "item": vectors}, {"user": vectors, "item": vectors}, {"user": 1.0, "item": 1.0})
    assert (loss.recall, loss.cosine_worst) == (1.0, 1.0)


@pytest.mark.parametrize("precision", LIGHT)
def test_export_measures_itself_on_real_users(exported: Callable[[Precision], Path], precision: Precision) -> None:
    bundle = Bundle.open(exported(precision))
    list(verify_bundle(bundle.path))
    assert bundle.schema.precision == precision
    assert bundle.schema.facts["rating"] == {"low": 1.0, "high": 5.0}
    loss = bundle.schema.facts["loss"]
    assert loss["users"] == 40
    assert loss["items"] == 33
    assert loss["recall@10_of_fp32"] > 0.9
    assert loss["cosine_worst"] > 0.999


def test_too_great_a_loss_is_refused() -> None:
    random = np.random.default_rng(0)
    vectors = random.normal(size=(60, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    other = np.roll(vectors, 1, axis=1)
    loss = measure({"user": vectors, "item": vectors}, {"user": vectors, "item": other}, {"user": 0.5, "item": 0.5})
    with pytest.raises(ExportError, match=r"fp16: of the 10 best items of fp32 only 0\..* the floor is 0.995"):
        refuse_below_floor(loss, "fp16")
