"""A whole query beside a loop written by hand around onnxruntime and FAISS, and the start of the command.

    export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
    python benchmarks/query.py DIR [--users 300]

DIR is a bundle with users, its index flat. CPU time, rounds interleaved, medians.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import faiss
import numpy as np
import onnxruntime as ort

from retrieval import Retriever
from retrieval.catalog.record_store import RecordStore
from retrieval.features.records import batch_of

ROUNDS: Final = 9
K: Final = 10


def cpu(work: Callable[[], Any]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def whole_queries(folder: Path, count: int) -> None:
    retriever = Retriever.open(folder)
    bundle, tower = retriever.bundle, retriever.user_tower
    history = bundle.schema.user.history
    assert history is not None
    users = bundle.load("users.lookup", RecordStore.open)
    records = [users.record(row) for row in range(min(count, len(users)))]
    names = {feature.name for feature in tower.inputs} - {history.name}
    queries = [
        {"features": {name: record.get(name) for name in names}, "history": record[history.name][-50:]}
        for record in records
    ]
    batches = [batch_of(tower.inputs, [{**query["features"], history.name: query["history"]}]) for query in queries]
    rows_of = {retriever.catalog.id(row): row for row in range(retriever.catalog.height)}
    ids = list(rows_of)
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(str(bundle.file(bundle.schema.user.file)), options)
    index = faiss.read_index(str(bundle.file("index.faiss")))

    def by_hand() -> None:
        for batch in batches:
            index.search(session.run(["embedding"], batch)[0], K)

    def ours() -> None:
        for batch in batches:
            retriever.index.search(tower.embed_batch(batch), k=K)

    def by_hand_with_ids() -> None:
        for query in queries:
            batch = {}
            for feature in tower.inputs:
                value = query["history"] if feature.is_list else query["features"].get(feature.name)
                if feature.is_text:
                    batch[feature.name] = np.array([value if value is not None else ""], dtype=object)
                else:
                    batch[feature.name] = np.array([np.nan if value is None else value], dtype=np.float32)
            seen = {rows_of[name] for name in query["history"] if name in rows_of}
            scores, rows = index.search(session.run(["embedding"], batch)[0], K + len(seen))
            found = [
                (row, score) for row, score in zip(rows[0].tolist(), scores[0].tolist(), strict=True) if row not in seen
            ]
            [{"id": ids[row], "score": score} for row, score in found[:K]]

    def ours_with_ids() -> None:
        for query in queries:
            [{"id": hit.id, "score": hit.score} for hit in retriever.query([query], k=K)[0]]

    works = {"by hand": by_hand, "ours": ours, "by hand, ids": by_hand_with_ids, "ours, ids": ours_with_ids}
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(ROUNDS + 1):
        for name, work in works.items():
            times[name].append(cpu(work))
    for first, second in (("ours", "by hand"), ("ours, ids", "by hand, ids")):
        ratio = statistics.median(a / b for a, b in zip(times[first][1:], times[second][1:], strict=True))
        spent = [1e6 * statistics.median(times[name][1:]) / len(queries) for name in (first, second)]
        print(f"- {first}: {spent[0]:.0f} us a query, {second}: {spent[1]:.0f} us; {ratio:.2f}x")


def cold_start(folder: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "twotower",
        "query",
        str(folder),
        "--history",
        "50,181,172",
        "-k",
        "5",
        "--format",
        "json",
    ]
    bare = [sys.executable, "-c", "import numpy, onnxruntime, faiss, click"]
    ratios = [_child(command) / _child(bare) for _ in range(ROUNDS)]
    print(f"- cold `twotower query` / importing numpy, onnxruntime, faiss and click: {statistics.median(ratios):.2f}x")


def _child(command: list[str]) -> float:
    """CPU seconds of a process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR", nargs="?", default=Path("artifacts/demo"))
    parser.add_argument("--users", type=int, default=300)
    args = parser.parse_args()
    faiss.omp_set_num_threads(1)
    whole_queries(args.folder, args.users)
    cold_start(args.folder)


if __name__ == "__main__":
    main()
