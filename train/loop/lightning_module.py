"""LightningModule: wiring only. What is computed stands in `pair`, what it is fed in `datamodule`."""

import copy
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pytorch_lightning as lightning
import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor

from retrieval.common.errors import TrainError
from retrieval.metrics import ranking, rating
from train.config.load import Config
from train.data.batches import Batch
from train.data.datamodule import DataModule
from train.loop.progress import tell
from train.model.build import given
from train.model.two_tower import TwoTower

FORGOTTEN = 0.5  # of the short cut in an epoch: what followed an item once, and is not seen again, fades
WARM_UP = 10  # steps in which the learning rate rises: Adam's second moments are noise before
K = 10  # what validation cuts at

Vectors = npt.NDArray[np.float32]


class Module(lightning.LightningModule):
    """A pair in training, and the running average of its weights, which is what is validated and kept.

    An average over the last steps does what letting the learning rate fall does (arXiv 1803.05407), without having
    to know beforehand when training will end.
    """

    def __init__(self, pair: TwoTower, config: Config) -> None:
        super().__init__()
        self.automatic_optimization = False  # whose closure and hooks take a fiftieth of a small step
        self.pair, self.config = pair, config
        self.average = copy.deepcopy(pair).requires_grad_(False).eval()
        self.epochs: list[dict[str, Any]] = []
        self._sum = torch.zeros(())
        self._steps = 0
        self._started = time.monotonic()
        self._vectors: list[Tensor] = []
        self._weights: tuple[list[Tensor], list[Tensor]] = [], []

    @property
    def data(self) -> DataModule:
        data: DataModule = self.trainer.datamodule  # type: ignore[attr-defined]  # Lightning sets it in fit
        return data

    def on_fit_start(self) -> None:
        self.users = {name: values.to(self.device) for name, values in self.data.users.items()}
        self.items = {name: values.to(self.device) for name, values in self.data.items.items()}
        # Found once: walking the modules takes longer than averaging.
        self._weights = list(self.pair.parameters()), list(self.average.parameters())

    def on_train_epoch_start(self) -> None:
        self._sum, self._steps, self._started = torch.zeros((), device=self.device), 0, time.monotonic()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002  (Lightning's signature)
        if batch_idx == 0:
            # By epoch, as the batches are: dropout after a resume is what it would have been. Not before the first
            # batch is there, since making a loader's iterator draws too, in a resumed epoch at another time.
            torch.manual_seed(self.config.train.seed * 1_000_003 + self.current_epoch)
        rate = self._rate(self.global_step)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = rate

    def _rate(self, step: int) -> float:
        """The learning rate of a step."""
        train = self.config.train
        return given(train.lr) * min((step + 1) / WARM_UP, 1.0)

    def training_step(self, batch: Batch, index: int) -> None:  # noqa: ARG002  (Lightning's signature)
        users = {name: values[batch.users] for name, values in self.users.items()}
        loss = self.pair.loss(batch, users, self.items)
        loss.backward()  # type: ignore[no-untyped-call]  # torch does not type it
        optimizer = self.optimizers()
        assert isinstance(optimizer, LightningOptimizer)  # the one there is, not a list of some
        optimizer.step()
        optimizer.zero_grad()
        self._sum += loss.detach()  # summed where it is; nothing waits for it, nothing is logged a step
        self._steps += 1

    @torch.no_grad()
    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
        step = self.global_step
        # Short at first, a fifth of the steps so far: the first ones are soon forgotten.
        kept = min(1 - 1 / given(self.config.train.averaging), step / (step + 4))
        now, average = self._weights
        torch._foreach_lerp_(average, now, 1 - kept)

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
        """What a pair on the CPU makes of the validated users, in the order of `Truth.users`, and of the catalogue."""
        items = pair.freeze_items(self.data.items).numpy()
        return self._in_order([pair.user_tower(block) for block in self.data.val_dataloader()]), items

    def validated(self) -> dict[str, ranking.PerUser]:
        """What validation says of the average as it is, asked after training, on the CPU, by user."""
        return self._by_user(*self.embedded(self.average))

    def on_train_epoch_end(self) -> None:
        if not len(self.data.truth.users):
            self.average.freeze_items(self.items)
            self._finish_epoch({})

    def _in_order(self, blocks: list[Tensor]) -> Vectors:
        """The vectors that blocks of validated users were given, in the order of `Truth.users`."""
        vectors = torch.cat(blocks).float().cpu().numpy()
        users = np.empty_like(vectors)
        users[self.data.asked] = vectors
        return users

    def ranked(self, users: Vectors, items: Vectors) -> dict[str, float]:
        """Recall and NDCG of the whole catalogue on the validated users; with ratings to fit, how far off they are.

        users: (n, dim) in the order of `Truth.users`. items: (catalogue, dim).
        """
        measured = averaged(self._by_user(users, items))
        asked, limits = self.data.ratings, self.data.preprocess.values
        if asked is not None and limits is not None and len(asked.values):
            scores = (users[asked.users] * items[asked.items]).sum(axis=1)
            predicted = rating.stars(scores, low=limits.low, high=limits.high)
            measured["rmse"] = rating.errors(predicted, asked.values)["rmse"]
        return measured

    def _by_user(self, users: Vectors, items: Vectors) -> dict[str, ranking.PerUser]:
        """Recall and NDCG of each validated user; users, items: as `ranked` has them."""
        truth = self.data.truth
        ranks = ranking.ranks(users, items, truth.wanted, truth.seen)
        return {
            f"{name}@{K}": metric(ranks, truth.wanted, k=K)
            for name, metric in (("recall", ranking.recall), ("ndcg", ranking.ndcg))
        }

    def _finish_epoch(self, measured: dict[str, float]) -> None:
        """Note what the epoch came to. Raises TrainError where the loss is no number any more."""
        loss = float(self._sum) / max(self._steps, 1)
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
        tell(self.epochs[-1], epochs=self.trainer.max_epochs)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["epochs"] = self.epochs

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.epochs = checkpoint["epochs"]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        train = self.config.train
        steps = max(len(self.data.histories.items) / given(train.batch_size), 1.0)
        groups: dict[float, list[Tensor]] = {}  # by weight decay
        for name, weight in self.pair.named_parameters():
            decay = given(train.weight_decay) if weight.ndim > 1 else 0.0
            if name.startswith("user_tower.successors."):
                decay += FORGOTTEN / (steps * given(train.lr))
            groups.setdefault(decay, []).append(weight)
        return torch.optim.AdamW(
            [{"params": weights, "weight_decay": decay} for decay, weights in groups.items()],
            lr=given(train.lr),
            betas=(0.9, 0.98),
            fused=self.device.type in ("cpu", "cuda"),
        )


def averaged(measured: Mapping[str, ranking.PerUser]) -> dict[str, float]:
    """What validation says of each user as a mean over them."""
    return {name: float(np.nanmean(values)) for name, values in measured.items()}
