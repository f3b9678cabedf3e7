"""The feature kind `time`: the same encoding of a record, a table and the graph, and a tower that learns the hour."""

import datetime as dt
import json
from pathlib import Path

import numpy as np
import onnx
import polars as pl
import pyarrow as pa
import pytest
from onnx import TensorProto, helper

from export.graph import IR_VERSION, ML_OPSET, OPSET
from export.onnx_nodes import Nodes
from export.parity import session_of
from retrieval.features.records import batch_of, batch_of_table
from retrieval.features.schema import Feature
from tests.support.planted import write_planted
from train.config.load import load
from train.features.kinds import KINDS, Scaler

SEEN = Feature(name="seen", kind="time")
FITTED = Scaler(mean=1.7e9, std=1e7)
NOON = dt.datetime(2024, 2, 29, 12, 0, tzinfo=dt.UTC)  # a Thursday, as 1970-01-01 was
WAYS = [NOON, NOON.timestamp(), int(NOON.timestamp()), "2024-02-29T12:00:00Z", "2024-02-29 13:00:00+01:00"]


def encoded(values: np.ndarray) -> np.ndarray:
    return KINDS["time"].encode(SEEN, FITTED, values)


def test_hour_and_weekday_are_angles_and_missing_is_flagged() -> None:
    midnight, six = NOON - dt.timedelta(hours=12), NOON - dt.timedelta(hours=6)
    rows = encoded(np.array([moment.timestamp() for moment in (NOON, midnight, six)] + [np.nan, np.inf, 1e300]))
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows[:3, :2], [[0, -1], [0, 1], [1, 0]], atol=1e-4)  # noon, midnight, six in the morning
    np.testing.assert_allclose(rows[1, 2:4], [0, 1], atol=1e-4)  # the week begins on a Thursday
    np.testing.assert_allclose(rows[0, 4], (NOON.timestamp() - 1.7e9) / 1e7, rtol=1e-5)
    assert rows[3:5].tolist() == [[0, 0, 0, 0, 0, 1]] * 2
    assert rows[5, 4] == 10  # clamped


@pytest.mark.parametrize("value", WAYS)
def test_a_moment_is_the_same_however_it_is_written(value: object) -> None:
    expected = [NOON.timestamp()]
    assert batch_of([SEEN], [{"seen": value}])["seen"].tolist() == expected
    assert batch_of_table([SEEN], pa.table({"seen": [value]}))["seen"].tolist() == expected
    column = SEEN.type.convert(SEEN, pa.array([value]), where="t")
    assert batch_of_table([SEEN], pa.table({"seen": column}))["seen"].tolist() == expected
    frame = pl.Series(pl.from_arrow(column))
    np.testing.assert_array_equal(KINDS["time"].encode_column(SEEN, FITTED, frame), encoded(np.array(expected)))


def test_what_is_missing_or_no_time() -> None:
    batch = batch_of([SEEN], [{}, {"seen": None}, {"seen": float("nan")}])
    assert batch["seen"].dtype == np.float64
    assert np.isnan(batch["seen"]).all()
    with pytest.raises(Exception, match='feature "seen": expected a time, found list'):
        batch_of([SEEN], [{"seen": [1]}])
    with pytest.raises(Exception, match='"soon", expected a number, a date or an ISO time'):
        batch_of([SEEN], [{"seen": "soon"}])


def test_the_graph_encodes_as_python_does() -> None:
    nodes = Nodes("raw/0")
    output = KINDS["time"].graph(nodes, SEEN, FITTED)
    graph = helper.make_graph(
        nodes.nodes,
        "time",
        [helper.make_tensor_value_info("seen", TensorProto.DOUBLE, ["N"])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["N", 6])],
        nodes.initializers,
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)]
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
    session = session_of(model.SerializeToString())
    random = np.random.default_rng(0)
    values = np.concatenate([random.uniform(-1e10, 1e10, 500), [np.nan, np.inf, -np.inf, 0.0, -1.0, 1e300, -1e300]])
    for batch in (values, values[:1], values[:0]):
        np.testing.assert_allclose(session.run(None, {"seen": batch})[0], encoded(batch), atol=2e-6)


def test_a_bundle_with_a_time_answers(tmp_path: Path) -> None:
    """Trained, exported, indexed and asked with a time in each form; a time that nobody gave is missing."""
    from click.testing import CliRunner

    from twotower import cli

    config = write_planted(tmp_path / "data")
    folder = config.parent
    users = pl.read_parquet(folder / "users.parquet")
    moments = pl.Series("joined", [NOON + dt.timedelta(hours=row) for row in range(users.height)])
    users.with_columns(moments).write_parquet(folder / "users.parquet")
    config.write_text(config.read_text().replace("[user.features]\n", '[user.features]\njoined = "time"\n'))
    assert load(config).user_features[0] == Feature(name="joined", kind="time")
    out, run = tmp_path / "bundle", CliRunner()
    quick = ["--set", "train.epochs=1", "--set", "model.dim=8", "--baselines", "popularity"]
    done = run.invoke(cli, ["-q", "run", str(config), "--out", str(out), *quick], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    schema = json.loads((out / "schema.json").read_text())
    entry = next(entry for entry in schema["towers"]["user"]["inputs"] if entry["name"] == "joined")
    assert entry == {
        "name": "joined",
        "dtype": "float64",
        "shape": ["N"],
        "kind": "time",
        "missing": None,
        "max_length": None,
    }
    answers = []
    for value in (NOON.timestamp(), "2024-02-29T12:00:00Z"):
        features = json.dumps({"joined": value})
        answers.append(
            run.invoke(cli, ["-q", "query", str(out), "--features", features], catch_exceptions=False).stdout
        )
    assert answers[0] == answers[1]
    missing = run.invoke(cli, ["-q", "query", str(out), "--features", "{}"], catch_exceptions=False).stdout
    assert json.loads(missing)["hits"] != json.loads(answers[0])["hits"]
