"""Predict vectors from features by ridge regression, and write the prediction into a tower's feature embedding."""

import torch
from scipy import sparse
from sklearn.linear_model import Ridge
from torch import Tensor

from train.model.feature_embedding import FeatureEmbedding, Inputs

RIDGE = 1.0
DENSE_COLUMNS = 4_000  # columns up to which the normal equations are solved directly


@torch.no_grad()
def fit_features(
    embedding: FeatureEmbedding, inputs: Inputs, target: Tensor, *, weight: Tensor | None = None, ridge: float = RIDGE
) -> None:
    """Set an embedding so that its features predict `target`. The vectors of its id column become zeros.

    Args:
        embedding: Modified in place.
        inputs: A tensor for each column, (n, ...).
        target: (n, dim) float32.
        weight: (n,) positive weight of each row; None for equal weights.
        ridge: L2 regularisation.

    """
    weight = torch.ones(len(target)) if weight is None else weight
    mean = (target * weight[:, None]).sum(dim=0) / weight.sum() if len(target) else torch.zeros_like(embedding.base)
    embedding.base.copy_(mean)
    if embedding.id_column is not None:
        embedding.vectors(embedding.id_column).zero_()
    features = [name for name in embedding.kinds if name != embedding.id_column]
    if not features or not len(target):
        return
    blocks = [embedding.module(name).design_matrix(inputs[name]) for name in features]
    design = sparse.csr_matrix(sparse.hstack(blocks, format="csr"))  # (n, columns)
    solver = "cholesky" if design.shape[1] <= DENSE_COLUMNS else "sparse_cg"
    regression = Ridge(alpha=ridge, fit_intercept=False, solver=solver, tol=1e-3)
    regression.fit(design, (target - mean).numpy(), sample_weight=weight.numpy())
    # The tower adds the mean of its features' vectors, so each weight counts 1 / len(features).
    coefficients = torch.from_numpy(regression.coef_.T.astype("float32")) * len(features)  # (columns, dim)
    for name, part in zip(features, torch.split(coefficients, [block.shape[1] for block in blocks]), strict=True):
        embedding.module(name).set_output(part)
