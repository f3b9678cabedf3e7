"""Guides: the vectors by which lists are chosen, fitted to users.

A search looks into the lists whose vector is nearest to the query. FAISS takes the mean of what a list holds; but what
makes a list worth looking into is its best item. So the score of the best item is foretold from the query, by ridge
regression over users' vectors Q (q, d) that is drawn to the mean c. Of a list whose best items score m (q,) with them:

    g = c + (Q'Q + ridge I)^-1 Q' (m - Qc)

Whatever is chosen by those users must not be chosen by how well their own scores were learned. What the fit without a
user foretells of it needs no further fit: with h the user's entry on the diagonal of Q (Q'Q + ridge I)^-1 Q', it is
Qg - h / (1 - h) (m - Qg) (Allen, 1974: "The relationship between variable selection and data augmentation and a method
for prediction").
"""

from dataclasses import dataclass
from typing import Any, Final

import faiss
import numpy as np
import numpy.typing as npt

from retrieval.index.ivf import Lists

Vectors = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]

RIDGES: Final = (1.0, 3.0, 10.0, 30.0, 100.0)
FEWEST_USERS: Final = 100
BLOCK: Final = 8_192  # items that are multiplied at a time
WORTH: Final = 0.97  # of what is looked into by means; above, means it stays


@dataclass(frozen=True, slots=True)
class Guides:
    """vectors: (lists, d). near: (q, lists), how near each list is to each user by what the other users say."""

    vectors: Vectors
    near: Scores


def can_guide(ivf: Any) -> bool:
    """Whether lists may be chosen by other vectors.

    Not where codes are what is left of an item without its mean, nor where the means are in a graph.
    """
    is_plain = isinstance(ivf, (faiss.IndexIVFFlat, faiss.IndexIVFScalarQuantizer)) and not ivf.by_residual
    return is_plain and isinstance(faiss.downcast_index(ivf.quantizer), faiss.IndexFlat)


def fit(lists: Lists, users: Vectors, best: Rows, *, recall: float) -> Guides | None:
    """Guides to the lists for users; None where fewer items are not looked into than by the means.

    users: (q, d). best: (q, k), the rows that are to be found. recall: of them.
    """
    if len(users) < FEWEST_USERS:
        return None
    means = lists.centroids
    owners = lists.owners[best]
    near = users @ means.T
    least = WORTH * _items_seen(near, owners, lists.sizes, recall)
    missed = _best_scores(lists, users) - near  # (q, lists)
    missed[:, lists.sizes == 0] = 0.0
    found = None
    for ridge in RIDGES:
        inverse = np.linalg.inv((users.T @ users).astype(np.float64) + ridge * np.eye(users.shape[1]))
        onto = (users @ inverse).astype(np.float32)  # (q, d)
        change = onto.T @ missed  # (d, lists)
        own = (onto * users).sum(axis=1, keepdims=True)
        told = users @ change
        alone = near + told - own / (1.0 - own) * (missed - told)
        seen = _items_seen(alone, owners, lists.sizes, recall)
        if seen < least:
            least, found = seen, Guides(means + change.T, alone)
    return found


def _items_seen(near: Scores, owners: Rows, sizes: Rows, recall: float) -> float:
    """How many items a user's search looks at for a recall, if all lists as near as needed are taken.

    near: (q, lists). owners: (q, k), the lists of what is to be found.
    """
    gaps = near.max(axis=1, keepdims=True) - near
    within = np.quantile(np.take_along_axis(gaps, owners, axis=1), recall)
    return float(((gaps <= within) * sizes).sum(axis=1).mean())


def _best_scores(lists: Lists, users: Vectors) -> Scores:
    """The score of the best item of each list: (q, lists), -1 where a list is empty."""
    best = np.full((len(lists.sizes), len(users)), -1.0, dtype=np.float32)
    columns = np.ascontiguousarray(users.T)
    first = 0
    while first < len(lists.sizes):
        start = int(lists.ends[first] - lists.sizes[first])
        last = max(first + 1, int(np.searchsorted(lists.ends, start + BLOCK, side="right")))
        filled = first + np.flatnonzero(lists.sizes[first:last])
        if len(filled):
            products = lists.vectors[lists.rows[start : int(lists.ends[last - 1])]] @ columns
            best[filled] = np.maximum.reduceat(products, lists.ends[filled] - lists.sizes[filled] - start, axis=0)
        first = last
    return np.ascontiguousarray(best.T)
