"""Checkpoint: the trained towers on disk. It passes from `train` to `export`, and no further."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from retrieval.bundle.layout import CONFIG, SUMMARY, TRAINING
from retrieval.common.errors import TrainError
from train.config.load import ResolvedConfig
from train.data.dataset import PREPROCESS_NAME
from train.ease.ease_towers import ConcatTowers, EaseTowers
from train.features.preprocess import Preprocess
from train.model.build import frequency, pair
from train.model.two_tower import TwoTower

TOWERS_NAME: Final = "checkpoint.ckpt"  # the finished towers
BEST_NAME: Final = "best.ckpt"  # of Lightning, as are the next: weights of the best epoch and state of the last
LAST_NAME: Final = "last.ckpt"
VERSION: Final = 4  # counts up where towers compute something else of the same weights
AVERAGE: Final = "average."  # prefix of the averaged weights in Lightning's checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What export needs of a training.

    user_tower, item_tower: In eval mode, on the CPU, float32, with the item vectors filled in.
    facts: summary.json.
    """

    user_tower: nn.Module
    item_tower: nn.Module
    preprocess: Preprocess
    config: ResolvedConfig
    facts: dict[str, Any]


def save(work: Path, *, towers: TwoTower | None, ease: EaseTowers | None) -> None:
    """Write the finished towers, which export reads."""
    content = {
        "version": VERSION,
        "towers": None if towers is None else towers.state_dict(),
        "ease": None if ease is None else ease.state_dict(),
    }
    torch.save(content, work / TOWERS_NAME)


def load(folder: Path) -> Trained:
    """Read the training of an artifact folder. Raises TrainError, naming the file, where it cannot be read."""
    training = folder / TRAINING
    if not training.is_dir():
        raise TrainError(f'{folder}: nothing trained here; run "twotower train CONFIG --out {folder}" first')
    config_json, preprocess_json = _json(training / CONFIG), _json(training / PREPROCESS_NAME)
    content = _read(training / TOWERS_NAME)
    if content.get("version") != VERSION:
        raise TrainError(
            f"{training} was written by an incompatible version (towers {content.get('version')}, expected {VERSION}); "
            'run "twotower train" again'
        )
    config = ResolvedConfig.from_dict(config_json, source=str(training / CONFIG))
    preprocess = Preprocess.from_json(preprocess_json, source=str(training / PREPROCESS_NAME))
    towers = None if content["towers"] is None else pair(config, preprocess, frequency=frequency([], catalogue=1))
    ease = None if content["ease"] is None else EaseTowers(config, preprocess)
    try:
        for module, name in ((towers, "towers"), (ease, "ease")):
            if module is not None:
                module.load_state_dict(content[name])
    except RuntimeError as error:
        raise TrainError(
            f"{training / TOWERS_NAME}: does not match {CONFIG} beside it ({error}); train again"
        ) from error
    user_tower, item_tower = combine(towers, ease, weight=config.model.ease.weight)
    return Trained(
        user_tower=user_tower.cpu().float().eval().requires_grad_(requires_grad=False),
        item_tower=item_tower.cpu().float().eval().requires_grad_(requires_grad=False),
        preprocess=preprocess,
        config=config,
        facts=_json(training / SUMMARY),
    )


def combine(towers: TwoTower | None, ease: EaseTowers | None, *, weight: float) -> tuple[nn.Module, nn.Module]:
    """The user tower and the item tower of what there is; of both, their ensemble. weight: of EASE."""
    if towers is None or ease is None:
        single = towers if ease is None else ease
        assert single is not None
        return single.user_tower, single.item_tower
    weights = (1 - weight, weight)
    return (
        ConcatTowers([towers.user_tower, ease.user_tower], weights).eval(),
        ConcatTowers([towers.item_tower, ease.item_tower], weights).eval(),
    )


def best_weights(work: Path) -> dict[str, torch.Tensor]:
    """The averaged weights of the best epoch, of Lightning's checkpoint."""
    state = _read(work / BEST_NAME)["state_dict"]
    return {name.removeprefix(AVERAGE): tensor for name, tensor in state.items() if name.startswith(AVERAGE)}


def _read(path: Path) -> dict[str, Any]:
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
