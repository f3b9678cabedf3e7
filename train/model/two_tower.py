"""TwoTower: both towers and the loss of a batch, with all positions of a history trained in one pass."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from retrieval.features.vocabulary import FIRST, UNKNOWN
from train.data.batches import Batch
from train.features.kinds import drop
from train.model.feature_embedding import Inputs
from train.model.losses import MAX_SCALE, Examples, Loss, log_inclusion
from train.model.towers import ItemTower, UserTower, in_blocks


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoTowerOptions:
    """Options of the training step.

    Attributes:
        candidates: Items drawn uniformly from the catalogue for a batch, for losses with sampled candidates.
        temperature: Temperature of the softmax at the start; it is learned.
        item_dropout: Share of history items that are read as unknown.
    """

    candidates: int
    temperature: float
    item_dropout: float = 0.0


class Candidates(NamedTuple):
    """The items that a batch is trained with.

    Attributes:
        rows: (c,) int64 rows of the item vocabulary.
        column: (vocabulary,) int64, position of a row in `rows` plus FIRST; missing and unknown stay as they are.
        log_inclusion: (c,) float32, see `Examples`; None if nothing has to be corrected for.
    """

    rows: Tensor
    column: Tensor
    log_inclusion: Tensor | None


class TwoTower(nn.Module):
    """The two towers and the temperature.

    Attributes:
        frequency: (items,) float32, share of the training targets that each item is.
        impression_frequency: (items,) float32, share of the impressions that each item is.
    """

    frequency: Tensor
    impression_frequency: Tensor

    def __init__(
        self, user_tower: UserTower, item_tower: ItemTower, loss: Loss, *, options: TwoTowerOptions, frequency: Tensor
    ) -> None:
        """Create the model. frequency: see the attribute; that of the impressions starts at zero."""
        super().__init__()
        self.user_tower, self.item_tower, self.loss_function, self.options = user_tower, item_tower, loss, options
        self.log_scale = nn.Parameter(torch.tensor(1 / options.temperature).log())
        self.register_buffer("frequency", frequency, persistent=False)
        self.register_buffer("impression_frequency", torch.zeros_like(frequency), persistent=False)

    @property
    def scale(self) -> Tensor:
        """1 / temperature, the factor of the cosines: a scalar."""
        return self.log_scale.exp().clamp(max=MAX_SCALE)

    def loss(self, batch: Batch, users: Inputs, items: Inputs) -> Tensor:
        """Compute the mean loss of the targets of a batch.

        Args:
            batch: Windows of histories.
            users: Static features of the users of the batch, one row per window.
            items: Features of the whole catalogue.

        Returns:
            The loss, a float32 scalar.
        """
        candidates = self._candidates(batch)
        column = candidates.column
        vectors = self.item_tower(features_of(items, candidates.rows - FIRST))  # (c, dim)
        # The newest item is only ever a target, so the slot of item k, counted from the newest, is k.
        read = torch.where(batch.rows != 0, drop(batch.rows, self.options.item_dropout, to=UNKNOWN), 0)[:, 1:]
        table = torch.cat([self.user_tower.reserved_vectors(), vectors])  # (2 + c, dim)
        history = functional.embedding(column[read], table)  # (batch, width - 1, dim)
        slots = target_slots(batch)  # (n,)
        states = self.user_tower.states(users, history, read, slots)  # (n, dim)
        target = column[at_slots(batch, batch.rows, slots)] - FIRST  # (n,)
        impressions, values = batch.impressions, batch.values
        examples = Examples(
            users=states,
            items=vectors,
            target=target,
            scale=self.scale,
            weight=torch.full_like(states[:, 0], 1 / max(len(states), 1)),
            impressions=None if impressions is None else column[at_slots(batch, impressions, slots)] - FIRST,
            log_inclusion=candidates.log_inclusion,
            value=None if values is None else at_slots(batch, values, slots),
        )
        return self.loss_function(examples)

    def _candidates(self, batch: Batch) -> Candidates:
        """Choose the candidates of a batch: the catalogue, or the items of the batch and sampled ones."""
        catalogue, device = len(self.frequency), batch.rows.device
        kind = self.loss_function.candidates
        if kind == "catalogue":
            column = torch.arange(FIRST + catalogue, device=device)
            return Candidates(column[FIRST:], column, None)
        uniform = self.options.candidates if kind == "sampled" else 0
        needed = [rows.flatten() for rows in (batch.rows, batch.impressions) if rows is not None]
        needed.append(torch.randint(FIRST, FIRST + catalogue, (uniform,), device=device))
        rows = torch.unique(torch.cat(needed))
        rows = rows[rows >= FIRST]  # without padding
        column = torch.arange(FIRST + catalogue, device=device)
        column[rows] = torch.arange(FIRST, FIRST + len(rows), device=device)
        if self.loss_function.fits_values:  # no candidates are compared
            return Candidates(rows, column, None)
        targets = int(batch.fresh.sum())
        inclusion = log_inclusion(self.frequency, targets=targets, uniform=uniform, supplied=self._supplied(batch))
        return Candidates(rows, column, inclusion[rows - FIRST])

    def _supplied(self, batch: Batch) -> Tensor | None:
        """The probability that the impressions of a batch hold each item: (items,); None without any."""
        if batch.impressions is None:
            return None
        shown = int((batch.impressions != 0).sum())
        return -torch.expm1(shown * torch.log1p(-self.impression_frequency.clamp(max=1 - 1e-6)))

    @torch.no_grad()
    def freeze_items(self, items: Inputs) -> Tensor:
        """Embed the catalogue and copy the vectors into the user tower. Returns them, (items, dim)."""
        vectors = in_blocks(self.item_tower, items)
        self.user_tower.freeze_items(vectors)
        return vectors


def target_slots(batch: Batch) -> Tensor:
    """Return the slots that have a target: (n,) int64, positions in the flattened (batch, width) states.

    The state at slot k > 0 (after the k-th newest item) predicts item k - 1. Slot 0, the profile, predicts the item
    `opening`, if the window reaches back to the first item of the history.
    """
    offset = torch.arange(batch.rows.shape[1], device=batch.rows.device)
    slot = (offset > 0) & (offset <= batch.fresh[:, None]) & (offset < batch.lengths[:, None])  # (batch, width)
    slot[:, 0] = batch.fresh == batch.lengths
    return slot.flatten().nonzero()[:, 0]


def at_slots(batch: Batch, values: Tensor, slots: Tensor) -> Tensor:
    """Select what belongs to the targets of slots. values: (batch, width, ...), by item. Returns (n, ...)."""
    width = batch.rows.shape[1]
    row, offset = slots // width, slots % width
    return values[row, torch.where(offset > 0, offset - 1, batch.opening[row])]


def features_of(table: Mapping[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
    """Select rows of a table of features."""
    return {name: values[rows] for name, values in table.items()}
