"""The FAISS structure to build for a number of items, and its search parameters.

Every kind but `flat` is a coarse structure that finds candidates, and a flat store of full vectors that scores them
(FAISS's "RFlat"). So scores are exact whatever found the candidates.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import faiss
import numpy as np

from retrieval.common.arrays import Vectors
from retrieval.common.errors import DataError

KINDS: Final = ("auto", "flat", "ivf", "pq")

# Where no recall is requested, few items are searched exactly: the tower takes longer than scoring all of them. Where
# one is requested, lists are faster from a thousand items on, and 4-bit codes from several 100,000
# (docs/experiments/performance.md).
EXACT_BELOW: Final = 20_000
FLAT_BELOW: Final = 1_000
PQ_FROM: Final = 300_000
DEFAULT_RECALL: Final = 0.95  # for EXACT_BELOW items and more, where no recall is requested

LISTS_PER_ROOT: Final = (
    1.5  # lists per square root of the number of items: finding lists takes as long as scanning them
)
MIN_ITEMS_PER_LIST: Final = 26  # FAISS recommends 39 for training; with few items, more lists are a tenth faster
TRAINING_PER_LIST: Final = 64  # FAISS takes up to 256; recall at equal nprobe is the same
MIN_TRAINING: Final = 65_536

NPROBES: Final = (1, 2, 3, *(base << shift for shift in range(11) for base in (4, 5, 6, 7)))
HALF_PRECISION: Final = (faiss.ScalarQuantizer.QT_fp16, faiss.ScalarQuantizer.QT_bf16)
K_FACTORS: Final = (4.0, 8.0, 16.0, 32.0, 64.0)
USUAL_DIMS: Final = (420, 192, 64)  # a product quantizer needs a divisor of the dimension: most divide one of these
EF_SEARCHES: Final = (16, 32, 64, 128, 256, 512, 1024)


@dataclass(frozen=True, slots=True)
class SearchParams:
    """Search parameters, named as in FAISS; tuning chooses them.

    Attributes:
        nprobe: Lists of an IVF that a query visits.
        k_factor: Candidates per result that are scored by their full vectors.
        ef_search: Nodes that a search through an HNSW graph keeps.
    """

    nprobe: int | None = None
    k_factor: float = 1.0
    ef_search: int | None = None

    def to_json(self) -> dict[str, Any]:
        """The parameters as `index.json` stores them, without defaults."""
        k_factor = self.k_factor if self.k_factor != 1.0 else None
        named = {"nprobe": self.nprobe, "k_factor": k_factor, "efSearch": self.ef_search}
        return {name: value for name, value in named.items() if value is not None}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "SearchParams":
        """Read parameters from `index.json`; unknown ones are ignored.

        Early versions stored `within`: a query visited the lists near enough to it, nprobe on average. The same recall
        takes half as many lists again where their number is fixed.
        """
        nprobe = content.get("nprobe")
        if nprobe is not None and "within" in content:
            nprobe = math.ceil(1.5 * nprobe)
        return cls(nprobe=nprobe, k_factor=float(content.get("k_factor", 1.0)), ef_search=content.get("efSearch"))


DEFAULT_PARAMS: Final = SearchParams()


@dataclass(frozen=True, slots=True)
class IndexSpec:
    """A structure to build.

    Attributes:
        name: flat, ivf, pq, or the factory string that the user gave.
        factory: Factory string for FAISS, "" for flat.
    """

    name: str
    factory: str

    @property
    def is_flat(self) -> bool:
        return not self.factory


def choose(
    kind: str, *, count: int, dim: int, recall: float | None = None, memory_bytes: int | None = None
) -> IndexSpec:
    """Choose the structure to build.

    Args:
        kind: One of KINDS, or a FAISS factory string.
        count: Number of vectors.
        dim: Dimension of the vectors.
        recall: Requested recall; 1 means exact. Default: DEFAULT_RECALL, exact below EXACT_BELOW vectors.
        memory_bytes: Limit for the coarse structure; full vectors stay on disk, memory-mapped.

    Raises:
        DataError: if FAISS does not know the factory string, or nothing fits into the memory.
    """
    names = [kind]
    if kind == "auto":
        is_flat = count < EXACT_BELOW if recall is None else count < FLAT_BELOW or recall >= 1
        by_count = "flat" if is_flat else "ivf" if count < PQ_FROM else "pq"
        names = ["flat", "ivf", "pq", "small"]
        names = names[names.index(by_count) :]
    bounded = memory_bytes if memory_bytes is not None else math.inf
    for name in names:
        found = _named(name, count=count, dim=dim)
        if size_bytes(found, count=count, dim=dim) <= bounded:
            return found
    needed = size_bytes(_named(names[-1], count=count, dim=dim), count=count, dim=dim)
    raise DataError(
        f"index: {count:,} items of {dim} numbers take at least {needed / 1e9:.2f} GB, "
        f"--memory allows {bounded / 1e9:.2f} GB"
    )


def check(kind: str) -> None:
    """Check a kind before there are vectors. Raises DataError if it suits none of the usual dimensions."""
    for dim in USUAL_DIMS:
        try:
            choose(kind, count=EXACT_BELOW, dim=dim)
        except DataError:
            if dim == USUAL_DIMS[-1]:
                raise
        else:
            return


def _named(name: str, *, count: int, dim: int) -> IndexSpec:
    lists = max(1, min(round(LISTS_PER_ROOT * math.sqrt(count)), count // MIN_ITEMS_PER_LIST))
    if name == "flat":
        return IndexSpec("flat", "")
    if name == "ivf":
        return IndexSpec("ivf", f"IVF{lists},SQfp16")
    if name == "pq":
        return IndexSpec("pq", f"IVF{lists},PQ{dim}x4fs")
    if name == "small":
        return IndexSpec("pq", f"IVF{lists},PQ{max(1, dim // 2)}x4fs" if dim % 2 == 0 else f"IVF{lists},PQ{dim}x4fs")
    factory = name.removesuffix(",RFlat")
    if factory == "Flat":
        return IndexSpec("flat", "")
    try:
        faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)
    except Exception as error:
        raise DataError(
            f'index: --kind "{name}" is none of {", ".join(KINDS)}, nor a FAISS factory string for {dim} numbers'
        ) from error
    return IndexSpec(name, factory)


def size_bytes(spec: IndexSpec, *, count: int, dim: int) -> int:
    """Memory of the coarse structure, by the size of its codes."""
    if spec.is_flat:
        return 4 * dim * count
    structure = faiss.index_factory(dim, spec.factory, faiss.METRIC_INNER_PRODUCT)
    try:
        code = int(structure.sa_code_size())
    except RuntimeError:
        code = 4 * dim
    return count * (code + 8)


def search_grid(spec: IndexSpec, structure: Any) -> Iterator[SearchParams]:
    """Search parameters to try on a structure: for each k_factor, nprobe in ascending order."""
    coarse = _below_rotation(structure)
    # Half precision ranks candidates as well as full vectors; shorter codes need more candidates than results.
    k_factors = (1.0,) if spec.factory.endswith(("SQfp16", "SQbf16", "Flat")) else K_FACTORS
    if isinstance(coarse, faiss.IndexIVF):
        for k_factor in k_factors:
            for nprobe in [nprobe for nprobe in NPROBES if nprobe < coarse.nlist] + [coarse.nlist]:
                yield SearchParams(nprobe=nprobe, k_factor=k_factor)
    elif is_graph(structure):
        for ef_search in EF_SEARCHES:
            yield SearchParams(ef_search=ef_search)
    else:
        for k_factor in (1.0, 2.0, *K_FACTORS, 128.0, 256.0):
            yield SearchParams(k_factor=k_factor)


def ivf_of(structure: Any) -> Any:
    """The IVF that finds candidates; None if there is none, or if a rotation precedes it."""
    coarse = _coarse(structure)
    return coarse if isinstance(coarse, faiss.IndexIVF) else None


def is_graph(structure: Any) -> bool:
    """Whether an HNSW graph finds candidates."""
    return isinstance(_below_rotation(structure), faiss.IndexHNSW)


def _coarse(structure: Any) -> Any:
    """The structure that finds candidates."""
    return faiss.downcast_index(structure.base_index) if isinstance(structure, faiss.IndexRefine) else structure


def _below_rotation(structure: Any) -> Any:
    """The structure that finds candidates, without a rotation before it."""
    coarse = _coarse(structure)
    return faiss.downcast_index(coarse.index) if isinstance(coarse, faiss.IndexPreTransform) else coarse


def train(structure: Any, vectors: Vectors, *, seed: int) -> None:
    """Train a coarse structure on a sample of vectors (n, d); the same seed gives the same structure."""
    inner = _below_rotation(structure)
    if isinstance(inner, faiss.IndexIVFScalarQuantizer) and inner.sq.qtype in HALF_PRECISION:
        inner.by_residual = False  # recall is the same, and a search need not add the centroids' scores
    if hasattr(inner, "pq"):
        inner.pq.cp.min_points_per_centroid = 1  # no warning for few items
    wanted = len(vectors)
    if isinstance(inner, faiss.IndexIVF):
        inner.cp.seed = seed + 1
        inner.cp.min_points_per_centroid = 1
        wanted = min(wanted, max(TRAINING_PER_LIST * inner.nlist, MIN_TRAINING))
    if wanted < len(vectors):
        rows = np.sort(np.random.default_rng(seed).choice(len(vectors), wanted, replace=False))
        vectors = vectors[rows]
    structure.train(np.ascontiguousarray(vectors))


def faiss_parameters(structure: Any, params: SearchParams, *, k_factor: float, selector: Any = None) -> Any:
    """The FAISS search parameters for a structure with full vectors.

    Args:
        structure: A structure that `Index` built.
        params: The parameters that were tuned.
        k_factor: Candidates per row that this search asks for.
        selector: FAISS selector of the rows that may be found; only for a structure with lists.
    """
    inner = None
    if params.nprobe is not None:
        inner = faiss.SearchParametersIVF(nprobe=params.nprobe, sel=selector)
    elif params.ef_search is not None:
        inner = faiss.SearchParametersHNSW(efSearch=params.ef_search)
    if inner is None:
        return faiss.IndexRefineSearchParameters(k_factor=k_factor)
    if isinstance(_coarse(structure), faiss.IndexPreTransform):
        inner = faiss.SearchParametersPreTransform(index_params=inner)
    return faiss.IndexRefineSearchParameters(k_factor=k_factor, base_index_params=inner)
