"""Train without each part of the default recipe and compare validation NDCG@10 (docs/experiments/ablation.md).

    OMP_NUM_THREADS=1 python benchmarks/ablation.py data/ml-100k data/beauty [--seeds 3] [--work artifacts/ablation]

The arguments are dataset folders with a twotower.toml. A run is kept in the work folder as its summary.json, so the
script can be stopped and started again.
"""

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

ROOT: Final = Path(__file__).parents[1]
ATTENTION: Final = ('model.user.encoder="attention"', "model.ease.weight=0.3")
VARIANTS: Final[Mapping[str, tuple[str, ...]]] = {
    "default": (),
    "random start": ('train.start="random"',),
    "no last-item embedding": (*ATTENTION, "model.user.residual_dropout=1"),
    "last-item embedding": (*ATTENTION, "model.user.residual_dropout=0.6"),
    "last-item embedding, no dropout": (*ATTENTION, "model.user.residual_dropout=0"),
    "no features in EASE": ("model.ease.feature_weight=0",),
    "sequences": ATTENTION,
    "sets": ("model.ease.weight=1",),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("datasets", nargs="+", type=Path, help="Dataset folders.")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--work", type=Path, default=ROOT / "artifacts" / "ablation", help="Where summaries are kept.")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    for dataset in options.datasets:
        for variant, overrides in VARIANTS.items():
            runs = [train(dataset, variant, overrides, seed, options.work) for seed in range(options.seeds)]
            print(f"{dataset.name:20} {variant:32} {line(runs)}", flush=True)


def train(dataset: Path, variant: str, overrides: tuple[str, ...], seed: int, work: Path) -> dict[str, Any]:
    """The summary of a training, of the work folder if it is there."""
    kept = work / f"{dataset.name}-{variant.replace(' ', '-').replace(',', '')}-{seed}.json"
    if not kept.exists():
        out = work / "training"
        shutil.rmtree(out, ignore_errors=True)
        settings = [part for setting in (*overrides, f"train.seed={seed}") for part in ("--set", setting)]
        command = [sys.executable, "-m", "twotower", "-q", "train", str(dataset), "--out", str(out), *settings]
        subprocess.run(command, cwd=ROOT, check=True)
        shutil.copy(out / "training" / "summary.json", kept)
        shutil.rmtree(out)
    summary: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
    return summary


def line(runs: list[dict[str, Any]]) -> str:
    """Mean NDCG@10 after each stage, and the epochs."""
    stages = dict.fromkeys(stage for run in runs for stage in run["stages"])
    means = {stage: np.mean([run["stages"][stage]["ndcg@10"] for run in runs]) for stage in stages}
    text = "  ".join(f"{stage} {mean:.4f}" for stage, mean in means.items())
    return f"{text}  ({np.mean([run['epochs'] for run in runs]):.0f} epochs)"


if __name__ == "__main__":
    main()
