"""`retrieve.onnx` and `titles.json`, made of a user tower and a catalogue; found to answer as an exact search does."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime as ort
import pyarrow as pa

from export import training_rows
from export.contract import checked
from export.parity import Vectors, check_retrieve, session_of
from export.precision import Precision
from export.retrieve_graph import SINGLE_FILE, retrieve_graph, stored
from retrieval.features.records import Batch
from retrieval.features.schema import OUTPUT_NAME, Feature

TITLES: Final = "titles.json"
CHECKED_USERS: Final = 100


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Items as a table, the id first, and their vectors (n, dim)."""

    table: pa.Table
    vectors: Vectors

    @property
    def ids(self) -> list[str]:
        ids: list[str] = self.table.column(0).cast("string").to_pylist()
        return ids

    @classmethod
    def of(cls, table: pa.Table, item_tower: ort.InferenceSession, features: Sequence[Feature]) -> "Catalogue":
        return cls(table, vectors_of(item_tower, training_rows.batches(features, table)))


def vectors_of(session: ort.InferenceSession, batches: list[Batch]) -> Vectors:
    """The vectors of batches, one below the other."""
    return np.concatenate([session.run([OUTPUT_NAME], batch)[0] for batch in batches])


def retrieve_file(
    user: onnx.ModelProto,
    user_tower: ort.InferenceSession,
    features: Sequence[Feature],
    catalogue: Catalogue,
    training: Path,
    *,
    precision: Precision,
) -> tuple[bytes, dict[str, Any]]:
    """The bytes of `retrieve.onnx` and what `schema.json` says of it.

    user, user_tower: the same tower, to build on and to compare with. training: its users are asked for.
    Raises ExportError if it does not answer as an exact search over the vectors that it holds.
    """
    model = retrieve_graph(user, features, catalogue.ids, catalogue.vectors, precision=precision)
    content = checked(model, SINGLE_FILE, features)
    history = next((feature for feature in features if feature.kind == "history"), None)
    batches = training_rows.batches(features, training_rows.users_table(training, history, limit=CHECKED_USERS))
    vectors = stored(catalogue.vectors, precision)
    check_retrieve(session_of(content), user_tower, catalogue.ids, vectors, batches, history)
    return content, {"file": SINGLE_FILE, "items": len(catalogue.ids), "history_excluded": history is not None}


def titles_file(pair_id: str, catalogue: Catalogue, training: Path) -> bytes:
    """What a page needs to show an answer of `retrieve.onnx`: the title of each id, the id where it has none."""
    pairs = zip(catalogue.ids, training_rows.titles(training, catalogue.table), strict=True)
    content = {"pair_id": pair_id, "items": [list(pair) for pair in pairs]}
    return (json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n").encode()
