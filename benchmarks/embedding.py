"""Sizes and latencies of exported towers: one thread, batch 1, a history of 50; vocabularies of 10,000 and 1,000,000.

python benchmarks/embedding.py [BUNDLE]     a bundle to measure beside towers with random weights
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch

from export.graph import tower_graph
from export.onnx_nodes import serialized
from export.parity import session_of
from export.precision import PRECISIONS, lighter
from retrieval.bundle.layout import ITEMS
from retrieval.bundle.reader import Bundle
from retrieval.features.schema import OUTPUT_NAME, Feature, TowerSchema
from retrieval.features.vocabulary import Vocabulary
from retrieval.towers.tower import Tower
from train.model.encoders import Attention, EncoderShape
from train.model.feature_embedding import Column
from train.model.towers import UserTower

DIM, LENGTH, SOME, LARGE = 64, 50, 10_000, 1_000_000
HISTORY = Feature(name="history", kind="history", max_length=LENGTH)


def seconds_of(work: Callable[[], Any], *, repeat: int = 400) -> float:
    """The median of many runs."""
    for _ in range(20):
        work()
    taken = []
    for _ in range(repeat):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return float(np.median(taken))


def ratio_of(one: Callable[[], Any], other: Callable[[], Any], *, repeat: int = 600) -> float:
    """How much longer `one` takes than `other`, run in turns, since a machine has moods."""
    taken: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeat):
        for place, work in enumerate((one, other)):
            start = time.perf_counter()
            work()
            taken[place].append(time.perf_counter() - start)
    return float(np.median(taken[0]) / np.median(taken[1]))


def user_tower(items: int) -> tuple[Any, Vocabulary]:
    """A user tower with attention, random weights, and a vocabulary of so many ids."""
    torch.manual_seed(0)
    vocabulary = Vocabulary(f"item-{n}" for n in range(items))
    shape = EncoderShape(dim=DIM, layers=2, heads=1, dropout=0.0, max_length=LENGTH)
    column = Column(feature=Feature(name="history", kind="history", max_length=LENGTH), fitted=vocabulary)
    tower = UserTower([column], dim=DIM, encoder=Attention(shape)).eval()
    tower.freeze_items(torch.nn.functional.normalize(torch.randn(items, DIM), dim=-1))
    return tower, vocabulary


def history_of(vocabulary: Vocabulary, *, seed: int = 0) -> list[str]:
    random = np.random.default_rng(seed)
    return [vocabulary.ids[row] for row in random.integers(0, len(vocabulary.ids), LENGTH)]


def of_vocabulary(items: int, folder: Path) -> dict[str, Any]:
    """Export, size, load and answer with a vocabulary of so many ids."""
    tower, vocabulary = user_tower(items)
    start = time.perf_counter()
    model = tower_graph(tower, [HISTORY], {"history": vocabulary})
    exported = time.perf_counter() - start
    path = folder / "user_tower.onnx"
    path.write_bytes(serialized(model))
    start, cpu = time.perf_counter(), time.process_time()
    session = session_of(path)
    loaded, worked = time.perf_counter() - start, time.process_time() - cpu
    ours = Tower(path, TowerSchema(file=path.name, inputs=(HISTORY,)), dim=DIM, threads=1)
    history = history_of(vocabulary)
    feeds = {"history": np.array([history], dtype=object)}

    def by_hand() -> Any:
        return session.run([OUTPUT_NAME], feeds)

    return {
        "export_s": round(exported, 1),
        "mb": {precision: round(len(serialized(lighter(model, precision))) / 1e6, 1) for precision in PRECISIONS},
        "load_s": round(loaded, 2),
        "load_cpu_s": round(worked, 2),
        "answer_ms": round(1e3 * seconds_of(by_hand), 3),
        "tower_over_onnxruntime": round(ratio_of(lambda: ours.embed_batch(feeds), by_hand), 3),
        "records_ms": round(1e3 * seconds_of(lambda: ours.embed([{"history": history}])), 3),
    }


def of_bundle(path: Path) -> dict[str, Any]:
    """Sizes of a bundle's files, and how long each takes for one user."""
    bundle = Bundle.open(path)
    history = bundle.schema.user.history
    ids = pq.read_table(bundle.file(ITEMS)).column(0).slice(0, LENGTH).to_pylist()
    record = {history.name: [str(item) for item in ids]} if history else {}
    tower = Tower(bundle.file(bundle.schema.user.file), bundle.schema.user, dim=bundle.schema.dim, threads=1)
    measured: dict[str, Any] = {
        "kb": {n: round(bundle.file(n).stat().st_size / 1e3) for n in sorted(bundle.names) if n.endswith(".onnx")},
        "user_ms": round(1e3 * seconds_of(lambda: tower.embed([record])), 3),
    }
    if bundle.has("retrieve.onnx"):
        from retrieval.features.records import batch_of

        session = session_of(bundle.file("retrieve.onnx"))
        batch = batch_of(bundle.schema.user.inputs, [record])
        feeds = {**batch, "exclude": np.full((1, 0), "", dtype=object), "k": np.array([10])}
        measured["retrieve_ms"] = round(1e3 * seconds_of(lambda: session.run(None, feeds)), 3)
    return measured


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("bundle", type=Path, nargs="?")
    bundle = parser.parse_args().bundle
    torch.set_num_threads(1)
    measured: dict[str, Any] = {}
    if bundle is not None:
        measured[bundle.name] = of_bundle(bundle)
    for items in (SOME, LARGE):
        with tempfile.TemporaryDirectory() as folder:
            measured[f"{items:,} ids"] = of_vocabulary(items, Path(folder))
    json.dump(measured, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
