import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from train.batches import Batch, Histories, batches
from train.pair import horizon_weights, targets


def histories(lengths: list[int]) -> Histories:
    owner = np.repeat(np.arange(len(lengths)) * 3, lengths)  # user rows with gaps
    return Histories.from_rows(owner.astype(np.int64), np.arange(sum(lengths), dtype=np.int64))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=12), st.integers(1, 9), st.integers(1, 50), st.integers(0, 99))
def test_every_interaction_is_a_target_once_after_its_own_past(
    lengths: list[int], max_length: int, batch_size: int, seed: int
) -> None:
    given = histories(lengths)
    owner = np.repeat(given.users, given.lengths)
    found = []
    generator = np.random.default_rng(seed)
    for batch in batches(given, max_length=max_length, batch_size=batch_size, shuffle=False, generator=generator):
        assert batch.rows.shape[1] <= max_length + 1
        slots, following = targets(batch, batch.rows - 2)
        found += following.tolist()
        for slot, target in zip(slots.tolist(), following.tolist(), strict=True):
            row, column = divmod(slot, batch.rows.shape[1])
            assert owner[target] == batch.users[row]
            if column:  # read up to the item just before the target
                assert batch.rows[row, column] - 2 == target - 1
            else:
                assert target == 0 or owner[target - 1] != owner[target]
    assert sorted(found) == list(range(sum(lengths)))


def test_shuffling_keeps_users_and_items_together() -> None:
    given = histories([5, 1, 30])
    mixed = given.shuffled(np.random.default_rng(0))
    assert mixed.items.tolist() != given.items.tolist()
    for start, stop in zip(given.starts[:-1], given.starts[1:], strict=True):
        assert sorted(mixed.items[start:stop]) == given.items[start:stop].tolist()


def test_the_same_seed_cuts_the_same_batches() -> None:
    def cut() -> list[list[list[int]]]:
        drawn = batches(
            histories([4, 9, 30, 2]), max_length=6, batch_size=10, shuffle=True, generator=np.random.default_rng(5)
        )
        return [batch.rows.tolist() for batch in drawn]

    assert cut() == cut()


def test_horizon_by_hand() -> None:
    # Newest first: items 4, 3, 2 of a history 2, 3, 4.
    batch = Batch(
        users=torch.tensor([0]),
        rows=torch.tensor([[4, 3, 2, 0]]),
        lengths=torch.tensor([3]),
        fresh=torch.tensor([3]),
    )
    weight = horizon_weights(batch, 0.5)[0]
    # Before anything: 2 next, then 3 by a half, then 4 by a quarter.
    torch.testing.assert_close(weight[0], torch.tensor([1, 2, 4, 0]) / 7)
    torch.testing.assert_close(weight[1], torch.tensor([1.0, 0, 0, 0]))  # after 3: 4
    torch.testing.assert_close(weight[2], torch.tensor([1, 2, 0, 0]) / 3)  # after 2: 3, then 4
