"""Dataset: rows, order, repeats, the entities' tables, leakage, and every bad table."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from retrieval.common.errors import DataError
from train.config.load import load
from train.data.dataset import Dataset, history_length, prepare

CONFIG = """
[data]
interactions = "i.csv"
{data}
[user.features]
{user}
[item.features]
{item}
[split]
kind = "{split}"
[train]
objective = "{objective}"
"""


def prepared(
    folder: Path,
    interactions: str,
    *,
    items: str | None = None,
    users: str | None = None,
    data: str = "",
    user: str = 'history = "history"',
    item: str = 'item_id = "category"',
    split: str = "none",
    objective: str = "softmax",
) -> Dataset:
    for name, text in (("i", interactions), ("items", items), ("users", users)):
        if text is not None:
            (folder / f"{name}.csv").write_text(text, encoding="utf-8")
            if name != "i":
                data += f'\n{name} = "{name}.csv"'
    config = folder / "twotower.toml"
    config.write_text(
        CONFIG.format(data=data, user=user, item=item, split=split, objective=objective), encoding="utf-8"
    )
    return prepare(load(config))


SMALL = "user_id,item_id,r,t\nb,2.0,5,30\na,1.0,4,20\nb,1.0,3,10\na,3.0,,\na,1.0,2,40\n"


def test_rows_order_and_repeats(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = prepared(tmp_path, SMALL, data='value = "r"\ntime = "t"')
    assert dataset.users.get_column("user_id").to_list() == ["b", "a"]
    assert dataset.items.get_column("item_id").to_list() == ["2", "1", "3"]
    # Of a and 1 the last counts; a time that is missing comes first.
    assert dataset.interactions.rows() == [
        (0, 1, 3.0, 10, "train"),
        (0, 0, 5.0, 30, "train"),
        (1, 2, None, None, "train"),
        (1, 1, 2.0, 40, "train"),
    ]
    assert dataset.duplicates == 1
    assert "1 interactions repeat a user and an item" in capsys.readouterr().err
    assert dataset.interactions.dtypes[:4] == [pl.UInt32, pl.UInt32, pl.Float32, pl.Int64]


def test_without_times_the_order_of_the_file_counts(tmp_path: Path) -> None:
    dataset = prepared(tmp_path, "user_id,item_id\nb,9\na,5\nb,3\nb,7\na,1\n", split="leave-one-out")
    named = dataset.items.get_column("item_id").gather(dataset.interactions.get_column("item")).to_list()
    assert named == ["9", "3", "7", "5", "1"]
    assert dataset.interactions.get_column("split").to_list() == ["train", "valid", "test", "train", "test"]
    assert dataset.interactions.get_column("time").null_count() == 5


def test_times_far_apart_are_sorted_too(tmp_path: Path) -> None:
    """Where user and time do not fit one integer."""
    rows = [("a", 2**62), ("b", 1), ("a", -(2**62)), ("a", 0)]
    text = "user_id,item_id,t\n" + "".join(f"{user},{row},{time}\n" for row, (user, time) in enumerate(rows))
    dataset = prepared(tmp_path, text, data='time = "t"')
    assert dataset.interactions.get_column("item").to_list() == [2, 3, 0, 1]


def test_tables_of_users_and_items_with_other_names_and_gaps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = prepared(
        tmp_path,
        "user_id,item_id\na,1\nb,2\na,4\n",
        items="film no,title,year,genres,score\n1,Amélie,2001,Comedy|Romance,0.5\n2,Heat,,,NA\n3,Up,2009,Comedy,\n",
        users="user_id,age,history\nz,30,x\na,18,y\n",
        data='items_id = "film no"\ntitle = "title"',
        user='age = "number"\nhistory = "history"',
        item='item_id = "category"\nyear = "number"\ngenres = { kind = "categories", separator = "|" }',
    )
    assert dataset.users.to_dict(as_series=False) == {"user_id": ["z", "a", "b"], "age": [30, 18, None]}
    assert dataset.items.columns == ["item_id", "title", "year", "genres", "score"]
    assert dataset.items.to_dict(as_series=False) == {
        "item_id": ["1", "2", "3", "4"],
        "title": ["Amélie", "Heat", "Up", None],
        "year": [2001, None, 2009, None],
        "genres": [["Comedy", "Romance"], [], ["Comedy"], None],
        "score": [0.5, None, None, None],
    }
    told = capsys.readouterr().err
    assert "1 of 2 users of the interactions are not in it" in told
    assert "1 of 3 items of the interactions are not in it" in told
    # The history knows every item, the embedding only what trains.
    assert dataset.preprocess.vocabulary("user", "history").ids == ("1", "2", "3", "4")
    assert dataset.preprocess.vocabulary("item", "item_id").ids == ("1", "2", "4")


def test_only_training_rows_are_learned_from(tmp_path: Path) -> None:
    """Change everything that is held out: nothing fitted changes."""

    def fitted(year: int, genre: str, rating: float, age: int) -> dict[str, Any]:
        dataset = prepared(
            tmp_path,
            f"user_id,item_id,r,split\na,1,3,train\nb,1,4,train\na,2,{rating},test\nc,2,{rating},valid\n",
            items=f"item_id,year,genre\n1,2000,x\n2,{year},{genre}\n",
            users=f"user_id,age\na,20\nb,30\nc,{age}\n",
            data='value = "r"',
            user='age = "number"\nhistory = "history"',
            item='item_id = "category"\nyear = "number"\ngenre = "category"',
            split="column",
        )
        return dataset.preprocess.to_json()

    first = fitted(1950, "y", 1.0, 60)
    assert first == fitted(2024, "zz", 5.0, 90)
    assert first["values"] == [3.0, 4.0]
    assert {entry["name"]: entry.get("mean") for entry in first["user"]}["age"] == 25.0
    assert {entry["name"]: entry.get("vocabulary") for entry in first["item"]}["genre"] == ["x"]


def test_what_was_shown_and_not_chosen_stands_apart(tmp_path: Path) -> None:
    text = "user_id,item_id,shown\na,1,0\na,2,1\nb,3,yes\nb,1,no\na,3,\n"
    dataset = prepared(tmp_path, text, data='negative = "shown"')
    named = [
        (dataset.users["user_id"][user], dataset.items["item_id"][item], choice)
        for user, item, choice in dataset.impressions.rows()
    ]
    assert named == [("a", "2", 1), ("b", "3", 2)]
    assert dataset.interactions.height == 3
    assert dataset.items["item_id"].to_list() == ["1", "2", "3"]
    assert prepared(tmp_path, SMALL).impressions.height == 0


def test_a_history_length_follows_the_histories(tmp_path: Path) -> None:
    assert [history_length(np.array([n])) for n in (1, 50, 51, 150, 900)] == [50, 50, 100, 200, 200]
    assert history_length(np.array([], np.int64)) == 50
    assert [history_length(np.array([3, n]), ordered=False) for n in (1, 51, 5000)] == [50, 51, 2000]
    text = "user_id,item_id,t\n" + "".join(f"{user},{item},{item}\n" for user in "ab" for item in range(70))
    dataset = prepared(tmp_path, text, data='time = "t"')
    assert dataset.config.history is not None
    assert dataset.config.history.max_length == 100
    assert dataset.preprocess.features("user")[0].max_length == 100


def test_saved_tables_say_the_same_by_id(tmp_path: Path) -> None:
    dataset = prepared(tmp_path, SMALL, data='value = "r"\ntime = "t"')
    out = tmp_path / "out"
    out.mkdir()
    dataset.save(out)
    saved = pl.read_parquet(out / "interactions.parquet").with_columns(pl.col("user", "item").cast(pl.String))
    assert saved.select("user", "item", "value", "time").rows() == [
        ("b", "1", 3.0, 10),
        ("b", "2", 5.0, 30),
        ("a", "3", None, None),
        ("a", "1", 2.0, 40),
    ]
    assert {path.name for path in out.iterdir()} == {
        "config.json", "preprocess.json", "interactions.parquet", "items.parquet", "users.parquet",
    }  # fmt: skip


def test_the_fingerprint_is_that_of_the_data(tmp_path: Path) -> None:
    first = prepared(tmp_path, SMALL, data='value = "r"').fingerprint()
    assert first == prepared(tmp_path, SMALL, data='value = "r"').fingerprint()
    assert first != prepared(tmp_path, SMALL.replace("b,2.0,5", "b,2.0,4"), data='value = "r"').fingerprint()
    assert first != prepared(tmp_path, SMALL.replace("b,", "c,"), data='value = "r"').fingerprint()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {"interactions": "usr_id,item_id\na,1\n"},
            r'i\.csv: no column "user_id" \(data\.user\); did you mean "usr_id"',
        ),
        ({"interactions": "user_id,item_id\n"}, r"i\.csv: the table is empty"),
        ({"interactions": "user_id,item_id\na,1\n,2\n"}, r'i\.csv: column "user_id": row 2 has no id'),
        ({"interactions": 'user_id,item_id\na,1\n"",2\n'}, r'i\.csv: column "user_id": the id of row 2 is empty'),
        ({"interactions": "user_id,item_id\na,1\na,x\0y\n"}, r"the id of row 2 contains a NUL"),
        ({"interactions": "user_id,item_id\na,1\na,2\n"}, r"all interactions are of one user"),
        ({"interactions": "user_id,item_id\n1.0,\n,2.0\n"}, r"no row has both a user and an item|has no id"),
        (
            {"interactions": "user_id,item_id,r\na,1,good\nb,2,3\n", "data": 'value = "r"'},
            r'i\.csv: column "r": row 1 is "good", expected a number',
        ),
        (
            {"interactions": "user_id,item_id,t\na,1,2020-01-02\nb,2,soon\n", "data": 'time = "t"'},
            r'i\.csv: column "t": row 2 is "soon", expected a number, a date or an ISO time',
        ),
        (
            {"interactions": "user_id,item_id,n\na,1,1\nb,2,maybe\n", "data": 'negative = "n"'},
            r'i\.csv: column "n": row 2 is "maybe", expected true or false',
        ),
        (
            {"interactions": "user_id,item_id,n\na,1,1\nb,2,1\n", "data": 'negative = "n"'},
            r'i\.csv: column "n" is true in every row; nothing was chosen',
        ),
        ({"data": 'value = "rr"'}, r'no column "rr" \(data\.value\); did you mean "r"'),
        ({"data": 'time = "time"'}, r'no column "time" \(data\.time\)'),
        ({"split": "column"}, r'no column "split" \(split\.column\)'),
        ({"items": "item_id,x\n1,2\n1,3\n"}, r'items\.csv: item id "1" occurs more than once \(1 such ids\)'),
        ({"items": "item_id,x\n1,2\n1.0,3\n"}, r'items\.csv: item id "1" occurs more than once'),
        ({"items": "item_id,g\n2,x\0y\n1,z\n", "item": 'g = "category"'}, r'item feature "g": id .* contains a NUL'),
        ({"users": "user_id,x\na,2\na,3\n"}, r'users\.csv: user id "a" occurs more than once'),
        ({"items": "film,x\n1,2\n"}, r'items\.csv: no column "item_id" \(data\.item\)'),
        ({"items": "film,x\n1,2\n", "data": 'items_id = "flm"'}, r'"flm" \(data\.items_id\); did you mean "film"'),
        ({"item": 'year = "number"'}, r'item feature "year" needs a table of items; set data\.items'),
        ({"items": "item_id,years\n1,2\n", "item": 'year = "number"'}, r'"year" is not a column of .*mean "years"'),
        ({"items": "item_id,y\n1,old\n", "item": 'y = "number"'}, r'items\.csv: column "y": row 1 is "old"'),
        ({"items": "item_id,g\n1,a|b\n", "item": 'g = "categories"'}, r'column "g" holds String|say how to split'),
        ({"items": "item_id,v\n1,1 2 3\n", "item": 'v = { kind = "vector", size = 2 }'}, r"has 3 numbers, expected 2"),
        ({"items": "item_id,name\n1,x\n", "data": 'title = "title"'}, r'no column "title" \(data\.title\)'),
        ({"split": "time"}, r'the split "time" needs times'),
        (
            {"objective": "rating"},
            r'i\.csv: the objective "rating" fits the values of a column; name it by data\.value',
        ),
        (
            {"objective": "rating", "data": 'value = "r"', "interactions": "user_id,item_id,r\na,1,3\nb,2,3\n"},
            r'i\.csv: column "r" is 3 in every training row; the objective "rating" has nothing to fit',
        ),
        (
            {"objective": "rating", "data": 'value = "r"', "interactions": "user_id,item_id,r\na,1,\nb,2,\n"},
            r'i\.csv: column "r" has no value in the training rows',
        ),
        ({"split": "new-users", "interactions": "user_id,item_id\na,1\nb,2\n"}, r"only 0 have two interactions"),
    ],
)
def test_bad_tables_get_one_clear_line(tmp_path: Path, options: dict[str, Any], expected: str) -> None:
    with pytest.raises(DataError, match=expected) as caught:
        prepared(tmp_path, **{"interactions": SMALL, **options})
    assert "\n" not in str(caught.value)


def test_rows_without_an_id_in_a_float_column_are_left_out_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = prepared(tmp_path, "user_id,item_id\na,1.0\nb,\nb,2.0\n", items="item_id,x\n1.0,5\n,6\n2.0,7\n")
    assert dataset.interactions.height == 2
    assert dataset.items.get_column("item_id").to_list() == ["1", "2"]
    told = capsys.readouterr().err
    assert "1 rows have no user or no item" in told
    assert "1 rows have no item id" in told


def test_the_planted_data_and_real_data_prepare(planted: Path, movielens_small: Path, tmp_path: Path) -> None:
    dataset = prepare(load(planted))
    assert dataset.interactions.height == 60 * 12
    config = tmp_path / "twotower.toml"
    config.write_text(
        f'[data]\ninteractions = "{movielens_small}/ratings.csv"\nitems = "{movielens_small}/movies.csv"\n'
        'user = "userId"\nitem = "movieId"\nvalue = "rating"\ntime = "timestamp"\n'
    )
    dataset = prepare(load(config))
    assert (dataset.users.height, dataset.items.height, dataset.interactions.height) == (610, 9742, 100836)
    raw = pl.read_csv(movielens_small / "ratings.csv")
    last = raw.sort("timestamp", maintain_order=True).group_by("userId").last().sort("userId")
    ours = dataset.rows("test")
    assert ours.height == 610
    named = dataset.items.get_column("movieId").gather(ours.get_column("item")).cast(pl.Int64)
    owner = dataset.users.get_column("userId").gather(ours.get_column("user")).cast(pl.Int64)
    assert dict(zip(owner, named, strict=True)) == dict(zip(last["userId"], last["movieId"], strict=True))
