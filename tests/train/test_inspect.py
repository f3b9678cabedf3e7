"""Inspect: the numbers of a small dataset by hand, and tables that line up."""

from pathlib import Path

from click.testing import CliRunner

from retrieval.common.text_table import clipped, display_width, text_table
from train.cli.data import inspect

CONFIG = """
[data]
interactions = "i.csv"
items = "items.csv"
users = "users.csv"
value = "rating"
time = "time"
title = "title"
[user.features]
age = "number"
history = "history"
[item.features]
item_id = "category"
genres = { kind = "categories", separator = "|" }
"""


def test_the_numbers_of_a_small_dataset(tmp_path: Path) -> None:
    (tmp_path / "i.csv").write_text(
        "user_id,item_id,rating,time\na,1,3,2020-01-01\na,2,4,2020-01-02\na,3,5,2020-01-03\nb,1,,2021-05-06\na,1,2,\n"
    )
    (tmp_path / "items.csv").write_text("item_id,title,genres\n1,東京,x|y\n2,Heat,x\n3,Up,\n4,Cold,z\n")
    (tmp_path / "users.csv").write_text("user_id,age\na,20\nb,\n")
    (tmp_path / "twotower.toml").write_text(CONFIG)
    result = CliRunner().invoke(inspect, [str(tmp_path / "twotower.toml"), "--rows", "3"], catch_exceptions=False)
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["users", "2", "2", "with", "interactions;", "2.0", "each,", "median", "2,", "1", "to", "3"] in lines
    assert ["items", "4", "3", "with", "interactions;", "1.3", "each,", "median", "1,", "1", "to", "2"] in lines
    assert ["interactions", "4", "50.00%", "of", "all", "pairs", "are", "empty"] in lines
    assert ["value", "rating", "3", "to", "5,", "mean", "4,", "25.0%", "missing"] in lines
    assert ["time", "time", "2020-01-01", "to", "2021-05-06"] in lines
    assert ["split", "leave-one-out", "2", "train,", "1", "valid,", "1", "test"] in lines
    assert ["user", "age", "number", "50.0%", "20", "to", "20"] in lines
    assert ["user", "history", "history", "0.0%", "4", "the", "newest", "50"] in lines
    assert ["item", "genres", "categories", "25.0%", "2", "x,", "y"] in lines
    assert "items, the first 3 of 4" in result.stdout
    assert ["1", "東京", "x|y"] in lines
    assert ["b", "-"] in lines


def test_tables_line_up_with_wide_and_combining_characters() -> None:
    text = text_table(["name", "n"], [["東京", "1"], ["é" + "e\u0301", "20"], ["x" * 50, "3"]], right=[False, True])
    assert len({display_width(line) for line in text.splitlines()}) == 1
    assert clipped("東" * 30, 9) == "東東東東…"
    assert clipped("a\n b", 9) == "a· b"
