"""Histories -> batches of windows, cut with array indexing."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from retrieval.common.csr import CSR
from retrieval.features.vocabulary import FIRST

Rows = npt.NDArray[np.int64]

IMPRESSIONS = 8  # maximum number of impressions of a choice in a batch, drawn again each epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class Histories:
    """The items of every user, oldest first, one user after another.

    Attributes:
        users: (u,) int64 user rows, those with at least one item.
        starts: (u + 1,) int64, where each user starts in the arrays below.
        items: (n,) int64 item rows.
        values: (n,) float32 ratings scaled to [-1, 1], NaN where missing; None if the loss does not fit values.
        impressions: For each of `items`, the item rows that were shown with it and not chosen; None if the data has no
            impressions.
    """

    users: Rows
    starts: Rows
    items: Rows
    values: npt.NDArray[np.float32] | None = None
    impressions: CSR | None = None

    @classmethod
    def from_rows(
        cls, users: Rows, items: Rows, values: npt.NDArray[np.float32] | None = None, impressions: CSR | None = None
    ) -> "Histories":
        """Build from the user and item rows of interactions, (n,) each, sorted by user and then oldest first."""
        present, first = np.unique(users, return_index=True)
        starts = np.append(first, len(users)).astype(np.int64)
        return cls(users=present, starts=starts, items=items, values=values, impressions=impressions)

    @property
    def lengths(self) -> Rows:
        return np.diff(self.starts)

    def shuffled(self, generator: np.random.Generator) -> "Histories":
        """Return the same histories, each in a random order."""
        owner = np.repeat(np.arange(len(self.users)), self.lengths)
        order = np.lexsort((generator.random(len(self.items)), owner))
        values = None if self.values is None else self.values[order]
        impressions = None if self.impressions is None else self.impressions.take(order)
        return Histories(
            users=self.users, starts=self.starts, items=self.items[order], values=values, impressions=impressions
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Windows of histories, newest item first, padded at the end with zeros.

    Attributes:
        users: (batch,) int64 user rows.
        rows: (batch, width) int64 rows of the item vocabulary (item row + 2).
        lengths: (batch,) int64 number of items in each window, at least 1.
        fresh: (batch,) int64. The newest `fresh` items are targets; the older ones are only read.
        opening: (batch,) int64, below `lengths`: the item that the profile alone has to predict. It is any of the
            window, since a user without history may come at any time.
        values: (batch, width) float32 ratings scaled to [-1, 1], or None.
        impressions: (batch, width, m) int64 rows of the item vocabulary that were shown with an item and not chosen,
            padded with zeros; or None.
    """

    users: Tensor
    rows: Tensor
    lengths: Tensor
    fresh: Tensor
    opening: Tensor
    values: Tensor | None = None
    impressions: Tensor | None = None

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on a device. Lightning calls this."""
        moved: dict[str, Any] = {
            field.name: None if (tensor := getattr(self, field.name)) is None else tensor.to(device)
            for field in dataclasses.fields(self)
        }
        return Batch(**moved)


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """The windows of an epoch, (w,) int64 each; positions in `Histories.items`, ends are exclusive.

    Attributes:
        owner: Position in `Histories.users`.
        first: First item to read.
        target: First item that is a target.
        end: End of the window.
    """

    owner: Rows
    first: Rows
    target: Rows
    end: Rows

    @property
    def lengths(self) -> Rows:
        return self.end - self.first


def cut(histories: Histories, *, max_length: int, generator: np.random.Generator) -> Windows:
    """Cut histories into windows of at most `max_length` + 1 items, so that every item is a target once.

    A history that is longer is cut at random places, different ones each epoch. A window also reads the quarter before
    it, so that only the first items of a history are predicted from little.
    """
    lengths = histories.lengths
    longest = max_length + 1
    stride = max(longest * 3 // 4, 1)
    fits = lengths <= longest
    # The first window ends after `head` items, the later ones every `stride`.
    head = np.where(fits, lengths, generator.integers(longest - stride + 1, longest + 1, len(lengths)))
    count = 1 + np.ceil((lengths - head) / stride).astype(np.int64)
    owner = np.repeat(np.arange(len(lengths)), count)
    number = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
    end = np.minimum(head[owner] + number * stride, lengths[owner])
    target = np.where(number == 0, 0, head[owner] + (number - 1) * stride)
    first = np.maximum(end - longest, 0)
    base = histories.starts[owner]
    return Windows(owner=owner, first=base + first, target=base + target, end=base + end)


def batches(
    histories: Histories,
    *,
    max_length: int,
    batch_size: int,
    shuffle: bool,
    generator: np.random.Generator,
) -> Iterator[Batch]:
    """Generate the batches of an epoch.

    Args:
        histories: Of all users.
        max_length: Longest history that is read.
        batch_size: Approximate number of targets in a batch. Windows of similar length are batched together, so that
            there is little padding, and a batch of longer windows has fewer of them.
        shuffle: Whether to shuffle each history, if its order means nothing.
        generator: Of all random choices.

    Yields:
        Batches, in random order.
    """
    if shuffle:
        histories = histories.shuffled(generator)
    windows = cut(histories, max_length=max_length, generator=generator)
    lengths = windows.lengths
    # Similar lengths, but other neighbours each epoch.
    order = np.argsort(lengths + generator.random(len(lengths)) * (1 + lengths // 8), kind="stable")
    targets = np.cumsum((windows.end - windows.target)[order])
    edges = np.unique(
        np.append(np.searchsorted(targets, np.arange(batch_size, targets[-1], batch_size)) + 1, len(order))
    )
    starts = np.append(0, edges[:-1])
    for number in generator.permutation(len(edges)):
        yield gather(histories, windows, order[starts[number] : edges[number]], generator=generator)


def gather(histories: Histories, windows: Windows, chosen: Rows, *, generator: np.random.Generator) -> Batch:
    """Build the batch of the chosen windows."""
    lengths = windows.lengths[chosen]
    offset = np.arange(int(lengths.max()))  # (width,)
    inside = offset < lengths[:, None]  # (batch, width)
    position = np.where(inside, windows.end[chosen][:, None] - 1 - offset, 0)
    rows = np.where(inside, histories.items[position] + FIRST, 0)
    values = None if histories.values is None else np.where(inside, histories.values[position], np.float32(0))
    fresh = (windows.end - windows.target)[chosen]
    impressions = None
    if histories.impressions is not None:
        impressions = sample_impressions(
            histories.impressions, position, trained=offset < fresh[:, None], generator=generator
        )
    return Batch(
        users=torch.from_numpy(histories.users[windows.owner[chosen]]),
        rows=torch.from_numpy(rows),
        lengths=torch.from_numpy(lengths),
        fresh=torch.from_numpy(fresh),
        opening=torch.from_numpy(generator.integers(0, lengths)),
        values=None if values is None else torch.from_numpy(values),
        impressions=None if impressions is None else torch.from_numpy(impressions),
    )


def sample_impressions(
    impressions: CSR, position: Rows, *, trained: npt.NDArray[np.bool_], generator: np.random.Generator
) -> Rows:
    """Select at most `IMPRESSIONS` of each item's impressions: a random start in its list, and then those in turn.

    Args:
        impressions: Of each interaction.
        position: (batch, width) int64, the interaction of each item.
        trained: (batch, width) bool, where impressions are needed.
        generator: Draws the starts.

    Returns:
        (batch, width, m) int64 rows of the item vocabulary, padded with zeros.
    """
    count = np.where(trained, impressions.lengths[position], 0)  # (batch, width)
    place = np.arange(min(IMPRESSIONS, int(count.max(initial=0))))  # (m,)
    begin = generator.integers(0, np.maximum(count, 1))
    inside = place < count[:, :, None]  # (batch, width, m)
    turned = (begin[:, :, None] + place) % np.maximum(count, 1)[:, :, None]
    entry = np.where(inside, impressions.indptr[position][:, :, None] + turned, 0)
    return np.where(inside, np.append(impressions.indices, 0)[entry] + FIRST, 0)
