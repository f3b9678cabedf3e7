"""The evaluation report (report.html) and the model card (MODEL_CARD.md)."""
