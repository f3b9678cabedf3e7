"""A model that was refitted on everything says so in its bundle."""

import json
from pathlib import Path

import pytest

from tests.test_cli import run


def test_the_card_of_a_refit_says_that_it_is_one(
    planted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "model"
    quick = ["--set", "train.epochs=2"]
    assert run(["run", str(planted), "--out", str(out), "--baselines", "popularity", *quick]) == 0
    measured = json.loads((out / "metrics.json").read_text())
    capsys.readouterr()
    assert run(["train", str(planted), "--out", str(out), "--refit", *quick]) == 0
    assert "on all interactions" in capsys.readouterr().err
    for precision in ("fp32", "fp16"):
        assert run(["export", str(out), "--precision", precision]) == 0
        card = (out / "MODEL_CARD.md").read_text()
        assert "Trained on all interactions" in card
        assert measured["verdict"]["sentence"] in card
        assert f"Model `{measured['pair_id']}`" in card
        assert f"| ndcg@10 | {measured['metrics']['ndcg@10']:.4f} |" in card
        assert "metrics.json" not in json.loads((out / "manifest.json").read_text())["files"]
    assert run(["index", "build", str(out)]) == 0
    assert run(["index", "verify", str(out)]) == 0
    assert (out / "MODEL_CARD.md").read_text() == card
    capsys.readouterr()
    assert run(["evaluate", str(out)]) == 1
    assert "nothing is held out" in capsys.readouterr().err


def test_a_refit_of_what_was_not_evaluated_says_that(planted: Path, tmp_path: Path) -> None:
    out = tmp_path / "model"
    assert run(["train", str(planted), "--out", str(out), "--set", "train.epochs=2"]) == 0
    assert run(["train", str(planted), "--out", str(out), "--refit"]) == 0
    assert run(["export", str(out)]) == 0
    assert "was not evaluated" in (out / "MODEL_CARD.md").read_text()
