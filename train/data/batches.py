"""Histories -> batches: whole tensors cut by index, no work a row."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from retrieval.common.csr import CSR
from retrieval.features.vocabulary import FIRST

Rows = npt.NDArray[np.int64]

SHOWN = 8  # of what was shown beside a choice, drawn anew each epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class Histories:
    """What every user took, oldest first, one user after another.

    users: (u,) int64 user rows, those with at least one item. starts: (u + 1,) int64 into the rest.
    items: (n,) int64 item rows. values: (n,) float32, scaled to [-1, 1], NaN where missing; None where
    nothing reads them.
    shown: for each of `items` the item rows that were shown beside it and not chosen; None where the data does not say.
    """

    users: Rows
    starts: Rows
    items: Rows
    values: npt.NDArray[np.float32] | None = None
    shown: CSR | None = None

    @classmethod
    def from_rows(
        cls, users: Rows, items: Rows, values: npt.NDArray[np.float32] | None = None, shown: CSR | None = None
    ) -> "Histories":
        """users, items: (n,) rows sorted by user, oldest first within one."""
        present, first = np.unique(users, return_index=True)
        starts = np.append(first, len(users)).astype(np.int64)
        return cls(users=present, starts=starts, items=items, values=values, shown=shown)

    @property
    def lengths(self) -> Rows:
        return np.diff(self.starts)

    def shuffled(self, generator: np.random.Generator) -> "Histories":
        """The same histories, each in a random order."""
        owner = np.repeat(np.arange(len(self.users)), self.lengths)
        order = np.lexsort((generator.random(len(self.items)), owner))
        values = None if self.values is None else self.values[order]
        shown = None if self.shown is None else self.shown.take(order)
        return Histories(users=self.users, starts=self.starts, items=self.items[order], values=values, shown=shown)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Stretches of histories, newest item first, padded at the end with zeros.

    users: (batch,) int64 user rows. rows: (batch, width) int64 rows of the item vocabulary (item row + 2).
    lengths: (batch,) int64, at least 1. fresh: (batch,) int64: the newest `fresh` items are targets, the older ones
    are there to be read. opening: (batch,) int64 below `lengths`, the place of the item that the profile alone is to
    find: any of the row's, as a user of whom only features are known may be asked about at any time.
    values: (batch, width) float32 or None.
    shown: (batch, width, some) int64 rows of the item vocabulary: what was shown beside an item and not chosen, padded
    with zeros; None where nothing was.
    lessons: (batch, width) int64 rows of the item vocabulary: at slot k > 0 what a teacher expects after item k, 0
    where nothing is or the slot is not trained; None without a teacher.
    """

    users: Tensor
    rows: Tensor
    lengths: Tensor
    fresh: Tensor
    opening: Tensor
    values: Tensor | None = None
    shown: Tensor | None = None
    lessons: Tensor | None = None

    def to(self, device: torch.device) -> "Batch":
        """The same batch elsewhere; Lightning calls it."""
        return Batch(
            users=self.users.to(device),
            rows=self.rows.to(device),
            lengths=self.lengths.to(device),
            fresh=self.fresh.to(device),
            opening=self.opening.to(device),
            values=None if self.values is None else self.values.to(device),
            shown=None if self.shown is None else self.shown.to(device),
            lessons=None if self.lessons is None else self.lessons.to(device),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """Which stretches of the histories make the rows of an epoch: (w,) int64 each; ends are exclusive.

    owner: position in `Histories.users`; first: where reading starts; target: where targets start; end.
    """

    owner: Rows
    first: Rows
    target: Rows
    end: Rows

    @property
    def lengths(self) -> Rows:
        return self.end - self.first


def cut(histories: Histories, *, max_length: int, generator: np.random.Generator) -> Windows:
    """Cut histories into windows of at most max_length + 1 items, so that every item is a target once.

    A history that does not fit is cut at random places, other ones each epoch, and a window also reads the quarter
    window before it: short of the beginning of a history, no target stands without a past.
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
    teach: Callable[[Histories], Rows] | None = None,
) -> Iterator[Batch]:
    """Cut an epoch's batches.

    batch_size: targets in a batch, about: rows of alike length stand together, so that little is padding, and long
        rows are fewer.
    shuffle: for histories whose order means nothing: another one each epoch.
    teach: histories -> an item row to learn after each of their items, negative for none: (n,).
    """
    if shuffle:
        histories = histories.shuffled(generator)
    lessons = None if teach is None else teach(histories)
    windows = cut(histories, max_length=max_length, generator=generator)
    lengths = windows.lengths
    # Alike lengths, yet not the same neighbours each epoch.
    order = np.argsort(lengths + generator.random(len(lengths)) * (1 + lengths // 8), kind="stable")
    targets = np.cumsum((windows.end - windows.target)[order])
    edges = np.unique(
        np.append(np.searchsorted(targets, np.arange(batch_size, targets[-1], batch_size)) + 1, len(order))
    )
    starts = np.append(0, edges[:-1])
    for number in generator.permutation(len(edges)):
        yield gather(histories, windows, order[starts[number] : edges[number]], lessons, generator=generator)


def gather(
    histories: Histories, windows: Windows, chosen: Rows, lessons: Rows | None, *, generator: np.random.Generator
) -> Batch:
    """The chosen windows as tensors.

    lessons: (n,) an item row after each item, negative for none. generator: draws what the profile is to find, and what
    was shown.
    """
    lengths = windows.lengths[chosen]
    offset = np.arange(int(lengths.max()))  # (width,)
    inside = offset < lengths[:, None]  # (batch, width)
    position = np.where(inside, windows.end[chosen][:, None] - 1 - offset, 0)
    rows = np.where(inside, histories.items[position] + FIRST, 0)
    values = None if histories.values is None else np.where(inside, histories.values[position], np.float32(0))
    fresh = (windows.end - windows.target)[chosen]
    if lessons is not None:
        lesson = lessons[position]
        taught = inside & (offset > 0) & (offset <= fresh[:, None]) & (lesson >= 0)
        lessons = np.where(taught, lesson + FIRST, 0)
    shown = None
    if histories.shown is not None:
        shown = some_shown(histories.shown, position, wanted=offset < fresh[:, None], generator=generator)
    return Batch(
        users=torch.from_numpy(histories.users[windows.owner[chosen]]),
        rows=torch.from_numpy(rows),
        lengths=torch.from_numpy(lengths),
        fresh=torch.from_numpy(fresh),
        opening=torch.from_numpy(generator.integers(0, lengths)),
        values=None if values is None else torch.from_numpy(values),
        shown=None if shown is None else torch.from_numpy(shown),
        lessons=None if lessons is None else torch.from_numpy(lessons),
    )


def some_shown(shown: CSR, position: Rows, *, wanted: npt.NDArray[np.bool_], generator: np.random.Generator) -> Rows:
    """At most `SHOWN` of what was shown beside each item, a stretch of its list that starts anywhere and goes round.

    position: (batch, width) of the items; wanted: (batch, width), where anything is asked for.
    Returns (batch, width, some) rows of the item vocabulary, zeros after.
    """
    count = np.where(wanted, shown.lengths[position], 0)  # (batch, width)
    place = np.arange(min(SHOWN, int(count.max(initial=0))))
    begin = generator.integers(0, np.maximum(count, 1))
    inside = place < count[:, :, None]  # (batch, width, some)
    turned = (begin[:, :, None] + place) % np.maximum(count, 1)[:, :, None]
    entry = np.where(inside, shown.indptr[position][:, :, None] + turned, 0)
    return np.where(inside, np.append(shown.indices, 0)[entry] + FIRST, 0)
