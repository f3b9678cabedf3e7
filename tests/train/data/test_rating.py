"""Training on ratings: what it fits, by what the best epoch is told, and that a planted taste is found."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from retrieval.common.errors import DataError
from retrieval.metrics.rating import bias_errors, errors, stars
from train.config.load import load as load_config
from train.data.datamodule import scaled
from train.data.dataset import prepare
from train.features.preprocess import Range
from train.loop.checkpoint import load
from train.loop.fit import fit


def write(folder: Path) -> Path:
    """Even users give even items 5 stars and odd ones 1, odd users the other way round; all of them rate half."""
    random = np.random.default_rng(0)
    rows = [
        (user, int(item), 5.0 if (user + item) % 2 == 0 else 1.0, "valid" if random.random() < 0.1 else "train")
        for user in range(40)
        for item in random.permutation(30)[:15]
    ]
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "stars", "split"], orient="row")
    frame.write_parquet(folder / "i.parquet")
    pl.DataFrame({"user_id": range(40), "camp": ["even", "odd"] * 20}).write_parquet(folder / "users.parquet")
    (folder / "twotower.toml").write_text(
        '[data]\ninteractions = "i.parquet"\nusers = "users.parquet"\nvalue = "stars"\n'
        '[user.features]\ncamp = "category"\n[split]\nkind = "column"\n[model]\ndim = 8\nencoder = "notebook-mlp"\n'
        '[train]\nobjective = "rating"\nepochs = 12\nbatch_size = 32\nlr = 0.01\nid_dropout = 0\n'
    )
    return folder / "twotower.toml"


def test_a_planted_taste_is_found_and_the_error_in_stars_tells_the_best_epoch(tmp_path: Path) -> None:
    summary = fit(load_config(write(tmp_path)), tmp_path / "out")
    lines = (tmp_path / "out" / "training" / "history.jsonl").read_text().splitlines()
    rmse = [json.loads(line)["rmse"] for line in lines]
    assert summary["best"]["rmse"] == min(rmse) < 0.5  # user mean and item mean know nothing here: 2 stars off
    assert load(tmp_path / "out").preprocess.values == Range(low=1.0, high=5.0)


def test_without_validation_the_last_epoch_is_kept(tmp_path: Path) -> None:
    config = load_config(write(tmp_path), overrides=["split.kind=none", "train.epochs=2"])
    summary = fit(config, tmp_path / "out")
    assert summary["best"]["epoch"] == 2
    assert "rmse" not in summary["best"]


def test_values_are_scaled_to_cosines_and_back() -> None:
    limits = Range(low=0.5, high=5.0)
    values = pl.Series([0.5, 2.75, 5.0, None], dtype=pl.Float32)
    found = scaled(values, limits)
    np.testing.assert_allclose(found, [-1, 0, 1, np.nan])
    np.testing.assert_allclose(stars(found[:3], low=0.5, high=5.0), [0.5, 2.75, 5.0])
    np.testing.assert_allclose(stars(np.array([-7.0, 7.0]), low=1, high=5), [1, 5])


def test_errors_by_hand() -> None:
    found = errors(np.array([1.0, 2.0, 3.0]), np.array([2.0, 2.0, 1.0]))
    assert found == {"rmse": pytest.approx((5 / 3) ** 0.5), "mae": pytest.approx(1.0)}
    with pytest.raises(AssertionError):
        errors(np.ones(3), np.ones((3, 1)))


def test_averages_by_hand() -> None:
    users, items = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    found = bias_errors(
        users, items, np.array([5.0, 3.0, 4.0, 2.0]), users=np.array([0]), items=np.array([1]), actual=np.array([3.0])
    )
    assert found["global mean"]["mae"] == pytest.approx(0.5)  # 3.5
    assert found["user mean"]["mae"] == pytest.approx(1.0)  # 4
    # Item 1 is 2 below in all over 2 + 5 ratings, user 0 what is left of +1.5 and -0.5 less that, over 7.
    item = -2 / 7
    user = (1.5 - 2 / 7 - 0.5 + 2 / 7) / 7
    assert found["user + item bias"]["mae"] == pytest.approx(abs(3.5 + item + user - 3.0))


def test_a_rating_needs_a_value(tmp_path: Path) -> None:
    config = load_config(write(tmp_path))
    path = tmp_path / "twotower.toml"
    path.write_text(path.read_text().replace('value = "stars"\n', ""))
    with pytest.raises(DataError, match=r'the objective "rating" fits the values of a column; name it by data\.value'):
        fit(load_config(path), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    frame = pl.read_parquet(tmp_path / "i.parquet").with_columns(stars=pl.lit(3.0))
    frame.write_parquet(tmp_path / "i.parquet")
    with pytest.raises(DataError, match='column "stars" is 3 in every training row'):
        prepare(config)
