"""The same files in every runtime: the oldest onnxruntime, Node, headless Chromium.

TWOTOWER_BUNDLE tries another bundle, its training beside it; TWOTOWER_TITLES ("a|b") is then what the page's visitor
chooses, and TWOTOWER_SCREENSHOT where the picture goes.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import polars as pl
import pytest

from export import training_rows
from export.golden_cases import to_json
from export.parity import TOLERANCE, session_of
from export.retrieve_file import vectors_of
from retrieval import Retriever
from retrieval.bundle.reader import Bundle
from retrieval.bundle.writer import publishing
from retrieval.features.records import Batch
from retrieval.features.schema import SIDES
from retrieval.index.build import build_index, publish_tables
from tests.export.runtimes import cases
from tests.export.runtimes.machines import (
    BROWSER_PACKAGES,
    OF_NODE,
    OLDEST,
    in_browser,
    in_node,
    in_python,
    node,
    run,
)

USERS = 1000
ROUNDING = 2e-7  # two ways to sum a product of unit vectors differ by so much


@pytest.fixture(scope="module")
def deployed(request: pytest.FixtureRequest) -> Path:
    return Path(os.environ.get("TWOTOWER_BUNDLE") or request.getfixturevalue("bundle_path"))


@pytest.fixture(scope="module")
def here(deployed: Path) -> Any:
    """What this interpreter's onnxruntime makes of the golden cases."""
    return cases.golden(deployed, json.loads((deployed / "schema.json").read_text()))


@pytest.fixture(scope="module")
def site(deployed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the browser's example, made as its README says."""
    node()
    if not (BROWSER_PACKAGES / "node_modules").exists():
        pytest.skip("onnxruntime-web is not there; .ci/runtimes installs it")
    folder = tmp_path_factory.mktemp("site")
    run(["node", BROWSER_PACKAGES / "site.mjs", deployed, folder])
    return folder


@pytest.fixture(scope="module")
def requests(deployed: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    """Every user of the training with their own history, asked for in batches, and odd questions; and the answers."""
    schema = Bundle.open(deployed).schema
    items = training_rows.items_table(deployed / "training")
    ids = items.column(0).cast("string").to_pylist()
    item_vectors = vectors_of(
        session_of(deployed / "item_tower.onnx"), training_rows.batches(schema.item.inputs, items)
    )
    user = session_of(deployed / "user_tower.onnx")
    people = training_rows.users_table(deployed / "training", schema.user.history, limit=USERS)
    asked, answers = [], []
    batches = training_rows.batches(schema.user.inputs, people, rows=64)
    questions: list[tuple[Batch, int, list[str]]] = [(batch, 10, [""]) for batch in batches]
    questions += [(batches[0], k, exclude) for k in (0, len(ids) + 5) for exclude in (ids[20:], ids[1:], ids)]
    questions += [({name: values[:0] for name, values in batches[0].items()}, 3, [])]
    for batch, k, excluded in questions:
        vectors = user.run(None, batch)[0]
        asked.append(
            {"inputs": {n: to_json(v) for n, v in batch.items()}, "exclude": [excluded] * len(vectors), "k": k}
        )
        histories = batch[schema.user.history.name] if schema.user.history else [()] * len(vectors)
        pairs = zip(vectors, histories, strict=True)
        answers.append([best(vector, item_vectors, ids, {*own, *excluded}, k) for vector, own in pairs])
    path = tmp_path_factory.mktemp("requests") / "requests.json"
    path.write_text(json.dumps(asked))
    return path, answers


def best(vector: Any, item_vectors: Any, ids: list[str], seen: set[str], k: int) -> list[str]:
    """What an answer of `retrieve.onnx` has to be."""
    order = np.argsort(-(item_vectors @ vector), kind="stable")
    left = [ids[item] for item in order if ids[item] not in seen]
    return (left + [""] * len(ids))[: min(k, len(ids))]


def agree(found: Any, here: Any) -> None:
    for side in SIDES:
        assert found[side]["cases"] == here[side]["cases"] >= 10
        assert found[side]["worst"] <= TOLERANCE
        assert [len(bits) for bits in found[side]["bits"]] == [len(bits) for bits in here[side]["bits"]]


def test_newest_onnxruntime(here: Any) -> None:
    agree(here, here)


def test_oldest_onnxruntime(deployed: Path, here: Any, requests: tuple[Path, list[Any]]) -> None:
    agree(in_python(OLDEST, deployed, "golden"), here)
    assert in_python(OLDEST, deployed, "retrieve", requests=str(requests[0])) == requests[1]


def test_node(deployed: Path, here: Any, requests: tuple[Path, list[Any]]) -> None:
    empty = in_node(deployed, "golden", onlyEmpty=True)  # in a process of its own: it may be killed
    assert all(empty[side]["cases"] >= 1 for side in SIDES)
    agree(in_node(deployed, "golden"), here)
    assert in_node(deployed, "retrieve", requests=str(requests[0])) == requests[1]


def test_node_equals_python_bit_for_bit(deployed: Path) -> None:
    python, javascript = in_python(OF_NODE, deployed, "golden"), in_node(deployed, "golden")
    for side in SIDES:
        assert python[side]["bits"] == javascript[side]["bits"]


def test_chromium(deployed: Path, site: Path, here: Any, requests: tuple[Path, list[Any]]) -> None:
    agree(in_browser(site, deployed, "golden"), here)
    assert in_browser(site, deployed, "retrieve", requests=str(requests[0])) == requests[1]


def test_this_onnxruntime_answers_whole_requests(deployed: Path, requests: tuple[Path, list[Any]]) -> None:
    schema = json.loads((deployed / "schema.json").read_text())
    assert cases.retrieve(deployed, schema, str(requests[0])) == requests[1], ort.__version__


@pytest.mark.parametrize("seed", [1, 2])
def test_hostile_input_in_node(deployed: Path, seed: int) -> None:
    counts = in_node(deployed, "fuzz", seed=seed, rounds=150)
    assert counts["vectors"] > 500
    assert counts["refused"] > 20


def test_hostile_input_in_chromium(deployed: Path, site: Path) -> None:
    assert in_browser(site, deployed, "fuzz", seed=3, rounds=60)["vectors"] > 200


def test_page(deployed: Path, site: Path, tmp_path: Path) -> None:
    """A visitor chooses two titles; ten others stand there within two seconds of the first choice."""
    titles = dict(json.loads((deployed / "titles.json").read_text())["items"])
    wanted = os.environ.get("TWOTOWER_TITLES", "|".join(list(titles.values())[:2])).split("|")
    shot = tmp_path / "page.png"
    seen = in_browser(site, deployed, "page", titles=wanted, screenshot=str(shot))
    assert seen["seconds"][0] < 2
    assert len(set(seen["hits"])) == 10
    assert not set(seen["hits"]) & set(seen["chosen"])
    assert set(seen["hits"]) <= set(titles.values())
    assert shot.stat().st_size > 10_000
    if "TWOTOWER_SCREENSHOT" in os.environ:
        shutil.copy(shot, os.environ["TWOTOWER_SCREENSHOT"])


def test_the_single_file_answers_as_the_retriever(
    deployed: Path, requests: tuple[Path, list[Any]], tmp_path: Path
) -> None:
    """Id for id, for every user of the training; items that score alike to the last digits may change places."""
    shutil.copytree(deployed, tmp_path / "bundle")
    with publishing(tmp_path / "bundle") as draft:
        publish_tables(draft, tmp_path / "bundle" / "training")
        build_index(draft, kind="flat")
    people = pl.read_parquet(tmp_path / "bundle" / "users.parquet").get_column("user_id").to_list()[:USERS]
    with Retriever.open(tmp_path / "bundle") as retriever:
        answers = retriever.query([{"user": user} for user in people], k=10, exclude=[""])
    expected = [[text for text in ids if text] for batch in requests[1] for ids in batch][: len(people)]
    swapped = 0
    for hits, ids in zip(answers, expected, strict=True):
        assert {hit.id for hit in hits} == set(ids)
        score = {hit.id: hit.score for hit in hits}
        for hit, text in zip(hits, ids, strict=True):
            swapped += hit.id != text
            assert abs(hit.score - score[text]) <= ROUNDING
    assert swapped <= len(people) // 100
