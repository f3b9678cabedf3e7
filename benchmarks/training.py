"""Speed of a training with the default recipe, and the parts of a step: the table of docs/experiments/training.md.

    OMP_NUM_THREADS=1 THP_MEM_ALLOC_ENABLE=1 python benchmarks/training.py [--datasets FOLDER] [--write]

Trains two epochs of Beauty, ml-100k (fetched) and synthetic data, each in its own process, on one core. Seconds are CPU
seconds. Matrix products are timed with torch's profiler, which slows down small operations. So their time is given as a
share of steps without the profiler, and in brackets as a share of the profiled steps. Profiled and plain steps of the
first epoch alternate, five of each; a share is the median over such pairs. The profiler measures wall time, which is
scaled by the share of it that the process was running.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytorch_lightning as lightning
import torch
from torch.profiler import ProfilerActivity, profile

from train.config import load as configs
from train.data.datamodule import DataModule
from train.datasets.synthetic import Plan, fetch_synthetic
from train.loop import fit

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = ROOT / "docs" / "experiments" / "training.md"
BEGIN: Final = "<!-- measured by benchmarks/training.py: begin -->"
END: Final = "<!-- measured by benchmarks/training.py: end -->"
PRODUCTS: Final = (
    "aten::mm",
    "aten::addmm",
    "aten::addmm_",
    "aten::bmm",
    "aten::baddbmm",
    "aten::baddbmm_",
    "aten::linear",
    "aten::mv",
)
FIRST: Final = 20  # first step of the first epoch that is profiled
WINDOW: Final = 5  # steps in a row that are profiled, and as many that are not
PAIRS: Final = 8
PLAN: Final = Plan(users=10_000, items=20_000)


class Clock(lightning.Callback):
    """Times the parts of the second epoch, and profiles some steps of the first. CPU seconds."""

    def __init__(self) -> None:
        self.steps: list[float] = []
        self.between: list[float] = []
        self.plain: list[float] = []  # seconds per step of the windows without the profiler
        self.profiled: list[tuple[float, float]] = []  # of profiled windows: matrix products, everything
        self.epoch = self.validation = self.data = 0.0
        self._profiler = profile(activities=[ProfilerActivity.CPU])
        self._at = self._started = 0.0
        self._began = 0.0, 0.0

    def on_train_epoch_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        self.steps, self.between = [], []
        if trainer.current_epoch == 1:
            data: DataModule = trainer.datamodule  # type: ignore[attr-defined]
            begin = time.process_time()
            for _batch in data.train_dataloader():
                pass
            self.data = time.process_time() - begin
        self._at = self._started = time.process_time()

    def on_train_batch_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        self.between.append(time.process_time() - self._at)
        place = trainer.global_step - FIRST
        if place % (2 * WINDOW) == 0 and 0 <= place < 2 * WINDOW * PAIRS and not trainer.current_epoch:
            self._profiler = profile(activities=[ProfilerActivity.CPU])
            self._profiler.start()
            self._began = time.process_time(), time.perf_counter()
        self._at = time.process_time()

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        self.steps.append(time.process_time() - self._at)
        done = trainer.global_step - FIRST
        if done % WINDOW == 0 and 0 < done <= 2 * WINDOW * PAIRS and not trainer.current_epoch:
            if done // WINDOW % 2:
                running = (time.process_time() - self._began[0]) / (time.perf_counter() - self._began[1])
                self._profiler.stop()
                self.profiled.append(products(self._profiler, running=running))
            else:
                self.plain.append(float(np.mean(self.steps[-WINDOW:])))
        self._at = time.process_time()

    def on_validation_start(self, *_: Any) -> None:
        self.validation = time.process_time()

    def on_validation_end(self, *_: Any) -> None:
        now = time.process_time()
        self.validation, self.epoch = now - self.validation, now - self._started


def products(profiler: profile, *, running: float) -> tuple[float, float]:
    """Seconds per profiled step of matrix products and of everything. running: share of the wall time."""
    spent = {event.key: event.self_cpu_time_total * running * 1e-6 / WINDOW for event in profiler.key_averages()}
    return sum(spent.get(name, 0.0) for name in PRODUCTS), sum(spent.values())


def measured(config: Path) -> dict[str, Any]:
    """Train for two epochs in this process, on one core."""
    torch.set_num_threads(1)
    clock = Clock()
    with tempfile.TemporaryDirectory() as out:
        # The synthetic histories have no order: without an encoder in the config EASE would be used.
        overrides = ("train.epochs=2", 'model.encoder="attention"')
        summary = fit.fit(configs.load(config, overrides=overrides), Path(out), callbacks=[clock])
    steps = float(np.sum(clock.steps))
    paired = list(zip(clock.profiled, clock.plain, strict=False))  # the epoch may end within a pair
    return {
        "interactions": summary["statistics"]["interactions"],
        "items": summary["statistics"]["items"],
        "dim": summary["recipe"]["model"]["dim"],
        "epoch_s": clock.epoch,
        "validation_s": clock.validation,
        "step_ms": 1000 * float(np.median(clock.steps)),
        "products": float(np.median([spent / step for (spent, _), step in paired])),
        "products_profiled": float(np.median([spent / everything for (spent, everything), _ in paired])),
        "data": clock.data / (clock.epoch - clock.validation),
        # Between two steps, without the next batch: averaging, callbacks, the loop of Lightning.
        "between": (float(np.sum(clock.between)) - clock.data) / (steps + float(np.sum(clock.between))),
        "memory_bytes": summary["peak_memory_bytes"],
    }


def row(name: str, found: dict[str, Any]) -> str:
    cells = (
        f"{name}, {found['items']:,} items, width {found['dim']}",
        f"{found['interactions'] / (found['epoch_s'] - found['validation_s']):,.0f}",
        f"{found['epoch_s']:.1f}",
        f"{found['validation_s']:.1f}",
        f"{found['step_ms']:.0f}",
        f"{found['products']:.0%} ({found['products_profiled']:.0%})",
        f"{found['data']:.1%}",
        f"{found['between']:.1%}",
        f"{found['memory_bytes'] / 1e6:,.0f}",
    )
    return f"| {' | '.join(cells)} |"


def dataset(name: str, folder: Path, *, source: Path | None) -> Path:
    """The config of a dataset folder, which is fetched if it is not there."""
    if not (folder / "twotower.toml").exists():
        origin = [] if source is None else ["--from", str(source)]
        subprocess.run(
            [sys.executable, "-m", "twotower", "fetch", name, "--to", str(folder), *origin], cwd=ROOT, check=True
        )
    return folder / "twotower.toml"


def main() -> None:
    parser = argparse.ArgumentParser()
    default = Path(os.environ.get("TWOTOWER_DATASETS", ROOT.parent / "shared" / "datasets"))
    parser.add_argument("--datasets", type=Path, default=default, help="Folder with beauty.")
    parser.add_argument("--work", type=Path, default=ROOT / "artifacts" / "quality", help="Where datasets are kept.")
    parser.add_argument("--write", action="store_true", help="Put the table into docs/experiments/training.md.")
    parser.add_argument("--measure", type=Path, help="Only this config, in this process; prints JSON.")
    options = parser.parse_args()
    if options.measure is not None:
        print(json.dumps(measured(options.measure)))
        return
    folder = options.work / "data"
    places = {
        "Beauty": dataset("beauty", folder / "beauty", source=options.datasets / "beauty"),
        "ml-100k": dataset("ml-100k", folder / "ml-100k", source=None),
        "synthetic": fetch_synthetic(PLAN, to=folder / "synthetic-wide"),
    }
    lines = [
        "| one core | interactions/s | epoch, s | of it validation | step, ms | matrix products (profiled) "
        "| batches | between steps | peak MB |",
        "| --- " * 9 + "|",
    ]
    for name, config in places.items():
        command = [sys.executable, str(Path(__file__)), "--measure", str(config)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "THP_MEM_ALLOC_ENABLE": "1"}
        done = subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE, text=True)
        lines.append(row(name, json.loads(done.stdout)))
        print(lines[-1], flush=True)
    if options.write:
        text = PAGE.read_text(encoding="utf-8")
        before, rest = text.split(BEGIN)
        after = rest.split(END)[1]
        table = "\n".join(lines)
        PAGE.write_text(f"{before}{BEGIN}\n\n{table}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
