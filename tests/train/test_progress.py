"""What is said at the end of a training."""

import re
from pathlib import Path

import pytest
import pytorch_lightning as lightning

from tests.support.planted import write_planted
from train.config import load as configs
from train.loop import fit
from train.loop.progress import ending


def said(*values: float, name: str = "ndcg@10", mode: str = "max", most: int = 30) -> str | None:
    lines = [{"epoch": number, name: value} for number, value in enumerate(values, start=1)]
    return ending(lines, name=name, mode=mode, most=most)


def test_why_training_ended() -> None:
    assert said(0.1, 0.3, 0.2, 0.25) == "ndcg@10 has not improved since epoch 2; stopped at epoch 4"
    assert said(0.1, 0.3, 0.2, most=3) == (
        "ndcg@10 has not improved since epoch 2; stopped at epoch 3, the limit of train.epochs"
    )
    assert said(0.1, 0.2, 0.3, most=3) == "ndcg@10 is still rising at epoch 3; more epochs may help: train.epochs=6"
    falling = said(0.9, 0.8, name="rmse", mode="min", most=2)
    assert falling == "rmse is still falling at epoch 2; more epochs may help: train.epochs=4"
    # Of two that are as good the first is kept.
    assert said(0.3, 0.3) == "ndcg@10 has not improved since epoch 1; stopped at epoch 2"
    # A single epoch, or none that was validated, says nothing.
    assert said(0.3) is None
    assert ending([{"epoch": 1}, {"epoch": 2}], name="ndcg@10", mode="max", most=2) is None
    rising = [{"epoch": 1, "ndcg@10": 0.1}, {"epoch": 2, "ndcg@10": 0.2}]
    told = ending(rising, name="ndcg@10", mode="max", most=2, resumed=True)
    assert told == "ndcg@10 is still rising at epoch 2; more epochs may help: --resume with train.epochs=4"


def test_it_is_said_where_training_was_validated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_planted(tmp_path / "data", users=20, each=6)
    short = ("model.dim=16", "train.epochs=2")
    fit.fit(configs.load(config, overrides=short), tmp_path / "out")
    assert re.search("ndcg@10 (is still rising|has not improved)", capsys.readouterr().err.splitlines()[-1])
    fit.fit(configs.load(config, overrides=short), tmp_path / "out", refit=True)
    assert not re.search("ndcg@10 (is still rising|has not improved)", capsys.readouterr().err)


def test_others_may_watch(tmp_path: Path) -> None:
    class Watch(lightning.Callback):
        epochs = 0

        def on_train_epoch_end(self, trainer: lightning.Trainer, *_: object) -> None:
            self.epochs += 1
            assert trainer.current_epoch == self.epochs - 1

    watch = Watch()
    config = write_planted(tmp_path / "data", users=20, each=6)
    fit.fit(configs.load(config, overrides=("model.dim=16", "train.epochs=2")), tmp_path / "out", callbacks=[watch])
    assert watch.epochs == 2
