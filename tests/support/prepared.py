"""A prepared training folder by hand, for the tiny bundle: even users have even items, odd users odd ones."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.support.tiny import items_of, write_tiny

Row = tuple[str, str, str, int | None]

CONFIG: dict[str, Any] = {
    "source": "twotower.toml",
    "data": {"title": "title", "time": "timestamp"},
    "user": {"features": [{"name": "history", "kind": "history", "max_length": 20}, {"name": "age", "kind": "number"}]},
    "item": {"features": [{"name": "item_id", "kind": "category"}, {"name": "year", "kind": "number"}]},
    "split": {"kind": "leave-one-out"},
    "model": {"dim": 8, "user": {"encoder": "mean"}, "item": {"encoder": "mean"}},
    "train": {"objective": "softmax", "epochs": 2, "seed": 0},
}


def write_training(
    folder: Path,
    rows: Sequence[Row],
    *,
    items: int = 40,
    users: int,
    values: list[float] | None = None,
    config: dict[str, Any] | None = None,
) -> Path:
    """Write a prepared folder. rows: (user, item, split, time), in order of user and time. Returns the folder."""
    folder.mkdir(parents=True)
    user, item, split, time = (list(column) for column in zip(*rows, strict=True))
    texts = {
        name: pa.array(column, pa.string()).dictionary_encode()
        for name, column in (("user", user), ("item", item), ("split", split))
    }
    pq.write_table(
        pa.table(
            {
                "user": texts["user"],
                "item": texts["item"],
                "value": pa.array([None] * len(rows) if values is None else values, pa.float32()),
                "time": pa.array(time, pa.int64()),
                "split": texts["split"],
            }
        ),
        folder / "interactions.parquet",
    )
    pq.write_table(items_of([f"i{number}" for number in range(items)]), folder / "items.parquet")
    ids = [f"u{number}" for number in range(users)]
    ages = pa.array([20.0 + number for number in range(users)], pa.float64())
    pq.write_table(pa.table({"user_id": ids, "age": ages}), folder / "users.parquet")
    (folder / "config.json").write_text(json.dumps(CONFIG if config is None else config), encoding="utf-8")
    epochs = [{"epoch": 1, "train_loss": 3.0, "ndcg@10": 0.1}, {"epoch": 2, "train_loss": 2.0, "ndcg@10": 0.2}]
    (folder / "history.jsonl").write_text("".join(json.dumps(epoch) + "\n" for epoch in epochs), encoding="utf-8")
    summary = {"best": epochs[-1], "epochs": 2, "seconds": 1.5, "parameters": 1234, "fingerprint": "00ff"}
    (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    return folder


def camp_rows(users: int, items: int = 40, each: int = 8, seed: int = 0) -> list[Row]:
    """Leave-one-out over users who each have `each` items of their camp, at rising times."""
    random = np.random.default_rng(seed)
    rows: list[Row] = []
    for user in range(users):
        chosen = random.permutation(np.arange(user % 2, items, 2))[:each].tolist()
        splits = ["train"] * (each - 2) + ["valid", "test"]
        rows += [
            (f"u{user}", f"i{item}", split, 1_000_000 + user * 100 + place)
            for place, (item, split) in enumerate(zip(chosen, splits, strict=True))
        ]
    return rows


def write_judged(folder: Path, *, users: int = 30) -> Path:
    """A tiny bundle with the training folder of its even and odd camps. Returns its folder."""
    write_tiny(folder)
    write_training(folder / "training", camp_rows(users), users=users)
    return folder
