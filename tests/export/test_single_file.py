"""`retrieve.onnx` beside a search that is plain to read."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest

from export import training_rows
from export.parity import session_of
from export.retrieve_file import vectors_of
from export.retrieve_graph import retrieve_graph
from retrieval.bundle.reader import Bundle
from retrieval.common.errors import ExportError
from retrieval.features.records import Batch
from retrieval.features.schema import Feature
from tests.support.pairs import FEATURES, ITEMS, sampler

IDS = list(ITEMS.ids)


@pytest.fixture(scope="module")
def retrieve(bundle_path: Path) -> ort.InferenceSession:
    return session_of(bundle_path / "retrieve.onnx")


@pytest.fixture(scope="module")
def vectors(bundle_path: Path) -> npt.NDArray[np.float32]:
    session = session_of(bundle_path / "item_tower.onnx")
    return vectors_of(
        session, training_rows.batches(FEATURES["item"], training_rows.items_table(bundle_path / "training"))
    )


def ask(session: ort.InferenceSession, batch: Batch, *, k: int, exclude: list[str] | None = None) -> list[list[str]]:
    rows = len(next(iter(batch.values())))
    column = np.empty((rows, len(exclude or [])), dtype=object)
    column[:] = exclude or []
    ids, scores = session.run(["ids", "scores"], {**batch, "exclude": column, "k": np.array([k])})
    assert ids.shape == scores.shape == (rows, min(max(k, 0), len(IDS)))
    assert ((ids == "") == np.isneginf(scores)).all()
    assert (np.diff(np.where(np.isinf(scores), -9, scores), axis=1) <= 0).all()
    return [[text for text in row if text] for row in ids]


def expected(
    bundle_path: Path, vectors: npt.NDArray[np.float32], batch: Batch, *, k: int, exclude: tuple[str, ...] = ()
) -> list[list[str]]:
    users = session_of(bundle_path / "user_tower.onnx").run(None, batch)[0]
    lists = []
    for row, user in enumerate(users):
        seen = {*batch["history"][row], *exclude}
        order = np.argsort(-(vectors @ user), kind="stable")
        lists.append([IDS[item] for item in order if IDS[item] not in seen][: max(k, 0)])
    return lists


@pytest.mark.parametrize("k", [0, 1, 5, 33, 34, 10**9, -1])
def test_equals_a_plain_search(
    retrieve: ort.InferenceSession, bundle_path: Path, vectors: npt.NDArray[np.float32], k: int
) -> None:
    batch = sampler("user").batch(20, 10, seed=4, padding="scattered")
    exclude = ["i3", "Amélie", "nobody", "", "i3"]
    found = ask(retrieve, batch, k=k, exclude=exclude)
    assert found == expected(bundle_path, vectors, batch, k=k, exclude=tuple(exclude))


@pytest.mark.parametrize("k", [0, 3])
@pytest.mark.parametrize("rows", [0, 1])
@pytest.mark.parametrize("width", [0, 1])
def test_small_shapes(retrieve: ort.InferenceSession, rows: int, width: int, k: int) -> None:
    assert len(ask(retrieve, sampler("user").missing(rows, width), k=k)) == rows


def test_everything_excluded(retrieve: ort.InferenceSession) -> None:
    assert ask(retrieve, sampler("user").missing(2, 1), k=5, exclude=IDS) == [[], []]
    assert ask(retrieve, sampler("user").missing(2, 1), k=5, exclude=IDS[1:]) == [[IDS[0]], [IDS[0]]]


def test_real_users_get_what_the_towers_say(
    retrieve: ort.InferenceSession, bundle_path: Path, vectors: npt.NDArray[np.float32]
) -> None:
    people = training_rows.users_table(bundle_path / "training", FEATURES["user"][-1], limit=100)
    (batch,) = training_rows.batches(FEATURES["user"], people)
    assert max(len(set(row) - {""}) for row in batch["history"]) == 11
    assert ask(retrieve, batch, k=10) == expected(bundle_path, vectors, batch, k=10)


def test_it_belongs_to_the_pair(retrieve: ort.InferenceSession, bundle_path: Path) -> None:
    bundle = Bundle.open(bundle_path)
    assert retrieve.get_modelmeta().custom_metadata_map == {"pair_id": bundle.pair_id}
    assert bundle.schema.facts["single_file"] == {"file": "retrieve.onnx", "items": 33, "history_excluded": True}


def test_too_many_items_are_refused() -> None:
    ids = [str(n) for n in range(100_001)]
    with pytest.raises(ExportError, match=r"retrieve.onnx: 100,001 items, at most 100,000"):
        retrieve_graph(onnx.ModelProto(), [], ids, np.zeros((len(ids), 16), np.float32), precision="fp32")


def test_an_input_of_the_file_is_no_feature() -> None:
    named = [Feature(name="exclude", kind="history", max_length=3)]
    with pytest.raises(ExportError, match='cannot be named "exclude"'):
        retrieve_graph(onnx.ModelProto(), named, ["a"], np.zeros((1, 16), np.float32), precision="fp32")
