"""Where training starts: item vectors that already know what is taken together.

Left to chance they need many epochs to find what a count over the histories shows at once. The largest eigenvectors
of the counts, scaled as in spectral embedding, put items near each other that follow each other; a user tower that
passes on what it read last is then a nearest-neighbour recommender before its first step.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

from retrieval.vocabulary import FIRST
from train.batches import Histories
from train.features import Inputs
from train.linear import Factors
from train.pair import Pair

Floats = npt.NDArray[np.floating]

ROUNDS = 5  # of subspace iteration; the order of the eigenvectors matters little, their span does
SPARE = 16  # directions beside those wanted, so that the wanted ones settle (arXiv 0909.4061, section 4.4)
NOISE = 0.1  # what an item keeps of its random vector, so that items of equal counts can part
FAINT = 1e-4  # how large everything starts that a closed form does not know
OTHERS = 0.3  # how large the other features start, of what they would be


def spectral(
    counts: Callable[[Floats], Floats], *, items: int, dim: int, generator: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Embed the items of a symmetric matrix of counts.

    counts: multiplies (items, n) by the matrix. Returns (items, dim) float32, unit rows; zeros for an item without
    counts.
    """
    rank = min(dim + SPARE, items)
    basis = generator.standard_normal((items, rank)).astype(np.float32)
    for _ in range(ROUNDS):
        basis = np.linalg.qr(counts(basis))[0]
    values, vectors = np.linalg.eigh(basis.T @ counts(basis))  # ascending
    best = np.argsort(-values)[:dim]
    embedded = (basis @ vectors[:, best]) * np.sqrt(np.maximum(values[best], 0))  # (items, at most dim)
    # Turned at random: no axis is special to the layers that follow.
    turn = np.linalg.qr(generator.standard_normal((dim, dim)))[0]
    embedded = embedded @ turn[: embedded.shape[1]]
    length = np.linalg.norm(embedded, axis=1, keepdims=True)
    return np.where(length > 1e-6, embedded / np.maximum(length, 1e-6), 0).astype(np.float32)


@torch.no_grad()
def start_linear(pair: Pair, factors: Factors, items: Inputs, histories: Histories) -> None:
    """Make the pair the closed form of `linear`: what items add, what they are found by, nothing else.

    Without a history a user is drawn, a little, to what is taken most.
    """
    user, item = pair.user_tower, pair.item_tower
    assert user.source is not None
    assert item.embedding.id_column is not None
    ids = items[item.embedding.id_column]
    for embedding in (user.embedding, item.embedding):
        for weight in embedding.parameters():
            weight.mul_(FAINT)
    for name, table in zip(item.embedding.kinds, item.embedding.embeddings, strict=True):
        if name == item.embedding.id_column:
            known = ids >= FIRST
            next(table.parameters())[ids[known]] = torch.from_numpy(factors.target)[known]
    user.source.weight.zero_()  # an unknown item adds nothing
    user.source.weight[FIRST:] = torch.from_numpy(factors.source)
    frequency = np.bincount(histories.items, minlength=len(factors.source)) / max(len(histories.items), 1)
    user.embedding.base.copy_(torch.from_numpy(FAINT * frequency @ factors.source))


@torch.no_grad()
def start(pair: Pair, vectors: npt.NDArray[np.float32], items: Inputs) -> None:
    """Give the item tower's ids these vectors; its other features start small beside them.

    vectors: (items, dim); the row of zeros of an item that nobody took leaves its id as it is.
    items: the features of the catalogue, as the tower takes them.
    """
    embedding = pair.item_tower.embedding
    if embedding.id_column is None or pair.item_tower.encoder is not None:
        return  # an encoder has layers between the id and the vector
    known = vectors.any(axis=1) & (items[embedding.id_column].cpu().numpy() >= FIRST)
    rows = items[embedding.id_column][torch.from_numpy(known)]
    for name, table in zip(embedding.kinds, embedding.embeddings, strict=True):
        for weight in table.parameters():
            if name == embedding.id_column:
                weight[rows] = torch.from_numpy(vectors[known]) + NOISE * weight[rows]
            else:
                weight.mul_(OTHERS)
