"""Training losses: one class each, registered by name in train/config/components.py.

A score is the cosine of a user and an item times a learned scale (1 / temperature).
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

MASKED = -1e9  # score of an impression that is padding
MANY_CANDIDATES = 20_000  # above this, scores are computed again in the backward pass instead of being stored
CHUNK_SCORES = 1 << 19  # scores that are computed at once (2 MB)
MAX_SCALE = 40.0  # e^40 and the sum of many of them are float32 numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class Examples:
    """A batch of users, the items they chose and the candidate items.

    Attributes:
        users: (n, dim) float32 unit rows.
        items: (c, dim) float32 unit rows, distinct items.
        target: (n,) int64, column (row of `items`) of the item that was chosen.
        scale: () float32, factor of the cosines, at most `MAX_SCALE`.
        weight: (n,) float32, weight of each example; sums to 1.
        impressions: (n, m) int64, columns of the items shown with the target and not chosen, negative where padding;
            None if the data has no impressions.
        log_inclusion: (c,) float32, log probability that sampling includes the column; None if all items are there.
        value: (n,) float32, rating scaled to [-1, 1], NaN where missing; None if the loss does not fit values.
    """

    users: Tensor
    items: Tensor
    target: Tensor
    scale: Tensor
    weight: Tensor
    impressions: Tensor | None = None
    log_inclusion: Tensor | None = None
    value: Tensor | None = None


class Loss:
    """Base class of the losses.

    Attributes:
        candidates: Items that `Examples.items` holds: the whole "catalogue"; "sampled" items, drawn uniformly, and the
            items of the batch; or the items of the batch only ("in-batch").
        fits_values: Whether the loss fits the values (ratings) of the interactions. Scores are then predictions, and
            the best epoch is the one with the smallest RMSE.
    """

    candidates: ClassVar[Literal["catalogue", "sampled", "in-batch"]] = "catalogue"
    fits_values: ClassVar[bool] = False

    def __init__(self, *, impression_weight: float = 0.0) -> None:
        """Create the loss. impression_weight: weight of `impression_loss`, for the losses that add it."""
        self.impression_weight = impression_weight

    def __call__(self, examples: Examples) -> Tensor:
        """Compute the weighted mean loss of the examples, a float32 scalar."""
        raise NotImplementedError


class Softmax(Loss):
    """Cross entropy over the whole catalogue, plus the loss over the impressions where there are some."""

    def __call__(self, examples: Examples) -> Tensor:
        loss = (cross_entropy(examples) * examples.weight).sum()
        if examples.impressions is not None:
            loss = loss + self.impression_weight * impression_loss(examples)
        return loss


class SampledSoftmax(Softmax):
    """Cross entropy with the sum over the catalogue estimated from candidates that the batch shares.

    The term of each candidate is divided by the probability of its inclusion (Horvitz and Thompson 1952; for a sampled
    softmax Bengio and Senécal 2008), so that the sum has the expectation of the full one.
    """

    candidates = "sampled"


class InBatch(Softmax):
    """Cross entropy over the items of the batch, with the logQ correction.

    Yi et al., RecSys 2019 (doi 10.1145/3298689.3346996), equation 5. An item that several rows chose is one candidate,
    so a row never has its own target as a negative.
    """

    candidates = "in-batch"


class Bpr(Loss):
    """-log sigmoid of the difference between the target and one negative (Rendle et al., arXiv 1205.2618)."""

    def __call__(self, examples: Examples) -> Tensor:
        negative = functional.embedding(sample_negatives(examples), examples.items)  # (n, dim)
        difference = (examples.users * (target_vectors(examples) - negative)).sum(dim=-1) * examples.scale  # (n,)
        return -(functional.logsigmoid(difference) * examples.weight).sum()


class Rating(Loss):
    """Squared error of the cosine against the scaled value, over the examples that have a value.

    The cosine is the prediction, so there is no temperature.
    """

    candidates = "in-batch"
    fits_values = True

    def __call__(self, examples: Examples) -> Tensor:
        assert examples.value is not None
        predicted = (examples.users * examples.items[examples.target]).sum(dim=-1)  # (n,)
        # (n,) against (n, 1) would average over n x n pairs.
        assert predicted.shape == examples.value.shape
        known = ~examples.value.isnan()
        squares = torch.where(known, predicted - examples.value, 0.0).square()
        return (squares * examples.weight).sum() / (known * examples.weight).sum().clamp(min=1e-12)


def cross_entropy(examples: Examples) -> Tensor:
    """Compute the cross entropy of each example: (n,)."""
    users = examples.users * examples.scale
    target_score = (users * target_vectors(examples)).sum(dim=-1)  # (n,)
    included = examples.target[:, None]  # (n, m), columns that are candidates whatever is sampled
    if examples.impressions is not None:
        shown = torch.where(examples.impressions < 0, examples.target[:, None], examples.impressions)
        included = torch.cat([included, shown], dim=1)
    # In chunks of rows whose scores fit into the cache, which takes a fifth less time.
    rows = max(CHUNK_SCORES // max(len(examples.items), 1), 16)
    log_sums = []
    for chunk in zip(torch.split(users, rows), torch.split(included, rows), strict=True):
        if len(examples.items) > MANY_CANDIDATES:
            arguments = (*chunk, examples.items, examples.log_inclusion)
            log_sums.append(checkpoint(log_sum_exp, *arguments, use_reentrant=False))
        else:
            log_sums.append(log_sum_exp(*chunk, examples.items, examples.log_inclusion))
    return torch.cat(log_sums) - target_score


def log_sum_exp(users: Tensor, included: Tensor, items: Tensor, log_inclusion: Tensor | None) -> Tensor:
    """Compute log sum exp of the scores of the catalogue, estimated from the candidates.

    Args:
        users: (n, dim), times the scale. Scores are at most `MAX_SCALE`, so that no maximum has to be subtracted.
        included: (n, m) int64, columns that are not divided by their inclusion probability.
        items: (c, dim).
        log_inclusion: (c,), or None.

    Returns:
        (n,) float32.
    """
    if log_inclusion is None:
        scores = users @ items.T  # (n, c)
    else:
        correction = (-log_inclusion).repeat(len(users), 1).scatter_(1, included, 0.0)  # (n, c)
        scores = torch.addmm(correction, users, items.T)
    return scores.exp_().sum(dim=1).log()


def target_vectors(examples: Examples) -> Tensor:
    """Return the vectors of the targets: (n, dim)."""
    return functional.embedding(examples.target, examples.items)


def impression_loss(examples: Examples) -> Tensor:
    """Compute -log of the target's share among the target and the impressions shown with it.

    McFadden, "Conditional logit analysis of qualitative choice behavior", 1974. It is 0 for an example without
    impressions.
    """
    assert examples.impressions is not None
    users = examples.users * examples.scale
    own = (users * examples.items[examples.target]).sum(dim=-1, keepdim=True)  # (n, 1)
    others = examples.items[examples.impressions.clamp(min=0)] @ users[:, :, None]  # (n, m, 1)
    scores = torch.cat([own, others[:, :, 0].masked_fill(examples.impressions < 0, MASKED)], dim=1)
    loss: Tensor = ((scores.logsumexp(dim=1) - own[:, 0]) * examples.weight).sum()
    return loss


def sample_negatives(examples: Examples) -> Tensor:
    """Draw one negative for each example: one of its impressions, or any item if it has none. (n,) int64."""
    target, shown = examples.target, examples.impressions
    drawn = torch.randint(len(examples.items), (len(target),), device=target.device)
    if shown is None or shown.shape[1] == 0:
        return drawn
    place = torch.rand(shown.shape, device=shown.device).masked_fill(shown < 0, -1.0).argmax(dim=1, keepdim=True)
    impression = shown.gather(1, place)[:, 0]
    return torch.where(impression >= 0, impression, drawn)


def log_inclusion(frequency: Tensor, *, targets: int, uniform: int, supplied: Tensor | None = None) -> Tensor:
    """Compute the log probability that an item is among the candidates of a batch.

    Args:
        frequency: (c,) float32, share of the training targets that each item is.
        targets: Number of targets in the batch, drawn by `frequency`.
        uniform: Number of items drawn uniformly from the catalogue, with replacement.
        supplied: (c,) probability that the impressions of the batch hold the item; None without.

    Returns:
        (c,) float32, log(1 - (1 - frequency)^targets (1 - 1/c)^uniform (1 - supplied)).
    """
    catalogue = len(frequency)
    # In float64: the frequency of a rare item is near the resolution of float32 at 1.
    absent = targets * torch.log1p(-frequency.double().clamp(max=1 - 1e-9))
    if catalogue > 1:
        absent = absent + uniform * torch.log1p(torch.tensor(-1 / catalogue, dtype=torch.float64))
    if supplied is not None:
        absent = absent + torch.log1p(-supplied.double().clamp(max=1 - 1e-9))
    return torch.log(-torch.expm1(absent)).clamp(min=-30).to(frequency.dtype)
