"""Progress of a training on stderr: a bar per epoch on a terminal, and a line per epoch."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click
import pytorch_lightning as lightning

from retrieval.common import console
from train.data.batches import Batch


def print_epoch(epoch: Mapping[str, Any], *, epochs: int | None) -> None:
    """Print the metrics of an epoch, a line of history.jsonl."""
    measured = "".join(f"  {name} {epoch[name]:.4f}" for name in epoch if "@" in name or name == "rmse")
    console.note(f"epoch {epoch['epoch']}/{epochs}  loss {epoch['train_loss']:.4f}{measured}  {epoch['seconds']:.1f} s")


def stop_reason(epochs: Sequence[Mapping[str, Any]], *, name: str, mode: str, max_epochs: int) -> str | None:
    """Why training stopped where it did; None where too few epochs were validated to say.

    epochs: Lines of history.jsonl. name, mode: The monitored metric and whether it is to be high or low.
    """
    measured = [epoch for epoch in epochs if name in epoch]
    if len(measured) < 2:
        return None
    choose = max if mode == "max" else min
    best, last = choose(measured, key=lambda epoch: float(epoch[name]))["epoch"], measured[-1]["epoch"]
    if best == last:
        return f"{name} still improves at epoch {last}: more epochs may help (train.epochs = {2 * max_epochs})"
    limit = f" (train.epochs = {max_epochs})" if last >= max_epochs else ""
    return f"{name} has not improved since epoch {best}: stopped at {last}{limit}"


class Progress(lightning.Callback):
    """Progress bar on stderr. Lightning's own writes to stdout, which is for results."""

    def __init__(self) -> None:
        self._bar: Any = None

    def on_train_epoch_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:  # noqa: ARG002
        if sys.stderr.isatty() and not console.is_quiet():
            data: Any = trainer.datamodule  # type: ignore[attr-defined]
            label = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
            self._bar = click.progressbar(length=len(data.histories.items), label=label, file=sys.stderr)
            self._bar.__enter__()

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,  # noqa: ARG002
        module: lightning.LightningModule,  # noqa: ARG002
        outputs: Any,  # noqa: ARG002
        batch: Batch,
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        if self._bar is not None:
            self._bar.update(int(batch.fresh.sum()))

    def on_validation_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:  # noqa: ARG002
        self._close()

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:  # noqa: ARG002
        self._close()

    def on_exception(
        self,
        trainer: lightning.Trainer,  # noqa: ARG002
        module: lightning.LightningModule,  # noqa: ARG002
        exception: BaseException,  # noqa: ARG002
    ) -> None:
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.__exit__(None, None, None)
            self._bar = None
