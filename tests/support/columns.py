"""Columns of towers without a preprocess that was fitted."""

from retrieval.features.schema import Feature
from retrieval.features.vocabulary import FIRST, Vocabulary
from train.features.kinds import Fitted, Scaler
from train.model.feature_embedding import Column


def column(
    *, name: str, kind: str, height: int = FIRST, size: int | None = None, mean: float = 0.0, std: float = 1.0
) -> Column:
    """height: rows of the embedding table, the two reserved ones included."""
    fitted: Fitted = None
    if kind == "number":
        fitted = Scaler(mean=mean, std=std)
    elif kind in ("category", "categories", "history"):
        fitted = Vocabulary(f"{name} {row}" for row in range(height - FIRST))
    buckets = height - FIRST if kind == "hash" else None
    max_length = 50 if kind == "history" else None
    feature = Feature(name=name, kind=kind, size=size, buckets=buckets, max_length=max_length)
    return Column(feature=feature, fitted=fitted)
