"""What validation asks: some users where there are too many, a block at a time."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from retrieval.metrics import ranking
from train.config import load as configs
from train.config.defaults import resolve
from train.data import datamodule
from train.data.datamodule import DataModule, newest_first
from train.data.dataset import prepare
from train.data.statistics import statistics_of
from train.loop import checkpoint, fit
from train.model.towers import UserTower


def module_of(config: Path) -> DataModule:
    dataset = prepare(configs.load(config, overrides=("model.dim=16",)))
    return DataModule(dataset, resolve(dataset.config, statistics_of(dataset)), ordered=True)


def test_validation_is_cut_as_it_goes_and_loses_nobody(planted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datamodule, "VALIDATION_BLOCK", 7)
    data = module_of(planted)
    blocks = [{name: values.numpy() for name, values in block.items()} for block in data.val_dataloader()]
    assert [len(block["age"]) for block in blocks] == [7] * 8 + [4]
    found = np.concatenate([block["history"] for block in blocks])
    expected = newest_first(data.truth.history, 20)
    assert sorted(found.tolist()) == sorted(expected.tolist())


def test_who_is_asked_when_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By length of history, so that blocks are narrow; what is found is laid back to where its user stands."""
    random = np.random.default_rng(0)
    rows = [
        (f"u{user}", f"i{item}", step)
        for user in range(40)
        for step, item in enumerate(random.permutation(np.arange(user % 2, 40, 2))[: 3 + user * 7 % 15])
    ]
    pl.DataFrame(rows, schema=["user_id", "item_id", "when"], orient="row").write_parquet(
        tmp_path / "interactions.parquet"
    )
    (tmp_path / "twotower.toml").write_text(
        '[data]\ntime = "when"\n[train]\nepochs = 1\n[model]\nencoder = "attention"\n'
    )
    found = {}
    for block in (1, 7, 512):
        monkeypatch.setattr(datamodule, "VALIDATION_BLOCK", block)
        fit.fit(configs.load(tmp_path / "twotower.toml", overrides=("model.dim=16",)), tmp_path / str(block))
        found[block] = json.loads((tmp_path / str(block) / "training" / "history.jsonl").read_text())
    for name in ("ndcg@10", "recall@10"):
        assert found[7][name] == pytest.approx(found[1][name])
        assert found[512][name] == pytest.approx(found[1][name])
    data = module_of(tmp_path / "twotower.toml")
    lengths = data.truth.history.lengths
    assert (np.diff(lengths) < 0).any()  # as they stand they are not by length
    monkeypatch.setattr(datamodule, "VALIDATION_BLOCK", 7)
    widths = [block["history"].shape[1] for block in data.val_dataloader()]
    assert widths == sorted(widths)
    assert widths[0] < widths[-1] == lengths.max()
    # Asked one by one, where they stand: the same as in order of length.
    trained = checkpoint.load(tmp_path / "7")
    assert isinstance(trained.user_tower, UserTower)
    vectors = trained.user_tower.item_vectors.numpy()[2:]
    users = np.concatenate(
        [
            trained.user_tower({"history": torch.from_numpy(newest_first(data.truth.history.block(row, row + 1), 99))})
            for row in range(40)
        ]
    )
    ranks = ranking.ranks(users, vectors, data.truth.wanted, data.truth.seen)
    assert found[7]["ndcg@10"] == pytest.approx(float(np.nanmean(ranking.ndcg(ranks, data.truth.wanted, k=10))))


def test_too_many_users_to_validate_are_drawn_and_it_is_said(
    planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(datamodule, "VALIDATION_USERS", (5, 20))
    data = module_of(planted)
    assert len(data.truth.users) == len(np.unique(data.truth.users)) == 20
    assert data.truth.held_out == 60
    assert data.truth.wanted.lengths.tolist() == [1] * 20
    monkeypatch.setattr(datamodule, "VALIDATION_SCORES", 400)  # ten users by forty items
    assert len(module_of(planted).truth.users) == 10
    fit.fit(configs.load(planted, overrides=("model.dim=16", "train.epochs=1")), tmp_path)
    assert "validation ranks for 10 of 60 held-out users" in capsys.readouterr().err


def test_of_very_many_users_some_are_validated_block_by_block(tmp_path: Path) -> None:
    """Histories are padded a block at a time, never all at once."""
    users, items = 200_000, 50
    owner = np.repeat(np.arange(users), 3)
    random = np.random.default_rng(0)
    taken = (random.integers(items, size=users)[:, None] + np.array([0, 1, 2])).ravel() % items
    pl.DataFrame({"user_id": owner, "item_id": taken}).write_parquet(tmp_path / "interactions.parquet")
    (tmp_path / "twotower.toml").write_text("[train]\nepochs = 1\n")
    data = module_of(tmp_path / "twotower.toml")
    assert data.truth.held_out == users
    assert len(data.truth.users) == datamodule.VALIDATION_USERS[1]
    sizes = [len(block["history"]) for block in data.val_dataloader()]
    assert sum(sizes) == datamodule.VALIDATION_USERS[1]
    assert max(sizes) == datamodule.VALIDATION_BLOCK
