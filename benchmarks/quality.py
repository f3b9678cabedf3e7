"""Quality of the default model compared with tuned baselines, written to docs/experiments/quality.md.

    python benchmarks/quality.py [--datasets FOLDER] [--work artifacts/quality] [--only beauty] [--seeds 3] [--write]

Trains and exports through the command line itself on Beauty, ml-100k and ml-latest-small: leave-one-out over some
seeds, new users over some splits, with times and without, and a split that hides a tenth of the items from training.
Nothing is set but seed and split. Baselines are run once a split. Each run is kept in the work folder, so that the
whole can be stopped, gone on with and completed in pieces; --write makes the page of what is there. --datasets holds
`beauty` and `ml-latest-small`; ml-100k is fetched. OMP_NUM_THREADS=1 keeps the baselines to one core, as the training
is.
"""

import argparse
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from retrieval.evaluation.baseline_runs import compete
from retrieval.evaluation.cold_users import measured_at
from retrieval.evaluation.evaluate import run
from retrieval.evaluation.held_out import HeldOut
from retrieval.evaluation.intervals import Bootstrap
from train.config.load import load
from train.data.dataset import prepare

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = ROOT / "docs" / "experiments" / "quality.md"
DATASETS: Final = ("ml-100k", "ml-latest-small", "beauty")
HIDDEN: Final = 0.1  # share of items that the cold protocol keeps from training
# How many splits of the users, by protocol and dataset.
SPLITS: Final = {
    "new-users": {"ml-latest-small": 5},
    "no-order": {"ml-latest-small": 5, "ml-100k": 2, "beauty": 1},
}
BUDGET_S: Final = 300.0  # for the settings of a baseline
NEW_USERS: Final = tuple(SPLITS)
TITLES: Final = {
    "leave-one-out": "each user's last interaction; the one before it is for validation",
    "new-users": "the last fifth of the interactions of users who are not in the training data, given the rest",
    "no-order": "a random fifth of their interactions, given the rest; times are removed and rows shuffled",
    "cold": "items that are not in the training data (a tenth), ranked among themselves; each user's last such item",
}

METRICS: Final = {"leave-one-out": ("recall@10", "ndcg@10")} | dict.fromkeys(NEW_USERS, ("recall@20", "ndcg@100"))


@dataclass(frozen=True)
class Cell:
    """One run: who, a dataset, a protocol and a seed (of the training; of the split for new users).

    who: "towers", or "baselines", which are run once a split.
    """

    who: str
    dataset: str
    protocol: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.dataset}-{self.protocol}-{self.seed}-{self.who}"

    @property
    def ks(self) -> tuple[int, ...]:
        return (10, 20, 100) if self.protocol in NEW_USERS else (5, 10, 20)

    def overrides(self) -> list[str]:
        settings = {"train.seed": str(self.seed)}
        if self.protocol in NEW_USERS:
            settings = {"split.kind": '"new-users"', "split.seed": str(self.seed), "split.test": "0.2"}
        elif self.protocol == "cold":
            settings |= {"split.kind": '"column"', "split.column": '"split"'}
        return [f"{key}={value}" for key, value in settings.items()]


@dataclass(frozen=True)
class Result:
    """What a run left: what is told of it, and its measures by user, "towers ndcg@10" -> (users,)."""

    told: Mapping[str, Any]
    per_user: Mapping[str, npt.NDArray[np.float64]]


Found = Mapping[Cell, Result]


def cells(seeds: int) -> list[Cell]:
    """All runs, what tells most first."""
    chosen = []
    for seed in range(max(seeds, *(count for counts in SPLITS.values() for count in counts.values()))):
        for name in DATASETS:
            if seed == 0:
                chosen.append(Cell("baselines", name, "leave-one-out", 0))
            if seed < seeds:
                chosen.append(Cell("towers", name, "leave-one-out", seed))
        for protocol, counts in SPLITS.items():
            for name, count in counts.items():
                if seed < count:
                    chosen += [Cell(who, name, protocol, seed) for who in ("baselines", "towers")]
        if seed == 0:
            chosen += [Cell("towers", name, "cold", 0) for name in ("ml-latest-small", "beauty")]
    return chosen


def main() -> None:
    parser = argparse.ArgumentParser()
    default = Path(os.environ.get("TWOTOWER_DATASETS", ROOT.parent / "shared" / "datasets"))
    parser.add_argument("--datasets", type=Path, default=default, help="Folder with beauty and ml-latest-small.")
    parser.add_argument("--work", type=Path, default=ROOT / "artifacts" / "quality", help="Where runs are kept.")
    parser.add_argument("--only", default="", help="Runs whose name holds this.")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--write", action="store_true", help="Only write the page, of the runs that are there.")
    options = parser.parse_args()
    every = cells(options.seeds)
    for cell in every:
        if options.write or options.only not in cell.name or (options.work / f"{cell.name}.json").exists():
            continue
        print(f"== {cell.name}", flush=True)
        try:
            made = run_towers if cell.who == "towers" else run_baselines
            keep(made(cell, options.work, options.datasets), options.work / cell.name)
        except (subprocess.CalledProcessError, FileNotFoundError) as error:
            print(f"{cell.name}: left out, {error}", file=sys.stderr)
    found = {cell: read(path) for cell in every if (path := options.work / cell.name).with_suffix(".json").exists()}
    PAGE.write_text(page(found), encoding="utf-8")
    print(f"{len(found)} of {len(every)} runs; {PAGE.relative_to(ROOT)} written")


def keep(result: Result, path: Path) -> None:
    """Keep a result; the JSON file comes last and says that it is whole."""
    np.savez(path.with_suffix(".npz"), **result.per_user)  # type: ignore[arg-type]
    partial = path.with_suffix(".part")
    partial.write_text(json.dumps(result.told, indent=1), encoding="utf-8")
    partial.rename(path.with_suffix(".json"))


def read(path: Path) -> Result:
    with np.load(path.with_suffix(".npz"), allow_pickle=False) as arrays:
        return Result(json.loads(path.with_suffix(".json").read_text(encoding="utf-8")), dict(arrays))


def run_towers(cell: Cell, work: Path, datasets: Path) -> Result:
    """Train and export through the command line, judge what it made."""
    config = dataset(cell, work, datasets)
    out = work / "bundles" / cell.name
    shutil.rmtree(out, ignore_errors=True)
    begin, cpu = time.perf_counter(), _child_cpu_s()
    settings = [part for override in cell.overrides() for part in ("--set", override)]
    twotower("train", config, "--out", out, *settings)
    seconds, cpu_seconds = time.perf_counter() - begin, _child_cpu_s() - cpu
    twotower("export", out)
    twotower("index", "build", out)
    judged = run(out, baselines=["none"], k=cell.ks)
    summary = judged.summary
    shutil.rmtree(out)
    told = {"seconds": seconds, "cpu_seconds": cpu_seconds, "summary": summary, "metrics": judged.to_json()}
    print(f"   {judged.verdict.sentence} ({cpu_seconds:,.0f} s of CPU)", flush=True)
    return Result(told, {f"towers {name}": judged.model.per_user[name] for name in _kept(cell)})


def run_baselines(cell: Cell, work: Path, datasets: Path) -> Result:
    """Prepare the data as a training does, and fit, tune and ask the baselines."""
    config = load(dataset(cell, work, datasets), overrides=cell.overrides())
    with tempfile.TemporaryDirectory() as folder:
        prepare(config).save(Path(folder))
        held = HeldOut.read(Path(folder))
    rivals, skipped = compete(held, held.best_stage(), names=["all"], ks=cell.ks, budget_s=BUDGET_S)
    per_user: dict[str, npt.NDArray[np.float64]] = {}
    told = {}
    for name, rival in rivals.items():
        told[name] = {"metrics": rival.measured.values, **rival.facts()}
        per_user |= {f"{name} {metric}": rival.measured.per_user[metric] for metric in _kept(cell)}
        print(f"   {name} {json.dumps(told[name])}", flush=True)
    return Result({"baselines": told, "left_out": dict(skipped)}, per_user)


def _kept(cell: Cell) -> tuple[str, ...]:
    return tuple(f"{name}@{k}" for name in ("recall", "ndcg") for k in cell.ks)


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
    if cell.protocol == "no-order":
        return without_order(folder, work / "data" / f"{cell.dataset}-no-order")
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


def without_order(folder: Path, to: Path) -> Path:
    """The dataset folder with its rows shuffled and no word of time. Returns its config."""
    if not (to / "twotower.toml").exists():
        to.mkdir(parents=True, exist_ok=True)
        for path in folder.iterdir():
            if path.name not in ("interactions.parquet", "twotower.toml"):
                shutil.copy(path, to / path.name)
        rows = pl.read_parquet(folder / "interactions.parquet")
        rows.sample(fraction=1.0, shuffle=True, seed=0).write_parquet(to / "interactions.parquet")
        config = (folder / "twotower.toml").read_text(encoding="utf-8")
        (to / "twotower.toml").write_text(re.sub(r"(?m)^time = .*\n", "", config), encoding="utf-8")
    return to / "twotower.toml"


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


def page(found: Found) -> str:
    """docs/experiments/quality.md."""
    lines = [
        "# Quality",
        "",
        "The default model compared with baselines. The baselines are fitted on the same training rows, receive the",
        f"same histories, and are tuned on validation (NDCG@10, coordinate search, {BUDGET_S:.0f} s each). The towers",
        "are evaluated through ONNX and the index. The whole catalogue is ranked except the items that a user is known",
        "to have; ties count against every model. No setting is chosen per dataset. ± is the standard deviation over",
        "runs. The interval of the last column is 95% over users, with the towers' runs averaged.",
        "",
        f"{len(found)} of {len(cells(3))} runs are complete.",
        "",
        "    OMP_NUM_THREADS=1 python benchmarks/quality.py     # writes this page; continues where it was stopped",
        "",
    ]
    lines += _glance(found)
    for protocol, metrics in METRICS.items():
        lines += _protocol(found, protocol, metrics)
    lines += _cold(found)
    lines += _features_only(found)
    return "\n".join(lines) + "\n"


def _of(found: Found, who: str, name: str, protocol: str) -> dict[int, Result]:
    """Results by seed."""
    return {
        cell.seed: result
        for cell, result in found.items()
        if (cell.who, cell.dataset, cell.protocol) == (who, name, protocol)
    }


def _glance(found: Found) -> list[str]:
    """The towers beside the best baseline, and what training them costs, a line a dataset and protocol."""
    lines = [
        "## At a glance",
        "",
        "NDCG@10; for new users NDCG@100. Cost of one training on one core, in seconds of CPU.",
        "",
        "| | runs | two towers | best baseline | difference | epochs | CPU s to best epoch | CPU s in all "
        "| interactions/s | peak memory |",
        "| --- " * 10 + "|",
    ]
    for protocol, (_, metric) in METRICS.items():
        for name in DATASETS:
            towers, rivals = (_of(found, who, name, protocol) for who in ("towers", "baselines"))
            if len(rivals) > 1:
                rivals = {seed: rivals[seed] for seed in rivals.keys() & towers.keys()}
            if not towers or not rivals:
                continue
            means = {rival: _value(rivals, rival, metric) for rival in next(iter(rivals.values())).told["baselines"]}
            best = max(means, key=lambda rival: means[rival])
            cells = (
                f"{name}, {protocol}",
                str(len(towers)),
                f"{_value(towers, 'towers', metric):.4f}",
                f"{best} {means[best]:.4f}",
                _lift(towers, rivals, best, metric),
                *_costs(list(towers.values())),
            )
            lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def _value(results: Mapping[int, Result], who: str, metric: str) -> float:
    return float(np.mean([result.per_user[f"{who} {metric}"].mean() for result in results.values()]))


def _costs(results: Sequence[Result]) -> tuple[str, ...]:
    """Epochs, CPU seconds to the best one and in all, interactions a second, peak memory: means."""
    parts = []
    for result in results:
        summary, told = result.told["summary"], result.told
        share = told["cpu_seconds"] / max(told["seconds"], 1e-9)  # of the clock that the run had the core
        parts.append(
            (
                summary["epochs"],
                # A closed form is all there before the first epoch, which leaves it as it is.
                told["cpu_seconds"] if summary["epochs"] == 1 else summary["seconds_to_best"] * share,
                told["cpu_seconds"],
                summary["interactions_per_second"] / share,
                summary["peak_memory_bytes"] / 1e6,
            )
        )
    epochs, to_best, total, rate, memory = np.mean(parts, axis=0)
    trained = (f"{epochs:.0f}", f"{rate:,.0f}") if epochs > 1 else ("EASE only", "")
    return trained[0], f"{to_best:,.0f}", f"{total:,.0f}", trained[1], f"{memory:,.0f} MB"


def _protocol(found: Found, protocol: str, metrics: tuple[str, str]) -> list[str]:
    lines = [f"## {protocol.capitalize()}", "", f"Test: {TITLES[protocol]}.", ""]
    for name in DATASETS:
        towers, rivals = (_of(found, who, name, protocol) for who in ("towers", "baselines"))
        if not rivals:
            continue
        what = "split" if protocol in NEW_USERS else "seed"
        lines += [f"**{name}**, {len(towers)} {what}{'' if len(towers) == 1 else 's'}", ""]
        lines += [f"| | {' | '.join(metrics)} | two towers relative to it, {metrics[1]} |", "| --- " * 4 + "|"]
        if towers:
            lines.append(f"| **two towers** | {_means(towers, 'towers', metrics)} | |")
        first = next(iter(rivals.values())).told
        for rival in first["baselines"]:
            lines.append(f"| {rival} | {_means(rivals, rival, metrics)} | {_lift(towers, rivals, rival, metrics[1])} |")
        lines += ["", *(f"Not run: {label} ({why})." for label, why in first["left_out"].items())]
        told = (
            f"{label} {', '.join(f'{key} {value:g}' for key, value in facts['settings'].items())}"
            for label, facts in first["baselines"].items()
            if facts["settings"]
        )
        lines += [f"Settings chosen on validation{' (first split)' if len(rivals) > 1 else ''}: {'; '.join(told)}.", ""]
    return lines


def _means(results: Mapping[int, Result], who: str, metrics: Sequence[str]) -> str:
    return " | ".join(
        _mean([float(result.per_user[f"{who} {metric}"].mean()) for result in results.values()]) for metric in metrics
    )


def _lift(towers: Mapping[int, Result], rivals: Mapping[int, Result], rival: str, metric: str) -> str:
    """By how much the towers are above a baseline, with its interval; of new users, those of all splits together."""
    if not towers:
        return ""
    own, other = [], []
    if len(rivals) == 1:
        only = next(iter(rivals.values()))
        own = [np.mean([run.per_user[f"towers {metric}"] for run in towers.values()], axis=0)]
        other = [only.per_user[f"{rival} {metric}"]]
    else:
        for seed in towers.keys() & rivals.keys():
            own.append(towers[seed].per_user[f"towers {metric}"])
            other.append(rivals[seed].per_user[f"{rival} {metric}"])
    if not own:
        return ""
    lift = Bootstrap({"own": np.concatenate(own), "other": np.concatenate(other)}).lift("own", "other")
    return "" if lift is None else f"{lift.value:+.0%} ({lift.bounds()})"


def _mean(values: Sequence[float]) -> str:
    mean = f"{np.mean(values):.4f}"
    return f"{mean} ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else mean


def _cold(found: Found) -> list[str]:
    lines = ["## New items", "", f"Test: {TITLES['cold']}.", ""]
    lines += [
        "| recall@20 | items | users | two towers | content-kNN, same features | ratio | random | ratio |",
        "| --- " * 8 + "|",
    ]
    for name in DATASETS:
        for result in _of(found, "towers", name, "cold").values():
            cold = result.told["metrics"].get("cold_items")
            if cold is not None:
                recall = {label: interval["value"] for label, interval in cold["recall@20"].items()}
                own, content, random = (recall[label] for label in ("two towers", "content-knn", "random"))
                values = (
                    f"{own:.4f}",
                    f"{content:.4f}",
                    f"{own / content:.2f}",
                    f"{random:.4f}",
                    f"{own / random:.1f}",
                )
                cells = (name, f"{cold['items']:,}", f"{cold['users']:,}", *values)
                lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def _features_only(found: Found) -> list[str]:
    """Users whose histories are withheld, of every dataset whose users have features; means over the runs."""
    lines = [
        "## Users with features only",
        "",
        "The same test, with histories withheld. If the features of a user are useful, the towers find more with them",
        "than with another user's features.",
        "",
        "| | by | runs | two towers | shuffled user features | popularity |",
        "| --- " * 6 + "|",
    ]
    for protocol in METRICS:
        for name in DATASETS:
            told = [
                result.told["metrics"].get("features_only", {"features": []})
                for result in _of(found, "towers", name, protocol).values()
            ]
            if not told or not all(entry["features"] for entry in told):
                continue
            measure = measured_at(told[0])
            means = {label: np.mean([entry[measure][label]["value"] for entry in told]) for label in told[0][measure]}
            values = (f"{value:.4f}" for value in means.values())
            lines.append(f"| {name}, {protocol} | {measure} | {len(told)} | {' | '.join(values)} |")
    return [*lines, ""]


if __name__ == "__main__":
    main()
