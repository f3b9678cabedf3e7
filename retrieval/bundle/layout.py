"""The names of all files in an artifact folder: of the bundle, and of the training folder inside it."""

from typing import Final

# The bundle.
MANIFEST: Final = "manifest.json"
SCHEMA: Final = "schema.json"
GOLDEN: Final = "golden.json"
USER_TOWER: Final = "user_tower.onnx"
ITEM_TOWER: Final = "item_tower.onnx"
RETRIEVE_GRAPH: Final = "retrieve.onnx"  # user tower and exact search in one graph
ITEMS: Final = "items.parquet"  # the id column first; in the training folder too
ITEMS_LOOKUP: Final = "items.lookup"
USERS: Final = "users.parquet"  # the id column first; in the training folder too
USERS_LOOKUP: Final = "users.lookup"
INDEX: Final = "index.faiss"
INDEX_FACTS: Final = "index.json"
ADDED: Final = "added.parquet"  # items added since the index was built
ADDED_LOOKUP: Final = "added.lookup"
ADDED_VECTORS: Final = "added.npy"
REMOVED: Final = "removed.npy"  # rows removed since the index was built
METRICS: Final = "metrics.json"
REPORT: Final = "report.html"
MODEL_CARD: Final = "MODEL_CARD.md"

# Beside the files of the bundle, while it is written or read.
CHECKSUMS: Final = ".verified.json"
LOCK: Final = ".lock"
PREVIOUS: Final = ".previous"  # replaced files that are still read, named by sha256
STAGING_PREFIX: Final = ".next-"

# The training folder, which `train` writes and `export` and evaluation read.
TRAINING: Final = "training"
CONFIG: Final = "config.json"  # as training resolved it
INTERACTIONS: Final = "interactions.parquet"  # user, item, value, time, split; sorted by user, then time
SUMMARY: Final = "summary.json"  # result of the training
EPOCHS: Final = "history.jsonl"  # one line per epoch

# Values of the column `split`. Fold-in rows are the history of held-out users: input of the tower, not trained on.
SPLITS: Final = ("train", "valid", "test", "valid-fold-in", "test-fold-in")
