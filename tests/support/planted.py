"""A small dataset whose right answers are known: even users like even items, odd users like odd ones.

Its histories have times and, in truth, no order; the config asks for the encoder of those that have one, or for none.
"""

from pathlib import Path

import numpy as np
import polars as pl

CONFIG = """\
[data]
interactions = "interactions.parquet"
items = "items.parquet"
users = "users.parquet"
user = "user_id"
item = "item_id"
value = "rating"
time = "timestamp"
title = "title"

[user.features]
age = "number"
camp = "category"
history = { kind = "history", max_length = 20 }

[item.features]
item_id = "category"
year = "number"
tags = { kind = "categories", separator = "|" }

[split]
kind = "leave-one-out"

[train]
epochs = 3
seed = 0
"""


def write_planted(
    folder: Path, *, users: int = 60, items: int = 40, each: int = 12, seed: int = 0, encoder: str | None = "attention"
) -> Path:
    """Write the tables and their config. Returns the path of the config."""
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        (f"u{user}", f"i{item}", float(random.integers(3, 6)), 1_000_000 + 1000 * user + step)
        for user in range(users)
        for step, item in enumerate(random.permutation(np.arange(user % 2, items, 2))[:each])
    ]
    pl.DataFrame(rows, schema=["user_id", "item_id", "rating", "timestamp"], orient="row").write_parquet(
        folder / "interactions.parquet"
    )
    pl.DataFrame(
        {
            "item_id": [f"i{item}" for item in range(items)],
            "title": [f"Film {item} – é" for item in range(items)],
            "year": [1980.0 + item if item % 7 else None for item in range(items)],
            "tags": [
                ("even" if item % 2 == 0 else "odd") + ("|third" if item % 3 == 0 else "") for item in range(items)
            ],
        }
    ).write_parquet(folder / "items.parquet")
    pl.DataFrame(
        {
            "user_id": [f"u{user}" for user in range(users)],
            "age": [20.0 + user if user % 5 else None for user in range(users)],
            "camp": ["even" if user % 2 == 0 else "odd" for user in range(users)],
        }
    ).write_parquet(folder / "users.parquet")
    config = folder / "twotower.toml"
    config.write_text(CONFIG + (f'\n[model]\nencoder = "{encoder}"\n' if encoder else ""))
    return config
