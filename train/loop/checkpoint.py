"""Checkpoint: what passes from `train` to `export`, and no further."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

from retrieval.bundle.layout import CONFIG, SUMMARY, TRAINING
from retrieval.common.errors import TrainError
from train.config.load import Config
from train.data.dataset import PREPROCESS_NAME
from train.data.preprocess import Preprocess
from train.ease import concat
from train.ease.concat import ConcatTowers
from train.model.build import frequency, given, pair
from train.model.towers import ItemTower, UserTower

BEST_NAME: Final = "checkpoint.ckpt"
LAST_NAME: Final = "last.ckpt"
TOWERS: Final = 4  # counts up where the towers make something else of the same weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A trained pair, for export: towers in eval mode, on the CPU, float32, with the item vectors filled in.

    config: resolved, nothing left open. facts: `summary.json`.
    """

    user_tower: UserTower | ConcatTowers
    item_tower: ItemTower | ConcatTowers
    preprocess: Preprocess
    config: Config
    facts: dict[str, Any]


def load(folder: Path) -> Trained:
    """Read the training of an artifact folder. Raises TrainError, naming the file, where it cannot be read."""
    training = folder / TRAINING
    if not training.is_dir():
        raise TrainError(f'{folder}: nothing trained here; run "twotower train CONFIG --out {folder}" first')
    config = Config.from_dict(_json(training / CONFIG), source=str(training / CONFIG))
    preprocess = Preprocess.from_json(_json(training / PREPROCESS_NAME), source=str(training / PREPROCESS_NAME))
    content = read(training / BEST_NAME)
    if content.get("towers") != TOWERS:
        raise TrainError(f"{training}: a training of another version, whose towers were built otherwise; train again")
    share = given(config.model.linear.share)
    trained = pair(config, preprocess, frequency=frequency([], catalogue=1))
    other = concat.pair(config, preprocess) if share else None
    try:
        trained.load_state_dict(content["state_dict"])
        if other is not None:
            other.load_state_dict(content["beside"]["state_dict"])
    except RuntimeError as error:
        raise TrainError(
            f"{training / BEST_NAME}: not the towers of {CONFIG} beside it ({error}); train again"
        ) from error
    user_tower: UserTower | ConcatTowers = trained.user_tower
    item_tower: ItemTower | ConcatTowers = trained.item_tower
    if other is not None:
        user_tower, item_tower = concat.towers(trained, other, share=share)
    return Trained(
        user_tower=user_tower.cpu().float().eval().requires_grad_(requires_grad=False),
        item_tower=item_tower.cpu().float().eval().requires_grad_(requires_grad=False),
        preprocess=preprocess,
        config=config,
        facts=_json(training / SUMMARY),
    )


def strip(path: Path) -> bool:
    """Leave of a checkpoint the weights that were validated, and nothing that differs from run to run.

    Returns false where that was done before: a resumed training found nothing better.
    """
    kept = "average."  # of the module's two pairs
    state = read(path)["state_dict"]
    weights = {name.removeprefix(kept): tensor for name, tensor in state.items() if name.startswith(kept)}
    if weights:
        torch.save({"state_dict": weights, "towers": TOWERS}, path)
    return bool(weights)


def add(path: Path, **content: Any) -> None:
    """Put something into a stripped checkpoint, in place of what stands there by that name."""
    torch.save(read(path) | content, path)


def read(path: Path) -> dict[str, Any]:
    """The content of a checkpoint file; tensors and plain values only, never code."""
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise TrainError(f'{path}: no such checkpoint; run "twotower train" first') from None
    except Exception as error:  # torch raises what it likes on a damaged file
        reason = str(error).split("\n")[0][:120]
        raise TrainError(f"{path}: not a checkpoint that can be read ({reason}); train again") from error
    return content


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TrainError(f"{path}: no such file; train again") from None
    except ValueError as error:
        raise TrainError(f"{path}: not JSON ({error}); train again") from None
