"""Every encoder of the notebook, on both sides, with both kinds of loss: trained, exported, indexed, queried."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from export.export_towers import export_towers
from retrieval.bundle.writer import publishing
from retrieval.cli.query import query
from retrieval.common.errors import QueryError
from retrieval.index.build import build_index, publish_tables
from retrieval.retriever import Query, Retriever
from tests.conftest import dataset
from train.config.load import Config
from train.config.load import load as load_config
from train.datasets.fetch import fetch
from train.datasets.notebook import read
from train.loop.checkpoint import load
from train.loop.fit import fit

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


def bundle(config: Config, out: Path) -> dict[str, Any]:
    """A config to a bundle that answers."""
    summary = fit(config, out)
    with publishing(out) as draft:
        export_towers(load(out), draft)  # which fails unless torch and onnxruntime agree
        publish_tables(draft, out / "training")
        build_index(draft)
    return summary


@pytest.mark.parametrize("objective", ["softmax", "rating"])
@pytest.mark.parametrize(
    ("encoder", "options"),
    [
        ("notebook-attention", {"embed": 32, "heads": 4}),
        ("rolling-attention", {"embed": 24, "window": 3, "width": 8, "heads": 2}),
        ("notebook-mlp", {"hidden": 32}),
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
    assert config.model.user.encoder == config.model.item.encoder == encoder
    summary = bundle(config, tmp_path)
    assert np.isfinite(summary["best"]["train_loss"])
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


def test_the_notebooks_new_user(subset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten films, each once, with ratings that exist: the notebook counts duplicates and shows seven of ten."""
    monkeypatch.setenv("COLUMNS", "80")
    bundle(load_config(subset / "notebook-mlp.toml", overrides=["train.epochs=1"]), tmp_path)
    taste = {"Comedy": 5, "Romance": 5, "Sci-Fi": 5, "Action": 1, "Horror": 1}
    asked = [str(tmp_path), "--features", json.dumps(taste)]
    table = CliRunner().invoke(query, [*asked, "--format", "table"], catch_exceptions=False).stdout
    header, *rows = [line for line in table.splitlines() if line.strip()]
    assert header.split()[:6] == ["#", "rating", "id", "title", "average", "genres"]
    assert len(rows) == 10
    ratings = [float(row.split()[1]) for row in rows]
    assert ratings == sorted(ratings, reverse=True)
    assert all(0.5 <= rating <= 5 for rating in ratings)
    assert len({row.split()[2] for row in rows}) == 10
    (answer,) = CliRunner().invoke(query, [*asked, "--format", "json"], catch_exceptions=False).stdout.splitlines()
    hits = json.loads(answer)["hits"]
    assert len({hit["title"] for hit in hits}) == 10
    for hit, shown in zip(hits, ratings, strict=True):
        assert hit["predicted"] == pytest.approx(0.5 + (hit["score"] + 1) / 2 * 4.5, abs=1e-3)
        assert hit["predicted"] == pytest.approx(shown, abs=0.0051)
    for wrong, expected in (
        ('{"Comdy": 5}', 'there is no feature "Comdy"; did you mean "Comedy"?'),
        ('{"Comedy": "much"}', 'feature "Comedy": expected a number'),
    ):
        result = CliRunner().invoke(query, [str(tmp_path), "--features", wrong])
        assert isinstance(result.exception, QueryError)
        assert re.search(re.escape(expected), str(result.exception))
