"""One tower, exported: what the file holds, and that it does what torch does."""

import copy
import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest

from export.contract import check_graph
from export.graph import tower_graph
from export.onnx_nodes import serialized
from export.parity import check_parity, session_of
from retrieval.common.errors import ExportError
from retrieval.features.schema import OUTPUT_NAME, Feature, Side
from tests.support.pairs import ENCODERS, FEATURES, MAX_LENGTH, VOCABULARIES, encode, make_pair, sampler


def graph(side: Side, *, encoder: str = "attention") -> onnx.ModelProto:
    return tower_graph(make_pair(encoder=encoder).tower(side), FEATURES[side], VOCABULARIES[side])


def written(model: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "tower.onnx"
    path.write_bytes(serialized(model))
    return path


@pytest.fixture(scope="module")
def user_graph() -> onnx.ModelProto:
    return graph("user")


@pytest.mark.parametrize(("side", "encoder"), [("item", "mlp"), *(("user", name) for name in sorted(ENCODERS))])
def test_file_equals_torch(side: Side, encoder: str, tmp_path: Path) -> None:
    model = graph(side, encoder=encoder)
    check_graph(model, name="tower", hashes=side == "user")
    tower = make_pair(encoder=encoder).tower(side)
    worst = check_parity(tower, lambda batch: encode(side, batch), written(model, tmp_path), sampler(side))
    assert worst <= 1e-6


def test_same_weights_same_bytes(user_graph: onnx.ModelProto) -> None:
    again = serialized(graph("user"))
    assert hashlib.sha256(again).hexdigest() == hashlib.sha256(serialized(user_graph)).hexdigest()


def test_declared_inputs_and_output(user_graph: onnx.ModelProto) -> None:
    session = session_of(serialized(user_graph))
    assert [put.name for put in session.get_inputs()] == [feature.name for feature in FEATURES["user"]]
    assert [put.type for put in session.get_inputs()] == ["tensor(float)", *["tensor(string)"] * 4]
    assert [put.name for put in session.get_outputs()] == [OUTPUT_NAME]
    assert not session.get_overridable_initializers()


def test_no_trace_of_this_machine(user_graph: onnx.ModelProto) -> None:
    content = serialized(user_graph)
    for trace in (str(Path.home()), str(Path(__file__).parents[2]), "site-packages", ".py", "stack_trace"):
        assert trace.encode() not in content


def test_batch_equals_its_rows(user_graph: onnx.ModelProto) -> None:
    session = session_of(serialized(user_graph))
    batch = sampler("user").batch(17, 2 * MAX_LENGTH, seed=3, padding="scattered")
    together = session.run(None, batch)[0]
    for row in range(17):
        alone = session.run(None, {name: values[row : row + 1] for name, values in batch.items()})[0]
        np.testing.assert_allclose(alone[0], together[row], atol=1e-6)


def test_padding_changes_nothing(user_graph: onnx.ModelProto) -> None:
    session = session_of(serialized(user_graph))
    batch = sampler("user").missing(4, 0)
    lists = [["i1", "i2", "i3"], ["", "i1", "i2", "i3"], ["i1", "", "", "i2", "i3", ""], [""] * 20 + ["i1", "i2", "i3"]]
    for name in ("history", "likes"):
        batch[name] = np.full((4, 23), "", dtype=object)
        for row, values in enumerate(lists):
            batch[name][row, : len(values)] = values
    vectors = session.run(None, batch)[0]
    np.testing.assert_allclose(vectors, np.repeat(vectors[:1], 4, axis=0), atol=1e-6)


def test_only_the_newest_count(user_graph: onnx.ModelProto) -> None:
    session = session_of(serialized(user_graph))
    batch = sampler("user").missing(3, 2 * MAX_LENGTH)
    newest = [f"i{n}" for n in range(MAX_LENGTH)]
    batch["history"][0] = [f"i{n}" for n in range(20, 20 + MAX_LENGTH)] + newest
    batch["history"][1] = ["i9"] * MAX_LENGTH + newest
    batch["history"][2] = ["i9"] * MAX_LENGTH + newest[::-1]
    first, second, reversed_ = session.run(None, batch)[0]
    np.testing.assert_allclose(first, second, atol=1e-6)
    assert np.abs(first - reversed_).max() > 1e-3


def test_tower_is_left_as_it_was() -> None:
    tower = make_pair().tower("user").train()
    before = copy.deepcopy(tower.state_dict())
    tower_graph(tower, FEATURES["user"], VOCABULARIES["user"])
    assert tower.training
    assert all((value == before[name]).all() for name, value in tower.state_dict().items())


@pytest.mark.parametrize("name", ["embedding", "raw/0/1", "core/x"])
def test_reserved_names_are_refused(name: str) -> None:
    with pytest.raises(ExportError, match=f'cannot be named "{name}"'):
        tower_graph(make_pair().tower("item"), [Feature(name=name, kind="number")], {})


def test_two_features_of_one_name_are_refused() -> None:
    twice = [Feature(name="age", kind="number"), Feature(name="age", kind="number")]
    with pytest.raises(ExportError, match='two features are named "age"'):
        tower_graph(make_pair().tower("item"), twice, {})
