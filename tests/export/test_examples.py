"""The examples, run as their READMEs say, and what their helper does with wrong input."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from export.parity import session_of
from retrieval.bundle.reader import Bundle
from retrieval.features.records import batch_of
from tests.export.runtimes.machines import HERE, NODE_PACKAGES, OLDEST, ROOT, node, python_of, run

LIKED = ["i3", "i4"]
LINE = re.compile(r"^(-?\d\.\d{4})  (\S.*)$", re.MULTILINE)


@pytest.fixture(scope="module")
def expected(bundle_path: Path) -> list[tuple[str, str]]:
    batch = batch_of(Bundle.open(bundle_path).schema.user.inputs, [{"history": LIKED}])
    feeds = {**batch, "exclude": np.full((1, 0), "", dtype=object), "k": np.array([10])}
    ids, scores = session_of(bundle_path / "retrieve.onnx").run(["ids", "scores"], feeds)
    return [(f"{score:.4f}", text) for score, text in zip(scores[0], ids[0], strict=True)]


def same(found: list[tuple[str, str]], expected: list[tuple[str, str]]) -> None:
    assert [text for _, text in found] == [text for _, text in expected]
    assert all(abs(float(a) - float(b)) < 2e-4 for (a, _), (b, _) in zip(found, expected, strict=True))


def test_python(bundle_path: Path, expected: list[tuple[str, str]]) -> None:
    script = ROOT / "examples" / "python" / "recommend.py"
    same(LINE.findall(run([python_of(OLDEST), "-I", script, bundle_path, ",".join(LIKED)])), expected)


def test_node(bundle_path: Path, expected: list[tuple[str, str]]) -> None:
    same(LINE.findall(run([node(), NODE_PACKAGES / "recommend.mjs", bundle_path, ",".join(LIKED)])), expected)


def test_helper_in_node(bundle_path: Path) -> None:
    command = [node(), "--test", str(HERE / "helper.test.mjs")]
    environment = {**os.environ, "BUNDLE": str(bundle_path), "PACKAGES": str(NODE_PACKAGES)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert done.returncode == 0, done.stdout[-4000:]
    assert "# fail 0" in done.stdout


def test_helper_is_typed() -> None:
    node()
    npm = shutil.which("npm")
    if npm is None or not (NODE_PACKAGES / "node_modules" / "typescript").exists():
        pytest.skip("typescript is not there; .ci/runtimes installs it")
    subprocess.run([npm, "run", "--silent", "check"], cwd=NODE_PACKAGES, check=True, timeout=120)


@pytest.mark.parametrize("example", ["python", "node", "browser"])
def test_every_example_has_three_commands(example: str) -> None:
    text = (ROOT / "examples" / example / "README.md").read_text()
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 1
    assert len(blocks[0].strip().splitlines()) == 3
