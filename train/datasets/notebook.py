"""The notebook's data set, rebuilt from ml-latest-small, as a dataset folder with three configs.

The notebook's films are those from 2001 on with ten ratings or more whose genres are all among its fourteen, less ten.
Its features are averages of ratings. Here they come from the training rows of a split of the ratings; `as_notebook`
rebuilds the notebook's own: averages over all ratings, and a split of (rating, genre) rows, so that one rating of a
film of three genres falls on both sides. That leaks, and is there to show by how much.
"""

from typing import Any, Final

import numpy as np
import polars as pl

from retrieval.common.errors import DataError
from retrieval.features.schema import Feature, Side
from train.config.load import CONFIG_NAME
from train.config.render import render
from train.datasets import movielens
from train.datasets.archive import Source
from train.datasets.dataset_folder import COLUMNS, Folder

GENRES: Final = (
    "Action", "Adventure", "Animation", "Children", "Comedy", "Crime", "Documentary", "Drama", "Fantasy", "Horror",
    "Mystery", "Romance", "Sci-Fi", "Thriller",
)  # fmt: skip
FIRST_YEAR: Final = 2001
LEAST_RATINGS: Final = 10
LEFT_OUT: Final = (4255, 5151, 5225, 5617, 7318, 7346, 34338, 41571, 61250, 62434)  # films the notebook does not have

TEST_SHARE: Final = 0.2
VALID_SHARE: Final = 0.1
SEED: Final = 1  # of the split; the notebook's own random_state


def read(source: Source, *, as_notebook: bool = False) -> Folder:
    """The subset of ml-latest-small. Raises DataError if the source holds another release, of other counts."""
    whole = movielens.read_latest(source).tables
    ratings, films = select(whole["interactions"], whole["items"])
    if films.height != 694 or ratings.height != 20_202:
        raise DataError(
            f"{source.path}: gives {films.height} films and {ratings.height:,} ratings, expected 694 and 20,202; "
            "use the ml-latest-small of September 2018"
        )
    return leaking(ratings, films) if as_notebook else clean(ratings, films)


def select(ratings: pl.DataFrame, films: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The ratings and the films that the notebook has, in the order they came in."""
    counts = ratings.group_by("item_id").agg(pl.len().alias("ratings"))
    known = pl.col("genres").list.eval(pl.element().is_in(list(GENRES)).all()).list.first()
    chosen = films.join(counts, on="item_id", maintain_order="left").filter(
        (pl.col("year") >= FIRST_YEAR)
        & (pl.col("ratings") >= LEAST_RATINGS)
        & known
        & (pl.col("genres").list.len() > 0)
        & ~pl.col("item_id").is_in(list(LEFT_OUT))
    )
    return ratings.join(chosen.select("item_id"), on="item_id", how="semi", maintain_order="left"), chosen.drop(
        "ratings"
    )


def user_features(ratings: pl.DataFrame, films: pl.DataFrame) -> pl.DataFrame:
    """Per user: number of ratings, average, average per genre; null where there is no rating of a genre."""
    by_genre = ratings.join(films.select("item_id", "genres"), on="item_id").explode("genres")
    totals = ratings.group_by("user_id").agg(pl.len().alias("ratings"), pl.col("rating").mean().alias("average"))
    of_genre = by_genre.group_by("user_id").agg(
        pl.col("rating").filter(pl.col("genres") == genre).mean().alias(genre) for genre in GENRES
    )
    return totals.join(of_genre, on="user_id", how="left").sort("user_id")


def item_features(ratings: pl.DataFrame, films: pl.DataFrame) -> pl.DataFrame:
    """Per film: title, average rating (null without one), genres, year, a flag per genre."""
    averages = ratings.group_by("item_id").agg(pl.col("rating").mean().alias("average"))
    return films.join(averages, on="item_id", how="left", maintain_order="left").select(
        "item_id", "title", "average", "genres", "year", *_flags(pl.col("genres"))
    )


def _flags(genres: pl.Expr) -> list[pl.Expr]:
    return [genres.list.contains(genre).cast(pl.Int64).alias(genre) for genre in GENRES]


def clean(ratings: pl.DataFrame, films: pl.DataFrame) -> Folder:
    """A rating is on one side of the split, and every average is over training ratings only."""
    ratings = ratings.with_columns(split=_split(ratings.height, valid=VALID_SHARE))
    train = ratings.filter(pl.col("split") == "train")
    people = ratings.select("user_id").unique().sort("user_id")
    users = people.join(user_features(train, films), on="user_id", how="left", maintain_order="left")
    tables = {"interactions": ratings, "items": item_features(train, films), "users": users}
    heading = (
        "MovieLens, the notebook's subset: 694 films, 395 people, 20,202 ratings.\n"
        "Averages are features made from the training rows of the split; no rating is on two sides."
    )
    configs = {
        CONFIG_NAME: _default_config(heading),
        "notebook.toml": _notebook_config(heading, "notebook-attention"),
        "notebook-mlp.toml": _notebook_config(heading, "notebook-mlp"),
    }
    return Folder(tables=tables, configs=configs)


def leaking(ratings: pl.DataFrame, films: pl.DataFrame) -> Folder:
    """The notebook's rows: one per rating and genre, split at random, features averaged over all ratings.

    A film is an item per genre, as in the notebook's item vectors. A user without ratings of a genre has average 0.
    """
    split_up = films.explode("genres").with_columns(film=pl.col("item_id"), genre=pl.col("genres"))
    split_up = split_up.with_columns(item_id=pl.format("{}:{}", "film", "genre"), genres=pl.concat_list("genres"))
    averages = item_features(ratings, films).select(pl.col("item_id").alias("film"), "average")
    items = split_up.join(averages, on="film", maintain_order="left").select(
        "item_id", "title", "average", "genres", "year", "film", *_flags(pl.col("genres"))
    )
    rows = ratings.rename({"item_id": "film"}).join(items.select("film", "item_id"), on="film", maintain_order="left")
    rows = rows.select("user_id", "item_id", "rating", "timestamp")
    rows = rows.with_columns(split=_split(rows.height, valid=0.0))
    users = user_features(ratings, films).with_columns(pl.col(*GENRES).fill_null(0.0))
    heading = (
        "MovieLens, as the notebook has it: 58,187 rows of a rating and a genre, 1,883 item vectors.\n"
        "It leaks: rows of one rating are on both sides of the split, and averages are over test ratings too.\n"
        "It is here to be compared with, not to be used."
    )
    configs = {
        CONFIG_NAME: _default_config(heading),
        "notebook.toml": _notebook_config(heading, "notebook-attention"),
        "notebook-mlp.toml": _notebook_config(heading, "notebook-mlp"),
    }
    return Folder(tables={"interactions": rows, "items": items, "users": users}, configs=configs)


def _split(height: int, *, valid: float) -> pl.Series:
    """Rows dealt out at random, by a seed."""
    order = np.random.default_rng(SEED).permutation(height)
    tested, validated = round(TEST_SHARE * height), round(valid * height)
    words = np.full(height, "train", object)
    words[order[:tested]] = "test"
    words[order[tested : tested + validated]] = "valid"
    return pl.Series("split", words.tolist(), dtype=pl.String)


_DATA: Final = {name: value for name, value in COLUMNS.items() if name != "time"}
# Rows of a random split lie anywhere in time: a history is what is on the training side, without order.
_SPLIT: Final[dict[str, Any]] = {"kind": "column", "column": "split"}


def _default_config(heading: str) -> str:
    return render(
        heading=heading + "\nThe default recipe: towers that learn from who rated what, whatever the rating.",
        data=_DATA,
        features={
            "user": [Feature(name="history", kind="history")],
            "item": [
                Feature(name="item_id", kind="category"),
                Feature(name="year", kind="number"),
                Feature(name="genres", kind="categories"),
            ],
        },
        split=_SPLIT,
    )


def _notebook_config(heading: str, encoder: str) -> str:
    numbers = [Feature(name=name, kind="number") for name in GENRES]
    features: dict[Side, list[Feature]] = {
        "user": [Feature(name="ratings", kind="number"), Feature(name="average", kind="number"), *numbers],
        "item": [Feature(name="year", kind="number"), Feature(name="average", kind="number"), *numbers],
    }
    return render(
        heading=heading + "\nThe notebook's recipe: towers of content alone, the cosine fitted to the rating.",
        data=_DATA,
        features=features,
        split=_SPLIT,
        model={"dim": 64, "user": {"encoder": encoder}, "item": {"encoder": encoder}},
        train={"objective": "rating", "epochs": 5, "batch_size": 32, "lr": 0.001, "weight_decay": 0.0},
    )
