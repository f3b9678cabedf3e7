"""recommend.py BUNDLE ID,ID,...   the items for somebody who liked these, with numpy and onnxruntime alone."""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort

if len(sys.argv) != 3:
    sys.exit("usage: python recommend.py BUNDLE ID,ID,...")
bundle, liked = Path(sys.argv[1]), sys.argv[2].split(",")
inputs = json.loads((bundle / "schema.json").read_text(encoding="utf-8"))["towers"]["user"]["inputs"]
user = {}
for put in inputs:  # every input is required: what is not known is missing, in the input's own shape
    shape = [{"N": 1, "L": 0}.get(axis, axis) for axis in put["shape"]]
    text = put["dtype"] == "string"
    user[put["name"]] = np.full(shape, "" if text else np.nan, dtype=object if text else np.float32)
    if put["kind"] == "history":
        user[put["name"]] = np.array([liked], dtype=object)

vector = ort.InferenceSession(str(bundle / "user_tower.onnx")).run(["embedding"], user)[0][0]
print(f"user vector: {vector.size} numbers, of length {np.linalg.norm(vector):.4f}")

question = {**user, "exclude": np.empty((1, 0), dtype=object), "k": np.array([10])}
ids, scores = ort.InferenceSession(str(bundle / "retrieve.onnx")).run(["ids", "scores"], question)
for item, score in zip(ids[0], scores[0], strict=True):
    print(f"{score:.4f}  {item}")
