"""Quality of the default recipe beside tuned simple models, written to docs/quality.md.

    python benchmarks/quality.py [--datasets FOLDER] [--work artifacts/quality] [--only beauty] [--seeds 3] [--write]

Runs the command line itself, stage by stage, on Beauty, ml-100k and ml-latest-small: leave-one-out over some seeds, new
users over some splits, and a split that hides a tenth of the items from training. Nothing is set but the seed and the
split. Each run is kept in the work folder, so that the whole can be stopped, gone on with and completed in pieces;
--write makes the page of what is there. --datasets holds `beauty` and `ml-latest-small`; ml-100k is fetched.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = ROOT / "docs" / "quality.md"
DATASETS: Final = ("ml-100k", "ml-latest-small", "beauty")
HIDDEN: Final = 0.1  # share of items that the cold protocol keeps from training
NEW_USER_SPLITS: Final = 5
TITLES: Final = {
    "leave-one-out": "the last interaction of each user, the one before it for validation",
    "new-users": "a fifth of the users never seen in training; the last fifth of what they did, from the rest",
    "cold": "a tenth of the items hidden from training; of them the last that a user chose, among all hidden ones",
}


@dataclass(frozen=True)
class Cell:
    """One run: a dataset, a protocol and a seed (of the training; of the split for new users)."""

    dataset: str
    protocol: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.dataset}-{self.protocol}-{self.seed}"

    def overrides(self) -> list[str]:
        settings = {"train.seed": str(self.seed)}
        if self.protocol == "new-users":
            settings = {"split.kind": '"new-users"', "split.seed": str(self.seed), "split.test": "0.2"}
        elif self.protocol == "cold":
            settings |= {"split.kind": '"column"', "split.column": '"split"'}
        return [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]


def cells(seeds: int) -> list[Cell]:
    """All runs, what tells most first."""
    first = [Cell(dataset, "leave-one-out", 0) for dataset in DATASETS]
    first += [Cell("ml-latest-small", "new-users", 0), Cell("ml-latest-small", "cold", 0), Cell("beauty", "cold", 0)]
    more = [Cell(dataset, "leave-one-out", seed) for seed in range(1, seeds) for dataset in DATASETS]
    more += [Cell("ml-latest-small", "new-users", seed) for seed in range(1, NEW_USER_SPLITS)]
    return first + more


def main() -> None:
    parser = argparse.ArgumentParser()
    default = Path(os.environ.get("TWOTOWER_DATASETS", ROOT.parent / "shared" / "datasets"))
    parser.add_argument("--datasets", type=Path, default=default, help="Folder with beauty and ml-latest-small.")
    parser.add_argument("--work", type=Path, default=ROOT / "artifacts" / "quality", help="Where runs are kept.")
    parser.add_argument("--only", action="append", default=[], help="Runs whose name begins so; repeatable.")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--write", action="store_true", help="Only write the page, of the runs that are there.")
    options = parser.parse_args()
    wanted = [cell for cell in cells(options.seeds) if not options.only or cell.name.startswith(tuple(options.only))]
    for cell in wanted:
        if options.write or (options.work / f"{cell.name}.json").exists():
            continue
        print(f"== {cell.name}", flush=True)
        try:
            result = run(cell, options.work, options.datasets)
        except subprocess.CalledProcessError as error:
            print(f"{cell.name}: {error}", file=sys.stderr)
            continue
        except FileNotFoundError as error:
            print(f"{cell.name}: left out, {error}", file=sys.stderr)
            continue
        partial = options.work / f"{cell.name}.part"
        partial.write_text(json.dumps(result, indent=1), encoding="utf-8")
        partial.rename(options.work / f"{cell.name}.json")
        print(f"   {result['metrics']['verdict']['sentence']}", flush=True)
    found = {
        cell: json.loads(path.read_text(encoding="utf-8"))
        for cell in cells(options.seeds)
        if (path := options.work / f"{cell.name}.json").exists()
    }
    PAGE.write_text(page(found), encoding="utf-8")
    print(f"{len(found)} of {len(cells(options.seeds))} runs; {PAGE.relative_to(ROOT)} written")


def run(cell: Cell, work: Path, datasets: Path) -> dict[str, Any]:
    """Train, export, index and evaluate through the command line. Raises CalledProcessError, FileNotFoundError."""
    config = dataset(cell, work, datasets)
    out = work / "bundles" / cell.name
    shutil.rmtree(out, ignore_errors=True)
    begin, cpu = time.perf_counter(), _child_cpu_s()
    twotower("train", config, "--out", out, *cell.overrides())
    trained = {"seconds": time.perf_counter() - begin, "cpu_seconds": _child_cpu_s() - cpu}
    twotower("export", out)
    twotower("index", "build", out)
    # Baselines do not depend on the seed of the training.
    baselines = "all" if cell.protocol == "new-users" or cell.seed == 0 else "popularity"
    ks = "10,20,100" if cell.protocol == "new-users" else "5,10,20"
    begin = time.perf_counter()
    told = twotower("evaluate", out, "--baselines", baselines, "--budget", "60", "-k", ks, "--no-report", "--json")
    summary = json.loads((out / "training" / "summary.json").read_text(encoding="utf-8"))
    shutil.rmtree(out)
    return {
        "train": trained | {"summary": summary},
        "evaluate_seconds": time.perf_counter() - begin,
        "metrics": json.loads(told),
    }


def twotower(*arguments: object) -> str:
    """Run a command on one core. Returns its stdout."""
    command = [sys.executable, "-m", "twotower", "-q", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout


def _child_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def dataset(cell: Cell, work: Path, datasets: Path) -> Path:
    """The config of the dataset folder of a run, made if it is not there. Raises FileNotFoundError."""
    folder = work / "data" / cell.dataset
    if not (folder / "twotower.toml").exists():
        source: list[object] = []
        if cell.dataset != "ml-100k":
            if not (datasets / cell.dataset).is_dir():
                raise FileNotFoundError(f"there is no {datasets / cell.dataset}")
            source = ["--from", datasets / cell.dataset]
        folder.parent.mkdir(parents=True, exist_ok=True)
        twotower("fetch", cell.dataset, "--to", folder, *source)
    if cell.protocol != "cold":
        return folder / "twotower.toml"
    hidden = work / "data" / f"{cell.dataset}-cold-{cell.seed}"
    if not (hidden / "twotower.toml").exists():
        hidden.mkdir(parents=True, exist_ok=True)
        for path in folder.iterdir():
            if path.name != "interactions.parquet":
                shutil.copy(path, hidden / path.name)
        rows = pl.read_parquet(folder / "interactions.parquet")
        user, item = "user_id", "item_id"
        time_column = next(name for name in rows.columns if name in ("timestamp", "position"))
        hide(rows, user=user, item=item, time=time_column, seed=cell.seed).write_parquet(
            hidden / "interactions.parquet"
        )
    return hidden / "twotower.toml"


def hide(rows: pl.DataFrame, *, user: str, item: str, time: str, seed: int) -> pl.DataFrame:
    """A tenth of the items leaves training: of each user the last interaction with one tests, the others are gone."""
    ids = rows.get_column(item).unique().sort().to_numpy()
    cold = np.random.default_rng(seed).choice(ids, size=round(HIDDEN * len(ids)), replace=False)
    marked = rows.sort(user, time, maintain_order=True).with_columns(pl.col(item).is_in(cold.tolist()).alias("cold"))
    from_end = pl.col(item).cum_count(reverse=True).over(user, "cold")
    return (
        marked.with_columns(from_end.alias("from_end"), pl.len().over(user, "cold").alias("length"))
        .filter(~pl.col("cold") | (pl.col("from_end") == 1))
        .with_columns(
            pl.when(pl.col("cold"))
            .then(pl.lit("test"))
            .when((pl.col("from_end") == 1) & (pl.col("length") >= 3))
            .then(pl.lit("valid"))
            .otherwise(pl.lit("train"))
            .alias("split")
        )
        .drop("cold", "from_end", "length")
    )


def page(found: Mapping[Cell, Mapping[str, Any]]) -> str:
    """docs/quality.md."""
    lines = [
        "# Quality",
        "",
        "What the default recipe finds, beside simple models fitted on the same training rows, tuned on validation",
        "(NDCG@10, coordinate search, at most 60 s each) and fed the same histories. Through ONNX and the index; the",
        "whole catalogue ranked, less what a user is known to have; ties count against every model. No option is set",
        "for any one dataset.",
        "",
        "    python benchmarks/quality.py     # makes this page; stop it and go on as you like",
        "",
    ]
    for protocol, metrics in (
        ("leave-one-out", ("recall@10", "ndcg@10")),
        ("new-users", ("recall@20", "ndcg@100")),
    ):
        lines += _protocol(found, protocol, metrics)
    lines += _cold(found) + _speed(found)
    return "\n".join(lines) + "\n"


def _of(found: Mapping[Cell, Mapping[str, Any]], name: str, protocol: str) -> list[Mapping[str, Any]]:
    return [result for cell, result in found.items() if (cell.dataset, cell.protocol) == (name, protocol)]


def _protocol(found: Mapping[Cell, Mapping[str, Any]], protocol: str, metrics: Sequence[str]) -> list[str]:
    lines = [f"## {protocol.capitalize()}", "", f"To be found: {TITLES[protocol]}.", ""]
    for name in DATASETS:
        results = _of(found, name, protocol)
        if not results:
            continue
        judge = metrics[-1]
        rows: dict[str, dict[str, list[float]]] = {
            "**two towers**": {
                metric: [result["metrics"]["metrics"][metric] for result in results] for metric in metrics
            }
        }
        for baseline in results[0]["metrics"]["baselines"]:
            told = [result["metrics"]["baselines"].get(baseline) for result in results]
            rows[baseline] = {metric: [values[metric] for values in told if values] for metric in metrics}
        what = "splits" if protocol == "new-users" else "seeds"
        lines += [
            f"**{name}**, {len(results)} {what}",
            "",
            f"| | {' | '.join(metrics)} | towers / this |",
            "| --- " * 3 + "| --- |",
        ]
        own = float(np.mean(rows["**two towers**"][judge]))
        for label, values in rows.items():
            cells = " | ".join(_mean(values[metric]) for metric in metrics)
            ratio = "" if label.startswith("**") else f"{own / max(float(np.mean(values[judge])), 1e-9):.2f}"
            lines.append(f"| {label} | {cells} | {ratio} |")
        first = results[0]["metrics"]
        lines += ["", f"First run: {first['verdict']['sentence']}"]
        left_out = [f"{label}: {why}" for label, why in first["baselines_left_out"].items()]
        lines += ([f"Left out: {'; '.join(left_out)}."] if left_out else []) + [""]
    return lines


def _mean(values: Sequence[float]) -> str:
    mean = f"{np.mean(values):.4f}"
    return f"{mean} ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else mean


def _cold(found: Mapping[Cell, Mapping[str, Any]]) -> list[str]:
    lines = ["## New items", "", f"To be found: {TITLES['cold']}.", ""]
    lines += ["| | items | users | two towers | content-kNN, same features | random |", "| --- " * 6 + "|"]
    for name in DATASETS:
        for result in _of(found, name, "cold"):
            cold = result["metrics"].get("cold_items")
            if cold is not None:
                recall = {label: f"{interval['value']:.4f}" for label, interval in cold["recall@20"].items()}
                own, content = recall["two towers"], recall.get("content-knn", "no features")
                lines.append(
                    f"| {name} | {cold['items']:,} | {cold['users']:,} | {own} | {content} | {recall['random']} |"
                )
    return [*lines, "", "Recall@20 among the hidden items.", ""]


def _speed(found: Mapping[Cell, Mapping[str, Any]]) -> list[str]:
    lines = ["## Speed of training", "", "One core, mean over seeds; seconds of CPU.", ""]
    lines += [
        "| | epochs | best | seconds to best | seconds in all | interactions/s | peak memory |",
        "| --- " * 7 + "|",
    ]
    for name in DATASETS:
        results = _of(found, name, "leave-one-out")
        if not results:
            continue
        parts = []
        for result in results:
            summary, train = result["train"]["summary"], result["train"]
            share = train["cpu_seconds"] / max(train["seconds"], 1e-9)  # of the clock that this process had the core
            parts.append(
                (
                    summary["epochs"],
                    summary["best"]["epoch"],
                    summary["seconds_to_best"] * share,
                    train["cpu_seconds"],
                    summary["interactions_per_second"] / share,
                    summary["peak_memory_bytes"] / 1e6,
                )
            )
        epochs, best, to_best, total, rate, memory = np.mean(parts, axis=0)
        lines.append(
            f"| {name} | {epochs:.0f} | {best:.0f} | {to_best:,.0f} | {total:,.0f} | {rate:,.0f} | {memory:,.0f} MB |"
        )
    return [*lines, ""]


if __name__ == "__main__":
    main()
