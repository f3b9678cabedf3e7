"""Small histories for tests of training."""

import numpy as np

from train.data.batches import Histories


def histories_of(*items: list[int]) -> Histories:
    """One history for each list of item rows."""
    owner = np.repeat(np.arange(len(items)), [len(part) for part in items])
    return Histories.from_rows(owner.astype(np.int64), np.concatenate(items).astype(np.int64))


def planted_histories(users: int = 60, items: int = 24, seed: int = 0) -> Histories:
    """Even users take even items, odd users odd items, six each."""
    random = np.random.default_rng(seed)
    return histories_of(*(random.permutation(np.arange(user % 2, items, 2))[:6].tolist() for user in range(users)))
