"""The prepared folder: what a training leaves beside the bundle, for export and evaluation to read; its names.

`train` writes it and `retrieval` reads it, so that neither spells them in its own way.
"""

from typing import Final

TRAINING: Final = "training"  # the folder, inside the artifact folder

CONFIG: Final = "config.json"  # as training resolved it
INTERACTIONS: Final = "interactions.parquet"  # user, item, value, time, split; sorted by user, then time
ITEMS: Final = "items.parquet"  # the id column first
USERS: Final = "users.parquet"  # the id column first
SUMMARY: Final = "summary.json"  # what the training came to
EPOCHS: Final = "history.jsonl"  # a line an epoch

# What an interaction is for. The fold-in rows are the history of users who are held out whole: input, never trained on.
SPLITS: Final = ("train", "valid", "test", "valid-fold-in", "test-fold-in")
