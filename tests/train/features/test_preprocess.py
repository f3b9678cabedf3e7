"""Preprocess: the two ways of encoding are one, histories are turned around, scalers are scikit-learn's."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.preprocessing import StandardScaler

from retrieval.common.errors import TrainError
from retrieval.features.records import batch_of
from retrieval.features.schema import Feature
from train.config.load import load
from train.data.dataset import prepare
from train.features.kinds import KINDS, Scaler, compact_history
from train.features.preprocess import Preprocess

CONFIG = """
[data]
interactions = "i.parquet"
items = "items.parquet"
[item.features]
item_id = "category"
year = "number"
flat = "number"
void = "number"
tags = "categories"
poster = { kind = "vector", size = 2 }
words = { kind = "hash", buckets = 7 }
"""


@pytest.fixture
def fitted(tmp_path: Path) -> tuple[Preprocess, pl.DataFrame]:
    pl.DataFrame({"user_id": [1, 1, 2], "item_id": ["a", "b", "c"]}).write_parquet(tmp_path / "i.parquet")
    items = pl.DataFrame(
        {
            "item_id": ["a", "b", "c", "d"],
            "year": [1990, None, 2010, 1200],
            "flat": [3.0, 3.0, 3.0, 9.0],
            "void": pl.Series([None, None, None, 1.0], dtype=pl.Float64),
            "tags": [["x", "y"], [], None, ["y", "new", "y"]],
            "poster": [[1.0, 2.0], None, [3.0, 4.0], [5.0, 6.0]],
            "words": ["é", None, "", "日本"],
        }
    )
    items.write_parquet(tmp_path / "items.parquet")
    (tmp_path / "twotower.toml").write_text(CONFIG + '[split]\nkind = "none"\n')
    dataset = prepare(load(tmp_path))
    return dataset.preprocess, dataset.items


def equal(left: dict[str, Any], right: dict[str, Any]) -> None:
    assert left.keys() == right.keys()
    for name, values in left.items():
        np.testing.assert_array_equal(values, right[name], err_msg=name)
        assert values.dtype == right[name].dtype, name


def test_a_table_and_its_records_encode_alike(fitted: tuple[Preprocess, pl.DataFrame]) -> None:
    preprocess, items = fitted
    features = preprocess.features("item")
    records = [{name: value for name, value in row.items() if value is not None} for row in items.to_dicts()]
    batch = batch_of(features, records)
    before = {name: values.copy() for name, values in batch.items()}
    encoded = preprocess.encode("item", batch)
    equal(encoded, preprocess.encode_table("item", items))
    equal(batch, before)
    assert encoded["item_id"].tolist() == [2, 3, 4, 1]  # d is in no training row
    assert encoded["tags"].tolist() == [[2, 3, 0], [0, 0, 0], [0, 0, 0], [3, 1, 3]]
    assert np.isnan(encoded["poster"][1]).all()
    assert encoded["words"].tolist()[1:3] == [0, 0]


def test_empty_batches_encode(fitted: tuple[Preprocess, pl.DataFrame]) -> None:
    preprocess, items = fitted
    encoded = preprocess.encode_table("item", items.head(0))
    assert {name: values.shape for name, values in encoded.items()}["tags"] == (0, 0)
    assert encoded["poster"].shape == (0, 2)
    equal(encoded, preprocess.encode("item", batch_of(preprocess.features("item"), [])))


def test_scalers_are_fitted_on_what_trains(fitted: tuple[Preprocess, pl.DataFrame]) -> None:
    preprocess, _ = fitted
    reference = StandardScaler().fit(np.array([[1990.0], [2010.0]]))
    assert (reference.mean_[0], reference.scale_[0]) == (2000.0, 10.0)
    assert preprocess.fitted("item", "year") == Scaler(mean=2000.0, std=10.0)
    assert preprocess.fitted("item", "flat") == Scaler(mean=3.0, std=1.0)
    assert preprocess.fitted("item", "void") == Scaler(mean=0.0, std=1.0)
    assert preprocess.values is None


def test_it_comes_back_from_json(fitted: tuple[Preprocess, pl.DataFrame]) -> None:
    preprocess, items = fitted
    content = json.loads(json.dumps(preprocess.to_json()))
    again = Preprocess.from_json(content, source="p.json")
    assert again.to_json() == preprocess.to_json()
    equal(again.encode_table("item", items), preprocess.encode_table("item", items))
    wrong: list[Any] = [{}, [], {**content, "user": 3}, {**content, "format_version": 9}, {**content, "values": [1]}]
    for broken in wrong:
        with pytest.raises(TrainError, match=r"^p\.json: "):
            Preprocess.from_json(broken, source="p.json")


@given(st.lists(st.lists(st.integers(0, 5), max_size=6), max_size=5), st.integers(1, 7))
def test_histories_are_newest_first_without_gaps(lists: list[list[int]], most: int) -> None:
    length = max(map(len, lists), default=0)
    rows = np.zeros((len(lists), length), np.int64)
    for row, entries in enumerate(lists):
        rows[row, length - len(entries) :] = entries
    kept = rows.copy()
    result = compact_history(rows, most)
    assert result.shape == (len(lists), min(length, most))
    for found, entries in zip(result.tolist(), lists, strict=True):
        expected = [entry for entry in reversed(entries) if entry][:most]
        assert found == expected + [0] * (result.shape[1] - len(expected))
    np.testing.assert_array_equal(rows, kept)


def test_a_history_is_the_same_whatever_its_padding(planted: Path) -> None:
    preprocess = prepare(load(planted)).preprocess
    base = {"age": np.array([1.0], np.float32), "camp": np.array(["even"], object)}
    wanted = preprocess.encode("user", {**base, "history": np.array([["i3", "i1", "?"]], object)})["history"]
    assert wanted.tolist() == [[1, 3, 5]]
    for padded in (["", "i3", "i1", "?"], ["i3", "", "", "i1", "?", ""]):
        found = preprocess.encode("user", {**base, "history": np.array([padded], object)})["history"]
        assert found[0, :3].tolist() == [1, 3, 5]
        assert not found[0, 3:].any()
    table = pl.DataFrame({"age": [1.0], "camp": ["even"], "history": [["i3", "i1", "?"]]})
    assert preprocess.encode_table("user", table)["history"].tolist() == [[1, 3, 5]]
    many = preprocess.encode("user", {**base, "history": np.array([[f"i{n}" for n in range(30)]], object)})["history"]
    assert many.shape == (1, 20)
    assert many[0, 0] == 31


def test_hashes_are_murmur3_of_utf8() -> None:
    # Published vectors of MurmurHash3_x86_32 with seed 0: "test" 0xba6bd213, "Hello, world!" 0xc0363e43.
    word = Feature(name="w", kind="hash", buckets=2**31)
    rows = KINDS["hash"].encode(word, None, np.array(["test", "Hello, world!", ""], object))
    assert rows.tolist() == [2 + 0xBA6BD213 % 2**31, 2 + 0xC0363E43 % 2**31, 0]
