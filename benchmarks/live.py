"""Building a whole bundle's index, and adding to it, at full size: time, memory, and what one more item costs.

    export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
    python benchmarks/live.py [--counts 100000 1000000]

The towers are two graphs that scale a vector to length 1, so what is measured is everything but the towers.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
from index import DIM, clustered
from onnx import TensorProto, helper

from retrieval import Retriever
from retrieval.bundle.writer import publishing
from retrieval.features.schema import Feature, Schema, TowerSchema
from retrieval.index.updates import add_items, remove_items

PAIR: Final = "abc123abc123"
SINGLES: Final = 15
BLOCK: Final = 50_000

# In a process of its own: what it takes at most, over what it took when everything was imported.
BUILD: Final = """
import sys, time
import faiss
from retrieval.build import build_index
from retrieval.publish import publishing

def kilobytes(name):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(name))

faiss.omp_set_num_threads(1)
before, started = kilobytes("VmRSS"), time.process_time()
with publishing(sys.argv[1]) as draft:
    build_index(draft, recall=0.95, threads=1)
print(time.process_time() - started, kilobytes("VmHWM") - before)
"""


def tower(name: str) -> bytes:
    """A graph: a vector, scaled to length 1."""
    graph = helper.make_graph(
        [helper.make_node("LpNormalization", [name], ["embedding"], axis=1, p=2)],
        name,
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", DIM])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", DIM])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    helper.set_model_props(model, {"pair_id": PAIR})
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


def table(vectors: np.ndarray[Any, Any], *, start: int) -> pa.Table:
    """Items with an id, a title, a year and what the tower takes."""
    rows = range(start, start + len(vectors))
    columns = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), DIM).cast(pa.list_(pa.float32()))
    return pa.table(
        {
            "item_id": [f"item-{row:08d}" for row in rows],
            "title": [f"What it is called, number {row}" for row in rows],
            "year": [1950 + row % 70 for row in rows],
            "content": columns,
        }
    )


def write_bundle(folder: Path, items: np.ndarray[Any, Any], users: np.ndarray[Any, Any]) -> None:
    """Towers, items and users; no index yet."""
    sides = {
        side: TowerSchema(file=f"{side}_tower.onnx", inputs=(Feature(name=name, kind="vector", size=DIM),))
        for side, name in (("user", "taste"), ("item", "content"))
    }
    schema = Schema(pair_id=PAIR, dim=DIM, precision="fp32", opset=18, user=sides["user"], item=sides["item"], facts={})
    taste = pa.FixedSizeListArray.from_arrays(pa.array(users.ravel()), DIM).cast(pa.list_(pa.float32()))
    with publishing(folder) as draft:
        draft.write_bytes("user_tower.onnx", tower("taste"))
        draft.write_bytes("item_tower.onnx", tower("content"))
        draft.write_json("schema.json", schema.to_json())
        first = table(items[:BLOCK], start=0)
        with pq.ParquetWriter(draft.path("items.parquet"), first.schema) as writer:
            for start in range(0, len(items), BLOCK):
                writer.write_table(table(items[start : start + BLOCK], start=start))
        ids = [f"user-{row}" for row in range(len(users))]
        pq.write_table(pa.table({"user_id": ids, "taste": taste}), draft.path("users.parquet"))


def change(folder: Path, place: Path, new: pa.Table) -> tuple[float, float]:
    """Add items as the command does. Returns seconds that passed, and of CPU."""
    pq.write_table(new, place)
    started, spent = time.perf_counter(), time.process_time()
    with publishing(folder) as draft:
        add_items(draft, place)
    return time.perf_counter() - started, time.process_time() - spent


def live(count: int) -> None:
    items, users, _ = clustered(count)
    with tempfile.TemporaryDirectory() as name:
        folder, place = Path(name) / "bundle", Path(name) / "new.parquet"
        write_bundle(folder, items, users)
        done = subprocess.run(
            [sys.executable, "-c", BUILD, str(folder)], stdout=subprocess.PIPE, text=True, check=True, timeout=1800
        )
        seconds, peak = map(float, done.stdout.split())
        index = (folder / "index.faiss").stat().st_size
        above = peak * 1024 - index - items.nbytes  # while it is built they lie in a file that is mapped
        print(f"\n### A bundle of {count:,} items\n")
        print(
            f"- `index build`: {seconds:.0f} s of CPU; peak memory {peak / 1024:.0f} MB above the imports, "
            f"{above / 2**20:.0f} MB above the vectors and the index of {index / 2**20:.0f} MB (bar 512)"
        )
        new = np.random.default_rng(1).permutation(items)[:2_000]
        singles = [
            change(folder, place, table(new[at : at + 1], start=count + 5_000 + at)) for at in range(SINGLES + 1)
        ][1:]
        passed, spent = (statistics.median(own) for own in zip(*singles, strict=True))
        print(f"- one item added: {1e3 * passed:.0f} ms ({1e3 * spent:.0f} ms of CPU), median of {SINGLES} in a row")
        passed, spent = change(folder, place, table(new[:1_000], start=count))
        print(f"- 1,000 items added at once: {passed:.2f} s ({spent:.2f} s of CPU) (bar 2)")
        passed, spent = change(folder, place, table(new[:1_000], start=0))
        print(f"- 1,000 items replaced: {passed:.2f} s ({spent:.2f} s of CPU)")
        passed, spent = change(folder, place, table(new[:1], start=count + 9_000))
        print(f"- one item added after those: {1e3 * passed:.0f} ms ({1e3 * spent:.0f} ms of CPU)")
        started = time.perf_counter()
        with publishing(folder) as draft:
            remove_items(draft, [f"item-{row:08d}" for row in range(2_000, 3_000)])
        print(f"- 1,000 items removed: {time.perf_counter() - started:.2f} s")
        spent = time.process_time()
        with Retriever.open(folder) as retriever:
            retriever.query([{"features": {"taste": users[0].tolist()}}])
        print(f"- opened and asked: {time.process_time() - spent:.2f} s of CPU")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[100_000])
    for count in parser.parse_args().counts:
        live(count)


if __name__ == "__main__":
    main()
