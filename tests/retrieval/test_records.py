"""Records and tables become the arrays that the towers take."""

import math
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.catalog.items import json_lines
from retrieval.common.errors import QueryError
from retrieval.features.columns import texts
from retrieval.features.records import batch_of, batch_of_table
from retrieval.features.schema import Feature
from retrieval.features.text import text_of

AGE = Feature(name="age", kind="number")
JOB = Feature(name="job", kind="category")
TAGS = Feature(name="tags", kind="categories", separator="|")
PAST = Feature(name="past", kind="history", max_length=3)
POSE = Feature(name="pose", kind="vector", size=2)
ALL = (AGE, JOB, TAGS, PAST, POSE)


def test_missing_has_a_sentinel_of_its_kind() -> None:
    batch = batch_of(ALL, [{}, {"age": None, "job": None, "tags": None, "past": [], "pose": None}])
    assert batch["age"].dtype == np.float32
    assert np.isnan(batch["age"]).all()
    assert batch["job"].tolist() == ["", ""]
    assert batch["tags"].shape == (2, 0)
    assert batch["past"].shape == (2, 0)
    assert np.isnan(batch["pose"]).all()
    assert batch["pose"].shape == (2, 2)


def test_values_keep_their_place() -> None:
    batch = batch_of(ALL, [{"age": 3, "tags": "a|b"}, {"past": ["x", None, 7.0], "job": 1.0, "pose": [1, 2]}])
    assert batch["age"][0] == 3
    assert batch["tags"].tolist() == [["a", "b"], ["", ""]]
    assert batch["past"].tolist() == [["", "", ""], ["x", "", "7"]]
    assert batch["job"].tolist() == ["", "1"]
    assert batch["pose"][1].tolist() == [1, 2]


def test_no_records_make_an_empty_batch() -> None:
    batch = batch_of(ALL, [])
    assert {name: array.shape for name, array in batch.items()} == {
        "age": (0,),
        "job": (0,),
        "tags": (0, 0),
        "past": (0, 0),
        "pose": (0, 2),
    }


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"agee": 1}, 'no feature "agee"; did you mean "age"?'),
        ({"age": "old"}, "feature \"age\": expected a number, found str in 'old'"),
        ({"job": ["x"]}, 'feature "job": expected text, found list'),
        ({"job": "a\0b"}, "a NUL character"),
        ({"past": ["ok", "\ud800"]}, "a lone surrogate"),
        ({"past": 5}, "expected a list of text, found int"),
        ({"pose": [1, 2, 3]}, "expected 2 numbers, found 3"),
        ({"pose": "12"}, "expected a list of 2 numbers, found str"),
        ({"age": 10**400}, 'feature "age"'),
    ],
)
def test_a_wrong_value_is_named(record: dict[str, Any], words: str) -> None:
    with pytest.raises(QueryError) as caught:
        batch_of(ALL, [record])
    assert words in str(caught.value)
    with pytest.raises(QueryError, match="record 2: "):
        batch_of(ALL, [{}, record])


def test_numbers_beyond_float32_are_infinite_not_an_error() -> None:
    assert batch_of([AGE], [{"age": 1e300}, {"age": -1e39}])["age"].tolist() == [math.inf, -math.inf]
    largest = float(np.finfo(np.float32).max)
    assert batch_of([AGE], [{"age": largest}])["age"].tolist() == [largest]


@given(st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False)))
def test_a_number_and_its_text_are_one_id(number: float) -> None:
    assert text_of(text_of(number)) == text_of(number)
    if isinstance(number, float) and number.is_integer():
        assert text_of(number) == text_of(int(number))


VALUES: dict[str, Any] = {
    "age": [1.5, None, float("nan"), 1e300],
    "job": ["chef", None, "", "größe"],
    "tags": ["a|b", None, "", "c"],
    "past": [["1", "2", "3", "4"], [], None, ["9"]],
    "pose": [[1.0, 2.0], None, [0.5, None], [3.0, 4.0]],
}


def test_a_table_gives_what_its_records_give() -> None:
    table = pa.table(VALUES)
    records = [{name: VALUES[name][row] for name in VALUES} for row in range(4)]
    from_table, from_records = batch_of_table(ALL, table), batch_of(ALL, records)
    for name, array in from_records.items():
        assert from_table[name].dtype == array.dtype
        np.testing.assert_array_equal(from_table[name], array, err_msg=name)


def test_a_block_of_a_table_is_as_wide_as_its_own_lists() -> None:
    table = pa.table({"past": [["1", "2"], ["3"], ["4"]]}).slice(1)
    assert batch_of_table([PAST], table)["past"].tolist() == [["3"], ["4"]]


@pytest.mark.parametrize("values", [[1, 20], [1.0, 20.0], ["1", "20"], pa.array(["1", "20"]).dictionary_encode()])
def test_ids_are_text_whatever_they_were(values: Any) -> None:
    assert batch_of_table([JOB], pa.table({"job": values}))["job"].tolist() == ["1", "20"]


def test_broken_and_missing_float_ids() -> None:
    column = pa.array([1.5, None, float("nan"), 1e300])
    assert batch_of_table([JOB], pa.table({"job": column}))["job"].tolist() == ["1.5", "", "", text_of(1e300)]


def test_decimals_of_a_database_are_numbers_and_ids() -> None:
    table = pa.table({"n": pa.array([Decimal("2.50"), None], pa.decimal128(8, 2))})
    assert batch_of_table([Feature(name="n", kind="number")], table)["n"].tolist()[0] == 2.5
    assert texts(pa.array([Decimal("5.00"), Decimal("0.50"), None])).to_pylist() == ["5", "0.50", None]
    assert list(json_lines(table)) == [b'{"n":2.5}', b'{"n":null}']


def test_a_column_of_another_type_is_named() -> None:
    with pytest.raises(QueryError, match='column "age": expected numbers, found string'):
        batch_of_table([AGE], pa.table({"age": ["x"]}))
    with pytest.raises(QueryError, match='column "job": expected text, found list'):
        batch_of_table([JOB], pa.table({"job": [["x"]]}))


def test_a_column_that_is_not_there_is_missing() -> None:
    batch = batch_of_table(ALL, pa.table({"other": [1, 2]}))
    assert batch["job"].tolist() == ["", ""]
    assert batch["past"].shape == (2, 0)
