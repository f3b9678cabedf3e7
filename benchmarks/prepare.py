"""Prepare 10 million interactions: seconds and peak memory, from Parquet and from CSV.

    python benchmarks/prepare.py [--interactions 10000000] [--format parquet|csv]

The bar: under a minute and under 4 GB. Exits 1 above it.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

USERS: Final = 200_000
ITEMS: Final = 50_000
SECONDS_BAR: Final = 60.0
GB_BAR: Final = 4.0

CONFIG: Final = """
[data]
interactions = "interactions.{suffix}"
items = "items.parquet"
users = "users.parquet"
value = "rating"
time = "timestamp"
title = "title"

[user.features]
age = "number"
country = "category"
history = "history"

[item.features]
item_id = "category"
year = "number"
genres = {{ kind = "categories", separator = "|" }}
"""


def write(folder: Path, *, interactions: int, suffix: str) -> None:
    """A dataset folder of random interactions, popular items more often; 1% repeat a pair."""
    generator = np.random.default_rng(0)
    items = (generator.pareto(1.0, interactions) * 50).astype(np.int64) % ITEMS
    table = pl.DataFrame(
        {
            "user_id": generator.integers(0, USERS, interactions),
            "item_id": pl.Series(items),
            "rating": generator.integers(1, 11, interactions) / 2,
            "timestamp": generator.integers(1_500_000_000, 1_700_000_000, interactions),
        }
    )
    if suffix == "parquet":
        table.write_parquet(folder / "interactions.parquet")
    else:
        table.write_csv(folder / "interactions.csv")
    genres = np.array(["Action", "Comedy", "Drama", "Horror", "Romance", "War"])
    pl.DataFrame(
        {
            "item_id": np.arange(ITEMS),
            "title": [f"Title {row}" for row in range(ITEMS)],
            "year": generator.integers(1920, 2020, ITEMS),
            "genres": ["|".join(genres[generator.permutation(6)[:2]]) for _ in range(ITEMS)],
        }
    ).write_parquet(folder / "items.parquet")
    pl.DataFrame(
        {
            "user_id": np.arange(USERS),
            "age": generator.integers(10, 90, USERS),
            "country": [f"c{code}" for code in generator.integers(0, 100, USERS)],
        }
    ).write_parquet(folder / "users.parquet")
    (folder / "twotower.toml").write_text(CONFIG.format(suffix=suffix))


def measure(folder: Path) -> None:
    """In a process of its own, so that the peak is that of preparing alone."""
    from train.config.load import load
    from train.data.dataset import prepare

    started = time.perf_counter()
    dataset = prepare(load(folder))
    seconds = time.perf_counter() - started
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    print(f"{dataset.interactions.height:,} interactions kept of {dataset.interactions.height + dataset.duplicates:,}")
    print(f"{seconds:.1f} s, peak {peak_gb:.2f} GB")
    if seconds > SECONDS_BAR or peak_gb > GB_BAR:
        sys.exit(f"above the bar of {SECONDS_BAR:.0f} s and {GB_BAR:.0f} GB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--interactions", type=int, default=10_000_000)
    parser.add_argument("--format", choices=("parquet", "csv"), action="append")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure is not None:
        measure(args.measure)
        return
    for suffix in args.format or ("parquet", "csv"):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write(folder, interactions=args.interactions, suffix=suffix)
            print(f"{suffix}:", flush=True)
            subprocess.run([sys.executable, __file__, "--measure", str(folder)], check=True)


if __name__ == "__main__":
    main()
