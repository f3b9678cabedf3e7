"""Cold items among themselves, and the content that a nearest neighbour finds them by."""

from pathlib import Path

import numpy as np
import pytest

from retrieval.common import csr
from retrieval.evaluation.cold_items import cold_items, cold_line
from retrieval.evaluation.content_knn import ContentKNN, content
from retrieval.evaluation.evaluate import run
from retrieval.evaluation.held_out import HeldOut
from tests.support.prepared import CONFIG, Row, write_training
from tests.support.tiny import write_tiny


def cold_rows(users: int = 40) -> list[Row]:
    """Items from 60 on are hidden from training; each user of a camp goes on to choose one of the camp's."""
    random = np.random.default_rng(0)
    rows: list[Row] = []
    for user in range(users):
        warm = random.permutation(np.arange(user % 2, 60, 2))[:6].tolist()
        rows += [(f"u{user}", f"i{item}", "train", place) for place, item in enumerate(warm)]
        late = int(random.choice(np.arange(60 + user % 2, 120, 2)))
        rows.append((f"u{user}", f"i{late}", "test", 10))
    return rows


TAGGED = {
    **CONFIG,
    "item": {"features": [{"name": "item_id", "kind": "category"}, {"name": "tags", "kind": "categories"}]},
}


def test_cold_items_are_found_by_what_they_are(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    write_tiny(folder, items=120)
    write_training(folder / "training", cold_rows(), items=120, users=40, config=TAGGED)
    judged = run(folder, baselines=["popularity"])
    assert judged.cold is not None
    recall = judged.cold["recall@20"]
    assert judged.cold["items"] == 60
    assert judged.cold["truths"] == 40
    # The camp has half of the 60: what knows the camp is right in 20 of 30, chance in 20 of 60.
    assert recall["random"]["value"] == pytest.approx(1 / 3, abs=1e-6)
    assert recall["two towers"]["value"] > 0.5
    assert recall["content-knn"]["value"] > 0.4
    assert "60 without training interactions" in cold_line(judged.cold)
    # Ranked among themselves: however popular warm items are, they do not matter.
    expected = []
    for at in range(40):
        truth = int(judged.stage.truth.list(at)[0])
        scores = judged.answers.items[60:] @ judged.answers.users[at]
        expected.append((scores >= scores[truth - 60]).sum() <= 20)
    assert recall["two towers"]["value"] == pytest.approx(np.mean(expected), abs=1e-6)


def test_too_few_say_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    write_tiny(folder, items=120)
    write_training(folder / "training", cold_rows(users=10), items=120, users=10, config=TAGGED)
    judged = run(folder, baselines=["none"])
    assert judged.cold is None
    assert cold_items(judged.held, judged.stage, judged.answers) is None


def test_content_on_paper(tmp_path: Path) -> None:
    rows: list[Row] = [("u0", "i0", "train", 1)]
    held = HeldOut.read(write_training(tmp_path / "training", rows, items=12, users=1, config=TAGGED))
    matrix = content(held)
    assert matrix is not None
    # Tags: even (6 of 12) or odd (6), third (0, 3, 6, 9).
    weights = np.array([np.log(2), np.log(3)])
    both = weights / np.linalg.norm(weights)
    model = ContentKNN(matrix, np.array([0, 1, 4]))
    scores = model.score(csr.from_lists([[2], [2, 0]]), {"decay": 0.5})
    # Item 2 is even; item 0 even and third; 1 odd; 4 even.
    np.testing.assert_allclose(scores[0], [both[0], 0, 1], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(scores[1], [0.5 * both[0] + 1, 0, 0.5 + both[0]], rtol=1e-5, atol=1e-7)


def test_content_of_every_kind(tmp_path: Path) -> None:
    features = [
        {"name": "item_id", "kind": "category"},
        {"name": "year", "kind": "number"},
        {"name": "title", "kind": "category"},
        {"name": "missing", "kind": "category"},
    ]
    rows: list[Row] = [("u0", "i0", "train", 1)]
    config = {**CONFIG, "item": {"features": features}}
    held = HeldOut.read(write_training(tmp_path / "some", rows, items=12, users=1, config=config))
    matrix = content(held)
    assert matrix is not None
    lengths = np.sqrt(matrix.multiply(matrix).sum(axis=1))
    np.testing.assert_allclose(lengths, 1, rtol=1e-5)
    config = {**CONFIG, "item": {"features": features[:1]}}
    held = HeldOut.read(write_training(tmp_path / "none", rows, items=12, users=1, config=config))
    assert content(held) is None
