"""Train two towers in Lightning, and return them as they were at the best epoch."""

import contextlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pytorch_lightning as lightning
import torch
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint

from retrieval.common.console import note
from retrieval.common.errors import TrainError
from train.config.load import ResolvedConfig
from train.data import cooccurrence
from train.data.datamodule import DataModule
from train.ease import warm_start
from train.ease.feature_rows import feature_rows
from train.loop import checkpoint
from train.loop.lightning_module import Module
from train.loop.progress import Progress
from train.loop.validation import monitored
from train.model import build
from train.model.two_tower import TwoTower

WINDOW: Final = 10  # places apart in a history that items are counted together


class Training(NamedTuple):
    """Trained towers.

    towers: At the best epoch, in eval mode, on the CPU, with the item vectors filled in.
    epochs: A line of history.jsonl for each epoch. steps: Optimiser steps in all.
    """

    towers: TwoTower
    epochs: list[dict[str, Any]]
    steps: int


def train_towers(
    data: DataModule, config: ResolvedConfig, work: Path, *, callbacks: Sequence[Callback] = ()
) -> Training:
    """Train until validation no longer improves, or for `train.epochs`.

    Args:
        data: Training histories and held-out users.
        config: Model and training settings.
        work: Holds the checkpoints; a training that left its last one here is resumed.
        callbacks: Lightning callbacks beside those of the project.

    Raises:
        TrainError: if the loss diverges.

    """
    last = work / checkpoint.LAST_NAME
    torch.manual_seed(config.train.seed)
    towers = _initial_towers(data, config, resumed=last.exists())
    asked, held_out = len(data.truth.users), data.truth.held_out
    if asked < held_out:
        note(f"validation ranks for {asked:,} of {held_out:,} held-out users, drawn at random")
    validated = asked > 0 and (data.ratings is None or len(data.ratings.values) > 0)
    if not validated:
        note(f"no validation rows: training for {config.train.epochs} epochs and keeping the last")
    module = Module(towers, config)
    name, mode = monitored(config)
    best = ModelCheckpoint(
        dirpath=work,
        filename=Path(checkpoint.BEST_NAME).stem,
        monitor=name if validated else None,
        mode=mode if validated else "max",  # Lightning tells this callback from the next one by its mode
        save_weights_only=True,
        enable_version_counter=False,
    )
    resume = ModelCheckpoint(dirpath=work, filename=Path(checkpoint.LAST_NAME).stem, enable_version_counter=False)
    stopping = [EarlyStopping(name, mode=mode, patience=config.train.patience, check_finite=False)] if validated else []
    with _quiet_lightning():
        trainer = lightning.Trainer(
            accelerator=config.train.accelerator,
            devices=1,
            max_epochs=config.train.epochs,
            callbacks=[Progress(), *callbacks, best, resume, *stopping],
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            reload_dataloaders_every_n_epochs=1,
            default_root_dir=work,
        )
        try:
            trainer.fit(module, datamodule=data, ckpt_path=last if last.exists() else None, weights_only=True)
        except SystemExit:
            raise KeyboardInterrupt from None  # Lightning turns Ctrl-C into an exit of its own
    if trainer.interrupted:
        raise KeyboardInterrupt
    if not module.epochs:
        raise TrainError(f"{work}: nothing was trained: no epoch was run")
    trained = module.average.cpu().eval()
    trained.load_state_dict(checkpoint.best_weights(work))
    trained.freeze_items(data.items)
    return Training(trained, module.epochs, trainer.global_step)


def _initial_towers(data: DataModule, config: ResolvedConfig, *, resumed: bool) -> TwoTower:
    """Untrained towers, with what the loss needs to know of the data, and a spectral start unless weights follow."""
    items = len(next(iter(data.items.values())))
    towers = build.pair(config, data.preprocess, frequency=build.frequency(data.histories.items, catalogue=items))
    impressions = data.histories.impressions
    if impressions is not None:
        towers.impression_frequency = build.frequency(impressions.indices, catalogue=items)
    if config.train.start == "spectral" and not resumed:
        features = [feature for feature in config.item_features if feature.name != config.data.item]
        values = {name: values.numpy() for name, values in data.items.items()}
        counts = (
            cooccurrence.windowed(data.histories, feature_rows(features, values, items=items), window=WINDOW)
            if data.ordered
            else cooccurrence.by_user(data.histories, catalogue=items)
        )
        generator = np.random.default_rng(config.train.seed)
        vectors = warm_start.spectral(counts, items=items, dim=config.model.dim, generator=generator)
        warm_start.start(towers, vectors, data.items)
    return towers


@contextlib.contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Silence Lightning's own notes: they are about loaders and loggers that are not used here."""
    logger = logging.getLogger("pytorch_lightning")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"pytorch_lightning|lightning_fabric|torch")
        warnings.filterwarnings("ignore", message=r".*(does not have many workers|checkpoint directory|ckpt_path).*")
        try:
            yield
        finally:
            logger.setLevel(level)
