"""Recommendations for a table of users: the answers of `query`, in a table of the same library."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from retrieval import Retriever
from retrieval.common.errors import DataError, QueryError
from retrieval.frames import to_arrow
from tests.support.tiny import write_tiny

USERS: dict[str, Any] = {"user": ["u1", "nobody", "u5"], "age": [30.0, None, 41.0], "history": [["i2"], [], None]}
Make = Callable[[dict[str, Any]], Any]
LIBRARIES: dict[str, Make] = {"pandas": pd.DataFrame, "polars": pl.DataFrame, "arrow": pa.table}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that tests must not change."""
    return write_tiny(tmp_path_factory.mktemp("frames") / "bundle")


def rows(table: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = to_arrow(table, name="answers").to_pylist()
    return found


@pytest.mark.parametrize("make", LIBRARIES.values(), ids=LIBRARIES)
def test_a_table_is_answered_as_single_queries_are(folder: Path, make: Make) -> None:
    frame = make(USERS)
    with Retriever.open(folder) as retriever:
        found = retriever.recommend(frame, k=4, where="year > 1985")
        asked = [
            {"user": "u1", "history": ["i2"], "features": {"age": 30.0}},
            {"user": "nobody", "history": []},
            {"user": "u5", "features": {"age": 41.0}},
        ]
        single = [retriever.query([query], k=4, where="year > 1985")[0] for query in asked]
    assert type(found) is type(frame)
    assert [(row["user"], row["rank"], row["id"]) for row in rows(found)] == [
        (user, rank, hit.id)
        for user, hits in zip(USERS["user"], single, strict=True)
        for rank, hit in enumerate(hits, start=1)
    ]
    assert list(rows(found)[0]) == ["user", "rank", "id", "score", "title", "year", "tags", "released", "play count"]
    assert rows(found)[0]["released"].year == rows(found)[0]["year"]
    assert [row["score"] for row in rows(found)] == pytest.approx([hit.score for hits in single for hit in hits])


def test_more_users_than_a_batch_keep_their_order_and_their_ids(folder: Path) -> None:
    frame = pd.DataFrame({"user_id": list(range(600)), "age": 30.0}, index=range(5, 605))
    with Retriever.open(folder) as retriever:
        found = retriever.recommend(frame, k=2)
    assert found["user_id"].tolist() == [user for user in range(600) for _ in range(2)]


def test_without_ids_the_row_says_whose_hits_they_are(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Retriever.open(folder) as retriever:
        found = retriever.recommend(pl.DataFrame({"history": ["i1|i3", ""], "shoe size": [40, 41]}), k=3)
        expected = [hit.id for hits in retriever.query([{"history": ["i1", "i3"]}, {}], k=3) for hit in hits]
    assert found["row"].to_list() == [0, 0, 0, 1, 1, 1]
    assert found["id"].to_list() == expected
    assert "ignored: shoe size" in capsys.readouterr().err


def test_no_rows_give_no_rows_with_the_same_columns(folder: Path) -> None:
    with Retriever.open(folder) as retriever:
        nobody = retriever.recommend(pl.DataFrame(USERS).head(0))
        nothing = retriever.recommend(pl.DataFrame(USERS), where="year > 3000")
        some = retriever.recommend(pl.DataFrame(USERS), k=1)
    assert nobody.height == nothing.height == 0
    assert nobody.columns == nothing.columns == some.columns


def test_what_is_no_table_of_users_is_refused(folder: Path) -> None:
    with Retriever.open(folder) as retriever:
        with pytest.raises(QueryError, match='"usr"; did you mean "user"'):
            retriever.recommend(pd.DataFrame({"usr": ["u1"]}))
        with pytest.raises(DataError, match="expected a pandas or polars DataFrame or an Arrow table, found list"):
            retriever.recommend([{"user": "u1"}])
        with pytest.raises(DataError, match="users: cannot be converted"):
            retriever.recommend(pd.DataFrame({"user": ["u1", 2, [3]]}))
