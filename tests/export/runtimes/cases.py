"""Every golden case and request of a bundle with numpy and onnxruntime alone; the twin of cases.mjs.

Run as a script: cases.py BUNDLE golden|retrieve [ARGUMENTS]; the result is JSON on stdout.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

Json = Any


def array_of(values: Json, entry: Json) -> np.ndarray[Any, Any]:
    """Nested lists of golden.json -> an array; entry: an input of schema.json."""
    shape = [len(values)]
    if len(entry["shape"]) == 2:
        declared = entry["shape"][1]
        shape.append(len(values[0]) if values else declared if isinstance(declared, int) else 0)
    flat = [item for row in values for item in row] if len(shape) == 2 else values
    if entry["dtype"] == "string":
        out = np.empty(len(flat), dtype=object)
        out[:] = flat
        return out.reshape(shape)
    return np.array([np.nan if value is None else value for value in flat], dtype=np.float32).reshape(shape)


def session_of(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def golden(bundle: Path, schema: Json) -> Json:
    """The largest difference from golden.json, and each vector's exact bits."""
    content = json.loads((bundle / "golden.json").read_text(encoding="utf-8"))
    results = {}
    for side in ("user", "item"):
        tower = schema["towers"][side]
        session = session_of(bundle / tower["file"])
        worst, bits = 0.0, []
        for case in content[side]:
            feeds = {entry["name"]: array_of(case["inputs"][entry["name"]], entry) for entry in tower["inputs"]}
            found = session.run(["embedding"], feeds)[0]
            expected = np.array(case["embedding"], dtype=np.float32).reshape(-1, schema["dim"])
            assert found.shape == expected.shape, (found.shape, expected.shape)
            assert np.isfinite(found).all()
            worst = max(worst, float(np.abs(found - expected).max(initial=0.0)))
            bits.append(found.astype(">f4").tobytes().hex())
        results[side] = {"cases": len(bits), "worst": worst, "bits": bits}
    return results


def retrieve(bundle: Path, schema: Json, requests: str) -> Json:
    """Ids that `retrieve.onnx` gives."""
    session = session_of(bundle / "retrieve.onnx")
    text = {"dtype": "string", "shape": ["N", "E"]}
    answers = []
    for request in json.loads(Path(requests).read_text(encoding="utf-8")):
        inputs = schema["towers"]["user"]["inputs"]
        feeds = {entry["name"]: array_of(request["inputs"][entry["name"]], entry) for entry in inputs}
        feeds |= {"exclude": array_of(request["exclude"], text), "k": np.array([request["k"]], dtype=np.int64)}
        answers.append(session.run(["ids"], feeds)[0].tolist())
    return answers


def main() -> None:
    bundle, work = Path(sys.argv[1]), sys.argv[2]
    options = json.loads(sys.argv[3]) if len(sys.argv) > 3 else {}
    schema = json.loads((bundle / "schema.json").read_text(encoding="utf-8"))
    result = golden(bundle, schema) if work == "golden" else retrieve(bundle, schema, **options)
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main()
