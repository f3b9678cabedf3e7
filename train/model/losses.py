"""Objectives: examples -> one number. One function each, all of one signature.

Scores are cosines times a learned scale (1 / temperature).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional

NOTHING = -1e9  # the score of what is not there
CHUNK = 1 << 19  # logits held at a time: 2 MB stay in the cache between the product, the exponential and the gradient


@dataclass(frozen=True, slots=True, kw_only=True)
class Examples:
    """Users and the items they are to be told apart by.

    users: (n, dim) unit rows. items: (c, dim) unit rows, distinct items.
    target: (n,) int64, the column of the item that was chosen.
    present: (n, m) int64, the columns that sampling let in for this row, whatever their chance; None: the target.
    scale: () what cosines are multiplied by.
    columns, shares: (n, m) what a user is drawn to: columns of the target distribution, and the share of each.
    pull: (n, dim) the same where it is many items: the expected item vector. Either this or the two above.
    log_inclusion: (c,) log of the probability that sampling let the column in; None: all of the catalogue is there.
    value: (n,) what the user said of the item, scaled to [-1, 1], NaN for nothing; only `rating` reads it.
    weight: (n,) how much an example counts; sums to 1.
    negative: (n,) int64, the column of an item to be ranked below the target; only `bpr` reads it.
    shown: (n, m) int64, the columns of what was shown beside the target and not chosen, negative for none; only
        `choice` reads it.
    """

    users: Tensor
    items: Tensor
    target: Tensor
    scale: Tensor
    weight: Tensor
    columns: Tensor | None = None
    shares: Tensor | None = None
    pull: Tensor | None = None
    log_inclusion: Tensor | None = None
    present: Tensor | None = None
    value: Tensor | None = None
    negative: Tensor | None = None
    shown: Tensor | None = None


def pull(examples: Examples) -> Tensor:
    """The expected item vector under the target distribution: (n, dim)."""
    if examples.pull is not None:
        return examples.pull
    assert examples.columns is not None
    assert examples.shares is not None
    return (examples.items[examples.columns] * examples.shares[:, :, None]).sum(dim=1)


Objective = Callable[[Examples], Tensor]


def softmax(examples: Examples) -> Tensor:
    """Cross-entropy over the whole catalogue: -log of the target's share (arXiv 1711.04725 sets it against sampling).

    The target's logit is linear in its vector, so a distribution of targets costs no more than one.
    """
    return sampled_softmax(examples)


def sampled_softmax(examples: Examples) -> Tensor:
    """Cross-entropy with the sum over the catalogue estimated from candidates shared by the batch.

    Each candidate's term is divided by the probability of its inclusion (Horvitz and Thompson 1952; for a sampled
    softmax Bengio and Senécal 2008), so the sum, hence in the limit its gradient, is the full softmax's in
    expectation. A row's own target is there for certain: its term stands as it is.
    """
    inclusion = examples.log_inclusion
    loss: Tensor = CrossEntropy.apply(  # type: ignore[no-untyped-call]  # torch does not type it
        examples.users,
        examples.items,
        examples.scale,
        None if inclusion is None else inclusion.exp(),
        examples.target[:, None] if examples.present is None else examples.present,
        examples.target[:, None][:, :0] if examples.columns is None else examples.columns,
        examples.weight[:, None][:, :0] if examples.shares is None else examples.shares,
        examples.weight,
    )
    if examples.pull is not None:
        attraction = (examples.users * examples.pull).sum(dim=-1) * examples.scale  # (n,)
        loss = loss - (attraction * examples.weight).sum()
    return loss


def in_batch(examples: Examples) -> Tensor:
    """Cross-entropy over the targets of the batch, each logit less the log of its item's frequency (logQ).

    Yi et al., RecSys 2019 (doi 10.1145/3298689.3346996), equation 5. An item that several rows chose stands once in
    `items`, so no row ever has its own target as a negative; `log_inclusion` is then the log of how often an item
    is a target, times the rows.
    """
    return sampled_softmax(examples)


def bpr(examples: Examples) -> Tensor:
    """-log sigmoid of the target's lead over one negative (Rendle et al., arXiv 1205.2618)."""
    assert examples.negative is not None
    lead = pull(examples) - examples.items[examples.negative]  # (n, dim)
    margin = (examples.users * lead).sum(dim=-1) * examples.scale
    return -(functional.logsigmoid(margin) * examples.weight).sum()


def choice(examples: Examples) -> Tensor:
    """-log of the target's share among it and what was shown beside it: what the user did choose from.

    McFadden, "Conditional logit analysis of qualitative choice behavior", 1974. Nothing where nothing was shown.
    Stands beside a softmax over the catalogue, which knows that all else was not chosen, yet not what was seen.
    """
    assert examples.shown is not None
    users = examples.users * examples.scale
    own = (users * examples.items[examples.target]).sum(dim=-1, keepdim=True)  # (n, 1)
    others = examples.items[examples.shown.clamp(min=0)] @ users[:, :, None]  # (n, m, 1)
    scores = torch.cat([own, others[:, :, 0].masked_fill(examples.shown < 0, NOTHING)], dim=1)
    loss: Tensor = ((scores.logsumexp(dim=1) - own[:, 0]) * examples.weight).sum()
    return loss


def rating(examples: Examples) -> Tensor:
    """Squared error of the cosine against the value, over the examples that have one (the notebook's objective).

    The cosine itself is the prediction, so a score tells the rating; no temperature, which would leave the range.
    """
    assert examples.value is not None
    said = (examples.users * examples.items[examples.target]).sum(dim=-1)  # (n,)
    # Of one shape: (n,) against (n, 1) would be an average over n x n pairs of users and ratings.
    assert said.shape == examples.value.shape
    known = ~examples.value.isnan()
    squares = torch.where(known, said - examples.value, 0.0).square()
    return (squares * examples.weight).sum() / (known * examples.weight).sum().clamp(min=1e-12)


OBJECTIVES: Final[dict[str, Objective]] = {
    "softmax": softmax,
    "sampled-softmax": sampled_softmax,
    "in-batch": in_batch,
    "bpr": bpr,
    "rating": rating,
}


class CrossEntropy(torch.autograd.Function):
    """sum over rows of weight * (log sum over columns of exp(scale * cosine) / inclusion - the logits drawn to).

    The logits of a chunk of rows are made, raised and multiplied back into both gradients while they are in the
    cache; they are never kept, and touched once. What a row is drawn to is taken off its probabilities there, so it
    costs no gathering of vectors and no scattering of gradients.

    inclusion: (c,) the probability that a column is there; None where all are. present: (n, m) columns that are there
    for certain. columns, shares: (n, m) what a row is drawn to and how much of it; m may be 0.
    """

    @staticmethod
    def forward(
        ctx: Any,
        users: Tensor,
        items: Tensor,
        scale: Tensor,
        inclusion: Tensor | None,
        present: Tensor,
        columns: Tensor,
        shares: Tensor,
        weight: Tensor,
    ) -> Tensor:
        n, width = len(users), len(items)
        scaled = users * scale
        weighed = items if inclusion is None else items / inclusion[:, None]
        total = users.new_zeros(())
        user_gradient, item_gradient = torch.empty_like(users), torch.zeros_like(items)
        parts = -(-n // max(16, CHUNK // max(width, 1)))
        rows = -(-n // max(parts, 1))  # alike, so that none is too small for a product to be fast
        room = users.new_empty(rows, width)  # for every chunk the same: fresh memory costs as much as the product
        for start in range(0, n, rows):
            chunk = slice(start, start + rows)
            terms = torch.mm(scaled[chunk], items.T, out=room[: n - start])  # (rows, width)
            own, drawn, pulled = present[chunk], columns[chunk], shares[chunk]
            some = own[:, :1]
            some_logit = terms.gather(1, some)
            attraction = (terms.gather(1, drawn) * pulled).sum(dim=1)  # (rows,)
            # One pass over a row in place of three; what it divides by comes back from any of its columns.
            torch.softmax(terms, dim=1, out=terms)
            log_sum = (some_logit - terms.gather(1, some).log())[:, 0]
            share = weight[chunk]
            if inclusion is not None:
                terms.scatter_(1, own, terms.gather(1, own) * inclusion[own])
                sums = terms @ (1 / inclusion)  # (rows,)
                log_sum += sums.log()
                share = share / sums
                pulled = pulled * sums[:, None] * inclusion[drawn]
            total += weight[chunk] @ (log_sum - attraction)
            terms.scatter_add_(1, drawn, -pulled)
            torch.mm(terms, weighed, out=user_gradient[chunk])
            user_gradient[chunk] *= share[:, None]
            item_gradient.addmm_(terms.T, scaled[chunk] * share[:, None])
        if inclusion is not None:
            item_gradient /= inclusion[:, None]
        scale_gradient = (user_gradient * users).sum()
        ctx.save_for_backward(user_gradient * scale, item_gradient, scale_gradient)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        users, items, scale = ctx.saved_tensors
        return users * gradient, items * gradient, scale * gradient, None, None, None, None, None


def log_inclusion(frequency: Tensor, *, targets: int, uniform: int, supplied: Tensor | None = None) -> Tensor:
    """Log of the probability that an item is among a batch's candidates.

    frequency: (c,) share of the training targets that are the item; `targets` of them are drawn a batch.
    uniform: how many items are drawn evenly from the catalogue, with replacement: counted by `frequency`'s length.
    supplied: (c,) probability that the batch's own impressions hold the item, None without.
    Returns (c,): log(1 - (1 - p)^targets (1 - 1/c)^uniform (1 - supplied)).
    """
    catalogue = len(frequency)
    # In float64: the frequency of a rare item is near float32's resolution of 1.
    absent = targets * torch.log1p(-frequency.double().clamp(max=1 - 1e-9))
    if catalogue > 1:
        absent = absent + uniform * torch.log1p(torch.tensor(-1 / catalogue, dtype=torch.float64))
    if supplied is not None:
        absent = absent + torch.log1p(-supplied.double().clamp(max=1 - 1e-9))
    return torch.log(-torch.expm1(absent)).clamp(min=-30).to(frequency.dtype)
