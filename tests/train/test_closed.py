"""Training where order means nothing: the pair is a closed form, and of use where that knows nothing."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from tests.support.planted import write_planted
from tests.train.test_start import ease
from train.config import load as configs
from train.ease.concat import ConcatTowers
from train.loop import checkpoint, ensemble_weight, fit

SETTINGS = ("ridge", "likeness", "damping")
PLAIN = ("train.ridge=30", "train.likeness=0", "train.damping=0", "model.dim=41")  # EASE, uncut


@pytest.fixture
def unordered(tmp_path: Path) -> Path:
    """The planted data without a word of time; a fifth of the users are new."""
    config = write_planted(tmp_path / "data", encoder=None)
    text = config.read_text()
    for old, new in {
        'time = "timestamp"\n': "",
        "leave-one-out": "new-users",
        "epochs = 3\n": "",
        ", max_length = 20": "",
    }.items():
        assert old in text
        text = text.replace(old, new)
    config.write_text(text)
    return config


def train(config: Path, out: Path, *overrides: str, **how: Any) -> dict[str, Any]:
    return fit.fit(configs.load(config, overrides=overrides), out, **how)


def chosen(summary: dict[str, Any]) -> dict[str, Any]:
    recipe = summary["recipe"]
    return {"dim": recipe["model"]["dim"]} | {name: recipe["train"][name] for name in SETTINGS}


class Asked:
    """What a training left, asked by ids."""

    def __init__(self, out: Path) -> None:
        self.trained = checkpoint.load(out)
        self.items = pl.read_parquet(out / "training" / "items.parquet")
        self.ids = self.items.get_column("item_id").to_list()

    def users(self, past: list[list[str]], camp: str | None = None) -> torch.Tensor:
        """Vectors of users without an age."""
        columns = {"age": [None] * len(past), "camp": [camp] * len(past), "history": past}
        schema: dict[str, Any] = {"age": pl.Float64, "camp": pl.String, "history": pl.List(pl.String)}
        return self._embed("user", pl.DataFrame(columns, schema=schema))

    def catalogue(self) -> torch.Tensor:
        return self._embed("item", self.items)

    def new_item(self, tags: str) -> torch.Tensor:
        one = self.items.head(1).with_columns(item_id=pl.lit("new"), tags=pl.Series([[tags]]), year=pl.lit(None))
        return self._embed("item", one.cast({"year": pl.Float64}))

    def even(self, vectors: torch.Tensor, count: int) -> float:
        """Share of even items among the first that are found for the users of these vectors."""
        best = (vectors @ self.catalogue().T).topk(count).indices
        even = torch.tensor([int(name[1:]) % 2 == 0 for name in self.ids])
        return float(even[best].float().mean())

    @torch.no_grad()
    def _embed(self, side: Any, table: pl.DataFrame) -> torch.Tensor:
        tower = self.trained.user_tower if side == "user" else self.trained.item_tower
        encoded = self.trained.preprocess.encode_table(side, table)
        vectors: torch.Tensor = tower({name: torch.from_numpy(values.copy()) for name, values in encoded.items()})
        return vectors


def test_the_towers_rank_as_ease_does(unordered: Path, tmp_path: Path) -> None:
    summary = train(unordered, tmp_path, *PLAIN)
    assert summary["epochs"] == 1
    assert chosen(summary) == {"dim": 41, "ridge": 30, "likeness": 0, "damping": 0}
    asked = Asked(tmp_path)
    rows = pl.read_parquet(tmp_path / "training" / "interactions.parquet").filter(pl.col("split") == "train")
    taken = np.zeros((60, 40))
    place = {name: row for row, name in enumerate(asked.ids)}
    for user, item in rows.select("user", "item").iter_rows():
        taken[int(user[1:]), place[item]] = 1  # twelve items each, so that all users weigh alike
    past = [["i0", "i2", "i4"], ["i1", "i2", "i39"]]
    history = np.zeros((2, 40))
    for row, names in enumerate(past):
        history[row, [place[name] for name in names]] = 1
    expected = history @ ease(taken, 30.0)
    found = (asked.users(past) @ asked.catalogue().T).numpy()
    for one, other in zip(found, expected, strict=True):
        assert np.corrcoef(one, other)[0, 1] > 0.9999


def test_the_defaults_find_what_is_planted(unordered: Path, tmp_path: Path) -> None:
    summary = train(unordered, tmp_path)
    assert summary["best"]["recall@10"] > 0.6  # of the eight that are left of the twenty, as good as any
    asked = Asked(tmp_path)
    assert asked.even(asked.users([["i0", "i2", "i4"]]), 15) == 1
    assert asked.even(asked.users([["i1", "i3", "i5"]]), 15) == 0
    assert asked.even(asked.users([["i1", "i3", "i5", "nobody knows"]]), 15) == 0
    # Neither history nor id: by the features alone.
    assert asked.even(asked.users([[]], camp="even"), 15) == 1
    assert asked.even(asked.users([["nobody knows"]], camp="odd"), 15) == 0
    likes_even = asked.users([["i0", "i2", "i4"]])
    assert (likes_even @ asked.new_item("even").T).item() > (likes_even @ asked.new_item("odd").T).item()


def test_training_goes_on_from_the_closed_form_and_ends_with_nothing_worse(unordered: Path, tmp_path: Path) -> None:
    first = train(unordered, tmp_path / "first")
    more = train(unordered, tmp_path / "more", "train.epochs=3", "train.lr=0.01")
    lines = (tmp_path / "more" / "training" / "history.jsonl").read_text().splitlines()
    assert len(lines) == 3
    begun = json.loads(lines[0])
    assert begun["ndcg@10"] == first["best"]["ndcg@10"]
    assert more["best"]["ndcg@10"] >= begun["ndcg@10"]


def test_what_takes_a_while_before_the_first_epoch_is_told(
    unordered: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = chosen(train(unordered, tmp_path))
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("linear start: ")]
    assert "its settings tried on validation" in told[0]
    assert f"ridge {found['ridge']:g}, " in told[1]


def test_a_refit_takes_the_settings_that_validation_chose(unordered: Path, tmp_path: Path) -> None:
    first = train(unordered, tmp_path, "train.damping=0.25", "model.dim=12")
    assert chosen(first)["dim"] == 12
    assert chosen(first)["damping"] == 0.25
    again = train(unordered, tmp_path, refit=True)
    assert again["refit"]
    assert again["statistics"]["interactions"] == 60 * 12
    assert chosen(again) == chosen(first)
    assert chosen(train(unordered, tmp_path, "train.ridge=7", refit=True)) == chosen(first) | {"ridge": 7}


def test_where_nothing_came_before_anything_no_item_is_older(unordered: Path, tmp_path: Path) -> None:
    assert train(unordered, tmp_path)["recipe"]["model"]["user"]["decay"] == 1.0
    named = ('model.user.encoder="sum"', "model.user.decay=0.9")
    assert train(unordered, tmp_path, *named)["recipe"]["model"]["user"]["decay"] == 0.9
    again = train(unordered, tmp_path, *named, refit=True)
    assert again["recipe"]["model"]["user"]["decay"] == 0.9
    asked = Asked(tmp_path)
    assert (asked.users([["i0", "i2"]]) @ asked.users([["i2", "i0"]]).T).item() < 1 - 1e-6


def test_the_same_seed_gives_the_same_bytes(unordered: Path, tmp_path: Path) -> None:
    files = []
    for name in "ab":
        train(unordered, tmp_path / name)
        files.append((tmp_path / name / "training" / "checkpoint.ckpt").read_bytes())
    assert files[0] == files[1]


def test_resuming_goes_on_from_the_closed_form(unordered: Path, tmp_path: Path) -> None:
    train(unordered, tmp_path / "whole", "train.epochs=3", "train.patience=9")
    train(unordered, tmp_path / "parts")
    resumed = train(unordered, tmp_path / "parts", "train.epochs=3", "train.patience=9", resume=True)
    assert resumed["epochs"] == 3
    left, right = (checkpoint.read(tmp_path / name / "training" / "last.ckpt") for name in ("whole", "parts"))
    for name, tensor in left["state_dict"].items():
        assert torch.equal(tensor, right["state_dict"][name]), name


BOTH = "towers are trained as well"


def decided(monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    """Have validation find this share best, of those that it is asked about."""

    def choose(*_: Any, usual: float, **__: Any) -> float:
        assert usual == 1
        return value

    monkeypatch.setattr(ensemble_weight, "choose", choose)


def test_towers_that_are_trained_may_stand_beside(
    unordered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    decided(monkeypatch, 0.3)
    summary = train(unordered, tmp_path, "train.ridge=30")
    said = capsys.readouterr().err
    assert BOTH in said
    assert "a closed form has 30% of the score" in said
    assert "alone the closed form has ndcg@10" in said
    loaded = checkpoint.load(tmp_path)
    recipe, kept = loaded.config.model, loaded.config.model.linear
    assert (recipe.user.encoder if recipe.user else None, kept.share, kept.ridge, kept.decay) == ("mean", 0.3, 30, 1)
    assert summary["statistics"]["learned"]
    assert isinstance(loaded.user_tower, ConcatTowers)
    asked = Asked(tmp_path)
    assert asked.users([["i0"]]).shape == (1, (recipe.dim or 0) + (kept.dim or 0))
    assert asked.even(asked.users([["i0", "i2", "i4"]]), 15) == 1
    assert asked.even(asked.users([["nobody knows"]], camp="odd"), 15) == 0
    # It is gone on with as what it is, and so refitted.
    more = train(unordered, tmp_path, "train.ridge=30", f"train.epochs={summary['epochs'] + 1}", resume=True)
    assert more["epochs"] == summary["epochs"] + 1
    assert more["statistics"]["learned"]
    again = train(unordered, tmp_path, "train.ridge=30", "train.epochs=9", refit=True)
    assert again["refit"]
    assert again["epochs"] == more["best"]["epoch"]
    assert checkpoint.load(tmp_path).config.model == loaded.config.model


def test_where_they_find_no_more_the_closed_form_stands_alone(
    unordered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    decided(monkeypatch, 1.0)
    summary = train(unordered, tmp_path / "open")
    said = capsys.readouterr().err
    assert BOTH in said
    assert "the closed form stands alone, with ndcg@10" in said
    assert not summary["statistics"]["learned"]
    train(unordered, tmp_path / "named", "model.linear.share=0")
    assert BOTH not in capsys.readouterr().err
    left, right = (checkpoint.read(tmp_path / name / "training" / "checkpoint.ckpt") for name in ("open", "named"))
    assert left["state_dict"].keys() == right["state_dict"].keys()
    for name, tensor in left["state_dict"].items():
        assert torch.equal(tensor, right["state_dict"][name]), name
    assert train(unordered, tmp_path / "open", "train.epochs=2", resume=True)["epochs"] == 2
    assert not train(unordered, tmp_path / "open", refit=True)["statistics"]["learned"]


@pytest.mark.parametrize(
    "named", ["model.dim=12", "train.epochs=1", 'train.start="linear"', 'model.user.encoder="sum"']
)
def test_where_one_of_both_is_named_the_other_is_not_tried(
    unordered: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], named: str
) -> None:
    train(unordered, tmp_path, named)
    assert BOTH not in capsys.readouterr().err


def test_where_many_directions_are_wanted_no_towers_are_trained(
    unordered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("train.config.defaults.WIDE", 1)
    train(unordered, tmp_path)
    assert BOTH not in capsys.readouterr().err
