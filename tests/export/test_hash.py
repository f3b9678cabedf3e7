"""The hash of an open id space: the graph, scikit-learn and a plain reading of the algorithm are one."""

import numpy as np
import onnx
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from sklearn.utils import murmurhash3_32

from export.graph import IR_VERSION, ML_OPSET, OPSET
from export.onnx_nodes import Nodes
from export.parity import session_of
from retrieval.features.schema import Feature
from tests.support.pairs import murmur3
from train.features.kinds import KINDS

BUCKETS = 1000
CITY = Feature(name="city", kind="hash", buckets=BUCKETS)
TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)


def graph() -> onnx.ModelProto:
    nodes = Nodes("raw/0")
    rows = KINDS["hash"].graph(nodes, CITY, None)
    inputs = [helper.make_tensor_value_info("city", TensorProto.STRING, ["N"])]
    outputs = [helper.make_tensor_value_info(rows, TensorProto.INT64, ["N"])]
    opsets = [helper.make_opsetid(*pair) for pair in (("", OPSET), ("ai.onnx.ml", ML_OPSET), ("com.microsoft", 1))]
    body = helper.make_graph(nodes.nodes, "hash", inputs, outputs, nodes.initializers)
    return helper.make_model(body, opset_imports=opsets, ir_version=IR_VERSION)


SESSION = session_of(graph().SerializeToString())


@given(st.lists(TEXT, max_size=20))
@settings(deadline=None)
def test_three_ways_are_one(texts: list[str]) -> None:
    column = np.empty(len(texts), dtype=object)
    column[:] = texts
    found = SESSION.run(None, {"city": column})[0].tolist()
    assert found == [2 + murmur3(text) % BUCKETS if text else 0 for text in texts]
    assert found == KINDS["hash"].encode(CITY, None, column).tolist()
    assert [murmur3(text) for text in texts] == [murmurhash3_32(text, seed=0, positive=True) for text in texts]


def test_known_values() -> None:
    # Of the author's test suite: the empty text, and texts of every length modulo 4.
    assert [murmur3(text) for text in ("", "a", "abc", "abcd", "Hello, world!")] == [
        0x00000000,
        0x3C2569B2,
        0xB3DD93FA,
        0x43ED676A,
        0xC0363E43,
    ]
