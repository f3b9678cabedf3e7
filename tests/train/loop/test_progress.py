"""What is said at the end of a training."""

from pathlib import Path

import pytest
import pytorch_lightning as lightning

from tests.support.planted import write_planted
from train.config import load as configs
from train.loop import fit
from train.loop.progress import stop_reason


def reason(*values: float, name: str = "ndcg@10", mode: str = "max", max_epochs: int = 30) -> str | None:
    lines = [{"epoch": number, name: value} for number, value in enumerate(values, start=1)]
    return stop_reason(lines, name=name, mode=mode, max_epochs=max_epochs)


def test_why_training_stopped() -> None:
    assert reason(0.1, 0.3, 0.2, 0.25) == "ndcg@10 has not improved since epoch 2: stopped at 4"
    limited = "ndcg@10 has not improved since epoch 2: stopped at 3 (train.epochs = 3)"
    assert reason(0.1, 0.3, 0.2, max_epochs=3) == limited
    rising = "ndcg@10 still improves at epoch 3: more epochs may help (train.epochs = 6)"
    assert reason(0.1, 0.2, 0.3, max_epochs=3) == rising
    falling = reason(0.9, 0.8, name="rmse", mode="min", max_epochs=2)
    assert falling == "rmse still improves at epoch 2: more epochs may help (train.epochs = 4)"
    # Of two that are as good the first is kept.
    assert reason(0.3, 0.3) == "ndcg@10 has not improved since epoch 1: stopped at 2"
    # A single epoch, or none that was validated, says nothing.
    assert reason(0.3) is None
    assert stop_reason([{"epoch": 1}, {"epoch": 2}], name="ndcg@10", mode="max", max_epochs=2) is None


def test_the_reason_is_printed_where_training_was_validated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_planted(tmp_path / "data", users=20, each=6)
    short = ("model.dim=16", "train.epochs=2")
    fit.fit(configs.load(config, overrides=short), tmp_path / "out")
    assert capsys.readouterr().err.splitlines()[-1].startswith("ndcg@10 ")
    fit.fit(configs.load(config, overrides=short), tmp_path / "out", refit=True)
    assert "epochs may help" not in capsys.readouterr().err


def test_own_callbacks_are_called(tmp_path: Path) -> None:
    class Watch(lightning.Callback):
        epochs = 0

        def on_train_epoch_end(self, trainer: lightning.Trainer, *_: object) -> None:
            self.epochs += 1
            assert trainer.current_epoch == self.epochs - 1

    watch = Watch()
    config = write_planted(tmp_path / "data", users=20, each=6)
    fit.fit(configs.load(config, overrides=("model.dim=16", "train.epochs=2")), tmp_path / "out", callbacks=[watch])
    assert watch.epochs == 2
