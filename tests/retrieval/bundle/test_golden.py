"""A bundle of format version 1, kept as it was written, is read for as long as the version stands."""

import json
import shutil
from pathlib import Path

from retrieval import Retriever
from retrieval.verify import verify_bundle

GOLDEN = Path(__file__).parents[2] / "golden"


def test_the_golden_bundle_still_answers(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(GOLDEN / "bundle", folder)
    assert len(list(verify_bundle(folder))) == 3
    with Retriever.open(folder) as retriever:
        answers = retriever.answer([{"user": "u1"}, {"history": ["i2", "i4"]}], k=5, where="year > 1985")
    expected = json.loads((GOLDEN / "answers.json").read_text())
    for answer, wanted in zip(answers, expected, strict=True):
        found = answer.to_json()
        assert [hit["id"] for hit in found["hits"]] == [hit["id"] for hit in wanted["hits"]]
        for hit, other in zip(found["hits"], wanted["hits"], strict=True):
            assert abs(hit.pop("score") - other.pop("score")) < 1e-5
            assert hit == other
