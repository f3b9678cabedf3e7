"""What a person sees of a training: a bar an epoch on a terminal, a line an epoch everywhere."""

import sys
from typing import Any

import click
import pytorch_lightning as lightning

from retrieval import console
from train.batches import Batch


class Progress(lightning.Callback):
    """Reports on stderr. Lightning's own bar writes to stdout, which belongs to results."""

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

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        self._close()
        last: dict[str, Any] = module.epochs[-1]  # type: ignore[index, assignment]
        measured = "".join(f"  {name} {last[name]:.4f}" for name in last if "@" in name)
        console.note(
            f"epoch {last['epoch']}/{trainer.max_epochs}  loss {last['train_loss']:.4f}{measured}"
            f"  {last['seconds']:.1f} s"
        )

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
