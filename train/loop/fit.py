"""fit: from a config to two trained towers in DIR/training.

prepare -> resolve -> train -> shrink -> ensemble -> publish. From `resolve` on, every function takes a
`ResolvedConfig`, in which nothing is left to be chosen.
"""

import dataclasses
import json
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning.callbacks import Callback

from retrieval.bundle import layout
from retrieval.common.console import note
from train.config.components import fits_values
from train.config.defaults import Statistics, resolve
from train.config.load import Config, ResolvedConfig
from train.data.datamodule import DataModule
from train.data.dataset import Dataset, prepare
from train.data.statistics import statistics_of
from train.ease.ease_towers import ConcatTowers, EaseTowers
from train.loop import checkpoint
from train.loop.item_shrinkage import shrink_items
from train.loop.progress import stop_reason
from train.loop.refit import Previous
from train.loop.train_towers import Training, train_towers
from train.loop.validation import best_epoch, monitored, validate
from train.loop.work_folder import check_writable, open_work_folder, publish


def fit(
    config: Config, out: Path, *, resume: bool = False, refit: bool = False, callbacks: Sequence[Callback] = ()
) -> dict[str, Any]:
    """Train the two towers of a config and publish them in `out`/training; until then a previous training stays.

    Args:
        config: As read from a file.
        out: The artifact folder.
        resume: Go on with the training that was broken off in `out`, or ended there.
        refit: Train on all interactions, for as many epochs as the training in `out` was best at.
        callbacks: Lightning callbacks beside those of the project.

    Returns:
        The summary, as in summary.json.

    Raises:
        TrainError: if training diverges, cannot be resumed, has nothing to refit, or `out` cannot be written to.
        ConfigError, DataError: if the config and the tables do not fit together.

    """
    started = time.monotonic()
    check_writable(out)
    previous = Previous.read(out) if refit else None
    if previous is not None:
        config = dataclasses.replace(config, split=dataclasses.replace(config.split, kind="none"))
    dataset = prepare(config, order_test=None if previous is None else previous.order_test)
    statistics = statistics_of(dataset)
    resolved = resolve(dataset.config, statistics)
    if previous is not None:
        epochs = max(previous.epochs, 1)
        resolved = dataclasses.replace(resolved, train=dataclasses.replace(resolved.train, epochs=epochs))
    data = DataModule(dataset, resolved, ordered=statistics.ordered)
    trains = resolved.model.ease.weight < 1
    work = open_work_folder(out, resolved, dataset.fingerprint(), resume=resume and trains)
    dataclasses.replace(dataset, config=resolved).save(work)

    training = train_towers(data, resolved, work, callbacks=callbacks) if trains else None
    stages = _stages(training, resolved)
    if training is not None:
        stages |= shrink(training, data, resolved)
    ease = EaseTowers.fit(resolved, data) if resolved.model.ease.weight > 0 else None
    if ease is not None:
        stages |= ensemble(training, ease, data, resolved)
    checkpoint.save(work, towers=None if training is None else training.towers, ease=ease)

    summary = _summary(training, ease, stages, dataset=dataset, statistics=statistics, config=resolved)
    summary |= {"refit": refit, "seconds": time.monotonic() - started}
    if previous is not None:
        summary["refitted_from"] = previous.metrics()
    _write(work, summary, [] if training is None else training.epochs)
    publish(work, out)
    _report(summary, stages, training, resolved, refit=refit)
    return summary


Stages = dict[str, dict[str, float]]


def _stages(training: Training | None, config: ResolvedConfig) -> Stages:
    """Validation metrics after each stage, by the name of the stage."""
    if training is None:
        return {}
    best = best_epoch(training.epochs, config)
    return {"trained": {name: float(value) for name, value in best.items() if "@" in name or name == "rmse"}}


def shrink(training: Training, data: DataModule, config: ResolvedConfig) -> Stages:
    """Shrink rare items of the trained towers, unless they predict ratings. Returns the metrics after it."""
    towers = training.towers
    counts = torch.from_numpy(np.bincount(data.histories.items, minlength=len(towers.frequency)))
    if fits_values(config.train.objective) or not shrink_items(towers.item_tower, data.items, counts):
        return {}
    towers.freeze_items(data.items)
    return {"item shrinkage": validate(data, towers.user_tower, towers.item_tower)}


def ensemble(training: Training | None, ease: EaseTowers, data: DataModule, config: ResolvedConfig) -> Stages:
    """Validation metrics of EASE alone, or of the trained towers and EASE together."""
    if training is None:
        return {"EASE": validate(data, ease.user_tower, ease.item_tower)}
    user, item = checkpoint.combine(training.towers, ease, weight=config.model.ease.weight)
    assert isinstance(user, ConcatTowers)
    return {"with EASE": validate(data, user, item)}


def _write(work: Path, summary: dict[str, Any], epochs: Sequence[dict[str, Any]]) -> None:
    (work / layout.SUMMARY).write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    lines = "".join(json.dumps(epoch) + "\n" for epoch in epochs)
    (work / layout.EPOCHS).write_text(lines, encoding="utf-8")


def _summary(
    training: Training | None,
    ease: EaseTowers | None,
    stages: Stages,
    *,
    dataset: Dataset,
    statistics: Statistics,
    config: ResolvedConfig,
) -> dict[str, Any]:
    """What summary.json says of a training."""
    epochs = [] if training is None else training.epochs
    best: dict[str, Any] = dict(best_epoch(epochs, config)) if epochs else {"epoch": 0}
    for metrics in stages.values():
        best |= metrics
    seconds = sum(float(epoch["seconds"]) for epoch in epochs)
    modules = [towers for towers in (None if training is None else training.towers, ease) if towers is not None]
    return {
        "best": best,
        "stages": stages,
        "epochs": len(epochs),
        "steps": 0 if training is None else training.steps,
        "seconds_to_best": sum(float(epoch["seconds"]) for epoch in epochs[: int(best["epoch"])]),
        "interactions_per_second": statistics.interactions * len(epochs) / max(seconds, 1e-9),
        "peak_memory_bytes": _peak_memory_bytes(),
        "recipe": {name: config.to_dict()[name] for name in ("model", "train")},
        "statistics": dataclasses.asdict(statistics),
        "parameters": sum(weight.numel() for module in modules for weight in module.parameters()),
        "fingerprint": dataset.fingerprint(),
    }


def _report(
    summary: dict[str, Any], stages: Stages, training: Training | None, config: ResolvedConfig, *, refit: bool
) -> None:
    name, mode = monitored(config)
    steps = [f"{name} {metrics[name]:.4f} {stage}" for stage, metrics in stages.items() if name in metrics]
    if steps:
        note(f"validation: {', '.join(steps)}")
    if training is None:
        note(f"fitted EASE in {summary['seconds']:.0f} s")
        return
    count = summary["epochs"]
    kept = f", epoch {summary['best']['epoch']} is the best" if steps else " on all interactions" if refit else ""
    note(f"trained {count} epoch{'' if count == 1 else 's'} in {summary['seconds']:.0f} s{kept}")
    reason = stop_reason(training.epochs, name=name, mode=mode, max_epochs=config.train.epochs)
    if reason and not refit:
        note(reason)


def _peak_memory_bytes() -> int:
    """The most memory that this process has held."""
    status = Path("/proc/self/status")
    if status.exists():  # on Linux `ru_maxrss` starts at what the parent process held
        line = next((line for line in status.read_text().splitlines() if line.startswith("VmHWM:")), None)
        if line is not None:
            return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
