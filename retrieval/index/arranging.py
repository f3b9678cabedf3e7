"""Arranging: the order in which a list holds its items.

FAISS looks at the items of a list one after the other and keeps the best so far in a heap. Whatever is better than the
worst of those goes in, which takes as long as looking at several items. So what users are likely to want comes first,
and most of what follows is passed over: what is found stays the same.
"""

from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from retrieval.index.ivf import Lists

Vectors = npt.NDArray[np.float32]
Scores = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


def can_arrange(ivf: Any) -> bool:
    """Whether the codes of a list lie one after the other, item by item: those of 4 bits are interleaved."""
    return isinstance(ivf, (faiss.IndexIVFFlat, faiss.IndexIVFScalarQuantizer))


def arrange(lists: Lists, users: Vectors, looked: Mask, least: Scores) -> None:
    """Put first in each list what is most above what those who look into it call good. Changes the structure.

    users: (q, d). looked: (q, lists), which lists each looks into. least: (q,), what an item must score to be good.
    """
    held = lists.ivf.invlists
    for number in np.flatnonzero(looked.any(axis=0) & (lists.sizes > 1)).tolist():
        size, asking = int(lists.sizes[number]), looked[:, number]
        rows = faiss.rev_swig_ptr(held.get_ids(number), size)
        codes = faiss.rev_swig_ptr(held.get_codes(number), size * held.code_size).reshape(size, held.code_size)
        above = lists.vectors[rows] @ users[asking].T - least[asking]  # (items of the list, users)
        order = (-np.maximum(above, 0.0).sum(axis=1)).argsort(kind="stable")
        rows[:], codes[:] = rows[order], codes[order]
