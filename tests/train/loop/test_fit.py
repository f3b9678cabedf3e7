import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from retrieval.common.errors import TrainError
from tests.support.planted import write_planted
from train.config import load as configs
from train.config.defaults import resolve
from train.data.datamodule import DataModule
from train.data.dataset import prepare
from train.data.statistics import statistics_of
from train.ease import warm_start
from train.ease.ease_towers import ConcatTowers, EaseUserTower
from train.loop import checkpoint, fit, lightning_module, work_folder
from train.model import build
from train.model.towers import UserTower


def trained(config: Path, out: Path, *overrides: str, **how: Any) -> dict[str, Any]:
    return fit.fit(configs.load(config, overrides=("model.dim=16", *overrides)), out, **how)


def weights(out: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = read(out / "training" / "checkpoint.ckpt")["towers"]
    return state


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(path, weights_only=True)
    return content


def assert_same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        assert torch.equal(tensor, right[name]), name


def table(folder: Path, rows: list[tuple[str, str, int]], **more: str) -> Path:
    """A dataset folder of (user, item, time) rows."""
    folder.mkdir(parents=True)
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "when"], orient="row")
    frame.write_parquet(folder / "interactions.parquet")
    text = "\n".join(f"{key} = {value}" for key, value in more.items())
    (folder / "twotower.toml").write_text(f'[data]\ntime = "when"\n{text}\n')
    return folder / "twotower.toml"


def only(tower: torch.nn.Module) -> UserTower:
    """The trained user tower of a training without an ensemble."""
    assert isinstance(tower, UserTower)
    return tower


def test_what_a_training_leaves(planted: Path, tmp_path: Path) -> None:
    summary = trained(planted, tmp_path, "train.epochs=2")
    folder = tmp_path / "training"
    lines = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    assert {"train_loss", "recall@10", "ndcg@10", "seconds", "tau", "step"} <= lines[0].keys()
    assert json.loads((folder / "summary.json").read_text()) == summary
    best, line = summary["best"], lines[summary["best"]["epoch"] - 1]
    assert best.keys() == line.keys()
    assert line["ndcg@10"] == max(line["ndcg@10"] for line in lines) == summary["stages"]["trained"]["ndcg@10"]
    assert best["ndcg@10"] == summary["stages"]["item shrinkage"]["ndcg@10"]
    loaded = checkpoint.load(tmp_path)
    vectors = only(loaded.user_tower).item_vectors
    assert vectors.shape == (42, 16)
    torch.testing.assert_close(vectors.norm(dim=-1), torch.tensor([0.0] + [1.0] * 41))
    assert not loaded.user_tower.training
    assert loaded.config.train.objective == "softmax"  # nothing is left open


def test_items_start_where_counts_and_features_put_them(planted: Path) -> None:
    dataset = prepare(configs.load(planted))
    config = resolve(dataset.config, statistics_of(dataset))
    data = DataModule(dataset, config, ordered=True)
    pair = build.pair(config, dataset.preprocess, frequency=torch.full((40,), 1 / 40))
    wanted = torch.nn.functional.normalize(torch.randn(40, 64, generator=torch.Generator().manual_seed(0)), dim=1)
    wanted[:20] = torch.nn.functional.normalize(wanted[:20] + wanted[0], dim=1)  # years before 2000 are alike
    wanted[7] = 0
    warm_start.start(pair, wanted.numpy(), data.items)
    with torch.no_grad():
        found = pair.item_tower.eval()(data.items)
        nameless = pair.item_tower({**data.items, "item_id": torch.ones(40, dtype=torch.int64)})
    alike = (found * wanted).sum(dim=1)
    assert alike[wanted.any(dim=1)].min() > 0.95
    # What nothing was known of, and an item without its id, is put by its year.
    assert (found[7] @ wanted[:20].mean(dim=0)) > (found[7] @ wanted[20:].mean(dim=0)) + 0.2
    old = nameless @ wanted[:20].mean(dim=0) > nameless @ wanted[20:].mean(dim=0)
    assert old[:20].float().mean() > 0.9


def test_even_users_are_given_even_items(planted: Path, tmp_path: Path) -> None:
    """By the defaults: the small data of a first try must work as it is."""
    trained(planted, tmp_path)
    tower = only(checkpoint.load(tmp_path).user_tower)
    past = torch.tensor([[2, 4, 6], [3, 5, 7]])  # rows of items 0, 2, 4 and 1, 3, 5
    unknown = {"age": torch.tensor([float("nan")] * 2), "camp": torch.zeros(2, dtype=torch.int64)}
    scores = tower(unknown | {"history": past}) @ tower.item_vectors.T
    scores[:, :2] = -1
    scores.scatter_(1, past, -1)
    best = scores.topk(10).indices - 2
    assert (best[0] % 2 == 0).float().mean() >= 0.9
    assert (best[1] % 2 == 1).float().mean() >= 0.9


def test_the_same_seed_gives_the_same_bytes(planted: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        trained(planted, tmp_path / name, "train.epochs=2", f"train.seed={seed}")
    read = {name: (tmp_path / name / "training" / "checkpoint.ckpt").read_bytes() for name in "abc"}
    assert_same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert read["a"] == read["b"]
    assert read["a"] != read["c"]


def test_resuming_is_as_if_it_had_never_stopped(planted: Path, tmp_path: Path) -> None:
    trained(planted, tmp_path / "whole", "train.epochs=4", "train.patience=9")
    trained(planted, tmp_path / "parts", "train.epochs=2", "train.patience=9")
    trained(planted, tmp_path / "parts", "train.epochs=4", "train.patience=9", resume=True)
    assert_same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    last = [read(tmp_path / name / "training" / "last.ckpt")["state_dict"] for name in ("whole", "parts")]
    assert_same(last[0], last[1])
    lines = (tmp_path / "parts" / "training" / "history.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3, 4]


def test_a_training_of_another_version_is_neither_exported_as_another_nor_gone_on_with(
    planted: Path, tmp_path: Path
) -> None:
    trained(planted, tmp_path, "train.epochs=1")
    best = tmp_path / "training" / checkpoint.TOWERS_NAME
    torch.save(read(best) | {"version": checkpoint.VERSION - 1}, best)
    with pytest.raises(TrainError, match=r"incompatible version \(towers 3, expected 4\); run .* again"):
        checkpoint.load(tmp_path)
    path = tmp_path / "training" / work_folder.RESUME_NAME
    name = json.loads(path.read_text())
    del name["towers"]  # as an early version left it
    path.write_text(json.dumps(name))
    with pytest.raises(TrainError, match=r"another version's towers; run without --resume"):
        trained(planted, tmp_path, "train.epochs=2", resume=True)


def test_what_cannot_be_resumed(planted: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="nothing to resume"):
        trained(planted, tmp_path, resume=True)
    trained(planted, tmp_path, "train.epochs=1")
    with pytest.raises(TrainError, match="another config, other data or another version"):
        trained(planted, tmp_path, "train.epochs=2", "train.lr=0.5", resume=True)


def test_an_interrupted_training_leaves_the_previous_one(
    planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(planted, tmp_path, "train.epochs=1")
    before = weights(tmp_path)

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(lightning_module.Module, "on_validation_epoch_end", stop)
        with pytest.raises(KeyboardInterrupt):
            trained(planted, tmp_path, "train.epochs=1", "train.seed=5")
    assert_same(weights(tmp_path), before)


def test_refit_trains_on_everything_for_as_long_as_validation_chose(planted: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="without it first"):
        trained(planted, tmp_path, refit=True)
    first = trained(planted, tmp_path, "train.epochs=3")
    second = trained(planted, tmp_path, "train.epochs=3", refit=True)
    assert second["refit"]
    assert second["epochs"] == first["best"]["epoch"]
    assert second["statistics"]["interactions"] == 60 * 12
    assert only(checkpoint.load(tmp_path).user_tower).item_vectors.norm(dim=-1)[2:].min() > 0.99


def test_a_diverging_loss_is_stopped_with_advice(planted: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainError, match=r"diverged; try a smaller train\.lr than 1e\+30"):
        trained(planted, tmp_path, "train.lr=1e30", "train.epochs=3")
    assert not (tmp_path / "training").exists()


@pytest.mark.parametrize("objective", ["softmax", "sampled-softmax", "in-batch", "bpr"])
def test_every_objective_learns(objective: str, planted: Path, tmp_path: Path) -> None:
    summary = trained(planted, tmp_path, f'train.objective="{objective}"', "train.epochs=6")
    assert summary["best"]["recall@10"] > 0.5  # 10 of 29 items would be found by chance


@pytest.mark.parametrize("encoder", ["attention", "mean", "mlp"])
def test_every_encoder_learns(encoder: str, planted: Path, tmp_path: Path) -> None:
    summary = trained(planted, tmp_path, f'model.encoder="{encoder}"', "train.epochs=6")
    assert summary["best"]["recall@10"] > 0.5


def test_ease_joins_the_towers_by_its_weight(tmp_path: Path) -> None:
    config = configs.load(
        write_planted(tmp_path / "data", encoder=None), overrides=("train.epochs=2", "model.ease.weight=0.3")
    )
    summary = fit.fit(config, tmp_path / "out")
    assert list(summary["stages"]) == ["trained", "item shrinkage", "with EASE"]
    loaded = checkpoint.load(tmp_path / "out")
    assert isinstance(loaded.user_tower, ConcatTowers)
    torch.testing.assert_close(loaded.user_tower.scales.square(), torch.tensor([0.7, 0.3]))
    trained_tower, ease_tower = loaded.user_tower.towers
    inputs = {
        "age": torch.tensor([30.0]),
        "camp": torch.zeros(1, dtype=torch.int64),
        "history": torch.tensor([[2, 4]]),
    }
    vector = loaded.user_tower(inputs)
    assert vector.norm() == pytest.approx(1.0)
    parts = torch.cat([trained_tower(inputs) * 0.7**0.5, ease_tower(inputs) * 0.3**0.5], dim=1)
    torch.testing.assert_close(vector, parts)


def test_ease_alone_is_fitted_without_an_epoch(tmp_path: Path) -> None:
    config = configs.load(write_planted(tmp_path / "data", encoder=None), overrides=("model.ease.weight=1",))
    summary = fit.fit(config, tmp_path / "out")
    assert summary["epochs"] == summary["best"]["epoch"] == 0
    assert summary["best"]["recall@10"] > 0.5
    loaded = checkpoint.load(tmp_path / "out")
    assert isinstance(loaded.user_tower, EaseUserTower)
    again = fit.fit(config, tmp_path / "out", refit=True)
    assert again["refit"]
    assert again["epochs"] == 0
    assert fit.fit(config, tmp_path / "out", resume=True)["epochs"] == 0  # nothing to go on with: fitted anew


DEGENERATE = {
    "one interaction a user": [(f"u{user}", f"i{user % 7}", user) for user in range(30)],
    "a catalogue of five": [(f"u{user}", f"i{(user + step) % 5}", step) for user in range(20) for step in range(4)],
    "all times equal": [(f"u{user}", f"i{(user * 3 + step) % 11}", 7) for user in range(20) for step in range(5)],
    "two users": [(f"u{user}", f"i{step}", step) for user in range(2) for step in range(6)],
}


@pytest.mark.parametrize("name", DEGENERATE)
def test_degenerate_data_ends_in_towers(name: str, tmp_path: Path) -> None:
    config = table(tmp_path / "data", DEGENERATE[name])
    summary = trained(config, tmp_path / "out", "train.epochs=2")
    assert np.isfinite(summary["best"]["train_loss"])
    assert only(checkpoint.load(tmp_path / "out").user_tower).item_vectors.isfinite().all()


def test_constant_and_missing_features(tmp_path: Path) -> None:
    config = write_planted(tmp_path / "data")
    users = pl.read_parquet(tmp_path / "data" / "users.parquet")
    users.with_columns(pl.lit(3.0).alias("age"), pl.lit(None, dtype=pl.String).alias("camp")).write_parquet(
        tmp_path / "data" / "users.parquet"
    )
    summary = trained(config, tmp_path / "out", "train.epochs=2")
    assert np.isfinite(summary["best"]["train_loss"])


def test_a_damaged_checkpoint_is_named(planted: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="nothing trained here"):
        checkpoint.load(tmp_path)
    trained(planted, tmp_path, "train.epochs=1")
    path = tmp_path / "training" / "checkpoint.ckpt"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(TrainError, match=r"checkpoint\.ckpt: not a checkpoint"):
        checkpoint.load(tmp_path)


def test_a_folder_that_cannot_be_written_to_is_refused_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    read: list[object] = []
    monkeypatch.setattr(fit, "prepare", lambda *given, **named: read.append((given, named)))
    config = configs.load(write_planted(tmp_path / "data"))
    with pytest.raises(TrainError, match=r"/file: is not a folder; name another folder with --out"):
        fit.fit(config, tmp_path / "file" / "model")
    monkeypatch.setattr("os.access", lambda *_: False)  # root may write everywhere but on a read-only disk
    with pytest.raises(TrainError, match=r": cannot be written to; name another folder with --out"):
        fit.fit(config, tmp_path / "new" / "model")
    assert not read
    assert not (tmp_path / "new").exists()
