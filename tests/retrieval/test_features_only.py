"""Cold-start users: the same questions with the past withheld."""

from pathlib import Path

import numpy as np
import pytest

from retrieval.evaluation.cold_users import features_line
from retrieval.evaluation.evaluate import run
from retrieval.evaluation.report.page import html
from tests.support.prepared import Row, write_training
from tests.support.tiny import write_tiny


def rows_of(users: int) -> list[Row]:
    """Items 0 and 2 are everybody's, 8 the later half's; the others go on to it, or to 4, which nobody had."""
    rows: list[Row] = []
    for user in range(users):
        rows += [(f"u{user}", item, "train", place) for place, item in enumerate(("i0", "i2"))]
        if user >= users // 2:
            rows.append((f"u{user}", "i8", "train", 3))
        rows.append((f"u{user}", "i4" if user >= users // 2 or user % 2 else "i8", "test", 9))
    return rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("strangers") / "bundle"
    write_tiny(folder)
    write_training(folder / "training", rows_of(20), users=20)
    return folder


def test_the_past_is_withheld_and_the_rest_is_the_same(folder: Path) -> None:
    judged = run(folder, baselines=["popularity"])
    told = judged.strangers
    assert told is not None
    assert told["features"] == ["age"]
    assert told["users"] == len(judged.stage.rows)
    # Popularity needs no history: the figure is the baseline's own.
    own = judged.rivals["popularity"].measured.values["ndcg@10"]
    assert told["ndcg@10"]["popularity"]["value"] == pytest.approx(own, abs=1e-6)
    # The tiny tower's answer to an age is nearly the same for all, so nothing is lost with another user's.
    values = {name: interval["value"] for name, interval in told["recall@10"].items()}
    assert values["two towers"] == pytest.approx(values["shuffled user features"])
    # By hand: the graph gives every user without history nearly the direction of the ones.
    scores = judged.answers.items @ np.ones(judged.answers.items.shape[1], np.float32)
    expected = []
    for at in range(len(judged.stage.rows)):
        rest = scores.copy()
        rest[judged.stage.seen.list(at)] = -np.inf
        truth = int(judged.stage.truth.list(at)[0])
        expected.append((rest >= rest[truth]).sum() <= 10)
    assert values["two towers"] == pytest.approx(np.mean(expected), abs=1e-6)


def test_it_is_told(folder: Path) -> None:
    judged = run(folder, baselines=["none"])
    result = judged.to_json()
    line = features_line(result["features_only"])
    assert line.startswith("Cold-start users (only age known), ndcg@10: two towers 0.")
    assert "popularity 0." in line
    assert "Cold-start users" in html(judged, result)
