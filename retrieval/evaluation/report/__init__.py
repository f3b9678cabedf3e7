"""report.html and MODEL_CARD.md."""
