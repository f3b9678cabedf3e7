"""Evaluate through a whole tiny bundle, held against the same done by hand."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from retrieval.bundle.reader import Bundle
from retrieval.bundle.writer import publishing
from retrieval.cli.evaluate import evaluate as command
from retrieval.common.errors import BundleError, TwoTowerError
from retrieval.evaluation.evaluate import evaluate, run
from retrieval.evaluation.table import metrics_table
from retrieval.metrics import ranking
from tests.support.prepared import Row, camp_rows, write_judged, write_training
from tests.support.tiny import item_table, unit, write_tiny


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_judged(tmp_path_factory.mktemp("judged") / "bundle")


@pytest.fixture(scope="module")
def result(judged: Path) -> dict[str, Any]:
    return evaluate(judged, budget_s=1, report=False)


def test_the_numbers_are_those_done_by_hand(judged: Path, result: dict[str, Any]) -> None:
    vectors = item_table(40, 8, 0).astype(np.float64)
    ranks = []
    rows = camp_rows(30)
    for user in range(30):
        own = [(int(item[1:]), split) for who, item, split, _ in rows if who == f"u{user}"]
        known = [item for item, split in own if split != "test"]
        truth = next(item for item, split in own if split == "test")
        query = unit(vectors[known].sum(axis=0, keepdims=True))[0]
        scores = vectors @ query
        scores[known] = -np.inf
        ranks.append(int((scores >= scores[truth]).sum()))
    # The graph adds a little for age and year, which moves near ties only.
    assert result["metrics"]["recall@10"] == pytest.approx(np.mean(np.array(ranks) <= 10), abs=0.04)
    assert result["metrics"]["ndcg@10"] == pytest.approx(
        np.mean([1 / np.log2(1 + rank) if rank <= 10 else 0 for rank in ranks]), abs=0.03
    )


def test_a_k_beyond_the_catalogue_measures_all_of_it(judged: Path) -> None:
    measured = run(judged, baselines=["popularity"], k=(10, 10**9), budget_s=1)
    assert measured.model.values[f"recall@{10**9}"] == 1.0


def test_what_is_told(judged: Path, result: dict[str, Any]) -> None:
    assert result["users"] == 30
    assert result["k"] == [5, 10, 20]
    assert result["split"] == {
        "kind": "leave-one-out",
        "stage": "test",
        "interactions": {"train": 180, "valid": 30, "test": 30},
    }
    for k in (5, 10, 20):
        for name in ("recall", "ndcg", "mrr", "hit_rate", "coverage", "novelty", "gini"):
            assert f"{name}@{k}" in result["metrics"]
            assert f"{name}@{k}" in result["baselines"]["popularity"]
    assert set(result["baselines"]) >= {"popularity", "recent-popularity", "itemknn", "transitions", "ease"}
    assert result["index"] == {"kind": "flat", "recall@10_vs_exact": 1.0}
    for interval in result["intervals"].values():
        assert interval["low"] <= interval["value"] <= interval["high"]
    assert sum(part["truths"] for part in result["slices"]["history"]) == 30
    assert sum(part["truths"] for part in result["slices"]["popularity"]) == 30
    assert result["metrics"]["recall@20"] == result["metrics"]["hit_rate@20"]  # one truth a user
    # Every user's camp has 20 items, 7 of them known: 13 left, all of them above the other camp.
    assert result["metrics"]["recall@20"] == 1.0
    assert result["verdict"]["outcome"] in ("wins", "level", "loses")
    json.dumps(result, allow_nan=False)


def test_it_is_published_beside_what_was_there(judged: Path, result: dict[str, Any]) -> None:
    with Bundle.open(judged, verify="full") as bundle:
        assert bundle.read_json("metrics.json")["metrics"] == result["metrics"]
        assert bundle.has("index.faiss")
        card = bundle.file("MODEL_CARD.md").read_text(encoding="utf-8")
    assert "abc123abc123" in card
    assert "leave-one-out" in card
    assert "00ff" in card
    assert result["verdict"]["sentence"] in card


def test_the_same_twice(judged: Path) -> None:
    first, second = (run(judged, baselines=["itemknn"]).to_json() for _ in range(2))
    for volatile in ("seconds", "created", "baseline_settings"):
        first.pop(volatile), second.pop(volatile)
    assert first == second


def test_the_table_marks_the_best(result: dict[str, Any]) -> None:
    lines = metrics_table(result).splitlines()
    assert lines[0].split() == [
        "recall@5", "recall@10", "recall@20", "ndcg@5", "ndcg@10", "ndcg@20", "mrr@10", "coverage@10",
    ]  # fmt: skip
    assert lines[1].startswith("two towers")
    columns = list(zip(*(line.split()[-8:] for line in lines[1:]), strict=True))
    for column in columns:
        values = [float(cell.rstrip("*")) for cell in column]
        assert [cell.endswith("*") for cell in column] == [value == max(values) for value in values]


def test_one_that_loses_is_told_so(tmp_path: Path) -> None:
    """Users change camps with every item; only what follows what tells, and the towers do not know."""
    folder = tmp_path / "bundle"
    write_tiny(folder)
    rows: list[Row] = []
    for user in range(40):
        splits = ["train"] * 6 + ["valid", "test"]
        rows += [(f"u{user}", f"i{(user + place) % 40}", split, place) for place, split in enumerate(splits)]
    write_training(folder / "training", rows, users=40)
    done = CliRunner().invoke(command, [str(folder), "--no-report", "--baselines", "popularity,transitions"])
    assert done.exit_code == 0, done.output
    assert "LOSES to the best baseline, transitions" in done.stdout
    assert "Warning: a baseline, transitions, beats the model" in done.stderr
    assert "train.epochs = " in done.stderr


def test_json_goes_to_stdout(judged: Path) -> None:
    done = CliRunner().invoke(command, [str(judged), "--json", "-k", "1,3", "--baselines", "popularity", "--no-report"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["k"] == [1, 3]
    assert list(told["baselines"]) == ["popularity"]
    alone = CliRunner().invoke(command, [str(judged), "--baselines", "none", "--no-report"])
    assert "Not compared with any baseline" in alone.stdout


def test_some_of_many_users(judged: Path) -> None:
    done = CliRunner().invoke(command, [str(judged), "--json", "--users", "7", "--baselines", "none", "--no-report"])
    told = json.loads(done.stdout)
    assert told["users"] == 7
    assert told["users_held_out"] == 30
    assert "7 of 30 held-out users are judged" in done.stderr
    everybody = CliRunner().invoke(
        command, [str(judged), "--json", "--users", "0", "--baselines", "none", "--no-report"]
    )
    assert json.loads(everybody.stdout)["users"] == 30


@pytest.mark.parametrize(("items", "users"), [(5, 8), (40, 1), (3, 2)])
def test_little_data(tmp_path: Path, items: int, users: int) -> None:
    """Fewer items than k, one user to judge: a result, whatever it is worth."""
    folder = tmp_path / "bundle"
    write_tiny(folder, items=items)
    rows: list[Row] = []
    for user in range(users):
        rows += [(f"u{user}", f"i{(user + place) % items}", ("train", "test")[place], 5) for place in range(2)]
    write_training(folder / "training", rows, items=items, users=users)
    result = evaluate(folder, baselines=["all"])
    assert result["users"] == users
    assert 0 <= result["metrics"]["ndcg@20"] <= 1
    assert Path(folder / "report.html").stat().st_size > 100_000


def test_usage(judged: Path) -> None:
    for ks in ("x", "0,5"):
        assert CliRunner().invoke(command, [str(judged), "-k", ks]).exit_code == 2
    with pytest.raises(TwoTowerError, match='did you mean "popularity"'):
        evaluate(judged, baselines=["popularty"])
    shown = CliRunner().invoke(command, ["--help"]).output
    assert shown.rstrip().splitlines()[-1].strip().startswith("Example: twotower evaluate")


def test_nothing_to_judge_by(tmp_path: Path) -> None:
    folder = write_tiny(tmp_path / "bundle")
    with pytest.raises(BundleError, match="train first"):
        evaluate(folder)
    training = write_training(folder / "training", camp_rows(4), users=4)
    with publishing(folder) as draft:
        draft.write_json("schema.json", {**draft.read_json("schema.json"), "fingerprint": "other"})
    with pytest.raises(BundleError, match=r"trained anew .*\(fingerprint 00ff\)"):
        evaluate(folder)
    (training / "summary.json").write_text(json.dumps({"refit": True}))
    with pytest.raises(BundleError, match="trained on everything"):
        evaluate(folder)
    unindexed = write_tiny(tmp_path / "unindexed", index=False)
    write_training(unindexed / "training", camp_rows(4), users=4)
    with pytest.raises(BundleError, match="twotower index build"):
        evaluate(unindexed)


def test_an_approximate_index_is_judged_by_what_it_answers(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    write_tiny(folder, items=400, kind="ivf")
    write_training(folder / "training", camp_rows(60, items=400), users=60, items=400)
    judged = run(folder, baselines=["none"])
    assert judged.answers.kind == "ivf"
    assert 0 < judged.answers.agreement <= 1
    missed = judged.answers.deployed.ranks > judged.answers.exact
    assert (judged.answers.deployed.ranks >= judged.answers.exact).all()
    assert (judged.answers.deployed.ranks[missed] == ranking.NEVER).all()
