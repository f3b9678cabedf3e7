"""DataModule: a prepared dataset as tensors, as training batches, and as validation blocks."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
import pytorch_lightning as lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset
from torch.utils.data import Dataset as Blocks

from retrieval.common.csr import CSR, from_pairs
from retrieval.features.vocabulary import FIRST
from train.config.components import fits_values
from train.config.load import ResolvedConfig
from train.data.batches import Batch, Histories, batches
from train.data.dataset import Dataset
from train.data.tensors import tensors
from train.features.preprocess import Range

Rows = npt.NDArray[np.int64]

VALIDATION_SCORES = 400_000_000  # maximum users x items that are ranked after an epoch: seconds, not minutes
VALIDATION_USERS = 2_000, 100_000  # minimum (if there are as many) and maximum number of validation users
VALIDATION_BLOCK = 256  # users that are embedded at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """The validation users and what is known of them.

    Attributes:
        users: (u,) int64 user rows.
        held_out: Number of users with held-out items, of which `users` may be a sample.
        history: Items of each user before the held-out ones, oldest first.
        wanted: Held-out items of each user.
        seen: Items that are not ranked for a user: all that the training has.
    """

    users: Rows
    held_out: int
    history: CSR
    wanted: CSR
    seen: CSR


def truth(dataset: Dataset, *, limit: int | None = None, seed: int = 0) -> Truth:
    """Collect the validation users. limit: maximum number of users, sampled with `seed`."""
    frame = dataset.interactions.with_row_index("position")
    wanted = frame.filter(pl.col("split") == "valid")
    users = np.unique(wanted.get_column("user").to_numpy()).astype(np.int64)
    held_out = len(users)
    if limit is not None and held_out > limit:
        users = np.sort(np.random.default_rng(seed).choice(users, limit, replace=False))
    position_of = np.full(dataset.users.height, -1, np.int64)
    position_of[users] = np.arange(len(users))

    def lists(part: pl.DataFrame) -> CSR:
        owners = position_of[part.get_column("user").to_numpy()]
        chosen = owners >= 0
        return from_pairs(owners[chosen], part.get_column("item").to_numpy()[chosen], height=len(users))

    known = frame.filter(pl.col("split").is_in(["train", "valid-fold-in"]))
    # With a random split a user's training rows are on both sides of the held-out ones: the history stops before them.
    first = wanted.group_by("user").agg(pl.col("position").min().alias("first"))
    timed = dataset.interactions.get_column("time").null_count() < frame.height
    before = known.join(first, on="user", maintain_order="left") if timed else known
    before = before.filter(pl.col("position") < pl.col("first")) if timed else before
    return Truth(users=users, held_out=held_out, history=lists(before), wanted=lists(wanted), seen=lists(known))


def impressions_of(dataset: Dataset) -> CSR | None:
    """Return the impressions of each training row, in the order of the rows; None if there are none."""
    trains = dataset.interactions.get_column("split") == "train"
    row = trains.cum_sum().to_numpy().astype(np.int64) - 1
    choice = dataset.impressions.get_column("choice").to_numpy()
    trained = trains.to_numpy()[choice]
    if not trained.any():
        return None
    items = dataset.impressions.get_column("item").to_numpy()[trained].astype(np.int64)
    return from_pairs(row[choice[trained]], items, height=int(trains.sum()))


def newest_first(history: CSR, max_length: int) -> Rows:
    """Convert lists of item rows, oldest first, to the rows of the item vocabulary that a tower takes: (n, k) int64."""
    offset = np.arange(min(max_length, int(history.lengths.max(initial=0))))
    inside = offset < history.lengths[:, None]
    position = np.where(inside, history.indptr[1:, None] - 1 - offset, 0)
    padded = np.append(history.indices, 0)  # an empty CSR has nothing at position 0
    return np.where(inside, padded[position] + FIRST, 0)


class EpochBatches(IterableDataset[Batch]):
    """The batches of one epoch, built while they are iterated."""

    def __init__(
        self,
        histories: Histories,
        *,
        config: ResolvedConfig,
        shuffle: bool,
        epoch: int,
    ) -> None:
        self.histories, self.config, self.shuffle, self.epoch = histories, config, shuffle, epoch

    def __iter__(self) -> Iterator[Batch]:
        history, batch_size = self.config.history, self.config.train.batch_size
        # Seeded by epoch, so that a resumed training continues as if it had never stopped.
        generator = np.random.default_rng((self.config.train.seed, self.epoch))
        return batches(
            self.histories,
            max_length=history.max_length if history is not None and history.max_length else 1,
            batch_size=batch_size,
            shuffle=self.shuffle,
            generator=generator,
        )


class ValidationBlocks(Blocks[dict[str, Tensor]]):
    """The validation users in blocks; built when they are read."""

    def __init__(self, truth: Truth, order: Rows, users: Mapping[str, Tensor], *, config: ResolvedConfig) -> None:
        """Prepare the blocks. order: positions in `truth.users`. users: static features of every user."""
        self.truth, self.order, self.users, self.history = truth, order, users, config.history

    def __len__(self) -> int:
        return -(-len(self.order) // VALIDATION_BLOCK)

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        chosen = self.order[number * VALIDATION_BLOCK : (number + 1) * VALIDATION_BLOCK]
        block = {name: values[self.truth.users[chosen]] for name, values in self.users.items()}
        if self.history is not None and self.history.max_length:
            rows = newest_first(self.truth.history.take(chosen), self.history.max_length)
            block[self.history.name] = torch.from_numpy(rows)
        return block


class DataModule(lightning.LightningDataModule):
    """A prepared dataset as batches.

    Attributes:
        config: Resolved config.
        histories: The training interactions.
        users: Static features of every user, one tensor per column.
        items: Features of every item, one tensor per column.
        truth: The validation users.
        validation_order: (u,) int64 positions in `truth.users`, in the order of the validation blocks.
        ratings: Held-out ratings; None if the loss does not fit values.
    """

    def __init__(self, dataset: Dataset, config: ResolvedConfig, *, ordered: bool) -> None:
        super().__init__()
        self.config, self.ordered = config, ordered
        rated = fits_values(config.train.objective)
        train = dataset.rows("train")
        self.histories = Histories.from_rows(
            train.get_column("user").to_numpy().astype(np.int64),
            train.get_column("item").to_numpy().astype(np.int64),
            scaled(train.get_column("value"), dataset.preprocess.values) if rated else None,
            impressions_of(dataset),
        )
        self.users = tensors(dataset.preprocess.encode_table("user", dataset.users))
        self.items = tensors(dataset.preprocess.encode_table("item", dataset.items))
        limit = np.clip(VALIDATION_SCORES // max(dataset.items.height, 1), *VALIDATION_USERS)
        self.truth = truth(dataset, limit=int(limit), seed=config.train.seed)
        # Sorted by length, so that blocks have little padding: a third of the time if most histories are short.
        self.validation_order = np.argsort(self.truth.history.lengths, kind="stable")
        self.ratings = held_out_ratings(dataset, self.truth) if rated else None
        self.preprocess = dataset.preprocess

    @property
    def epoch(self) -> int:
        return self.trainer.current_epoch if self.trainer is not None else 0

    def train_dataloader(self) -> Iterable[Batch]:
        """Return the batches of the current epoch; Lightning calls this each epoch."""
        epoch = EpochBatches(self.histories, config=self.config, shuffle=not self.ordered, epoch=self.epoch)
        return DataLoader(epoch, batch_size=None)

    def val_dataloader(self) -> Iterable[dict[str, Tensor]]:
        """Return the features and histories of the validation users, in blocks, in the order of `validation_order`."""
        blocks = ValidationBlocks(self.truth, self.validation_order, self.users, config=self.config)
        return DataLoader(blocks, batch_size=None)

    def transfer_batch_to_device(
        self,
        batch: Batch | dict[str, Tensor],
        device: torch.device,
        dataloader_idx: int,  # noqa: ARG002  (Lightning's signature)
    ) -> Batch | dict[str, Tensor]:
        if isinstance(batch, Batch):
            return batch.to(device)
        return {name: values.to(device) for name, values in batch.items()}


def scaled(values: pl.Series, limits: Range | None) -> npt.NDArray[np.float32]:
    """Scale values from the range of the training data to [-1, 1], NaN where missing. Inverse of `rating.stars`."""
    assert limits is not None
    centred = (values.cast(pl.Float64) - limits.low) / (limits.high - limits.low) * 2 - 1
    return centred.fill_null(float("nan")).cast(pl.Float32).to_numpy()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratings:
    """Held-out ratings, (n,) each: positions in `Truth.users`, item rows, values."""

    users: Rows
    items: Rows
    values: npt.NDArray[np.float64]


def held_out_ratings(dataset: Dataset, truth: Truth) -> Ratings:
    """Return the validation rows that have a value, of the validation users."""
    rows = dataset.rows("valid").drop_nulls("value")
    users = rows.get_column("user").to_numpy()
    position = np.searchsorted(truth.users, users).clip(max=max(len(truth.users) - 1, 0))
    chosen = truth.users[position] == users if len(truth.users) else np.zeros(len(users), np.bool_)
    return Ratings(
        users=position[chosen],
        items=rows.get_column("item").to_numpy()[chosen].astype(np.int64),
        values=rows.get_column("value").to_numpy()[chosen].astype(np.float64),
    )
