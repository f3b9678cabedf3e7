"""Errors of predicted values, through a whole tiny bundle whose schema says that cosines are stars."""

import json
from pathlib import Path

import numpy as np
import pytest

from retrieval.evaluation.evaluate import run
from retrieval.evaluation.rating import rating_errors, rating_table
from tests.support.prepared import camp_rows, write_training
from tests.support.tiny import write_tiny


def test_errors_are_those_done_by_hand(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    write_tiny(folder)
    rows = camp_rows(12)
    values = np.random.default_rng(0).integers(1, 6, len(rows)).astype(float).tolist()
    write_training(folder / "training", rows, users=12, values=values)
    judged = run(folder, baselines=["none"])
    assert judged.rating is None  # the schema does not say that these towers predict values
    rating = rating_errors(judged.held, judged.stage, judged.answers, {"low": 1.0, "high": 5.0})
    assert rating is not None
    off = []
    for (user, item, split, _), value in zip(rows, values, strict=True):
        if split == "test":
            cosine = float(judged.answers.users[int(user[1:])] @ judged.answers.items[int(item[1:])])
            off.append(1 + (cosine + 1) / 2 * 4 - value)
    assert rating["rmse"] == pytest.approx(np.sqrt(np.mean(np.square(off))), abs=1e-5)
    assert rating["mae"] == pytest.approx(np.mean(np.abs(off)), abs=1e-5)
    assert rating["ratings"] == 12
    assert set(rating["baselines"]) == {"global mean", "user mean", "user + item bias"}
    given = [value for (_, _, split, _), value in zip(rows, values, strict=True) if split == "train"]
    tested = np.array([value for (_, _, split, _), value in zip(rows, values, strict=True) if split == "test"])
    expected = float(np.sqrt(np.mean((tested - np.mean(given)) ** 2)))
    assert rating["baselines"]["global mean"]["rmse"] == pytest.approx(expected, abs=1e-5)
    lines = rating_table(rating).splitlines()
    assert len(lines) == 5
    assert sum(line.count("*") for line in lines) >= 2
    json.dumps(rating, allow_nan=False)


def test_no_values_no_errors(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    write_tiny(folder)
    write_training(folder / "training", camp_rows(6), users=6)
    judged = run(folder, baselines=["none"])
    assert rating_errors(judged.held, judged.stage, judged.answers, {"low": 1.0, "high": 5.0}) is None
