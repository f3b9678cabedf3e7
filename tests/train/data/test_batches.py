import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from train.data.batches import Histories, batches
from train.model.two_tower import at_slots, target_slots


def histories(lengths: list[int]) -> Histories:
    owner = np.repeat(np.arange(len(lengths)) * 3, lengths)  # user rows with gaps
    return Histories.from_rows(owner.astype(np.int64), np.arange(sum(lengths), dtype=np.int64))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=12), st.integers(1, 9), st.integers(1, 50), st.integers(0, 99))
def test_every_interaction_but_the_first_is_a_target_once_after_its_own_past(
    lengths: list[int], max_length: int, batch_size: int, seed: int
) -> None:
    given = histories(lengths)
    owner = np.repeat(given.users, given.lengths)
    found, introduced = [], []
    generator = np.random.default_rng(seed)
    for batch in batches(given, max_length=max_length, batch_size=batch_size, shuffle=False, generator=generator):
        assert batch.rows.shape[1] <= max_length + 1
        slots = target_slots(batch)
        following = at_slots(batch, batch.rows, slots) - 2
        for slot, target in zip(slots.tolist(), following.tolist(), strict=True):
            row, column = divmod(slot, batch.rows.shape[1])
            assert owner[target] == batch.users[row]
            if column:  # read up to the item just before the target
                assert batch.rows[row, column] - 2 == target - 1
                found.append(target)
            else:  # the profile alone, once a user, for any item of the row
                assert target + 2 in batch.rows[row]
                introduced.append(int(batch.users[row]))
    first = set((np.cumsum(lengths) - lengths).tolist())
    assert sorted(found) == [item for item in range(sum(lengths)) if item not in first]
    assert sorted(introduced) == given.users.tolist()


def test_the_profile_alone_is_to_find_any_of_a_users_items() -> None:
    generator = np.random.default_rng(0)
    found = set()
    for _ in range(60):
        for batch in batches(histories([4]), max_length=9, batch_size=9, shuffle=False, generator=generator):
            slots = target_slots(batch)
            assert slots[0] == 0
            found.add(int(at_slots(batch, batch.rows, slots)[0]) - 2)
    assert found == {0, 1, 2, 3}


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
