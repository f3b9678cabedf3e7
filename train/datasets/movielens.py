"""MovieLens, in each form it is published in -> a dataset folder: interactions, items with titles, years and genres."""

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import polars as pl

from retrieval.features.schema import Feature
from train.config.load import CONFIG_NAME
from train.config.render import render
from train.datasets.archive import Source
from train.datasets.dataset_folder import COLUMNS, Folder

_TITLE_YEAR: Final = r"\((\d{4})(?:[-–]\d{0,4})?\)\s*(?:\(V\)\s*)?$"  # (V): made for video
_NO_GENRE: Final = ("(no genres listed)", "unknown")

# u.genre of ml-100k, in the order of the flags of u.item.
GENRES_100K: Final = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip

# README of ml-1m: what its codes mean.
OCCUPATIONS_1M: Final = (
    "other", "academic/educator", "artist", "clerical/admin", "college/grad student", "customer service",
    "doctor/health care", "executive/managerial", "farmer", "homemaker", "K-12 student", "lawyer", "programmer",
    "retired", "sales/marketing", "scientist", "self-employed", "technician/engineer", "tradesman/craftsman",
    "unemployed", "writer",
)  # fmt: skip


def read_100k(source: Source) -> Folder:
    """ml-100k as GroupLens packs it (u.data, u.item, u.user), or as RecBole does (.inter, .item, .user)."""
    tables = _recbole_100k(source) if source.has("ml-100k.inter") else _grouplens_100k(source)
    people = [
        Feature(name="age", kind="number"),
        Feature(name="gender", kind="category"),
        Feature(name="occupation", kind="category"),
    ]
    return _folder(*tables, people=people, heading="MovieLens-100K: 943 people, 1,682 films, 100,000 ratings, 1997-98.")


def _grouplens_100k(source: Source) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    interactions = _table(source.read("u.data"), "\t", ["user_id", "item_id", "rating", "timestamp"])
    flags = [f"genre {number}" for number in range(len(GENRES_100K))]
    raw = _table(source.read("u.item"), "|", ["item_id", "title", "released", "video", "url", *flags])
    chosen = [pl.when(pl.col(flag) == "1").then(pl.lit(genre)) for flag, genre in zip(flags, GENRES_100K, strict=True)]
    items = raw.select("item_id", "title", pl.concat_list(chosen).list.drop_nulls().alias("genres"))
    users = _table(source.read("u.user"), "|", ["user_id", "age", "gender", "occupation", "zip_code"])
    return interactions, _titles(items), users


def _recbole_100k(source: Source) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    interactions = _table(source.read("ml-100k.inter"), "\t", ["user_id", "item_id", "rating", "timestamp"], skip=1)
    raw = _table(source.read("ml-100k.item"), "\t", ["item_id", "title", "year", "genres"], skip=1)
    # As it is there: "unkonwn", and where "(1995) (V)" stood the year in the title and V in its place.
    year = pl.col("year").cast(pl.Int64, strict=False)
    items = raw.select(
        "item_id",
        pl.col("title").replace("unkonwn", "unknown").str.replace(_TITLE_YEAR, "").str.strip_chars(),
        pl.coalesce(year, pl.col("title").str.extract(_TITLE_YEAR, 1).cast(pl.Int64)).alias("year"),
        pl.col("genres").str.split(" "),
    )
    users = _table(source.read("ml-100k.user"), "\t", ["user_id", "age", "gender", "occupation", "zip_code"], skip=1)
    return interactions, items, users


def read_1m(source: Source) -> Folder:
    """ml-1m: files with "::" between the fields; ages and occupations as codes."""
    interactions = _table(_single(source.read("ratings.dat")), "\t", ["user_id", "item_id", "rating", "timestamp"])
    items = _table(_single(source.read("movies.dat")), "\t", ["item_id", "title", "genres"])
    items = _titles(items.with_columns(pl.col("genres").str.split("|")))
    users = _table(_single(source.read("users.dat")), "\t", ["user_id", "gender", "age", "occupation", "zip_code"])
    names = list(OCCUPATIONS_1M)
    users = users.with_columns(
        pl.col("occupation").replace_strict([str(code) for code in range(len(names))], names, default=None)
    ).select("user_id", "age", "gender", "occupation", "zip_code")
    people = [
        Feature(name="age", kind="number"),
        Feature(name="gender", kind="category"),
        Feature(name="occupation", kind="category"),
    ]
    return _folder(interactions, items, users, people=people, heading="MovieLens-1M: a million ratings, 2000-03.")


def read_latest(source: Source) -> Folder:
    """ml-latest-small, ml-20m, ml-25m: ratings.csv and movies.csv. Nothing is known of the people."""
    interactions = pl.read_csv(
        io.BytesIO(source.read("ratings.csv")),
        new_columns=["user_id", "item_id", "rating", "timestamp"],
        schema_overrides=[pl.Int64, pl.Int64, pl.Float64, pl.Int64],
    )
    raw = pl.read_csv(io.BytesIO(source.read("movies.csv")), infer_schema=False)
    items = raw.select(pl.col("movieId").alias("item_id"), "title", pl.col("genres").str.split("|"))
    users = interactions.select("user_id").unique().sort("user_id")
    return _folder(interactions, _titles(items), users, people=[], heading="MovieLens: ratings of films by people.")


READERS: Final[Mapping[str, Callable[[Source], Folder]]] = {
    "ml-100k": read_100k,
    "ml-latest-small": read_latest,
    "ml-1m": read_1m,
    "ml-20m": read_latest,
    "ml-25m": read_latest,
}


def _folder(
    interactions: pl.DataFrame, items: pl.DataFrame, users: pl.DataFrame, *, people: Sequence[Feature], heading: str
) -> Folder:
    """Typed, in order of time (the file's order where times are equal), with a config."""
    interactions = interactions.select(
        pl.col("user_id").cast(pl.Int64),
        pl.col("item_id").cast(pl.Int64),
        pl.col("rating").cast(pl.Float64),
        pl.col("timestamp").cast(pl.Int64),
    ).sort("timestamp", maintain_order=True)
    kept = pl.element().filter(~pl.element().is_in(list(_NO_GENRE)))
    items = items.select(
        pl.col("item_id").cast(pl.Int64),
        "title",
        pl.col("year").cast(pl.Int64),
        pl.col("genres").list.eval(kept),
    )
    users = users.with_columns(pl.col("user_id").cast(pl.Int64))
    if "age" in users.columns:
        users = users.with_columns(pl.col("age").cast(pl.Int64))
    config = render(
        heading=heading,
        data=COLUMNS,
        features={
            "user": [*people, Feature(name="history", kind="history")],
            "item": [
                Feature(name="item_id", kind="category"),
                Feature(name="year", kind="number"),
                Feature(name="genres", kind="categories"),
            ],
        },
    )
    tables = {"interactions": interactions, "items": items, "users": users}
    return Folder(tables=tables, configs={CONFIG_NAME: config})


def _titles(items: pl.DataFrame) -> pl.DataFrame:
    """Part "Toy Story (1995)" into "Toy Story" and 1995; a title without a year keeps its text."""
    title = pl.col("title").str.strip_chars()
    return items.with_columns(
        title.str.extract(_TITLE_YEAR, 1).cast(pl.Int64).alias("year"),
        title.str.replace(_TITLE_YEAR, "").str.strip_chars().alias("title"),
    )


def _table(data: bytes, separator: str, names: Sequence[str], *, skip: int = 0) -> pl.DataFrame:
    """A file without a header (or with one to skip) as text columns; UTF-8, or else Latin-1 as GroupLens wrote then."""
    try:
        data.decode()
    except UnicodeDecodeError:
        data = data.decode("latin-1").encode()
    return pl.read_csv(
        io.BytesIO(data),
        separator=separator,
        has_header=False,
        skip_rows=skip,
        new_columns=list(names),
        infer_schema=False,
        quote_char=None,
    )


def _single(data: bytes) -> bytes:
    """Fields parted by "::" as fields parted by a tab."""
    return data.replace(b"::", b"\t")
