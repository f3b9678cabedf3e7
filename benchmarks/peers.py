"""Peers: what the index is compared with. Each has settings from the cheapest to the most thorough.

They are the `bench` extra; one that is not installed is left out. Nothing is run from here.
"""

import importlib.util
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np

from retrieval.common.arrays import Rows, Vectors
from retrieval.index import factory
from retrieval.index.index import Index
from retrieval.index.tuning import tune

Search = Callable[[Vectors, int], Rows]


@dataclass
class Peer:
    """A library with an index built.

    settings: name -> search, the cheapest first. family: "graph" or "quantised".
    """

    name: str
    family: str
    settings: list[tuple[str, Search]]


def own(vectors: Vectors, queries: Vectors, recall: float) -> Peer:
    """The index of this project, as `index build --kind auto` chooses and tunes it."""
    spec = factory.choose("auto", count=len(vectors), dim=vectors.shape[1], recall=recall)
    index = Index.build(vectors, spec)
    index.params = tune(index, queries, recall=recall).params
    setting = f"{spec.factory or 'Flat'} {index.params.to_json()}"
    return Peer("twotower auto", "own", [(setting, lambda asked, k: index.search(asked, k=k)[0])])


def flat(vectors: Vectors) -> Peer:
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    return Peer("faiss IndexFlatIP", "exact", [("", lambda asked, k: index.search(asked, k)[1])])


def scann(vectors: Vectors) -> Iterator[Peer]:
    """With and without a tree; leaves and reordering swept."""
    if importlib.util.find_spec("scann") is None:
        return
    from scann import scann_ops_pybind

    count = len(vectors)
    reorders = (20, 40, 80, 160, 320)

    def search(index: Any, leaves: int | None, reorder: int) -> Search:
        def call(asked: Vectors, k: int) -> Rows:
            extra = {} if leaves is None else {"leaves_to_search": leaves}
            if len(asked) == 1:
                found, _ = index.search(asked[0], final_num_neighbors=k, pre_reorder_num_neighbors=reorder, **extra)
                return np.asarray(found, np.int64)[None]
            found, _ = index.search_batched(asked, final_num_neighbors=k, pre_reorder_num_neighbors=reorder, **extra)
            return np.asarray(found, np.int64)

        return call

    if count <= 50_000:
        plain = scann_ops_pybind.builder(vectors, 10, "dot_product")
        index = plain.score_ah(2, anisotropic_quantization_threshold=0.2).reorder(100).build()
        yield Peer("ScaNN", "quantised", [(f"AH, reorder {r}", search(index, None, r)) for r in reorders])
    for scale in (1, 2):
        leaves = round(scale * math.sqrt(count))
        tree = scann_ops_pybind.builder(vectors, 10, "dot_product").tree(
            num_leaves=leaves, num_leaves_to_search=10, training_sample_size=min(count, 250_000)
        )
        index = tree.score_ah(2, anisotropic_quantization_threshold=0.2).reorder(100).build()
        probes = [probe for probe in (2, 4, 6, 9, 13, 19, 28, 40, 60, 90, 130, 200, 300) if probe < leaves]
        settings = [
            (f"{leaves} leaves, {probe} searched, reorder {r}", search(index, probe, r))
            for r in reorders
            for probe in probes
        ]
        yield Peer("ScaNN", "quantised", settings)


BEAMS = (10, 12, 16, 20, 28, 40, 56, 80, 110, 160, 220, 320, 450, 640)


def hnswlib(vectors: Vectors) -> Iterator[Peer]:
    if importlib.util.find_spec("hnswlib") is None:
        return
    import hnswlib as library

    index = library.Index(space="ip", dim=vectors.shape[1])
    index.init_index(max_elements=len(vectors), ef_construction=200, M=16)
    index.set_num_threads(1)
    index.add_items(vectors)

    def search(beam: int) -> Search:
        def call(asked: Vectors, k: int) -> Rows:
            index.set_ef(beam)
            return np.asarray(index.knn_query(asked, k=k)[0], np.int64)

        return call

    yield Peer("hnswlib", "graph", [(f"M 16, ef {beam}", search(beam)) for beam in BEAMS])


def usearch(vectors: Vectors) -> Iterator[Peer]:
    if importlib.util.find_spec("usearch") is None:
        return
    from usearch.index import Index as Library

    index = Library(ndim=vectors.shape[1], metric="ip", dtype="f32", connectivity=16, expansion_add=128)
    index.add(np.arange(len(vectors)), vectors, threads=1)

    def search(beam: int) -> Search:
        def call(asked: Vectors, k: int) -> Rows:
            index.expansion_search = beam
            return np.asarray(index.search(asked, k, threads=1).keys, np.int64).reshape(len(asked), -1)

        return call

    yield Peer("usearch", "graph", [(f"M 16, expansion {beam}", search(beam)) for beam in BEAMS])


def voyager(vectors: Vectors) -> Iterator[Peer]:
    if importlib.util.find_spec("voyager") is None:
        return
    import voyager as library

    index = library.Index(library.Space.InnerProduct, num_dimensions=vectors.shape[1], M=16, ef_construction=200)
    index.add_items(vectors, num_threads=1)

    def search(beam: int) -> Search:
        def call(asked: Vectors, k: int) -> Rows:
            return np.asarray(index.query(asked, k=k, num_threads=1, query_ef=beam)[0], np.int64)

        return call

    yield Peer("voyager", "graph", [(f"M 16, ef {beam}", search(beam)) for beam in BEAMS])
