"""Init: two CSV files made by hand go through without an edit, and what a column is gets guessed as a person would."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from click.testing import CliRunner

from retrieval.common.errors import ConfigError, DataError
from retrieval.features.schema import Feature
from retrieval.features.tables import Table, read_table
from train.cli.data import init
from train.config.load import load
from train.data.dataset import prepare
from train.setup.infer import by_name, feature_of, tokens
from train.setup.init import write_config

TITLES = ["Amélie", "東京物語", "Die Hard", "Naïve, a film", "“Quotes”", "Ы 2", "8½", "Wall·E", "Heat", "Alien"]


def write_own(folder: Path) -> tuple[Path, Path]:
    """Spaces in names, unicode titles, repeats, missing values, a column of whole ids and one of float ids."""
    random = np.random.default_rng(0)
    films = folder / "my films.csv"
    lines = ["Film Id,Film Title,Release Year,Genre List,Notes"]
    for row, title in enumerate(TITLES):
        genres = "" if row == 7 else ["Drama", "Comedy|Drama", "Action|Comedy"][row % 3]
        lines.append(f'{row + 1},"{title}",{"" if row == 3 else 1950 + row * 3},{genres},"a note of {row}, long"')
    films.write_text("\n".join(lines) + "\n", encoding="utf-8")
    watched = folder / "what we watched.csv"
    lines = ["Viewer Number,Film Id,Star Rating,Watched On"]
    for user in range(1001, 1021):
        for item in random.permutation(10)[: random.integers(3, 9)]:
            rating = "" if random.random() < 0.1 else str(random.integers(1, 6))
            lines.append(f"{user},{item + 1}.0,{rating},2024-0{random.integers(1, 10)}-1{random.integers(0, 10)}")
    lines += [*lines[1:6], "1001,,4,"]
    watched.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return watched, films


def test_two_files_made_by_hand_need_no_edit(tmp_path: Path) -> None:
    watched, films = write_own(tmp_path)
    out = tmp_path / "sub" / "twotower.toml"
    result = CliRunner().invoke(init, [str(watched), "--items", str(films), "-o", str(out)], catch_exceptions=False)
    assert result.exit_code == 0
    assert str(out) in result.output
    config = load(out)
    assert (config.data.user, config.data.item, config.data.items_id) == ("Viewer Number", "Film Id", None)
    assert (config.data.value, config.data.time, config.data.title) == ("Star Rating", "Watched On", "Film Title")
    assert config.user_features == (Feature(name="history", kind="history"),)
    assert config.item_features == (
        Feature(name="Film Id", kind="category"),
        Feature(name="Release Year", kind="number"),
        Feature(name="Genre List", kind="categories", separator="|"),
    )
    assert "# 1950 to 1977, 10% missing" in out.read_text(encoding="utf-8")
    assert "Notes: free text" in out.read_text(encoding="utf-8")
    dataset = prepare(config)
    assert dataset.items.get_column("Film Title").to_list() == TITLES
    assert dataset.items.get_column("Film Id").to_list() == [str(row + 1) for row in range(10)]
    assert dataset.users.get_column("Viewer Number").to_list()[0] == "1001"
    assert dataset.duplicates >= 5


def test_ids_may_have_other_names_in_their_tables(tmp_path: Path) -> None:
    (tmp_path / "i.csv").write_text("customer,sku,qty,when\na,x,1,3\nb,x,2,4\na,y,1,5\nb,z,1,6\nb,y,2,7\n")
    (tmp_path / "items.csv").write_text("code,name,price\nx,Shoe,3\ny,Sock,4\nz,Hat,5.5\nw,Cap,6\n")
    (tmp_path / "users.csv").write_text("no,age,city,history\n1,20,Rome,x\n2,30,Rome,y\n3,40,Oslo,z\n4,30,Oslo,x\n")
    (tmp_path / "people.csv").write_text("key,age,city,history\na,20,Rome,x\nb,30,Rome,y\nc,40,Oslo,x\nd,4,Oslo,x\n")
    out = tmp_path / "a.toml"
    written = write_config(tmp_path / "i.csv", items=tmp_path / "items.csv", users=tmp_path / "people.csv", out=out)
    data = load(out).data
    assert (data.user, data.users_id, data.item, data.items_id) == ("customer", "key", "sku", "code")
    assert (data.value, data.time, data.title) == ("qty", "when", "name")
    assert [feature.name for feature in load(out).user_features] == ["age", "city", "history", "past_items"]
    assert written.dataset.users.get_column("customer").to_list() == ["a", "b", "c", "d"]
    with pytest.raises(DataError, match=r'users\.csv: no column has the values of "customer"'):
        write_config(tmp_path / "i.csv", users=tmp_path / "users.csv", out=tmp_path / "b.toml")
    assert not (tmp_path / "b.toml").exists()


def test_names_without_meaning_are_settled_by_the_values(tmp_path: Path) -> None:
    rows = [(f"p{n % 5}", f"q{n % 7}") for n in range(35)]
    pl.DataFrame(rows, schema=["a", "b"], orient="row").write_parquet(tmp_path / "i.parquet")
    pl.DataFrame({"k": [f"q{n}" for n in range(7)], "v": list(range(7))}).write_parquet(tmp_path / "items.parquet")
    write_config(tmp_path / "i.parquet", items=tmp_path / "items.parquet", out=tmp_path / "t.toml")
    data = load(tmp_path / "t.toml").data
    assert (data.user, data.item, data.items_id, data.time) == ("a", "b", "k", None)


def test_unused_interaction_columns_and_the_next_command_are_shown(tmp_path: Path) -> None:
    rows = [f"{user},{item},{item},{item % 2 == 0},web" for user in range(20) for item in range(6)]
    (tmp_path / "shown.csv").write_text("user,item,t,passed_over,source\n" + "\n".join(rows))
    out = tmp_path / "twotower.toml"
    result = CliRunner().invoke(init, [str(tmp_path / "shown.csv"), "-o", str(out)], catch_exceptions=False)
    assert load(out).data.time == "t"
    assert "Unused interaction columns: passed_over, source." in result.output
    assert f"Next: twotower inspect {out}, then twotower run {out}" in result.output
    assert "Columns of the interactions that are not used: passed_over, source" in out.read_text(encoding="utf-8")


def test_a_column_that_says_the_split_decides(tmp_path: Path) -> None:
    (tmp_path / "i.csv").write_text("user,item,part\na,1,train\nb,2,train\nb,1,test\n")
    write_config(tmp_path / "i.csv", out=tmp_path / "t.toml")
    split = load(tmp_path / "t.toml").split
    assert (split.kind, split.column) == ("column", "part")
    (tmp_path / "i.csv").write_text("user,item\n" + "".join(f"u{n},{n % 3}\nu{n},{(n + 1) % 3}\n" for n in range(9)))
    write_config(tmp_path / "i.csv", out=tmp_path / "u.toml")
    assert load(tmp_path / "u.toml").split.kind == "random"  # nobody has three


def test_real_data(movielens_small: Path, tmp_path: Path) -> None:
    out = tmp_path / "t.toml"
    write_config(movielens_small / "ratings.csv", items=movielens_small / "movies.csv", out=out)
    config = load(out)
    data = config.data
    assert (data.user, data.item, data.value, data.time, data.title) == (
        "userId", "movieId", "rating", "timestamp", "title",
    )  # fmt: skip
    assert config.item_features[1:] == (Feature(name="genres", kind="categories", separator="|"),)


def test_beauty(beauty: Path, tmp_path: Path) -> None:
    write_config(beauty / "interactions.csv.gz", items=beauty / "items.csv.gz", out=tmp_path / "t.toml")
    config = load(tmp_path / "t.toml")
    assert (config.data.user, config.data.item, config.data.time) == ("user_id", "item_id", "position")
    assert config.item_features[1:] == (Feature(name="attributes", kind="categories", separator="|"),)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["1", "2", "3.5", ""], "number"),
        (["red", "blue", "red", "blue"], "category"),
        (["true", "false", "true", "true"], "category"),
        (["a;b", "b;c", "a", "c;a"], "categories"),
        (["pop, rock", "rock", "pop", "pop, rock"], "categories"),
        (["1,25", "2,5", "1,25", "3"], None),
        (["1.000,25", "2,5", "1.000,25", "2,5"], None),
        (["1,2,3", "2,3", "1,2", "1,2,3"], "categories"),
        (["[0.1, 0.2]", "[1, -2e-3]", "[3, 4]", ""], "vector"),
        (["2020-01-02", "2020-01-03", "", "2021-01-01"], None),
        (["a tale, of two", "one more, longer", "a third, one", "x, y"], None),
        (["same", "same", "same", ""], None),
        (["5", "5", "5", "5"], None),
        (["", "", "", ""], None),
    ],
)
def test_columns_are_what_they_look_like(tmp_path: Path, values: list[str], kind: str | None) -> None:
    path = tmp_path / "a.csv"
    path.write_text(
        "row,column\n" + "".join(f'{row},"{value}"\n' if value else f"{row},\n" for row, value in enumerate(values))
    )
    found = feature_of(read_table(path), "column").feature
    assert (found.kind if found is not None else None) == kind


def test_typed_columns_are_what_they_are() -> None:
    table = Table(
        pa.table(
            {
                "tags": [["a"], ["b", "a"]],
                "poster": [[0.1, 0.2], [0.3, 0.4]],
                "ragged": [[0.1], [0.3, 0.4]],
                "zip": [12345, 67890],
                "on": [True, False],
                "meta": [{"x": 1}, {"x": 2}],
            }
        ),
        Path("a.parquet"),
        False,
    )
    kinds = {name: feature_of(table, name).feature for name in table.columns}
    assert {name: feature.kind if feature else None for name, feature in kinds.items()} == {
        "tags": "categories", "poster": "vector", "ragged": None, "zip": "category", "on": "category", "meta": None,
    }  # fmt: skip


def test_names_are_read_as_words() -> None:
    assert tokens("userId") == tokens("User Id") == tokens("user_id") == tokens("USER-ID") == ["user", "id"]
    assert by_name(["movie", "movie_id"], ["item", "movie"], prefer=("id",)) == "movie_id"
    assert by_name(["x"], ["item"]) is None


def test_a_config_that_is_there_is_kept(tmp_path: Path) -> None:
    (tmp_path / "i.csv").write_text("user,item\na,1\nb,2\nb,1\n")
    out = tmp_path / "t.toml"
    out.write_text("# mine\n")
    with pytest.raises(ConfigError, match="already there; --force replaces it"):
        write_config(tmp_path / "i.csv", out=out)
    assert out.read_text() == "# mine\n"
    write_config(tmp_path / "i.csv", out=out, force=True)
    assert "[data]" in out.read_text()


def test_tables_without_users_are_named(tmp_path: Path) -> None:
    (tmp_path / "i.csv").write_text("x\n1.5\n2.5\n")
    with pytest.raises(DataError, match=r'i\.csv: no column looks like the id of a user among "x"'):
        write_config(tmp_path / "i.csv", out=tmp_path / "t.toml")
    (tmp_path / "i.csv").write_text("user_id,item_id\na,1\n,2\n")
    with pytest.raises(DataError, match=r'i\.csv: column "user_id": row 2 has no id'):
        write_config(tmp_path / "i.csv", out=tmp_path / "t.toml")
    (tmp_path / "i.csv").write_text("user_id,item_id\na,1.5\nb,2\n")
    with pytest.raises(DataError, match=r'column "item_id" has fractions'):
        write_config(tmp_path / "i.csv", out=tmp_path / "t.toml")
    assert [path.name for path in tmp_path.iterdir()] == ["i.csv"]


def test_an_item_that_is_there_twice_is_named(tmp_path: Path) -> None:
    (tmp_path / "i.csv").write_text("user,item\na,x\nb,y\nb,x\n")
    (tmp_path / "items.csv").write_text("item,price\nx,1\ny,2\nx,3\n")
    with pytest.raises(DataError, match=r'items\.csv: item id "x" of column "item" occurs more than once'):
        write_config(tmp_path / "i.csv", items=tmp_path / "items.csv", out=tmp_path / "t.toml")


def test_json_lines_and_lists(tmp_path: Path) -> None:
    rows = [{"user": n % 4, "item": n % 5, "ts": n} for n in range(20)]
    items = [{"item": n, "tags": ["a", "b"][: n % 3], "embedding": [0.1 * n, 0.2]} for n in range(5)]
    (tmp_path / "i.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in items))
    write_config(tmp_path / "i.jsonl", items=tmp_path / "items.jsonl", out=tmp_path / "t.toml")
    config = load(tmp_path / "t.toml")
    assert config.item_features == (
        Feature(name="item", kind="category"),
        Feature(name="tags", kind="categories"),
        Feature(name="embedding", kind="vector", size=2),
    )
    assert config.data.time == "ts"


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "i.csv").write_text("user,item\na,1\nb,2\nb,1\n")
    with pytest.raises(ConfigError, match=r"t\.toml: cannot be written: (Not a directory|File exists)"):
        write_config(tmp_path / "i.csv", out=tmp_path / "i.csv" / "t.toml")
