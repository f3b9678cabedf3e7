"""Raw features -> rows, inside the exported graph. `export.parity` compares it with `train.data.preprocess`."""

from onnx import TensorProto

from export.onnx_nodes import Nodes, label_encoder
from retrieval.features.schema import Feature
from retrieval.features.vocabulary import FIRST, MISSING, UNKNOWN, Vocabulary


def raw_to_rows(feature: Feature, vocabulary: Vocabulary | None, *, position: int) -> tuple[Nodes, str]:
    """Build the nodes between an input of the graph and the tower.

    position: of the feature among the tower's, for names.
    Returns the nodes and the name of the value that the tower takes:
        number, vector: the input itself; the tower treats NaN and infinities.
        category, hash: int64 (N,).
        categories: int64 (N, L + 1), history: int64 (N, min(L + 1, max_length)) newest first. A missing entry is put
        in front of each list, so that no kernel meets a list of length 0.
    """
    nodes = Nodes(f"raw/{position}")
    if not feature.is_text:
        return nodes, feature.name
    if feature.kind == "hash":
        assert feature.buckets is not None
        return nodes, _hashed(nodes, feature.name, buckets=feature.buckets)
    assert vocabulary is not None
    rows = _look_up(nodes, feature.name, vocabulary)
    if feature.kind == "categories":
        return nodes, nodes.add("Pad", rows, nodes.constant([0, 1, 0, 0]), nodes.constant(MISSING))
    if feature.kind == "history":
        assert feature.max_length is not None
        return nodes, newest_first(nodes, rows, max_length=feature.max_length)
    return nodes, rows


def _look_up(nodes: Nodes, text: str, vocabulary: Vocabulary) -> str:
    """Strings -> rows of a vocabulary: "" is missing, a string that is not there is unknown."""
    rows = [MISSING, *range(FIRST, len(vocabulary))]
    return label_encoder(nodes, text, ["", *vocabulary.ids], rows, default=UNKNOWN)


def _hashed(nodes: Nodes, text: str, *, buckets: int) -> str:
    """Strings -> rows by MurmurHash3 (x86, 32 bits, seed 0) of their UTF-8 bytes; "" is missing. onnxruntime only."""
    code = nodes.add("MurmurHash3", text, domain="com.microsoft", positive=1, seed=0)
    whole = nodes.add("Cast", code, to=TensorProto.INT64)
    row = nodes.add("Add", nodes.add("Mod", whole, nodes.constant(buckets)), nodes.constant(FIRST))
    # There is no Equal of strings before opset 19.
    present = label_encoder(nodes, text, [""], [0], default=1)
    return nodes.add("Mul", row, present)


def newest_first(nodes: Nodes, rows: str, *, max_length: int) -> str:
    """Rows oldest first, missing anywhere (N, L) -> newest first, the missing last (N, min(L + 1, max_length)).

    Cut here and not in the tower: attention would cost the square of a hostile list's length.
    """
    # TopK kills the process where there are no rows (onnxruntime 1.30), so it gets one more, taken away below.
    padded = nodes.add("Pad", rows, nodes.constant([1, 1, 0, 0]), nodes.constant(MISSING))  # (N + 1, L + 1)
    width = nodes.add("Shape", padded, start=1, end=2)
    age = nodes.add("Range", nodes.constant(0), nodes.add("Squeeze", width), nodes.constant(1))
    absent = nodes.add("Equal", padded, nodes.constant(MISSING))
    score = nodes.add("Where", absent, nodes.constant(-1), age)
    kept = nodes.add("Min", width, nodes.constant([max_length]))
    newest = nodes.add("TopK", score, kept, outputs=2)
    taken = nodes.add("GatherElements", padded, newest, axis=1)
    return nodes.add("Slice", taken, nodes.constant([1]), nodes.constant([2**62]), nodes.constant([0]))
