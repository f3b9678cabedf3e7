"""The notebook's data set, to the digit, and the split that does not leak."""

import re
from pathlib import Path

import polars as pl
import pytest

from retrieval.common.errors import DataError
from train.config.load import load
from train.data.dataset import prepare
from train.datasets import notebook
from train.datasets.archive import Source
from train.datasets.dataset_folder import Folder, publish


def read(path: Path, *, as_notebook: bool = False) -> Folder:
    with Source.open(path) as source:
        return notebook.read(source, as_notebook=as_notebook)


def test_the_notebooks_counts(movielens_small: Path) -> None:
    tables = read(movielens_small).tables
    ratings, films, users = tables["interactions"], tables["items"], tables["users"]
    assert (films.height, users.height, ratings.height) == (694, 395, 20_202)
    assert films["year"].min() == 2001
    assert {*films["genres"].explode()} == {*notebook.GENRES}
    assert len(notebook.GENRES) == 14
    assert films["genres"].list.len().sum() == 1_883
    leaking = read(movielens_small, as_notebook=True).tables
    assert leaking["interactions"].height == 58_187
    assert leaking["items"].height == 1_883


def test_the_notebooks_averages_to_the_digit(movielens_small: Path) -> None:
    """As its tables print them: user 2 with 16 of these ratings, and Kill Bill: Vol. 1."""
    tables = read(movielens_small, as_notebook=True).tables
    user = tables["users"].filter(pl.col("user_id") == 2).row(0, named=True)
    assert user["ratings"] == 16
    assert user["average"] == 4.0625
    expected = {
        "Action": 3.9, "Adventure": 5.0, "Animation": 0.0, "Children": 0.0, "Comedy": 4.0, "Crime": 4.2,
        "Documentary": 4.0, "Drama": 4.0, "Fantasy": 0.0, "Horror": 3.0, "Mystery": 4.0, "Romance": 0.0,
        "Sci-Fi": 4.25, "Thriller": 3.88,
    }  # fmt: skip
    assert {genre: round(user[genre], 2) for genre in notebook.GENRES} == expected
    film = tables["items"].filter(pl.col("film") == 6874)
    assert film["item_id"].to_list() == ["6874:Action", "6874:Crime", "6874:Thriller"]
    assert [round(average, 8) for average in film["average"]] == [3.96183206] * 3
    flags = film.select(notebook.GENRES)
    assert flags.sum_horizontal().to_list() == [1, 1, 1]


def test_the_notebooks_split_leaks_and_ours_does_not(movielens_small: Path) -> None:
    leaking = read(movielens_small, as_notebook=True).tables["interactions"]
    sides = leaking.with_columns(film=pl.col("item_id").str.split(":").list.first())
    both = sides.group_by("user_id", "film").agg(pl.col("split").n_unique()).get_column("split")
    assert (both > 1).mean() > 0.3  # type: ignore[operator]
    clean = read(movielens_small).tables["interactions"]
    assert clean.select("user_id", "item_id").is_duplicated().sum() == 0
    counts = dict(clean["split"].value_counts().iter_rows())
    assert counts == {"train": 14_142, "valid": 2_020, "test": 4_040}


def test_averages_are_over_training_ratings_only(movielens_small: Path) -> None:
    """Computed anew from the files, and unmoved when every held-out rating is another."""
    whole = pl.read_csv(movielens_small / "ratings.csv").rename({"userId": "user_id", "movieId": "item_id"})
    tables = read(movielens_small).tables
    ratings, films = tables["interactions"], tables["items"]
    train = ratings.filter(pl.col("split") == "train").join(whole, on=["user_id", "item_id"])
    for side, table in (("item_id", films), ("user_id", tables["users"])):
        expected = dict(train.group_by(side).agg(pl.col("rating").mean()).iter_rows())
        for key, average in table.select(side, "average").iter_rows():
            assert (average is None) == (key not in expected)
            assert average is None or average == pytest.approx(expected[key], abs=1e-12)
    plain = films.select("item_id", "title", "year", "genres")
    held = pl.col("split") != "train"
    changed = ratings.with_columns(pl.when(held).then(0.5).otherwise("rating").alias("rating"))
    again = notebook.clean(changed.drop("split"), plain)
    assert again.tables["users"].equals(tables["users"])
    assert again.tables["items"].equals(films)


def test_missing_averages_are_missing_not_zero(movielens_small: Path) -> None:
    users = read(movielens_small).tables["users"]
    assert users["Documentary"].null_count() > 100
    assert (users["Documentary"].drop_nulls() >= 0.5).all()


@pytest.mark.parametrize("as_notebook", [False, True])
def test_three_configs_stand_ready(movielens_small: Path, tmp_path: Path, as_notebook: bool) -> None:
    folder = tmp_path / "n"
    publish(read(movielens_small, as_notebook=as_notebook), folder)
    names = ("twotower.toml", "notebook.toml", "notebook-mlp.toml")
    configs = {name: load(folder / name) for name in names}
    for name, config in configs.items():
        dataset = prepare(config)
        assert dataset.rows("test").height > 4_000, name
        assert dataset.duplicates == 0
    recipe = configs["notebook.toml"]
    assert [feature.name for feature in recipe.user_features] == ["ratings", "average", *notebook.GENRES]
    assert [feature.name for feature in recipe.item_features] == ["year", "average", *notebook.GENRES]
    train = recipe.train
    assert (train.objective, train.epochs, train.batch_size, train.lr) == ("rating", 5, 32, 0.001)
    assert recipe.model.user is not None
    assert recipe.model.user.encoder == "notebook-attention"
    assert configs["notebook-mlp.toml"].model.item is not None
    assert configs["notebook-mlp.toml"].model.item.encoder == "notebook-mlp"
    assert configs["twotower.toml"].train.objective is None


def test_another_release_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,1,4.0,5\n")
    (tmp_path / "movies.csv").write_text("movieId,title,genres\n1,Up (2009),Comedy\n")
    with pytest.raises(DataError, match=re.escape("gives 0 films and 0 ratings, expected 694 and 20,202")):
        read(tmp_path)
