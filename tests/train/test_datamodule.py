"""What validation asks: some users where there are too many, a block at a time."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from train import config as configs
from train import datamodule, fit
from train.datamodule import DataModule, newest_first
from train.dataset import prepare
from train.recipe import resolve, statistics


def module_of(config: Path) -> DataModule:
    dataset = prepare(configs.load(config, overrides=("model.dim=16",)))
    return DataModule(dataset, resolve(dataset.config, statistics(dataset)), ordered=True)


def test_validation_is_cut_as_it_goes_and_loses_nobody(planted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datamodule, "VALIDATION_BLOCK", 7)
    data = module_of(planted)
    blocks = [{name: values.numpy() for name, values in block.items()} for block in data.val_dataloader()]
    assert [len(block["age"]) for block in blocks] == [7] * 8 + [4]
    found = np.concatenate([block["history"] for block in blocks])
    expected = newest_first(data.truth.history, 20)
    assert sorted(found.tolist()) == sorted(expected.tolist())


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
    assert "validation asks 10 of 60 held-out users after each epoch" in capsys.readouterr().err


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
