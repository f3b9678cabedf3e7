"""Where training starts: item vectors that already know what is taken together.

Left to chance they need many epochs to find what a count over the histories shows at once. The largest eigenvectors
of the counts, scaled as in spectral embedding, put items near each other that follow each other; a user tower that
passes on what it read last is then a nearest-neighbour recommender before its first step.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse

from retrieval.features.vocabulary import FIRST
from train.data.batches import Histories
from train.ease.ease import Factors
from train.ease.feature_regression import explain
from train.model.feature_embedding import Inputs, unit
from train.model.two_tower import TwoTower, features_of

Floats = npt.NDArray[np.floating]

ROUNDS = 5  # of subspace iteration; the order of the eigenvectors matters little, their span does
SPARE = 16  # directions beside those wanted, so that the wanted ones settle (arXiv 0909.4061, section 4.4)
NOISE = 0.1  # what an item keeps of its random vector, so that items of equal counts can part
FAINT = 1e-3  # how large a user without a history is beside an item that adds most
TOLD = 20_000  # users at most, by whom it is learned what users' features tell


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
def start_linear(pair: TwoTower, factors: Factors, users: Inputs, items: Inputs, histories: Histories) -> None:
    """Make the pair the closed form of `linear`: what items add, and what they are found by.

    Features are given what they tell of that. Of an item they say where it is unless its id is known, which adds what
    they lack (also where nobody took it: the closed form knows what it is like). Of a user they say, faintly, whom to
    take them for while there is no history.
    users, items: the features of all of them, as the towers take them.
    """
    user, item = pair.user_tower, pair.item_tower
    assert user.source is not None
    assert item.embedding.id_column is not None
    catalogue = len(factors.target)
    target = torch.from_numpy(factors.target)
    ids = items[item.embedding.id_column]
    taken = torch.from_numpy(np.bincount(histories.items, minlength=catalogue) > 0)
    explain(item.embedding, features_of(items, taken), target[taken])
    told = item.embedding.eval()(items, catalogue)
    item.embedding.train(pair.training)
    own = item.embedding.embeddings[list(item.embedding.kinds).index(item.embedding.id_column)]
    next(own.parameters())[ids[ids >= FIRST]] = (target - told)[ids >= FIRST]

    user.source.weight.zero_()  # an unknown item adds nothing
    user.source.weight[FIRST:] = torch.from_numpy(factors.source)
    chosen = np.sort(np.random.default_rng(0).permutation(len(histories.users))[:TOLD])
    ones = np.ones(len(histories.items), np.float32)
    taken_by = sparse.csr_array((ones, histories.items, histories.starts), shape=(len(histories.users), catalogue))
    states = unit(torch.from_numpy(taken_by[chosen] @ factors.source))
    explain(user.embedding, features_of(users, torch.from_numpy(histories.users[chosen])), FAINT * states)


@torch.no_grad()
def start(pair: TwoTower, vectors: npt.NDArray[np.float32], items: Inputs) -> None:
    """Make the item tower give these vectors: its features tell what they can of them, ids add what those lack.

    Ids keep a little of chance, so that items of equal counts can part. An id that is unknown has that alone.
    vectors: (items, dim); a row of zeros for an item of which neither counts nor features say anything.
    items: the features of the catalogue, as the tower takes them.
    """
    embedding = pair.item_tower.embedding
    if embedding.id_column is None or pair.item_tower.encoder is not None:
        return  # an encoder has layers between the id and the vector
    ids, known = items[embedding.id_column], torch.from_numpy(vectors.any(axis=1))
    own = next(embedding.embeddings[list(embedding.kinds).index(embedding.id_column)].parameters())
    chance = NOISE * own
    wanted = torch.from_numpy(vectors)
    explain(embedding, features_of(items, known), wanted[known])
    told = embedding.eval()(items, len(vectors))
    embedding.train(pair.training)
    own.copy_(chance)
    named = known & (ids >= FIRST)
    own[ids[named]] += (wanted - told)[named]
