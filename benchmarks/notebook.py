"""The notebook's recipe and the default one on the notebook's data, in the tables of docs/how-to/notebook.md.

    python benchmarks/notebook.py [--from FOLDER] [--work artifacts/notebook] [--write]

Trains, exports and evaluates through the command line. --from: ml-latest-small on disk; by default it is looked for in
the folder that TWOTOWER_DATASETS names, and fetched if it is not there.
A run that is in the work folder already is not made again; --write puts the tables into the page.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import polars as pl

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = ROOT / "docs" / "how-to" / "notebook.md"
BEGIN: Final = "<!-- measured by make bench-notebook: begin -->"
END: Final = "<!-- measured by make bench-notebook: end -->"
RECIPES: Final = {"notebook": "attention towers", "notebook-mlp": "plain towers (MLP)"}
SPLITS: Final = {"leaking": "the notebook's own split", "clean": "a clean split"}
BASELINES: Final = "popularity,itemknn,ease"


def twotower(*arguments: str) -> None:
    subprocess.run([sys.executable, str(ROOT / "twotower.py"), *arguments], check=True, stdout=subprocess.DEVNULL)


def dataset(work: Path, split: str, source: Path | None) -> Path:
    """The dataset folder of a split, fetched if it is not there."""
    folder = work / f"data-{split}"
    arguments = ["fetch", "ml-latest-small", "--subset", "notebook", "--to", str(folder)]
    arguments += ["--from", str(source)] if source is not None else []
    twotower(*arguments, *(["--as-notebook"] if split == "leaking" else []))
    return folder


def run(config: Path, out: Path, *, baselines: str) -> dict[str, Any]:
    """What `evaluate` measured of a config, and how long all of it took."""
    if not (out / "seconds.json").exists():
        started = time.perf_counter()
        twotower("run", str(config), "--out", str(out), "--baselines", baselines)
        (out / "seconds.json").write_text(json.dumps(time.perf_counter() - started))
    measured: dict[str, Any] = json.loads((out / "metrics.json").read_text())
    return {**measured, "run_seconds": json.loads((out / "seconds.json").read_text())}


def by_chance(folder: Path, *, k: int) -> float:
    """The recall@k to be expected of k items drawn from those that a user has not rated in training."""
    rows = pl.read_parquet(folder / "interactions.parquet")
    items = pl.read_parquet(folder / "items.parquet").height
    tested = rows.filter(pl.col("split") == "test").select("user_id").unique()
    known = rows.filter(pl.col("split") != "test").group_by("user_id").len()
    left = items - tested.join(known, on="user_id", how="left").get_column("len").fill_null(0)
    return float((k / left).to_numpy().mean())


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "| --- |" + " --- |" * (len(header) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def rating_table(results: dict[tuple[str, str], dict[str, Any]]) -> str:
    """Errors of both recipes beside the averages, on both splits."""
    rows = []
    names = list(results["clean", "notebook"]["rating"]["baselines"])
    for name in names:
        found = [results[split, "notebook"]["rating"]["baselines"][name] for split in SPLITS]
        rows.append([name, *(f"{error['rmse']:.3f} / {error['mae']:.3f}" for error in found)])
    for recipe, title in RECIPES.items():
        found = [results[split, recipe]["rating"] for split in SPLITS]
        rows.append([f"`{recipe}`: {title}", *(f"{error['rmse']:.3f} / {error['mae']:.3f}" for error in found)])
    return markdown(["RMSE / MAE in stars, test ratings", *SPLITS.values()], rows)


def retrieval_table(results: dict[tuple[str, str], dict[str, Any]], chance: float) -> str:
    """What each finds among all films, on the clean split."""
    default = results["clean", "twotower"]
    rows = [["by chance", f"{chance:.3f}", ""]]
    for recipe, title in RECIPES.items():
        metrics = results["clean", recipe]["metrics"]
        rows.append([f"`{recipe}`: {title}", f"{metrics['recall@20']:.3f}", f"{metrics['ndcg@10']:.3f}"])
    for name in BASELINES.split(","):
        metrics = default["baselines"][name]
        rows.append([name, f"{metrics['recall@20']:.3f}", f"{metrics['ndcg@10']:.3f}"])
    metrics = default["metrics"]
    rows.append(
        ["**`twotower.toml`: the default recipe**", f"**{metrics['recall@20']:.3f}**", f"**{metrics['ndcg@10']:.3f}**"]
    )
    return markdown(["clean split", "recall@20", "NDCG@10"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    datasets = Path(os.environ.get("TWOTOWER_DATASETS", ROOT.parent / "shared" / "datasets"))
    on_disk = datasets / "ml-latest-small"
    parser.add_argument("--from", dest="source", type=Path, default=on_disk if on_disk.is_dir() else None)
    parser.add_argument("--work", type=Path, default=ROOT / "artifacts" / "notebook")
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    results: dict[tuple[str, str], dict[str, Any]] = {}
    folders = {split: dataset(args.work, split, args.source) for split in SPLITS}
    for split, folder in folders.items():
        for recipe in RECIPES:
            out = args.work / f"{split}-{recipe}"
            results[split, recipe] = run(folder / f"{recipe}.toml", out, baselines="popularity")
    out = args.work / "clean-twotower"
    results["clean", "twotower"] = run(folders["clean"] / "twotower.toml", out, baselines=BASELINES)
    seconds = ", ".join(f"{name} {results['clean', name]['run_seconds']:.0f} s" for name in [*RECIPES, "twotower"])
    tables = "\n\n".join(
        [
            rating_table(results),
            retrieval_table(results, by_chance(folders["clean"], k=20)),
            f"`twotower run` on the clean split, start to end: {seconds}.",
        ]
    )
    print(tables)
    if args.write:
        before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
        _, _, after = rest.partition(END)
        PAGE.write_text(f"{before}{BEGIN}\n\n{tables}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
