"""What features tell of vectors: a ridge regression, written into the weights of a tower."""

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from torch import Tensor, nn

from train.ease.solver import inverse
from train.model.feature_embedding import FeatureEmbedding, Inputs, NumberEmbedding, VectorEmbedding, finite, unit

RIDGE = 1.0  # what a value says counts in full only where many more rows than this have it
BENDS = 16  # hidden units that a number speaks through


@torch.no_grad()
def explain(
    embedding: FeatureEmbedding,
    inputs: Inputs,
    wanted: Tensor,
    *,
    weight: Tensor | None = None,
    ridge: float = RIDGE,
) -> None:
    """Set an embedding so that all but its id, whose vectors become zeros, tell what they can of the vectors.

    inputs: a tensor a column, with a row for each of `wanted`, (n, dim). weight: (n,) how much each counts, positive;
    None for all alike. In place.
    """
    weight = torch.ones(len(wanted)) if weight is None else weight
    base = (wanted * weight[:, None]).sum(dim=0) / weight.sum() if len(wanted) else torch.zeros_like(embedding.base)
    embedding.base.copy_(base)
    parts, tables = [], []
    for name, table in zip(embedding.kinds, embedding.embeddings, strict=True):
        if name == embedding.id_column:
            next(table.parameters()).zero_()
        else:
            parts.append(_told(table, inputs[name]))
            tables.append(table)
    if not tables:
        return
    rows = sparse.csr_array(sparse.hstack(parts, format="csr"), dtype=np.float32)  # (n, values of all)
    root = weight.sqrt().numpy()[:, None]
    left = (wanted - embedding.base).numpy() * root
    rows = sparse.csr_array(rows.multiply(root))
    solve = inverse(rows, ridge, None, generator=np.random.default_rng(0))
    found = torch.from_numpy(solve(rows.T @ left).astype(np.float32)) * len(tables)  # the tower takes their mean
    for table, part in zip(tables, torch.split(found, [part.shape[1] for part in parts]), strict=True):
        _write(table, part)


def _told(table: nn.Module, values: Tensor) -> sparse.csr_array:
    """What the last weights of a column are multiplied by: (n, inputs of theirs)."""
    if isinstance(table, NumberEmbedding):
        return sparse.csr_array(table.activations(values)[:, :BENDS].numpy())
    if isinstance(table, VectorEmbedding):
        return sparse.csr_array(unit(finite(values)).numpy())
    assert isinstance(table, nn.Embedding)
    entries: npt.NDArray[np.int64] = values.reshape(len(values), -1).numpy()  # (n, 1 or the longest list)
    if values.ndim == 2:
        entries = np.pad(entries, ((0, 0), (0, 1)))  # an empty list reads the row of missing, other lists skip it
        kept = entries != 0
        kept[:, -1] = ~kept.any(axis=1)
    else:
        kept = np.ones(entries.shape, np.bool_)
    owners, places = np.nonzero(kept)
    share = 1 / kept.sum(axis=1)[owners]
    shape = (len(values), table.num_embeddings)
    return sparse.csr_array((share.astype(np.float32), (owners, entries[owners, places])), shape=shape)


def _write(table: nn.Module, weights: Tensor) -> None:
    """weights: (inputs of the last weights, dim)."""
    if isinstance(table, nn.Embedding):
        table.weight.copy_(weights)
        return
    assert isinstance(table, NumberEmbedding | VectorEmbedding)
    table.out.weight.zero_()
    table.out.weight[:, : len(weights)] = weights.T
    table.out.bias.zero_()
