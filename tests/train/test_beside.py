"""A closed form beside the towers: what it is worth is chosen on validation, and stays two towers and one index."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from numpy.testing import assert_allclose

from retrieval.common.csr import CSR
from retrieval.common.errors import ConfigError
from retrieval.metrics import ranking
from tests.support.planted import write_planted
from tests.support.tiny import unit
from tests.train.test_fit import DEGENERATE, assert_same, table
from train.config import load as configs
from train.config.defaults import resolve, statistics
from train.data.datamodule import DataModule
from train.data.dataset import prepare
from train.ease.concat import ConcatTowers
from train.ease.ease import Factors
from train.loop import checkpoint, ensemble_weight, fit
from train.loop.lightning_module import Vectors
from train.model.two_tower import features_of

THIRD = "model.linear.share=0.3"


@pytest.fixture
def open_config(tmp_path: Path) -> Path:
    """The planted data, each history in the order of its items' numbers; the encoder is left open."""
    config = write_planted(tmp_path / "data", encoder=None)
    path = tmp_path / "data" / "interactions.parquet"
    number = pl.col("item_id").str.slice(1).cast(pl.Int64)
    frame = pl.read_parquet(path)
    times = frame.get_column("timestamp")
    frame.sort(pl.col("user_id"), number).with_columns(times.sort()).write_parquet(path)
    return config


def trained(config: Path, out: Path, *overrides: str, **how: Any) -> dict[str, Any]:
    return fit.fit(configs.load(config, overrides=("train.epochs=2", *overrides)), out, **how)


def data_of(config: Path, out: Path) -> DataModule:
    """The data of a training, with its resolved config."""
    dataset = prepare(configs.load(config))
    return DataModule(dataset, checkpoint.load(out).config, ordered=True)


def parts_of(tower: Any) -> tuple[torch.nn.Module, torch.nn.Module]:
    assert isinstance(tower, ConcatTowers)
    first, second = tower.parts
    return first, second


def test_a_score_is_the_mean_of_both_by_their_shares(open_config: Path, tmp_path: Path) -> None:
    summary = trained(open_config, tmp_path, THIRD, "model.linear.dim=24")
    loaded, data = checkpoint.load(tmp_path), data_of(open_config, tmp_path)
    assert loaded.config.model.linear.share == 0.3
    users = torch.cat([loaded.user_tower(block) for block in data.val_dataloader()])
    items = loaded.item_tower(data.items)
    assert items.shape == (40, 64 + 24)
    assert_allclose(users.norm(dim=1), 1, atol=1e-6)
    assert_allclose(items.norm(dim=1), 1, atol=1e-6)
    cosines = [
        torch.cat([user(block) for block in data.val_dataloader()]) @ item(data.items).T
        for user, item in zip(parts_of(loaded.user_tower), parts_of(loaded.item_tower), strict=True)
    ]
    assert_allclose(users @ items.T, 0.7 * cosines[0] + 0.3 * cosines[1], atol=1e-6)
    weights = [sum(weight.numel() for weight in tower.parameters()) for tower in (loaded.user_tower, loaded.item_tower)]
    assert summary["parameters"] == sum(weights) + 2  # and both pairs' temperatures
    # The epochs are what the towers alone were, in the log and so in the report's curves.
    lines = (tmp_path / "training" / "history.jsonl").read_text().splitlines()
    kept = json.loads(lines[summary["best"]["epoch"] - 1])
    assert kept["ndcg@10"] != summary["best"]["ndcg@10"]
    assert kept["ndcg@10"] == max(json.loads(line)["ndcg@10"] for line in lines)
    # What validation measured is what is kept.
    truth = data.truth
    ranks = ranking.ranks(
        users.numpy()[np.argsort(data.validation_order, kind="stable")], items.numpy(), truth.wanted, truth.seen
    )
    assert_allclose(ranking.ndcg(ranks, truth.wanted, k=10).mean(), summary["best"]["ndcg@10"], atol=1e-9)


def test_the_share_is_what_ranks_best() -> None:
    """The truth of each of 40 users is the item of its number; who knows it is asked."""
    random = np.random.default_rng(0)
    one = np.eye(40, dtype=np.float32)
    noise, other = random.standard_normal((2, 40, 40)).astype(np.float32)
    noise = unit(noise)
    history = CSR(np.arange(41), np.arange(40))
    nothing = CSR(np.zeros(41, np.int64), np.zeros(0, np.int64))

    class Data:
        truth = type("Truth", (), {"history": history, "wanted": history, "seen": nothing})
        config = configs.Config.from_dict(
            {
                "user": {"features": [{"name": "history", "kind": "history", "max_length": 3}]},
                "item": {"features": [{"name": "item_id", "kind": "category"}]},
            }
        )

    def chosen(users: Vectors, source: Vectors, usual: float = ensemble_weight.START) -> float:
        cut = Factors(source, one)
        return ensemble_weight.choose(users, one, Data, cut, decay=0.9, usual=usual)  # type: ignore[arg-type]

    wrong = np.roll(one, 1, axis=0)
    assert chosen(unit(one + 2 * noise), wrong) == 0
    assert chosen(wrong, one) > ensemble_weight.START
    assert chosen(noise, other) == ensemble_weight.START  # nothing is better by more than chance
    assert chosen(noise, other, usual=1.0) == 1
    assert chosen(unit(one + 2 * noise), wrong, usual=1.0) == 0


@pytest.mark.parametrize(("with_it", "told"), [(0.2, "with it"), (0.09, "leaves it out")])
def test_what_stands_beside_is_said_with_what_it_changes(
    with_it: float, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = {"parameters": 1, "best": {"ndcg@10": 0.1}}
    fit._count_beside(summary, {"parameters": 2, "measured": {"ndcg@10": with_it}}, share=0.45)
    said = capsys.readouterr().err
    assert "a closed form has 45% of the score: ndcg@10 0.1000 without it" in said
    assert said.strip().endswith(told)
    assert summary == {"parameters": 3, "best": {"ndcg@10": with_it}}


def test_where_nothing_is_named_validation_decides(open_config: Path, tmp_path: Path) -> None:
    trained(open_config, tmp_path)
    kept = json.loads((tmp_path / "training" / "config.json").read_text())["model"]["linear"]
    assert kept["share"] in ensemble_weight.SHARES
    assert (kept["dim"] is None) == (kept["share"] == 0)


@pytest.mark.parametrize(
    "named", ["model.dim=16", 'model.encoder.user="mean"', 'train.objective="bpr"', "model.linear.share=0"]
)
def test_where_more_is_named_nothing_stands_beside(open_config: Path, named: str) -> None:
    dataset = prepare(configs.load(open_config, overrides=(named,)))
    assert resolve(dataset.config, statistics(dataset)).model.linear.share == 0


def test_what_cannot_stand_beside_is_refused(open_config: Path) -> None:
    open_config.write_text(open_config.read_text().replace('item_id = "category"\n', ""))
    with pytest.raises(ConfigError, match=r"model\.linear\.share = 0\.3 needs a history, the item's id, .*set it to 0"):
        trained(open_config, open_config.parent / "out", THIRD)


def test_the_table_of_the_config_is_checked(open_config: Path) -> None:
    for override, expected in {
        "model.linear=3": r"--set model\.linear is 3, expected a table: \[model\.linear\]",
        "model.linear.share=1.5": r"--set model\.linear\.share is 1\.5, expected less than 1",
        "model.linear.ridges=1": r"--set model\.linear\.ridges is not a key; did you mean \"ridge\"\?",
    }.items():
        with pytest.raises(ConfigError, match=expected):
            configs.load(open_config, overrides=(override,))


def test_a_refit_takes_over_what_stands_beside(open_config: Path, tmp_path: Path) -> None:
    trained(open_config, tmp_path, THIRD, "model.linear.ridge=33", "model.linear.dim=24")
    before = checkpoint.load(tmp_path)
    trained(open_config, tmp_path, refit=True)
    after = checkpoint.load(tmp_path)
    assert after.config.model.linear == before.config.model.linear
    first, second = (parts_of(loaded.user_tower)[1].state_dict()["source.weight"] for loaded in (before, after))
    assert first.shape == second.shape == (42, 24)
    assert not torch.equal(first, second)  # fitted to more


def test_a_resumed_training_ends_where_an_unbroken_one_does(open_config: Path, tmp_path: Path) -> None:
    once = trained(open_config, tmp_path / "once", THIRD, "train.epochs=3")
    trained(open_config, tmp_path / "twice", THIRD)
    twice = trained(open_config, tmp_path / "twice", THIRD, "train.epochs=3", resume=True)
    assert twice["best"]["ndcg@10"] == once["best"]["ndcg@10"]
    left, right = (checkpoint.read(tmp_path / name / "training" / "checkpoint.ckpt") for name in ("once", "twice"))
    assert_same(left["beside"]["state_dict"], right["beside"]["state_dict"])
    assert_same(left["state_dict"], right["state_dict"])


def test_items_without_interactions_are_told_by_both(open_config: Path, tmp_path: Path) -> None:
    """By what their features tell: an item nobody took is found where its kind is liked."""
    trained(open_config, tmp_path, THIRD, "train.epochs=4")
    loaded, data = checkpoint.load(tmp_path), data_of(open_config, tmp_path)
    new = features_of(data.items, torch.tensor([0, 1])) | {"item_id": torch.tensor([1, 1])}
    past = torch.tensor([[2, 4, 6], [3, 5, 7]])
    nothing = {"age": torch.tensor([float("nan")] * 2), "camp": torch.zeros(2, dtype=torch.int64)}
    scores = loaded.user_tower(nothing | {"history": past}) @ loaded.item_tower(new).T
    assert scores[0, 0] > scores[0, 1]
    assert scores[1, 1] > scores[1, 0]


@pytest.mark.parametrize("name", DEGENERATE)
def test_degenerate_data_ends_in_towers(name: str, tmp_path: Path) -> None:
    summary = trained(table(tmp_path / "data", DEGENERATE[name]), tmp_path / "out", THIRD)
    assert np.isfinite(summary["best"]["train_loss"])
    loaded = checkpoint.load(tmp_path / "out")
    vectors = loaded.user_tower({"history": torch.tensor([[0, 0], [2, 3]])})
    assert vectors.isfinite().all()


def test_without_validation_nothing_is_chosen_but_what_is_named_is_there(open_config: Path, tmp_path: Path) -> None:
    trained(open_config, tmp_path, 'split.kind="none"')
    assert checkpoint.load(tmp_path).config.model.linear.share == 0
    trained(open_config, tmp_path, 'split.kind="none"', THIRD)
    assert checkpoint.load(tmp_path).config.model.linear.share == 0.3
