"""A loss and an encoder of another package, named in the config by their path."""

import sys
from pathlib import Path

import numpy as np
import pytest

from export.export_towers import export_towers
from retrieval.bundle.writer import publishing
from retrieval.common.errors import ConfigError
from retrieval.index.build import build_index, publish_tables
from retrieval.retriever import Query, Retriever
from tests.support.planted import write_planted
from train.config.load import load as load_config
from train.loop.checkpoint import load
from train.loop.fit import fit

PACKAGE = '''
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import nn

from train.config import options
from train.model.encoders import Encoder
from train.model.losses import Loss


class Hinge(Loss):
    """The target's score exceeds that of every other candidate by a margin."""

    candidates = "in-batch"

    def __call__(self, examples):
        scores = examples.users @ examples.items.T
        own = scores.gather(1, examples.target[:, None])
        return ((scores - own + 0.3).relu().mean(dim=1) * examples.weight).sum()


@dataclass(frozen=True, slots=True, kw_only=True)
class NewestOptions(options.Encoder):
    """Options of `Newest`."""

    gain: float = options.key(1.0, "Weight of the newest item.", above=0)

    def __post_init__(self):
        if self.gain > 100:
            raise ValueError(f"gain = {self.gain:g} drowns the profile")


class Newest(Encoder):
    """A linear map of the newest item, added to the profile."""

    Options = NewestOptions

    def __init__(self, shape, options):
        super().__init__(shape, options)
        self.map, self.gain = nn.Linear(shape.dim, shape.dim), options.gain

    def forward(self, profile, history, mask):
        items = self.gain * self.map(history) * rearrange(mask.to(history.dtype), "b k -> b k 1")
        return torch.cat([torch.zeros_like(profile)[:, None], items], dim=1) + rearrange(profile, "b d -> b 1 d")


class Nothing:
    pass
'''


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module outside of the project, with a loss and an encoder."""
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "hinge_package.py").write_text(PACKAGE)
    monkeypatch.syspath_prepend(str(tmp_path / "package"))
    monkeypatch.delitem(sys.modules, "hinge_package", raising=False)
    return "hinge_package"


def test_a_loss_and_an_encoder_of_another_package_train_and_export(package: str, tmp_path: Path) -> None:
    overrides = [
        f"train.objective={package}:Hinge",
        f"model.user.encoder={package}:Newest",
        "model.user.gain=2.0",
        "model.dim=16",
        "train.epochs=6",
    ]
    config = load_config(write_planted(tmp_path / "data", encoder=None), overrides=overrides)
    summary = fit(config, tmp_path / "out")
    assert summary["best"]["recall@10"] > 0.5  # 10 of 29 items would be found by chance
    with publishing(tmp_path / "out") as draft:
        export_towers(load(tmp_path / "out"), draft)  # fails unless torch and onnxruntime agree
        publish_tables(draft, tmp_path / "out" / "training")
        build_index(draft)
    with Retriever.open(tmp_path / "out") as retriever:
        (hits,) = retriever.query([Query(history=["i2", "i4"])], k=5)
    assert len(hits) == 5
    assert np.isfinite([hit.score for hit in hits]).all()


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("train.objective=nowhere:Loss", r'--set train\.objective: cannot import "nowhere:Loss" \(No module named'),
        ("train.objective=hinge_package:Missing", r'cannot import "hinge_package:Missing"'),
        ("train.objective=hinge_package:Nothing", r"is not a subclass of train\.model\.losses\.Loss"),
        ("model.user.encoder=hinge_package:Hinge", r"is not a subclass of train\.model\.encoders\.Encoder"),
        ("train.objective=softmx", r'did you mean "softmax"\?'),
        ("model.user={encoder='hinge_package:Newest', gain=200}", r"model\.user: gain = 200 drowns the profile"),
        ("model.user={encoder='hinge_package:Newest', gian=2}", r'did you mean "gain"\?'),
    ],
)
def test_a_path_that_names_no_such_class_is_refused(package: str, tmp_path: Path, override: str, expected: str) -> None:
    path = write_planted(tmp_path / "data", encoder=None)
    with pytest.raises(ConfigError, match=expected):
        load_config(path, overrides=[override])
