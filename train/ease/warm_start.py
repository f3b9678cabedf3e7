"""Where training starts: item vectors that already know what is taken together.

Left to chance they need many epochs to find what a count over the histories shows at once. The largest eigenvectors
of the counts, scaled as in spectral embedding, put items near each other that follow each other; a user tower that
passes on what it read last is then a nearest-neighbour recommender before its first step.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

from retrieval.features.vocabulary import FIRST
from train.ease.feature_regression import fit_features
from train.model.feature_embedding import Inputs
from train.model.two_tower import TwoTower, features_of

Floats = npt.NDArray[np.floating]

ROUNDS = 5  # of subspace iteration; the order of the eigenvectors matters little, their span does
SPARE = 16  # directions beside those wanted, so that the wanted ones settle (arXiv 0909.4061, section 4.4)
NOISE = 0.1  # what an item keeps of its random vector, so that items of equal counts can part


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
    own = embedding.vectors(embedding.id_column)
    noise = NOISE * own
    target = torch.from_numpy(vectors)
    fit_features(embedding, features_of(items, known), target[known])
    predicted = embedding.eval()(items, len(vectors))
    embedding.train(pair.training)
    own.copy_(noise)
    named = known & (ids >= FIRST)
    own[ids[named]] += (target - predicted)[named]
