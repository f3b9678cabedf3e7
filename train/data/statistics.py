"""Statistics of the training rows, by which `train.config.defaults` chooses the settings that a config leaves open."""

import numpy as np

from train.config.defaults import Statistics
from train.data.dataset import Dataset


def statistics_of(dataset: Dataset) -> Statistics:
    rows = dataset.rows("train")
    users = int((np.bincount(rows.get_column("user").to_numpy()) > 0).sum())
    return Statistics(
        users=users,
        items=dataset.items.height,
        interactions=rows.height,
        mean_length=rows.height / max(users, 1),
        timed=dataset.order_test.timed,
        ordered=dataset.order_test.informative,
        repeats=dataset.order_test.repeats,
    )
