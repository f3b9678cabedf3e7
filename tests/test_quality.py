"""The quality benchmark's own parts: what it hides, and the page it makes."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl
import pytest


@pytest.fixture(scope="module")
def quality() -> ModuleType:
    path = Path(__file__).parents[1] / "benchmarks" / "quality.py"
    spec = importlib.util.spec_from_file_location("benchmarks_quality", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_hidden_items_are_in_no_training_row(quality: ModuleType) -> None:
    rows = pl.DataFrame(
        {
            "user_id": [user for user in range(30) for _ in range(8)],
            "item_id": [(user + 3 * step) % 20 for user in range(30) for step in range(8)],
            "timestamp": [step for _ in range(30) for step in range(8)],
        }
    )
    marked = quality.hide(rows, user="user_id", item="item_id", time="timestamp", seed=0)
    tested = marked.filter(pl.col("split") == "test")
    cold = set(tested.get_column("item_id"))
    assert len(cold) == 2
    known = marked.filter(pl.col("split") != "test")
    assert not cold & set(known.get_column("item_id"))
    assert tested.get_column("user_id").n_unique() == tested.height
    validated = known.filter(pl.col("split") == "valid")
    assert validated.get_column("user_id").n_unique() == validated.height == 30
    last = known.group_by("user_id").agg(pl.col("timestamp").max())
    assert validated.select("user_id", "timestamp").sort("user_id").equals(last.sort("user_id"))


def towers(quality: ModuleType, ndcg: float) -> Any:
    told = {
        "seconds": 20.0,
        "cpu_seconds": 10.0,
        "summary": {
            "epochs": 8,
            "best": {"epoch": 6},
            "seconds_to_best": 12.0,
            "interactions_per_second": 1000.0,
            "peak_memory_bytes": 5e8,
        },
        "metrics": {
            "cold_items": {
                "items": 50,
                "users": 400,
                "recall@20": {"two towers": {"value": 0.4}, "content-knn": {"value": 0.3}, "random": {"value": 0.1}},
            },
            "features_only": {
                "features": ["age"],
                "ndcg@10": {label: {"value": value} for label, value in STRANGERS.items()},
            },
        },
    }
    return quality.Result(told, {f"towers {name}": np.full(40, ndcg) for name in METRICS})


def baselines(quality: ModuleType, ndcg: float) -> Any:
    told = {"baselines": {"ease": {"settings": {"ridge": 10}}}, "left_out": {"ials": "not here"}}
    return quality.Result(told, {f"ease {name}": np.full(40, ndcg) for name in METRICS})


STRANGERS = {"two towers": 0.04, "shuffled user features": 0.03, "popularity": 0.02}
METRICS = [f"{name}@{k}" for name in ("recall", "ndcg") for k in (5, 10, 20, 100)]


def test_the_page(quality: ModuleType) -> None:
    cells = quality.cells(3)
    assert len(cells) == 3 * 3 + 3 + 2 * (5 + 8) + 2
    assert len({cell.name for cell in cells}) == len(cells)
    found = {
        cell: towers(quality, 0.12 if cell.seed else 0.10) if cell.who == "towers" else baselines(quality, 0.05)
        for cell in cells
    }
    page = quality.page(found)
    assert "| **two towers** | 0.1133 ± 0.0115 | 0.1133 ± 0.0115 | |" in page
    assert "| ease | 0.0500 | 0.0500 | +127% (+127% to +127%) |" in page
    assert "| ease | 0.0500 ± 0.0000 | 0.0500 ± 0.0000 | +132% (" in page  # five splits: .10 once and .12 four times
    assert "Settings chosen on validation: ease ridge 10." in page
    assert "| beauty | 50 | 400 | 0.4000 | 0.3000 | 1.33 | 0.1000 | 4.0 |" in page
    assert "| ml-100k, leave-one-out | ndcg@10 | 3 | 0.0400 | 0.0300 | 0.0200 |" in page
    # Half of the clock was this process's: seconds and throughput of CPU.
    assert "| ease 0.0500 | +127% (+127% to +127%) | 8 | 6 | 10 | 2,000 | 500 MB |" in page
    assert quality.page({}).startswith("# Quality")


def test_results_are_kept_whole(quality: ModuleType, tmp_path: Path) -> None:
    result = baselines(quality, 0.25)
    quality.keep(result, tmp_path / "cell")
    again = quality.read(tmp_path / "cell")
    assert again.told == result.told
    assert again.per_user["ease ndcg@10"].tolist() == result.per_user["ease ndcg@10"].tolist()
    assert not (tmp_path / "cell.part").exists()
