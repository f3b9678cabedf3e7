"""Pair: both towers at work on a batch. From histories to the loss, with all positions of a history in one pass."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from retrieval.features.vocabulary import FIRST, UNKNOWN
from train.data.batches import Batch
from train.features.kinds import drop
from train.model.feature_embedding import Inputs
from train.model.losses import OBJECTIVES, Examples, choice, log_inclusion
from train.model.towers import ItemTower, UserTower

COMPARING = ("softmax", "sampled-softmax", "in-batch")  # objectives that set the target against many at once
MAX_SCALE = 40.0  # e^-80, the smallest term of the softmax, is still a float32


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoTowerOptions:
    """How a pair learns. Every number is chosen by `train/config/defaults.py` or the config.

    horizon: share of a target's pull that goes on to the item after it, and so on: 0 is the next item only, at 1 all
        that followed in the window counts alike.
    positions: how many of a window's targets are trained in a pass, drawn at random; 0 for all.
    teaching: share of the pull given to the teacher's expected item.
    item_dropout: how often an item of a history is read as unknown.
    impressions: weight of the choice among what was shown, beside that of the whole catalogue.
    """

    objective: str
    candidates: int
    temperature: float
    horizon: float = 0.0
    positions: int = 0
    teaching: float = 0.0
    item_dropout: float = 0.0
    impressions: float = 0.0


class Drawn(NamedTuple):
    """What examples are drawn to, as `Examples` has it. present: (n, m) columns that are there for certain."""

    present: Tensor
    columns: Tensor | None = None
    shares: Tensor | None = None
    pull: Tensor | None = None


class TwoTower(nn.Module):
    """The two towers, the temperature, and what a batch is worth to them."""

    frequency: Tensor
    impressions: Tensor
    lessons: Tensor

    def __init__(
        self,
        user_tower: UserTower,
        item_tower: ItemTower,
        *,
        options: TwoTowerOptions,
        frequency: Tensor,
    ) -> None:
        """frequency: (items,) float32, the share of the training targets that each item is."""
        super().__init__()
        self.user_tower, self.item_tower, self.options = user_tower, item_tower, options
        self.objective = OBJECTIVES[options.objective]
        self.log_scale = nn.Parameter(torch.tensor(1 / options.temperature).log())
        self.register_buffer("frequency", frequency, persistent=False)
        self.register_buffer("impressions", torch.zeros_like(frequency), persistent=False)
        self.register_buffer("lessons", torch.zeros_like(frequency), persistent=False)

    def supply(self, impressions: Tensor) -> None:
        """Say what share of what was shown and not chosen each item is: (items,) float32."""
        self.impressions = impressions

    def teach(self, lessons: Tensor) -> None:
        """Say what share of a teacher's lessons each item is: (items,) float32."""
        self.lessons = lessons

    @property
    def scale(self) -> Tensor:
        return self.log_scale.exp().clamp(max=MAX_SCALE)

    def loss(self, batch: Batch, users: Inputs, items: Inputs) -> Tensor:
        """The mean loss of a batch's targets.

        users: the static features of the batch's users, aligned with it. items: the features of the whole catalogue.
        """
        rows = batch.rows  # (batch, width)
        candidates, (local, lesson, passed), inclusion = self._candidates(batch)
        vectors = self.item_tower({name: values[candidates] for name, values in items.items()})  # (c, dim)
        table = torch.cat([self.user_tower.reserved_vectors(), vectors])  # rows as in the item vocabulary
        # The newest item is only ever a target, so the slot of item k, counted from the newest, is k.
        read = torch.where(rows != 0, drop(rows, self.options.item_dropout, to=UNKNOWN), 0)[:, 1:]
        if self.user_tower.source is None:
            history = functional.embedding(torch.where(read > UNKNOWN, local[:, 1:], read), table)
        else:
            history = self.user_tower.source(read)
        profile = self.user_tower.profile(users, len(rows))
        slots, target = targets(batch, local - FIRST)
        if self.options.positions:
            slots, target = thinned(slots, target, width=rows.shape[1], most=self.options.positions)
        chosen = self.user_tower.at(profile, history, read, slots)  # (n, dim)
        drawn = self._drawn(batch, table, local, lesson, slots, target)
        present, beside = drawn.present, None
        if passed is not None:
            beside = following(batch, passed).flatten(0, 1)[slots] - FIRST  # (n, some), negative for none
            present = torch.cat([present, torch.where(beside >= 0, beside, target[:, None])], dim=1)
        examples = Examples(
            users=chosen,
            items=vectors,
            target=target,
            scale=self.scale,
            weight=torch.full_like(chosen[:, 0], 1 / max(len(chosen), 1)),
            columns=drawn.columns,
            shares=drawn.shares,
            pull=drawn.pull,
            log_inclusion=inclusion,
            present=present,
            value=None if batch.values is None else following(batch, batch.values).flatten()[slots],
            negative=lesser(len(vectors), target, beside) if self.options.objective == "bpr" else None,
            shown=beside,
        )
        loss = self.objective(examples)
        if beside is not None and self.options.objective in COMPARING:
            loss = loss + self.options.impressions * choice(examples)
        return loss

    def _drawn(
        self, batch: Batch, table: Tensor, local: Tensor, lesson: Tensor | None, slots: Tensor, target: Tensor
    ) -> Drawn:
        """What each example is drawn to: its target, with a horizon what follows that too, and the teacher's item.

        table: vectors by the rows of the vocabulary, which `local` and `lesson`, (batch, width), count in.
        """
        own = target[:, None]
        share = torch.zeros_like(own, dtype=table.dtype)  # the teacher's
        taught = own
        if lesson is not None:
            found = lesson.flatten()[slots, None] - FIRST
            taught = torch.where(found >= 0, found, own)
            share = self.options.teaching * (found >= 0).to(table.dtype)
        if self.options.horizon > 0:  # all of a window is drawn to, and all of it is there for certain
            weight = horizon_weights(batch, self.options.horizon)  # (batch, width, width)
            ahead = rearrange(weight @ functional.embedding(local, table), "b w d -> (b w) d")[slots]
            window = (local - FIRST)[slots // local.shape[1]]  # (n, width)
            pull = ahead * (1 - share) + table[taught[:, 0] + FIRST] * share
            return Drawn(present=torch.cat([torch.where(window >= 0, window, own), taught], dim=1), pull=pull)
        present = torch.cat([own, taught], dim=1)
        return Drawn(present=present, columns=present, shares=torch.cat([1 - share, share], dim=1))

    def _candidates(self, batch: Batch) -> tuple[Tensor, tuple[Tensor, Tensor | None, Tensor | None], Tensor | None]:
        """Which items a batch needs: item rows (c,); rows, `lessons` and `shown` counted in them (from FIRST);
        log inclusion.
        """
        catalogue = len(self.frequency)
        device = batch.rows.device
        sampled = self.options.objective == "sampled-softmax"
        if self.options.objective in ("softmax", "bpr"):
            return torch.arange(catalogue, device=device), (batch.rows, batch.lessons, batch.shown), None
        asked = [rows for rows in (batch.rows, batch.lessons, batch.shown) if rows is not None]
        drawn = [rows.flatten() for rows in asked]
        if sampled:
            drawn = [torch.randint(catalogue, (self.options.candidates,), device=device) + FIRST, *drawn]
        distinct, position = torch.unique(torch.cat(drawn), return_inverse=True)
        padding = int(distinct[0] == 0)  # padding, if any, sorts first
        chosen = distinct[padding:] - FIRST
        counted = iter(position.split([len(rows) for rows in drawn])[-len(asked) :])
        local, lesson, passed = (
            None if rows is None else torch.where(rows != 0, next(counted).view_as(rows) + (FIRST - padding), 0)
            for rows in (batch.rows, batch.lessons, batch.shown)
        )
        assert local is not None
        if self.options.objective == "rating":  # nothing is compared with, so nothing is corrected for
            return chosen, (local, lesson, passed), None
        inclusion = log_inclusion(
            self.frequency,
            targets=int(batch.fresh.sum()),
            uniform=self.options.candidates if sampled else 0,
            supplied=self._supplied(batch),
        )
        return chosen, (local, lesson, passed), inclusion[chosen]

    def _supplied(self, batch: Batch) -> Tensor | None:
        """The probability that a batch's lessons or impressions hold each item: (items,); None without any."""
        absent = []
        if batch.lessons is not None:
            absent.append(int(batch.fresh.sum()) * torch.log1p(-self.lessons.clamp(max=1 - 1e-6)))
        if batch.shown is not None:
            absent.append(int((batch.shown != 0).sum()) * torch.log1p(-self.impressions.clamp(max=1 - 1e-6)))
        return -torch.expm1(torch.stack(absent).sum(dim=0)) if absent else None

    @torch.no_grad()
    def freeze_items(self, items: Inputs) -> Tensor:
        """Embed the catalogue, hand it to the user tower, return it: (items, dim)."""
        from train.model.towers import in_blocks

        vectors = in_blocks(self.item_tower, items)
        self.user_tower.freeze_items(vectors)
        return vectors


def targets(batch: Batch, local: Tensor) -> tuple[Tensor, Tensor]:
    """The examples of a batch: flat slots into (batch, width) states, and the item that followed each.

    local: (batch, width). The state at slot k (k-th newest item) is to find item k - 1; slot 0, the profile, the
    row's `opening`, where the window reaches back to the beginning.
    """
    width = batch.rows.shape[1]
    offset = torch.arange(width, device=local.device)
    slot = (offset > 0) & (offset <= batch.fresh[:, None]) & (offset < batch.lengths[:, None])
    slot[:, 0] = batch.fresh == batch.lengths
    slots = slot.flatten().nonzero()[:, 0]
    return slots, following(batch, local).flatten()[slots]


def thinned(slots: Tensor, target: Tensor, *, width: int, most: int) -> tuple[Tensor, Tensor]:
    """At most so many examples of each row of a batch, drawn at random. slots: (n,) flat, rising."""
    owner = slots // width
    order = torch.argsort(owner + torch.rand(len(slots), device=slots.device, dtype=torch.float64))
    # Still by owner, at random within one: an example's place among its owner's.
    place = torch.arange(len(slots), device=slots.device) - torch.searchsorted(owner, owner)
    kept = order[place < most].sort().values
    return slots[kept], target[kept]


def following(batch: Batch, values: Tensor) -> Tensor:
    """The values of the item that the state at each slot is to find. values: (batch, width, ...) by item."""
    width = batch.rows.shape[1]
    offset = torch.arange(width, device=values.device)
    item = torch.where(offset > 0, offset - 1, batch.opening[:, None])  # (batch, width)
    return values[torch.arange(len(item), device=values.device)[:, None], item]


def lesser(items: int, target: Tensor, shown: Tensor | None) -> Tensor:
    """For each example an item that its target is to beat: one shown beside it, where there is; else any. (n,)."""
    drawn = torch.randint(items, (len(target),), device=target.device)
    if shown is None or shown.shape[1] == 0:
        return drawn
    place = torch.rand(shown.shape, device=shown.device).masked_fill(shown < 0, -1.0).argmax(dim=1, keepdim=True)
    beside = shown.gather(1, place)[:, 0]
    return torch.where(beside >= 0, beside, drawn)


def horizon_weights(batch: Batch, horizon: float) -> Tensor:
    """Share of each item in what the state at each slot is drawn to: (batch, width, width), rows sum to 1.

    Slot k counts item j < k by horizon^(k - 1 - j); slot 0, the profile, item j by horizon^(length - 1 - j).
    """
    width = batch.rows.shape[1]
    offset = torch.arange(width, device=batch.rows.device)
    ahead = (offset[:, None] - 1 - offset[None, :]).expand(len(batch.rows), -1, -1)  # (batch, slot, item)
    ahead = torch.where(offset[None, :, None] == 0, batch.lengths[:, None, None] - 1 - offset, ahead)
    weight = torch.where(ahead >= 0, horizon ** ahead.clamp(min=0).float(), 0.0)
    return weight / weight.sum(dim=-1, keepdim=True)


def features_of(table: Mapping[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
    """The rows of a table of features."""
    return {name: values[rows] for name, values in table.items()}
