"""Both towers into a bundle: what is there afterwards, and that a wrong one leaves nothing."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from export.contract import verify_graphs
from export.export_towers import export_towers
from export.parity import session_of
from retrieval.bundle.reader import Bundle
from retrieval.bundle.writer import publishing
from retrieval.common.errors import BundleError, ExportError
from retrieval.features.schema import SIDES, Side
from retrieval.towers.golden_cases import array_of
from retrieval.verify import verify_bundle
from tests.support.pairs import FEATURES, Pair, make_pair


def test_bundle_holds_the_contract(bundle_path: Path) -> None:
    bundle = Bundle.open(bundle_path)
    assert bundle.names == {
        "user_tower.onnx",
        "item_tower.onnx",
        "retrieve.onnx",
        "titles.json",
        "schema.json",
        "golden.json",
    }
    assert bundle.schema.precision == "fp32"
    assert bundle.schema.opset == 18
    assert "rating" not in bundle.schema.facts
    assert bundle.schema.facts["fingerprint"] == "f00d"
    for side in SIDES:
        tower = bundle.schema.tower(side)
        assert tower.inputs == tuple(replace(feature, buckets=None) for feature in FEATURES[side])
    lines = list(verify_bundle(bundle_path, check_graphs=verify_graphs))
    assert any("golden embeddings" in line for line in lines)
    assert any("contract" in line for line in lines)


@pytest.mark.parametrize("side", SIDES)
def test_golden_cases_are_what_torch_gives(bundle_path: Path, side: Side) -> None:
    pair = make_pair()
    content = Bundle.open(bundle_path).read_json("golden.json")
    assert {len(case["embedding"]) for case in content[side]} >= {0, 1, 7, 256}
    for case in content[side]:
        batch = {feature.name: array_of(feature, case["inputs"][feature.name]) for feature in FEATURES[side]}
        rows = {name: torch.from_numpy(array) for name, array in pair.preprocess.encode(side, batch).items()}
        with torch.no_grad():
            expected = pair.tower(side)(rows).numpy()
        found = np.asarray(case["embedding"], dtype=np.float32).reshape(expected.shape)
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_json_is_strict(bundle_path: Path) -> None:
    def refuse(word: str) -> Any:
        raise AssertionError(f"{word} is not JSON")

    for name in ("schema.json", "golden.json"):
        json.loads((bundle_path / name).read_text(), parse_constant=refuse)


def test_a_tower_that_does_not_agree_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = make_pair()
    right = pair.preprocess.encode

    def wrong(side: Side, raw: Any) -> Any:
        encoded = right(side, raw)
        if side == "user":
            encoded["history"] = encoded["history"][:, ::-1].copy()  # oldest first
        return encoded

    monkeypatch.setattr(pair.preprocess, "encode", wrong)
    with pytest.raises(ExportError, match=r"user_tower.onnx: .* differ by .*; nothing was written"):
        publish(pair, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_tower_that_is_not_of_unit_length_leaves_nothing(tmp_path: Path) -> None:
    pair = make_pair()
    forward = pair.item_tower.forward
    pair.item_tower.forward = lambda inputs: 2 * forward(inputs)
    with pytest.raises(ExportError, match=r"item_tower.onnx: .* a vector has length 2, expected 1"):
        publish(pair, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def publish(pair: Pair, path: Path) -> None:
    with publishing(path) as draft:
        export_towers(pair, draft)


def test_verify_names_a_golden_case_that_fails(bundle_path: Path, tmp_path: Path) -> None:
    source = Bundle.open(bundle_path)
    golden = source.read_json("golden.json")
    golden["user"][3]["embedding"][0][0] += 0.001
    with publishing(tmp_path / "other") as draft:
        for name in source.names - {"golden.json"}:
            draft.write_bytes(name, source.file(name).read_bytes())
        draft.write_json("golden.json", golden)
    with pytest.raises(BundleError, match=r"golden.json: user_tower.onnx gives other vectors than user case 4"):
        list(verify_bundle(tmp_path / "other"))


def test_verify_names_an_operator_that_is_not_allowed(bundle_path: Path, tmp_path: Path) -> None:
    source = Bundle.open(bundle_path)
    model = onnx.load(str(source.file("item_tower.onnx")))
    last = model.graph.node[-1]
    model.graph.node.append(onnx.helper.make_node("Round", [last.output[0]], ["embedding"], name="round"))
    last.output[0] = model.graph.node[-1].input[0] = "before"
    session_of(model.SerializeToString())  # it does load
    with publishing(tmp_path / "other") as draft:
        for name in source.names - {"item_tower.onnx"}:
            draft.write_bytes(name, source.file(name).read_bytes())
        draft.write_bytes("item_tower.onnx", model.SerializeToString())
    with pytest.raises(BundleError, match=r"item_tower.onnx: operator ai.onnx.Round is not one"):
        verify_graphs(Bundle.open(tmp_path / "other"))
