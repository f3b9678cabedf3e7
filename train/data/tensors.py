"""Arrays -> tensors."""

import numpy as np
import torch
from torch import Tensor

from train.features.preprocess import Batch


def tensors(batch: Batch) -> dict[str, Tensor]:
    """Return encoded arrays as tensors on the CPU. They share memory where numpy allows it."""
    return {name: torch.from_numpy(np.require(values, requirements=["W", "C"])) for name, values in batch.items()}
