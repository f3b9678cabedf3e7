"""Every encoder of the notebook, on both sides, with both kinds of objective: trained, exported, indexed, asked."""

from pathlib import Path

import numpy as np
import pytest

from export.pair import export_towers
from retrieval.build import build_index, publish_tables
from retrieval.publish import publishing
from retrieval.retriever import Query, Retriever
from tests.conftest import dataset
from train.checkpoint import load
from train.config import load as load_config
from train.fetch import fetch
from train.fit import fit
from train.notebook import read

CONFIG = """
[data]
interactions = "interactions.parquet"
items = "items.parquet"
users = "users.parquet"
value = "rating"
title = "title"
[user.features]
average = "number"
Comedy = "number"
history = { kind = "history", max_length = 10 }
[item.features]
item_id = "category"
average = "number"
genres = "categories"
[split]
kind = "column"
[model]
dim = 16
[train]
epochs = 1
batch_size = 1000
"""


@pytest.fixture(scope="module")
def subset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("notebook") / "data"
    fetch("ml-latest-small", to=folder, source=dataset("ml-latest-small"), read=read)
    (folder / "small.toml").write_text(CONFIG)
    return folder


@pytest.mark.parametrize("objective", ["softmax", "rating"])
@pytest.mark.parametrize(
    ("encoder", "options"),
    [
        ("seed-attention", {"embed": 32, "heads": 4}),
        ("rolling-attention", {"embed": 24, "window": 3, "width": 8, "heads": 2}),
        ("seed-mlp", {"hidden": 32}),
        ("cross-attention", {"embed": 32, "heads": 4}),
    ],
)
def test_an_encoder_trains_exports_and_answers(
    subset: Path, tmp_path: Path, encoder: str, options: dict[str, int], objective: str
) -> None:
    overrides = [f"train.objective={objective}", f"model.encoder={encoder}"]
    overrides += [f"model.{side}.{name}={value}" for side in ("user", "item") for name, value in options.items()]
    config = load_config(subset / "small.toml", overrides=overrides)
    assert config.model.user is not None
    assert config.model.item is not None
    assert config.model.user.name == config.model.item.name == encoder
    summary = fit(config, tmp_path)
    assert np.isfinite(summary["best"]["train_loss"])
    with publishing(tmp_path) as draft:
        export_towers(load(tmp_path), draft)  # which fails unless torch and onnxruntime agree
        publish_tables(draft, tmp_path / "training")
        build_index(draft)
    with Retriever.open(tmp_path) as retriever:
        known, new = retriever.query(
            [Query(user="2"), Query(features={"Comedy": 5.0}, history=["4993", "nobody has seen this"])], k=10
        )
    for hits in (known, new):
        assert len({hit.id for hit in hits}) == 10
        scores = [hit.score for hit in hits]
        assert scores == sorted(scores, reverse=True)
        if objective == "rating":
            assert all(hit.predicted is not None and 0.5 <= hit.predicted <= 5 for hit in hits)
    assert "4993" not in {hit.id for hit in new}
