"""Whatever comes in: unit vectors or an error that names the input, and the tower answers afterwards."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from export.parity import session_of
from retrieval.bundle.reader import Bundle
from retrieval.common.errors import QueryError
from retrieval.features.records import Batch
from retrieval.features.schema import SIDES, Feature, Side
from retrieval.towers.tower import Tower
from tests.support.pairs import DIM, FEATURES, ITEMS, WORDS, sampler

FLOATS = st.one_of(
    st.floats(width=32),
    st.sampled_from([1e38, -1e38, 3.4028235e38, float("nan"), float("inf"), -float("inf"), -0.0, 1e-45]),
)
TEXTS = st.one_of(
    st.sampled_from(["", *ITEMS.ids[:5], *ITEMS.ids[-3:], *WORDS.ids]),
    st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12),
)
SLOW = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(scope="module")
def towers(bundle_path: Path) -> dict[Side, Tower]:
    schema = Bundle.open(bundle_path).schema
    return {
        side: Tower(bundle_path / schema.tower(side).file, schema.tower(side), dim=schema.dim, threads=1)
        for side in SIDES
    }


@st.composite
def batches(draw: st.DrawFn, side: Side) -> Batch:
    """Any batch that is right in type and shape."""
    rows = draw(st.integers(1, 4))
    batch: Batch = {}
    for feature in FEATURES[side]:
        width = draw(st.integers(0, 9)) if feature.is_list else (feature.size or 1)
        values = draw(st.lists(TEXTS if feature.is_text else FLOATS, min_size=rows * width, max_size=rows * width))
        array = np.empty(len(values), dtype=object if feature.is_text else np.float32)
        array[:] = values
        batch[feature.name] = array.reshape((rows, width) if len(feature.shape) == 2 else (rows,))
    return batch


def assert_unit(vectors: Any, rows: int) -> None:
    assert vectors.shape == (rows, DIM)
    np.testing.assert_allclose(np.linalg.norm(vectors.astype(np.float64), axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("side", SIDES)
@given(data=st.data())
@SLOW
def test_any_batch_gives_unit_vectors(towers: dict[Side, Tower], side: Side, data: st.DataObject) -> None:
    batch = data.draw(batches(side))
    rows = len(next(iter(batch.values())))
    assert_unit(towers[side].embed_batch(batch), rows)


@given(data=st.data())
@SLOW
def test_any_question_gives_ids(bundle_path: Path, data: st.DataObject) -> None:
    session = retriever(bundle_path)
    batch = data.draw(batches("user"))
    rows = len(next(iter(batch.values())))
    excluded = data.draw(st.lists(TEXTS, max_size=4))
    exclude = np.empty((rows, len(excluded)), dtype=object)
    exclude[:] = excluded
    k = data.draw(st.integers(-(2**63), 2**63 - 1))
    ids, scores = session.run(["ids", "scores"], {**batch, "exclude": exclude, "k": np.array([k])})
    assert ids.shape == scores.shape == (rows, min(max(k, 0), len(ITEMS.ids)))
    assert not np.isnan(scores).any()
    for row in range(rows):
        found = [text for text in ids[row] if text]
        assert len(set(found)) == len(found)
        assert not set(found) & {*excluded, *batch["history"][row]}


_SESSIONS: dict[Path, ort.InferenceSession] = {}


def retriever(bundle_path: Path) -> ort.InferenceSession:
    if bundle_path not in _SESSIONS:
        _SESSIONS[bundle_path] = session_of(bundle_path / "retrieve.onnx")
    return _SESSIONS[bundle_path]


def test_a_list_of_a_million(towers: dict[Side, Tower]) -> None:
    batch = sampler("user").missing(1, 1_000_000)
    batch["likes"] = batch["likes"][:, :3]
    batch["history"][0, :] = "i3"
    alone = sampler("user").missing(1, 8)
    alone["history"][0, :] = "i3"
    np.testing.assert_allclose(towers["user"].embed_batch(batch), towers["user"].embed_batch(alone), atol=1e-6)
    batch["likes"] = np.full((1, 1_000_000), "drama", dtype=object)
    assert_unit(towers["user"].embed_batch(batch), 1)


def test_a_text_of_a_megabyte(towers: dict[Side, Tower]) -> None:
    batch = sampler("user").missing(2, 1)
    for name in ("occupation of user", "city"):
        batch[name][:] = "x" * 2**20
    batch["history"][:] = "映" * 2**20
    assert_unit(towers["user"].embed_batch(batch), 2)


def spoilt(feature: Feature, how: str) -> Any:
    """A column that is wrong in one way."""
    right = sampler("user").missing(3, 2)[feature.name]
    if how == "dtype":
        return np.zeros(right.shape, dtype=np.float64)
    return right[None] if how == "rank" else right[:2]


@pytest.mark.parametrize("feature", FEATURES["user"], ids=lambda feature: feature.kind)
@pytest.mark.parametrize("how", ["dtype", "rank", "rows", "missing"])
def test_an_error_names_the_input(towers: dict[Side, Tower], feature: Feature, how: str) -> None:
    tower = towers["user"]
    batch = sampler("user").missing(3, 2)
    if how == "missing":
        del batch[feature.name]
    else:
        batch[feature.name] = spoilt(feature, how)
    if how == "rows" and feature is FEATURES["user"][0]:
        feature = FEATURES["user"][1]  # the first that differs from those before it
    with pytest.raises(QueryError, match=feature.name):
        tower.embed_batch(batch)
    assert_unit(tower.embed_batch(sampler("user").missing(1, 1)), 1)


def test_a_name_that_no_input_has_is_refused(towers: dict[Side, Tower]) -> None:
    batch = {**sampler("user").missing(1, 1), "agee": np.zeros(1, np.float32)}
    with pytest.raises(QueryError, match=r'no input "agee"; did you mean "age"'):
        towers["user"].embed_batch(batch)


@pytest.mark.parametrize("text", ["a\0b", "\ud800"])
def test_what_a_runtime_would_misread_is_refused(towers: dict[Side, Tower], text: str) -> None:
    for record in ({"history": ["i1", text]}, {"city": text}):
        with pytest.raises(QueryError, match=next(iter(record))):
            towers["user"].embed([record])
