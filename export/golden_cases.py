"""Golden cases: inputs and the vectors they must give, so that a client in any language can prove itself."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from export.sample_inputs import STRANGE_TEXT, Padding, Sampler
from retrieval.features.records import Batch
from retrieval.features.schema import FORMAT_VERSION, OUTPUT_NAME, SIDES, Side

ROWS: Final = 7
DIGITS: Final = 7  # of a component: far below the tolerance, and half the file
MANY: Final = 256  # the largest batch that clients send in one call


def golden(pair_id: str, towers: dict[Side, tuple[ort.InferenceSession, Sampler]]) -> dict[str, Any]:
    """The content of `golden.json`: for each tower a list of {"inputs": {name: lists}, "embedding": lists}.

    NaN stands as null, for JSON cannot write it. Infinities, which it cannot write either, are not among the inputs.
    """
    content: dict[str, Any] = {"format_version": FORMAT_VERSION, "pair_id": pair_id}
    for side in SIDES:
        session, sampler = towers[side]
        content[side] = [case(session, _writable(batch)) for batch in batches(sampler)]
    return content


def batches(sampler: Sampler) -> Iterator[Batch]:
    """Batches of 0, 1, 7 and 256 rows, lists of every length that matters, both padding sides, all missing."""
    longest = sampler.max_length
    padding: Padding
    if sampler.has_lists:
        for width in (0, 1, longest, longest + 30):
            for padding in ("left", "right"):
                yield sampler.batch(ROWS, width, seed=1, padding=padding)
    else:
        yield sampler.batch(ROWS, 0, seed=1)
    yield sampler.batch(0, 0, seed=1)
    yield sampler.batch(0, 3, seed=1)
    yield sampler.batch(1, longest, seed=1)
    yield sampler.batch(MANY, min(longest, 10), seed=1)
    yield sampler.missing(1, 0)
    yield sampler.missing(2, 3)
    yield _strange(sampler)


def _strange(sampler: Sampler) -> Batch:
    """Every strange text once, alone in its feature."""
    batch = sampler.missing(len(STRANGE_TEXT), 1)
    for feature in sampler.features:
        if feature.is_text:
            batch[feature.name][..., :].reshape(-1)[:] = STRANGE_TEXT
    return batch


def _writable(batch: Batch) -> Batch:
    return {
        name: array if array.dtype == object else np.where(np.isinf(array), array.dtype.type(np.nan), array)
        for name, array in batch.items()
    }


def case(session: ort.InferenceSession, batch: Batch) -> dict[str, Any]:
    """One entry of the file: a batch without infinities, and its vectors."""
    vectors = session.run([OUTPUT_NAME], batch)[0]
    return {
        "inputs": {name: to_json(array) for name, array in batch.items()},
        "embedding": to_json(np.round(vectors, DIGITS)),
    }


def to_json(array: npt.NDArray[Any]) -> Any:
    """Nested lists. A number is written with the fewest digits that read back as the same number."""
    if array.ndim > 1:
        return [to_json(row) for row in array]
    if array.dtype == object:
        return array.tolist()
    return [None if np.isnan(value) else float(str(value)) for value in array]


def to_bytes(content: Mapping[str, Any]) -> bytes:
    """The file: JSON without blanks, a case a line, since it holds tens of thousands of numbers."""
    lines = [f'"format_version":{content["format_version"]},"pair_id":{json.dumps(content["pair_id"])}']
    for side in SIDES:
        cases = ",\n".join(
            json.dumps(entry, ensure_ascii=False, allow_nan=False, separators=(",", ":")) for entry in content[side]
        )
        lines.append(f'"{side}":[\n{cases}]')
    return ("{" + ",\n".join(lines) + "}\n").encode()
