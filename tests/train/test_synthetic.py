"""Made-up data: the structure that was planted is there, the same plan writes the same rows, memory does not grow."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner

from train.cli.data import fetch
from train.config.load import load
from train.data.dataset import prepare
from train.data.tensors import tensors
from train.datasets import synthetic
from train.datasets.synthetic import HONESTY, LOYALTY, Plan, fetch_synthetic, interaction_blocks
from train.loop import checkpoint
from train.loop.fit import fit


def test_it_is_a_dataset_folder(tmp_path: Path) -> None:
    out = tmp_path / "made"
    arguments = ["synthetic", "--users", "300", "--items", "100", "--seed", "5", "--to", str(out)]
    result = CliRunner().invoke(fetch, arguments, catch_exceptions=False)
    assert result.output.strip() == str(out / "twotower.toml")
    dataset = prepare(load(out))
    assert (dataset.users.height, dataset.items.height) == (300, 100)
    assert dataset.duplicates == 0
    assert dataset.config.data.title == "title"
    assert {"shelf"} == set(dataset.users.columns) & set(dataset.items.columns)
    assert "shelf" not in {feature.name for feature in dataset.config.user_features + dataset.config.item_features}
    assert (dataset.interactions.group_by("user").len().get_column("len") >= 3).all()


def test_what_was_planted_is_there() -> None:
    plan = Plan(users=5_000, items=2_000, seed=1)
    (block,) = interaction_blocks(plan)
    shelf = block["item_id"] % plan.shelves
    own = block["user_id"] % plan.shelves
    # Loyal, or by chance one in twenty of the rest; repeats, which are left out, are most often loyal ones.
    expected = LOYALTY + (1 - LOYALTY) / plan.shelves
    assert abs((shelf == own).mean() - expected) < 0.04
    assert (block["rating"][shelf == own] >= 4).all()
    assert (block["rating"][shelf != own] <= 3).all()
    counts = np.bincount(block["item_id"] // plan.shelves, minlength=100)
    assert (np.diff(counts[:5]) < 0).all()  # the first of a shelf is the most wanted
    assert counts[:10].sum() > 3 * counts[10:20].sum() / 2
    assert len(np.unique(block["user_id"] * plan.items + block["item_id"])) == len(block["user_id"])
    later = np.diff(block["timestamp"])[np.diff(block["user_id"]) == 0]
    assert (later > 0).all()


def test_features_tell_the_truth_most_often(tmp_path: Path) -> None:
    fetch_synthetic(Plan(users=4_000, items=1_000), to=tmp_path / "a")
    for table, column, word in (("users", "club", "club"), ("items", "label", "label")):
        frame = pl.read_parquet(tmp_path / "a" / f"{table}.parquet")
        told = (frame[column] == pl.Series([f"{word} {shelf}" for shelf in frame["shelf"]])).mean()
        assert isinstance(told, float)
        assert abs(told - HONESTY - (1 - HONESTY) / 20) < 0.04


def test_the_same_plan_writes_the_same_bytes(tmp_path: Path) -> None:
    names = ("interactions.parquet", "items.parquet", "users.parquet", "twotower.toml")
    for folder, seed in (("a", 3), ("b", 3), ("c", 4)):
        fetch_synthetic(Plan(users=200, items=90, seed=seed), to=tmp_path / folder)
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert (tmp_path / "a" / names[0]).read_bytes() != (tmp_path / "c" / names[0]).read_bytes()


def test_blocks_bound_what_is_held(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(synthetic, "BLOCK", 500)
    plan = Plan(users=1_003, items=60, interactions=10_030)
    blocks = list(interaction_blocks(plan))
    assert len(blocks) == 21
    assert max(len(block["user_id"]) for block in blocks) <= 500
    assert sorted({*np.concatenate([block["user_id"] for block in blocks])}) == list(range(1_003))
    fetch_synthetic(plan, to=tmp_path / "a")
    assert pl.read_parquet(tmp_path / "a" / "items.parquet").height == 60
    assert pl.read_parquet(tmp_path / "a" / "users.parquet")["user_id"].to_list() == list(range(1_003))


@pytest.mark.parametrize("plan", [Plan(users=2, items=2), Plan(users=3, items=7, interactions=4)])
def test_the_smallest_are_made_too(plan: Plan, tmp_path: Path) -> None:
    fetch_synthetic(plan, to=tmp_path / "a")
    frame = pl.read_parquet(tmp_path / "a" / "interactions.parquet")
    assert frame["user_id"].n_unique() == plan.users
    assert frame["item_id"].max() < plan.items  # type: ignore[operator]


def test_options_that_do_not_belong_together_are_a_usage_error(tmp_path: Path) -> None:
    for arguments, expected in (
        (["synthetic", "--from", "x"], "is made, not read"),
        (["ml-100k", "--users", "5"], "--users is an option of synthetic, not of ml-100k"),
        (["ml-100k", "--subset", "notebook"], "is a part of ml-latest-small, not of ml-100k"),
        (["ml-latest-small", "--as-notebook"], "--as-notebook needs --subset notebook"),
        (["synthetic", "--users", "1"], "x>=2"),
    ):
        result = CliRunner().invoke(fetch, [*arguments, "--to", str(tmp_path / "x")])
        assert result.exit_code == 2
        assert expected in result.output


def test_a_trained_model_is_checked_against_the_truth(tmp_path: Path) -> None:
    """Users are shown what is left of their shelf; someone new, of whom only the club is known, its shelf."""
    config = load(fetch_synthetic(Plan(users=600, items=200, seed=2), to=tmp_path / "data"))
    overrides = ["train.epochs=12", "model.dim=32"]
    fit(load(config.source, overrides=overrides), tmp_path / "out")
    trained, dataset = checkpoint.load(tmp_path / "out"), prepare(config)
    vectors = trained.item_tower(tensors(trained.preprocess.encode_table("item", dataset.items)))
    shelf, names = dataset.items["shelf"].to_numpy(), dataset.items["item_id"]
    known = dataset.rows("train", "valid").group_by("user", maintain_order=True).agg("item")
    histories = pl.Series("history", [names.gather(items).to_list() for items in known["item"]])
    users = dataset.users[known["user"]].with_columns(histories)
    scores = (trained.user_tower(tensors(trained.preprocess.encode_table("user", users))) @ vectors.T).numpy()
    found = possible = 0
    for row, (own, items) in enumerate(zip(users["shelf"], known["item"], strict=True)):
        scores[row, items.to_numpy()] = -2
        left = int((shelf == own).sum() - (shelf[items.to_numpy()] == own).sum())
        found += int((shelf[np.argsort(-scores[row])[:left]] == own).sum())
        possible += left
    assert found / possible > 0.9

    new = pl.DataFrame({"club": [f"club {own}" for own in range(20)], "age": [None] * 20, "history": [[]] * 20})
    new = new.with_columns(pl.col("age").cast(pl.Float64), pl.col("history").cast(pl.List(pl.String)))
    scores = (trained.user_tower(tensors(trained.preprocess.encode_table("user", new))) @ vectors.T).numpy()
    assert (shelf[np.argmax(scores, axis=1)] == np.arange(20)).mean() > 0.9
