"""Dropout by bytes: eight masks from one random word, where torch's own draws a number an element.

On one core torch's own takes three times as long.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Dropout(nn.Module):
    """Zero a share of the elements in training and scale the rest up (arXiv 1207.0580); nothing in eval mode.

    The share is rounded to a multiple of 1/256.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.dropped = min(round(share * 256), 255)  # byte values that drop

    def forward(self, values: Tensor) -> Tensor:
        if not self.active:
            return values
        return values * self.kept(values.shape, values)

    @property
    def active(self) -> bool:
        return self.training and self.dropped > 0

    def kept(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """Draw what values are multiplied with, of this shape: 0 where they are dropped, else what makes up for it."""
        count = math.prod(shape)
        words = torch.empty(math.ceil(count / 8), dtype=torch.int64, device=like.device)
        # All 64 bits: `random_` without bounds draws from 0 up.
        words.random_(-(2**63), None)
        drawn = words.view(torch.uint8)[:count].view(shape)
        # Compared into floats at once: turning booleans into them takes as long as all the rest.
        kept = torch.ge(drawn, self.dropped, out=torch.empty(shape, dtype=like.dtype, device=like.device))
        return kept.mul_(256 / (256 - self.dropped))
