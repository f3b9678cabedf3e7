"""The folder that a training works in, beside the published one, and what it takes to resume it."""

import json
import os
import shutil
from pathlib import Path
from typing import Any, Final

from retrieval.bundle import layout
from retrieval.common.errors import TrainError
from train.config.load import ResolvedConfig
from train.loop import checkpoint

WORK_NAME: Final = ".training-work"  # beside the published folder, until the training is complete
OLD_NAME: Final = ".training-old"
RESUME_NAME: Final = "resume.json"  # what a training must agree in to be resumed


def check_writable(out: Path) -> None:
    """Raise TrainError where `out` cannot be written to: before the tables are read, which may take minutes."""
    existing = next(place for place in (out.absolute(), *out.absolute().parents) if place.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        what = "is not a folder" if not existing.is_dir() else "cannot be written to"
        raise TrainError(f"{existing}: {what}; name another folder with --out")


def open_work_folder(out: Path, config: ResolvedConfig, fingerprint: str, *, resume: bool) -> Path:
    """The folder to train in: empty, or, to resume, with the last checkpoint of a training of the same config and data.

    Raises TrainError where there is nothing to resume or it was another training.
    """
    work, done, old = out / WORK_NAME, out / layout.TRAINING, out / OLD_NAME
    if old.exists() and not done.exists():
        old.rename(done)  # a publication was cut short between its two renames
    identity = _identity(config, fingerprint)
    if resume:
        source = next((folder for folder in (work, done) if (folder / checkpoint.LAST_NAME).exists()), None)
        if source is None:
            raise TrainError(f'{out}: nothing to resume; run "twotower train" without --resume')
        if json.loads((source / RESUME_NAME).read_text(encoding="utf-8")) != identity:
            raise TrainError(
                f"{source}: that training had another config, other data or another version's towers; run without "
                "--resume, or with the config it was started with (train.epochs and train.patience may differ)"
            )
        if source != work:
            shutil.rmtree(work, ignore_errors=True)
            shutil.copytree(source, work)
        return work
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    (work / RESUME_NAME).write_text(json.dumps(identity, ensure_ascii=False), encoding="utf-8")
    return work


def publish(work: Path, out: Path) -> None:
    """Put the finished training in the place of the previous one."""
    done, old = out / layout.TRAINING, out / OLD_NAME
    shutil.rmtree(old, ignore_errors=True)
    if done.exists():
        done.rename(old)
    work.rename(done)
    shutil.rmtree(old, ignore_errors=True)


def _identity(config: ResolvedConfig, fingerprint: str) -> dict[str, Any]:
    """What must be equal for a training to be resumed: all but where the config is read from and how long it trains."""
    content = config.to_dict()
    del content["source"]
    for key in ("epochs", "patience", "accelerator"):
        del content["train"][key]
    return {"config": json.loads(json.dumps(content)), "fingerprint": fingerprint, "towers": checkpoint.VERSION}
