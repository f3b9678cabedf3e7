"""Lists: what the lists of an IVF hold."""

from functools import cached_property
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]


class Lists:
    """The lists of an IVF."""

    def __init__(self, ivf: Any, vectors: Vectors) -> None:
        """ivf: trained and filled with the vectors (n, d), ids 0 .. n - 1."""
        self.ivf = ivf
        self.vectors = vectors
        self.centroids: Vectors = ivf.quantizer.reconstruct_n(0, ivf.nlist)  # (lists, d)
        held = [
            faiss.rev_swig_ptr(ivf.invlists.get_ids(number), ivf.invlists.list_size(number)).astype(np.int32)
            if ivf.invlists.list_size(number)
            else np.empty(0, dtype=np.int32)
            for number in range(ivf.nlist)
        ]
        self.rows = np.concatenate(held)  # (n,): list by list
        self.sizes: Rows = np.array([len(own) for own in held], dtype=np.int64)
        self.ends = np.cumsum(self.sizes)

    def list(self, number: int) -> npt.NDArray[np.int32]:
        """The rows of a list."""
        return self.rows[self.ends[number] - self.sizes[number] : self.ends[number]]

    @property
    def mean_size(self) -> float:
        """Items of a list."""
        return len(self.rows) / len(self.sizes)

    @cached_property
    def owners(self) -> Rows:
        """The list of each row: (n,)."""
        owners = np.empty(len(self.rows), dtype=np.int64)
        owners[self.rows] = np.repeat(np.arange(len(self.sizes)), self.sizes)
        return owners
