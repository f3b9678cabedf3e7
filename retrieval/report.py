"""report.html."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from retrieval.evaluate import Evaluation


def html(judged: "Evaluation") -> str:
    """The page."""
    return f"<!doctype html><title>{judged.path.name}</title>"
