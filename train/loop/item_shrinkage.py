"""Shrink rare items' id embeddings towards what their features predict.

An item with n training interactions keeps n / (n + 1) of what its trained vector has beyond the prediction of a ridge
regression on the features of all items. An item without interactions gets the prediction, plus the embedding of the
unknown id. While they were trained beside ids, features only had to be right in sum with them.
"""

import torch
from torch import Tensor

from retrieval.features.vocabulary import FIRST, UNKNOWN
from train.ease.feature_regression import fit_features
from train.features.kinds import unit
from train.model.feature_embedding import Inputs
from train.model.towers import ItemTower
from train.model.two_tower import features_of


@torch.no_grad()
def shrink_items(tower: ItemTower, items: Inputs, counts: Tensor) -> bool:
    """Shrink the id embeddings of a trained item tower in place.

    Args:
        tower: In eval mode.
        items: The features of the catalogue, a tensor for each column.
        counts: (items,) training interactions of each item.

    Returns:
        False, with nothing changed, where items have no id of their own or no feature besides it.

    """
    embedding = tower.embedding
    column = embedding.id_column
    # An encoder makes no sum of the parts; rows of a hash are shared by several items.
    if column is None or tower.encoder is not None or embedding.kinds[column] != "category" or len(embedding.kinds) < 2:
        return False
    ids, rows, seen = embedding.vectors(column), items[column], counts > 0
    vectors, unknown = unit(embedding(items, len(counts))), ids[UNKNOWN].clone()
    weight = counts / (counts + 1)  # (items,)
    fit_features(embedding, features_of(items, seen), vectors[seen], weight=weight[seen])
    ids[UNKNOWN] = unknown
    known = (rows >= FIRST) & seen
    # The unknown id's vector is no part of the prediction for a known item.
    ids[rows[known]] = 0
    residual = vectors - embedding(items, len(counts))
    ids[rows[known]] = (residual * weight[:, None])[known]
    return True
