"""LightningModule: the training loop around `TwoTower`, and validation after each epoch."""

import copy
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pytorch_lightning as lightning
import torch
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from retrieval.common.errors import TrainError
from retrieval.metrics import ranking, rating
from train.config.load import Config
from train.data.batches import Batch
from train.data.datamodule import DataModule
from train.loop.progress import print_epoch
from train.model.build import given
from train.model.two_tower import TwoTower

LAST_ITEM_DECAY = 0.5  # weight decay of `last_item_embedding` per epoch: what is not seen again fades
WARM_UP = 10  # steps in which the learning rate rises: the second moments of Adam are noise before
K = 10  # cutoff of the validation metrics

Vectors = npt.NDArray[np.float32]


class Module(lightning.LightningModule):
    """A model in training, and the moving average of its weights, which is validated and published.

    The average has the effect of a falling learning rate (arXiv 1803.05407), without knowing when training will end.

    Attributes:
        pair: The model that is trained.
        average: Exponential moving average of its weights.
        epochs: Metrics of each epoch, the lines of history.jsonl.
    """

    def __init__(self, pair: TwoTower, config: Config) -> None:
        super().__init__()
        self.pair, self.config = pair, config
        self.average = copy.deepcopy(pair).requires_grad_(False).eval()
        self.epochs: list[dict[str, Any]] = []
        self._loss = torch.zeros(())
        self._steps = 0
        self._started = time.monotonic()
        self._vectors: list[Tensor] = []

    @property
    def data(self) -> DataModule:
        data: DataModule = self.trainer.datamodule  # type: ignore[attr-defined]  # Lightning sets it in fit
        return data

    def on_fit_start(self) -> None:
        self.users = {name: values.to(self.device) for name, values in self.data.users.items()}
        self.items = {name: values.to(self.device) for name, values in self.data.items.items()}

    def on_train_epoch_start(self) -> None:
        self._loss, self._steps, self._started = torch.zeros((), device=self.device), 0, time.monotonic()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002  (Lightning's signature)
        if batch_idx == 0:
            # Seeded by epoch, as the batches are, so that a resumed training draws the same dropout. Not earlier: the
            # creation of a data loader's iterator draws as well, at another time if the epoch is resumed.
            torch.manual_seed(self.config.train.seed * 1_000_003 + self.current_epoch)

    def training_step(self, batch: Batch, index: int) -> Tensor | None:  # noqa: ARG002  (Lightning's signature)
        if self.config.train.start == "linear":  # EASE is not trained
            return None
        users = {name: values[batch.users] for name, values in self.users.items()}
        loss = self.pair.loss(batch, users, self.items)
        self._loss += loss.detach()  # summed on the device: nothing waits for it
        self._steps += 1
        return loss

    @torch.no_grad()
    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
        # The first averages are short, over a fifth of the steps so far.
        decay = min(1 - 1 / given(self.config.train.averaging), self.global_step / (self.global_step + 4))
        for average, weight in zip(self.average.parameters(), self.pair.parameters(), strict=True):
            average.lerp_(weight, 1 - decay)

    def on_validation_epoch_start(self) -> None:
        self._vectors = []
        self._item_vectors = self.average.freeze_items(self.items)

    def validation_step(self, batch: dict[str, Tensor], index: int) -> None:  # noqa: ARG002
        self._vectors.append(self.average.user_tower(batch))

    def on_validation_epoch_end(self) -> None:
        measured = self.ranked(self._in_order(self._vectors), self._item_vectors.float().cpu().numpy())
        self.log_dict(measured)
        self._finish_epoch(measured)

    @torch.no_grad()
    def embedded(self, pair: TwoTower) -> tuple[Vectors, Vectors]:
        """Embed the validation users, in the order of `Truth.users`, and the catalogue, with a model on the CPU."""
        items = pair.freeze_items(self.data.items).numpy()
        return self._in_order([pair.user_tower(block) for block in self.data.val_dataloader()]), items

    def validated(self) -> dict[str, ranking.PerUser]:
        """Validate the average after training, on the CPU. Returns each metric by user."""
        return self._by_user(*self.embedded(self.average))

    def on_train_epoch_end(self) -> None:
        if not len(self.data.truth.users):
            self.average.freeze_items(self.items)
            self._finish_epoch({})

    def _in_order(self, blocks: list[Tensor]) -> Vectors:
        """The vectors of the validation blocks in the order of `Truth.users`."""
        vectors = torch.cat(blocks).float().cpu().numpy()
        users = np.empty_like(vectors)
        users[self.data.validation_order] = vectors
        return users

    def ranked(self, users: Vectors, items: Vectors) -> dict[str, float]:
        """Compute the validation metrics of vectors.

        Args:
            users: (n, dim) float32, in the order of `Truth.users`.
            items: (catalogue, dim) float32.

        Returns:
            Mean recall and NDCG over the whole catalogue, and the RMSE if the loss fits values.
        """
        measured = averaged(self._by_user(users, items))
        held_out, limits = self.data.ratings, self.data.preprocess.values
        if held_out is not None and limits is not None and len(held_out.values):
            scores = (users[held_out.users] * items[held_out.items]).sum(axis=1)
            predicted = rating.stars(scores, low=limits.low, high=limits.high)
            measured["rmse"] = rating.errors(predicted, held_out.values)["rmse"]
        return measured

    def _by_user(self, users: Vectors, items: Vectors) -> dict[str, ranking.PerUser]:
        """Recall and NDCG of each validation user; arguments as in `ranked`."""
        truth = self.data.truth
        ranks = ranking.ranks(users, items, truth.wanted, truth.seen)
        return {
            f"{name}@{K}": metric(ranks, truth.wanted, k=K)
            for name, metric in (("recall", ranking.recall), ("ndcg", ranking.ndcg))
        }

    def _finish_epoch(self, measured: dict[str, float]) -> None:
        """Record the metrics of an epoch. Raises TrainError if the loss is not finite."""
        loss = float(self._loss) / max(self._steps, 1)
        if not np.isfinite(loss):
            raise TrainError(
                f"the loss is {loss} in epoch {self.current_epoch + 1}: training diverged; "
                f"try a smaller train.lr than {self.config.train.lr:g}"
            )
        self.epochs.append(
            {
                "epoch": self.current_epoch + 1,
                "step": self.global_step,
                "train_loss": loss,
                **measured,
                "tau": float(1 / self.pair.scale.detach()),
                "seconds": time.monotonic() - self._started,
            }
        )
        print_epoch(self.epochs[-1], epochs=self.trainer.max_epochs)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["epochs"] = self.epochs

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.epochs = checkpoint["epochs"]

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        train = self.config.train
        lr, weight_decay = given(train.lr), given(train.weight_decay)
        steps = max(len(self.data.histories.items) / given(train.batch_size), 1.0)  # of an epoch
        groups: dict[float, list[Tensor]] = {}  # by weight decay
        for name, weight in self.pair.named_parameters():
            decay = weight_decay if weight.ndim > 1 else 0.0
            if name.startswith("user_tower.last_item_embedding."):
                decay += LAST_ITEM_DECAY / (steps * lr)
            groups.setdefault(decay, []).append(weight)
        optimizer = torch.optim.AdamW(
            [{"params": weights, "weight_decay": decay} for decay, weights in groups.items()],
            lr=lr,
            betas=(0.9, 0.98),
            fused=self.device.type in ("cpu", "cuda"),
        )
        warm_up = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min((step + 1) / WARM_UP, 1.0))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": warm_up, "interval": "step"}}


def averaged(measured: Mapping[str, ranking.PerUser]) -> dict[str, float]:
    """Return the mean of each metric over the users."""
    return {name: float(np.nanmean(values)) for name, values in measured.items()}
