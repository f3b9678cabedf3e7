"""Which FAISS structure for how many items, and how hard it is searched.

Every kind but `flat` is a coarse structure that finds candidates and a flat store of the whole vectors that scores them
(FAISS's "RFlat"), so scores are exact whatever found them.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import faiss
import numpy as np
import numpy.typing as npt

from retrieval.common.errors import DataError

Vectors = npt.NDArray[np.float32]

KINDS: Final = ("auto", "flat", "ivf", "pq")

# Where no recall is asked, few items are searched exactly: the tower takes longer than looking at all of them. Where
# one is asked, lists are faster from a thousand items on; lists of 4-bit codes beat lists of halves once there are
# many (docs/experiments/performance.md).
EXACT_BELOW: Final = 20_000
FLAT_BELOW: Final = 1_000
PQ_FROM: Final = 300_000
RECALL: Final = 0.95  # of more items than that, where none is asked

LISTS_PER_ROOT: Final = 1.5  # lists for each root of the count: finding the nearest lists costs as much as looking in
FEWEST_PER_LIST: Final = 26  # FAISS wants 39 to train a list on; on few items more lists are a tenth faster
TRAINING_PER_LIST: Final = 64  # FAISS takes up to 256; recall at equal probes is the same within noise
TRAINING_LEAST: Final = 65_536

PROBES: Final = (1, 2, 3, *(base << shift for shift in range(11) for base in (4, 5, 6, 7)))
HALVES: Final = (faiss.ScalarQuantizer.QT_fp16, faiss.ScalarQuantizer.QT_bf16)
FACTORS: Final = (4.0, 8.0, 16.0, 32.0, 64.0)
USUAL_DIMS: Final = (420, 192, 64)  # a product quantizer cuts them into equal parts: one divides by most counts
BEAMS: Final = (16, 32, 64, 128, 256, 512, 1024)


@dataclass(frozen=True, slots=True)
class SearchParams:
    """How hard a structure is searched: what tuning chooses.

    probes: lists of an IVF that are looked into; on average, where `within` is given. within: how much less near than
    the nearest list those may be (see `probing`). factor: candidates per wanted item that are scored anew.
    beam: nodes that a graph keeps in view. reach: how far a filtered search looks (see `retrieval.index.filtered_ivf`).
    """

    probes: int | None = None
    within: float | None = None
    factor: float = 1.0
    beam: int | None = None
    reach: float | None = None

    def to_json(self) -> dict[str, Any]:
        factor = self.factor if self.factor != 1.0 else None
        named = {
            "nprobe": self.probes,
            "within": self.within,
            "k_factor": factor,
            "efSearch": self.beam,
            "reach": self.reach,
        }
        return {name: value for name, value in named.items() if value is not None}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "SearchParams":
        return cls(
            probes=content.get("nprobe"),
            within=content.get("within"),
            factor=float(content.get("k_factor", 1.0)),
            beam=content.get("efSearch"),
            reach=content.get("reach"),
        )


LEAST: Final = SearchParams()


@dataclass(frozen=True, slots=True)
class IndexSpec:
    """A structure to build.

    name: flat, ivf, pq, or the factory string as the user gave it. factory: for faiss, "" for flat.
    """

    name: str
    factory: str

    @property
    def is_flat(self) -> bool:
        return not self.factory


def choose(
    kind: str, *, count: int, dim: int, recall: float | None = None, memory_bytes: int | None = None
) -> IndexSpec:
    """The structure for `count` vectors of `dim` numbers.

    kind: one of KINDS or a FAISS factory string. recall: asked; 1 means exact; None is RECALL, or exact
        where that costs nothing.
    memory_bytes: what the searched structure may take; whole vectors stay on disk, mapped.
    Raises DataError if the string is none of FAISS's or nothing fits into the memory.
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
    """Before there are vectors: raise DataError on a kind that suits vectors of no usual length."""
    for dim in USUAL_DIMS:
        try:
            choose(kind, count=EXACT_BELOW, dim=dim)
        except DataError:
            if dim == USUAL_DIMS[-1]:
                raise
        else:
            return


def _named(name: str, *, count: int, dim: int) -> IndexSpec:
    lists = max(1, min(round(LISTS_PER_ROOT * math.sqrt(count)), count // FEWEST_PER_LIST))
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


def size_bytes(kind: IndexSpec, *, count: int, dim: int) -> int:
    """Bytes of the searched structure, by the length of its codes."""
    if kind.is_flat:
        return 4 * dim * count
    structure = faiss.index_factory(dim, kind.factory, faiss.METRIC_INNER_PRODUCT)
    try:
        code = int(structure.sa_code_size())
    except RuntimeError:
        code = 4 * dim
    return count * (code + 8)


def efforts(kind: IndexSpec, structure: Any, *, gaps: Vectors | None = None) -> Iterator[SearchParams]:
    """Efforts worth trying on a structure: for each factor the probes from the least to the greatest.

    gaps: (q, lists) by `Probing.gaps`, for some queries, if each is to look into as many lists as it needs.
    """
    lists = _lists_of(structure)
    # Halves rank candidates as well as whole vectors do; any shorter code needs more candidates than are wanted.
    factors = (1.0,) if kind.factory.endswith(("SQfp16", "SQbf16", "Flat")) else FACTORS
    if lists is not None:
        steps = [(probes, None) for probes in PROBES] if gaps is None else _steps(gaps)
        for factor in factors:
            for probes, within in [step for step in steps if step[0] < lists] + [(lists, None)]:
                yield SearchParams(probes=probes, within=within, factor=factor)
    elif is_graph(structure):
        for beam in BEAMS:
            yield SearchParams(beam=beam)
    else:
        for factor in (1.0, 2.0, *FACTORS, 128.0, 256.0):
            yield SearchParams(factor=factor)


def _steps(gaps: Vectors) -> list[tuple[int, float | None]]:
    """Probes, and how much less near lists may be for so many on average."""
    rising = np.sort(gaps, axis=None)
    means = [
        *np.arange(1.25, 4, 0.25).tolist(),
        *np.arange(4, 8, 0.5).tolist(),
        *(wide for wide in PROBES if wide >= 8),
    ]
    return [
        (math.ceil(mean), round(float(rising[int(mean * len(gaps)) - 1]) + 5e-5, 4))
        for mean in means
        if mean < gaps.shape[1]
    ]


def _lists_of(structure: Any) -> int | None:
    """The number of lists, if candidates come from an IVF."""
    ivf = _candidates_of(structure)
    return int(ivf.nlist) if isinstance(ivf, faiss.IndexIVF) else None


def plain_ivf(structure: Any) -> Any:
    """The IVF that candidates come from, if no rotation stands before it; else None."""
    base = _base_of(structure)
    return base if isinstance(base, faiss.IndexIVF) else None


def is_graph(structure: Any) -> bool:
    """Whether candidates come from an HNSW graph."""
    return isinstance(_candidates_of(structure), faiss.IndexHNSW)


def _base_of(structure: Any) -> Any:
    """The structure below the store of whole vectors."""
    return faiss.downcast_index(structure.base_index) if isinstance(structure, faiss.IndexRefine) else structure


def _candidates_of(structure: Any) -> Any:
    """What finds the candidates, below a rotation if there is one."""
    base = _base_of(structure)
    return faiss.downcast_index(base.index) if isinstance(base, faiss.IndexPreTransform) else base


def train(structure: Any, vectors: Vectors, *, seed: int) -> None:
    """Train a structure on a sample of vectors (n, d); the same seed gives the same structure."""
    inner = _candidates_of(structure)
    if isinstance(inner, faiss.IndexIVFScalarQuantizer) and inner.sq.qtype in HALVES:
        inner.by_residual = False  # halves of whole vectors rank as well, and lists may be chosen by other vectors
    if hasattr(inner, "pq"):
        inner.pq.cp.min_points_per_centroid = 1  # few items are not worth a warning
    wanted = len(vectors)
    if isinstance(inner, faiss.IndexIVF):
        inner.cp.seed = seed + 1
        inner.cp.min_points_per_centroid = 1
        wanted = min(wanted, max(TRAINING_PER_LIST * inner.nlist, TRAINING_LEAST))
    if wanted < len(vectors):
        rows = np.sort(np.random.default_rng(seed).choice(len(vectors), wanted, replace=False))
        vectors = vectors[rows]
    structure.train(np.ascontiguousarray(vectors))


def search_parameters(structure: Any, effort: SearchParams, *, factor: float, selector: Any = None) -> Any:
    """What FAISS takes with a search of a structure over whole vectors.

    factor: candidates per wanted item of this search. selector: only for a structure with lists; a graph cannot be
    trusted with one.
    """
    inner = None
    if effort.probes is not None:
        inner = faiss.SearchParametersIVF(nprobe=effort.probes, sel=selector)
    elif effort.beam is not None:
        inner = faiss.SearchParametersHNSW(efSearch=effort.beam)
    if inner is None:
        return faiss.IndexRefineSearchParameters(k_factor=factor)
    if isinstance(_base_of(structure), faiss.IndexPreTransform):
        inner = faiss.SearchParametersPreTransform(index_params=inner)
    return faiss.IndexRefineSearchParameters(k_factor=factor, base_index_params=inner)
