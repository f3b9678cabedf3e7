"""Teacher: what simple counts expect next, to be learned beside what did come next.

A sparse history says little about the many items that could have followed; a count of what follows what, over all
histories, says more. The pair is drawn to items sampled from it as well as to the true next one (distillation,
arXiv 1503.02531, with the teacher's distribution sampled, so that it costs no more than a second target).
"""

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn

from retrieval.vocabulary import FIRST

DECAY = 0.7  # an item one place older counts so much of what it did
LAST = 10  # how many of the newest items are looked at
POPULARITY = 0.2  # power of the frequency of what is found that a count is divided by


class Teacher(nn.Module):
    """Draws items from what the counts expect after a history."""

    running: Tensor
    columns: Tensor
    starts: Tensor
    mass: Tensor
    frequency: Tensor

    def __init__(self, matrix: sparse.csr_array) -> None:
        """matrix: (items, items), how strongly the column is expected after the row; not negative."""
        super().__init__()
        running = np.append(0.0, np.cumsum(matrix.data, dtype=np.float64))
        starts = matrix.indptr.astype(np.int64)
        mass = np.append([0.0, 0.0], np.diff(running[starts])).astype(np.float32)  # by row of the vocabulary
        for name, values in {
            "running": running,
            "columns": np.append(matrix.indices.astype(np.int64), 0),
            "starts": starts,
            "mass": mass,
        }.items():
            self.register_buffer(name, torch.from_numpy(values), persistent=False)
        expected = mass[FIRST:] @ matrix  # unnormalised; near enough to how often an item is drawn
        self.register_buffer(
            "frequency", torch.from_numpy((expected / max(expected.sum(), 1e-9)).astype(np.float32)), persistent=False
        )

    def draw(self, rows: Tensor) -> Tensor:
        """An item for the state at every slot of a batch.

        rows: (batch, width) rows of the vocabulary, newest first. Returns (batch, width) rows of the vocabulary: at
        slot k > 0 an item expected after item k and those before it; 0 where nothing is.
        """
        batch, width = rows.shape
        reach = min(LAST, width)
        older = nn.functional.pad(rows, (0, reach)).unfold(1, reach, 1)[:, :width]  # (batch, width, reach)
        decay = DECAY ** torch.arange(reach, device=rows.device)
        weight = (self.mass[older] * decay).cumsum(dim=-1)  # (batch, width, reach)
        total = weight[..., -1:]
        at = (weight < torch.rand(batch, width, 1, device=rows.device) * total).sum(dim=-1, keepdim=True)
        read = older.gather(2, at.clamp(max=reach - 1)).squeeze(2) - FIRST  # (batch, width) item rows
        known = (total[..., 0] > 0) & (read >= 0)
        first = self.starts[read.clamp(min=0)]
        last = self.starts[read.clamp(min=0) + 1]
        low, high = self.running[first], self.running[last]
        point = low + torch.rand(batch, width, device=rows.device, dtype=torch.float64) * (high - low)
        found = (torch.searchsorted(self.running, point, right=True) - 1).clamp(min=first, max=last - 1)
        drawn = torch.where(known, self.columns[found.clamp(min=0)] + FIRST, 0)
        drawn[:, 0] = 0  # the profile has read nothing
        return drawn
