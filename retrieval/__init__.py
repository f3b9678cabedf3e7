"""Serving: towers, index and catalogue of a bundle, without torch."""

from typing import Any

__all__ = ["Hit", "Query", "Retriever"]


def __getattr__(name: str) -> Any:
    """Load the retriever when it is asked for: a stage that needs only the schema pays for nothing else."""
    if name in __all__:
        from retrieval import retriever

        return getattr(retriever, name)
    raise AttributeError(f"module 'retrieval' has no attribute {name!r}")
