"""The index beside its peers: throughput and latency at the same recall, filters, building, changing, opening.

    export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
    python benchmarks/index.py [--counts 10000 100000] [--bundle DIR]... [--parts exact peers filters build]

CPU time of one thread, rounds interleaved, medians. In a round each does its work over and over for a twentieth of a
second, so that a time is that of steady work; where it says "first", of the first time in each round, which finds the
caches as the one before it left them. Peers are the `bench` extra. `docs/experiments/performance.md` keeps a run.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import faiss
import numpy as np
import numpy.typing as npt
import peers

from retrieval.common.arrays import Vectors
from retrieval.index import exact, factory
from retrieval.index.index import Index
from retrieval.index.row_filter import RowFilter
from retrieval.index.tuning import tune

DIM: Final = 64
ROUNDS: Final = 7
ROUND: Final = 0.05  # CPU seconds that each works for in a round, at least
K: Final = 10
QUERIES: Final = 2_000


def unit(rows: npt.NDArray[Any]) -> Vectors:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def clustered(count: int, *, seed: int = 0) -> tuple[Vectors, Vectors, npt.NDArray[np.int64]]:
    """Items in clusters of uneven size with directions of their own, users near items, the cluster of each item."""
    random = np.random.default_rng(seed)
    clusters = max(50, int(count**0.5))
    centres = random.normal(size=(clusters, DIM)) / 8
    directions = random.normal(size=(clusters, 8, DIM)) / 8
    owner = random.choice(clusters, count, p=random.dirichlet(np.ones(clusters)))
    items = np.empty((count, DIM), np.float32)
    for start in range(0, count, 50_000):
        own = owner[start : start + 50_000]
        inside = (random.normal(size=(len(own), 8, 1)) * directions[own]).sum(1) * 0.18
        items[start : start + 50_000] = unit(centres[own] + inside + random.normal(size=(len(own), DIM)) * 0.044)
    users = unit(items[random.integers(0, count, QUERIES)] + random.normal(size=(QUERIES, DIM)) * 0.09)
    return items, users, owner


def of_bundle(folder: Path) -> tuple[Vectors, Vectors]:
    """Item vectors of a bundle, and its users' vectors."""
    import pyarrow.parquet as pq

    from retrieval import Retriever

    with Retriever.open(folder) as retriever:
        users = pq.read_table(retriever.bundle.file("users.parquet"))
        chosen = np.random.default_rng(0).permutation(users.num_rows)[:QUERIES]
        return np.array(retriever.index.base), retriever.user_tower.embed_table(users.take(chosen))


def cpu(work: Callable[[], Any]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


class Spent(NamedTuple):
    """CPU seconds of a work in each round: the first time it was done, and the mean of all times."""

    first: list[float]
    steady: list[float]


def interleaved(works: dict[str, Callable[[], Any]], *, rounds: int = ROUNDS) -> dict[str, Spent]:
    """CPU seconds of each, round by round, so that all see the same machine."""
    times = {name: Spent([], []) for name in works}
    for number in range(rounds + 1):
        for name, work in works.items():
            spent = [cpu(work)]
            while sum(spent) < ROUND:
                spent.append(cpu(work))
            if number:  # the first round warms up
                times[name].first.append(spent[0])
                times[name].steady.append(statistics.mean(spent))
    return times


def ratio(first: list[float], second: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(first, second, strict=True))


def each(times: list[float], queries: int) -> float:
    """Microseconds a query, the median of the rounds."""
    return 1e6 * statistics.median(times) / queries


def recall_of(rows: npt.NDArray[np.int64], queries: Vectors, items: Vectors, least: Vectors) -> float:
    scores = exact.score(queries, items, np.ascontiguousarray(rows[:, :K]))
    return float((scores >= least - 1e-6).mean())


def one_by_one(search: peers.Search, queries: Vectors) -> None:
    for at in range(len(queries)):
        search(queries[at : at + 1], K)


def compare(title: str, items: Vectors, users: Vectors, *, with_graphs: bool) -> None:
    """Every peer at its cheapest setting that reaches the recall; ours as it tunes itself."""
    half = len(users) // 2
    choosing, checking = users[:half], users[half:]
    truth = [exact.top_k(part, items, k=K)[1][:, -1:] for part in (choosing, checking)]
    builders = [peers.scann, *([peers.hnswlib, peers.usearch, peers.voyager] if with_graphs else [])]
    made = [peer for build in builders for peer in build(items)]
    print(f"\n### {title}: {len(items):,} items, {len(checking):,} users\n")
    print(
        "| asked | library | setting | recall on other users | batch, us | one by one, us | batch / ours "
        "| first batch, us | / ours |"
    )
    print("| --- " * 9 + "|")
    few = checking[:150]
    for target in (0.95, 0.99):
        mine = peers.own(items, choosing, target)
        chosen = {mine.name: mine.settings[0], **_cheapest(made, choosing, items, truth[0], target)}
        if len(items) <= 100_000:
            chosen["faiss IndexFlatIP"] = peers.flat(items).settings[0]
        batches = interleaved({name: partial(search, checking, K) for name, (_, search) in chosen.items()})
        singles = interleaved({name: partial(one_by_one, search, few) for name, (_, search) in chosen.items()})
        for name, (setting, search) in chosen.items():
            found = recall_of(search(checking, K), checking, items, truth[1])
            spent, ours = batches[name], batches[mine.name]
            print(
                f"| {target} | {name} | {setting} | {found:.4f} | {each(spent.steady, len(checking)):.1f} "
                f"| {each(singles[name].steady, len(few)):.1f} | {ratio(spent.steady, ours.steady):.2f} "
                f"| {each(spent.first, len(checking)):.1f} | {ratio(spent.first, ours.first):.2f} |",
                flush=True,
            )


def _cheapest(
    made: list[peers.Peer], queries: Vectors, items: Vectors, least: Vectors, target: float
) -> dict[str, tuple[str, peers.Search]]:
    """Of each library the setting that takes the least time among those that reach a recall."""
    chosen: dict[str, tuple[str, peers.Search]] = {}
    cost: dict[str, float] = {}
    for peer in made:
        for setting, search in _reaching(peer, queries, items, least, target):
            spent = min(cpu(partial(search, queries, K)) for _ in range(2))
            if spent < cost.get(peer.name, np.inf):
                chosen[peer.name], cost[peer.name] = (setting, search), spent
    return chosen


def _reaching(
    peer: peers.Peer, queries: Vectors, items: Vectors, least: Vectors, target: float
) -> list[tuple[str, peers.Search]]:
    """The settings that reach a recall."""
    return [
        (setting, search)
        for setting, search in peer.settings
        if recall_of(search(queries, K), queries, items, least) >= target
    ]


def exact_search(_: int) -> None:
    items, users, _owner = clustered(100_000)
    plain = faiss.IndexFlatIP(DIM)
    plain.add(items)
    batch = users[:256]
    with tempfile.TemporaryDirectory() as folder:
        index = reopened(Index.build(items, factory.IndexSpec("flat", "")), Path(folder) / "index.faiss")
        times = interleaved(
            {"ours": lambda: index.search(batch, k=K), "IndexFlatIP": lambda: plain.search(batch, K)}, rounds=15
        )
        single = interleaved(
            {
                "ours": partial(one_by_one, lambda asked, k: index.search(asked, k=k)[0], batch[:20]),
                "IndexFlatIP": partial(one_by_one, lambda asked, k: plain.search(asked, k)[1], batch[:20]),
            },
            rounds=15,
        )
    batch_ratio = ratio(times["IndexFlatIP"].steady, times["ours"].steady)
    single_ratio = ratio(single["ours"].steady, single["IndexFlatIP"].steady)
    print("\n### Exact search, 100,000 items\n")
    print(f"- 256 queries at once: {batch_ratio:.2f}x the throughput of IndexFlatIP (bar 3)")
    print(f"- one query: {single_ratio:.3f}x the time of IndexFlatIP (bar 1.05)")


def reopened(index: Index, path: Path) -> Index:
    """The index as a bundle opens it: mapped."""
    index.save(path)
    empty = np.empty((0, index.dim), np.float32)
    return Index.load(path, index.spec, params=index.params, added=empty, removed=np.empty(0, np.int64))


def filters(title: str, items: Vectors, users: Vectors, owner: npt.NDArray[np.int64]) -> None:
    """Filters on attributes that follow the geometry, and on one that does not. owner: the cluster of each item."""
    count, dim = items.shape
    spec = factory.choose("auto", count=count, dim=dim, recall=0.95)
    index = Index.build(items, spec)
    index.params = tune(index, users[300:1300], recall=0.95).params
    users, few = users[:300], users[:60]
    plain = recall_of(index.search(users, k=K)[0], users, items, exact.top_k(users, items, k=K)[1][:, -1:])
    print(f"\n### Filters, {title}{count:,} items ({spec.factory or 'Flat'}), unfiltered recall {plain:.4f}\n")
    print("| attribute | kept | recall@10 | less unfiltered | one by one, us | / unfiltered |")
    print("| --- | --- | --- | --- | --- | --- |")
    random = np.random.default_rng(1)
    attributes = {
        "random": random.permutation(count),
        "whole clusters": ranks(random.permutation(owner.max() + 1)[owner] + random.random(count)),
        "a half-space": ranks(items @ random.normal(size=dim)),
    }
    for attribute, position in attributes.items():
        for share in (0.97, 0.5, 0.05, 0.005, 0.0005):
            mask = position < share * count
            row_filter = index.select(mask)
            least = exact.top_k(users, items, k=K, keep=mask)[1][:, -1:]
            found = recall_of(index.search(users, k=K, row_filter=row_filter)[0], users, items, least)
            times = interleaved(
                {
                    "filtered": partial(one_by_one, partial(_rows, index, row_filter), few),
                    "plain": partial(one_by_one, partial(_rows, index, None), few),
                }
            )
            filtered, unfiltered = times["filtered"].steady, times["plain"].steady
            print(
                f"| {attribute} | {share:.2%} | {found:.4f} | {found - plain:+.4f} | {each(filtered, len(few)):.0f} "
                f"| {ratio(filtered, unfiltered):.1f} |",
                flush=True,
            )


def clusters_of(items: Vectors) -> npt.NDArray[np.int64]:
    """The cluster of each item, of a few large ones."""
    means = faiss.Kmeans(items.shape[1], 40, seed=0, spherical=True, min_points_per_centroid=1)
    means.train(items)
    owner: npt.NDArray[np.int64] = (items @ means.centroids.T).argmax(axis=1)
    return owner


def _rows(index: Index, row_filter: RowFilter | None, asked: Vectors, k: int) -> npt.NDArray[np.int64]:
    return index.search(asked, k=k, row_filter=row_filter)[0]


def ranks(values: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    return np.argsort(np.argsort(values))


def building(count: int) -> None:
    items, users, _ = clustered(count)
    spec = factory.choose("auto", count=count, dim=DIM, recall=0.95)
    started = time.process_time()
    index = Index.build(items, spec)
    built = time.process_time() - started
    tuned = cpu(lambda: tune(index, users, recall=0.95))
    plain = faiss.index_factory(DIM, spec.factory + ",RFlat" if spec.factory else "Flat", faiss.METRIC_INNER_PRODUCT)
    by_faiss = cpu(lambda: plain.train(items)) + cpu(lambda: plain.add(items))
    mapped: list[float] = []
    read: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index.faiss"
        index.save(path)
        size = path.stat().st_size
        for _ in range(ROUNDS):
            for times, flags in ((mapped, faiss.IO_FLAG_MMAP_IFC), (read, 0)):
                started = time.perf_counter()
                faiss.read_index(str(path), flags)
                times.append(time.perf_counter() - started)
    opening, reading = statistics.median(mapped), statistics.median(read)
    print(f"\n### Building and opening, {count:,} items ({spec.factory or 'Flat'})\n")
    print(f"- train and add: {built:.1f} s, {built / by_faiss:.2f}x plain FAISS of the same factory string (bar 1.1)")
    print(f"- tuning and measuring: {tuned:.1f} s")
    print(f"- {size / count:.0f} bytes an item")
    print(f"- opening by mapping: {1e3 * opening:.1f} ms, {opening / reading:.3f}x of reading (bar 0.2)")


def main() -> None:
    parts = {"exact": exact_search, "build": building}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="*", default=[10_000, 100_000])
    parser.add_argument("--bundle", type=Path, action="append", default=[])
    parser.add_argument("--parts", nargs="+", default=["exact", "peers", "filters", "build"])
    args = parser.parse_args()
    faiss.omp_set_num_threads(1)
    for part in args.parts:
        if part in parts:
            for count in args.counts[:1] if part == "exact" else args.counts:
                parts[part](count)
            continue
        for folder in args.bundle:
            items, users = of_bundle(folder)
            if part == "filters":
                filters(f"vectors of {folder.name}, ", items, users, clusters_of(items))
            else:
                compare(f"Vectors of {folder.name}", items, users, with_graphs=True)
        for count in args.counts:
            items, users, owner = clustered(count)
            if part == "filters":
                filters("", items, users, owner)
            else:
                compare("Clustered", items, users, with_graphs=count <= 100_000)


if __name__ == "__main__":
    main()
