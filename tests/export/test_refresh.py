"""Items that came after the training: a history that holds one is read, and nothing else changes."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch.nn import functional

from export.export_towers import export_towers
from export.parity import session_of
from export.precision import PRECISIONS, Precision
from export.refresh import refresh_history
from retrieval.bundle.reader import Bundle
from retrieval.bundle.writer import publishing
from retrieval.features.records import batch_of
from retrieval.index.build import build_index, publish_tables
from retrieval.index.updates import add_items
from retrieval.towers.tower import Tower
from retrieval.verify import verify_bundle
from tests.support.pairs import DIM, ITEM, ITEMS, Pair, make_pair, sampler, write_training
from train.ease.ease_towers import ConcatTowers, EaseUserTower
from train.model.towers import UserTower

NEW: list[dict[str, Any]] = [
    {"item_id": "brand-new", "title": "Brand new", "year": 2001.0, "genres": ["film noir"], "poster": [1.0] * 5},
    {"item_id": "新しい", "title": "新しい", "year": None, "genres": [], "poster": [0.0, 1.0, 0.0, -1.0, 0.5]},
]
HISTORIES = [["brand-new"], ["i3", "新しい"], ["i3", "i4"], []]


def grown(bundle: Path, folder: Path) -> Path:
    """A copy of a bundle to which two items were added, as the commands do it."""
    shutil.copytree(bundle, folder)
    with publishing(folder) as draft:
        publish_tables(draft, folder / "training")
        build_index(draft, kind="flat")
    pl.DataFrame(NEW, strict=False).write_parquet(folder.parent / "new.parquet")
    with publishing(folder) as draft:
        add_items(draft, folder.parent / "new.parquet")
    return folder


def vectors(folder: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    bundle = Bundle.open(folder)
    tower = Tower(bundle.file("user_tower.onnx"), bundle.schema.user, dim=bundle.schema.dim, pair_id=bundle.pair_id)
    return tower.embed([{"history": history} for history in HISTORIES])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_new_item_moves_the_answer(
    pair: Pair, exported: Callable[[Precision], Path], tmp_path: Path, precision: Precision
) -> None:
    folder = grown(exported(precision), tmp_path / "bundle")
    before, pair_id = vectors(folder), Bundle.open(folder).pair_id
    with publishing(folder) as draft:
        assert refresh_history(draft) == 2
    after = vectors(folder)
    assert Bundle.open(folder).pair_id == pair_id
    list(verify_bundle(folder))
    assert np.abs(after - before).max(axis=1)[:2].min() > 0.01
    np.testing.assert_allclose(after[2:], before[2:], atol=1e-6)
    with publishing(folder) as draft:
        assert refresh_history(draft) == 0
    if precision == "fp32":
        np.testing.assert_allclose(after, by_torch(pair, folder), atol=1e-5)


def by_torch(pair: Pair, folder: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """The answer of the torch tower, its table grown by hand."""
    batch = batch_of(ITEM, [{name: entry[name] for name in entry if name != "title"} for entry in NEW])
    rows = {name: torch.from_numpy(array) for name, array in pair.preprocess.encode("item", batch).items()}
    user = pair.user_tower
    assert isinstance(user, UserTower | EaseUserTower)
    table = user.item_vectors
    position = {**{text: row for row, text in enumerate(ITEMS.ids, start=2)}, "brand-new": len(ITEMS)}
    position["新しい"] = len(ITEMS) + 1
    history = torch.zeros(len(HISTORIES), 3, dtype=torch.int64)
    for row, texts in enumerate(HISTORIES):
        history[row, : len(texts)] = torch.tensor([position[text] for text in reversed(texts)])
    missing = pair.preprocess.encode("user", sampler("user").missing(len(HISTORIES), 1))
    inputs = {name: torch.from_numpy(array) for name, array in missing.items()} | {"history": history}
    with torch.no_grad():
        try:
            user.item_vectors = torch.cat([table, pair.item_tower(rows)])
            return functional.normalize(user(inputs)).numpy()
        finally:
            user.item_vectors = table


def test_the_single_file_offers_and_excludes_new_items(bundle_path: Path, tmp_path: Path) -> None:
    folder = grown(bundle_path, tmp_path / "bundle")
    with publishing(folder) as draft:
        refresh_history(draft)
    session = session_of(folder / "retrieve.onnx")
    batch = batch_of(Bundle.open(folder).schema.user.inputs, [{}, {"history": ["brand-new"]}])
    feeds = {**batch, "exclude": np.full((2, 0), "", dtype=object), "k": np.array([100])}
    everything, less = session.run(["ids"], feeds)[0].tolist()
    assert set(everything) == {*ITEMS.ids, "brand-new", "新しい"}
    assert set(less) == {*ITEMS.ids, "新しい", ""}
    assert dict(Bundle.open(folder).read_json("titles.json")["items"])["新しい"] == "新しい"
    assert Bundle.open(folder).schema.facts["single_file"]["items"] == len(ITEMS.ids) + 2


@pytest.mark.parametrize("precision", PRECISIONS)
def test_towers_side_by_side_learn_a_new_item_each_in_its_table(tmp_path: Path, precision: Precision) -> None:
    parts = make_pair(), make_pair(encoder="ease", seed=1)
    towers = [ConcatTowers([part.tower(side) for part in parts], (0.7, 0.3)).eval() for side in ("user", "item")]
    write_training(tmp_path / "towers")
    with publishing(tmp_path / "towers") as draft:
        joined = replace(parts[0], user_tower=towers[0], item_tower=towers[1])
        export_towers(joined, draft, precision=precision, allow_loss=True)
    folder = grown(tmp_path / "towers", tmp_path / "bundle")
    before = vectors(folder)
    with publishing(folder) as draft:
        assert refresh_history(draft) == 2
    after = vectors(folder)
    list(verify_bundle(folder))
    for part in (slice(0, DIM), slice(DIM, None)):
        assert np.abs(after - before)[:2, part].max(axis=1).min() > 0.01
    np.testing.assert_allclose(after[2:], before[2:], atol=1e-6)
    if precision == "fp32":
        expected = [np.sqrt(weight) * by_torch(part, folder) for part, weight in zip(parts, (0.7, 0.3), strict=True)]
        np.testing.assert_allclose(after, np.hstack(expected), atol=1e-5)
