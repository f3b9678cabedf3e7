import numpy as np
from scipy import sparse

from train.data.batches import Histories, batches
from train.data.transition_sampler import DECAY, NOTHING, TransitionSampler

# Item 0 is followed by 1 and 2, 1 : 3; item 1 by 3; items 2 and 3 by nothing.
FOLLOWS = sparse.csr_array(np.array([[0, 1.0, 3.0, 0], [0, 0, 0, 2.0], [0] * 4, [0] * 4]))


def given(histories: list[list[int]]) -> Histories:
    owner = np.repeat(np.arange(len(histories)), [len(items) for items in histories])
    return Histories.from_rows(owner.astype(np.int64), np.concatenate(histories).astype(np.int64))


def test_draws_what_is_expected_after_an_item_and_those_before_it() -> None:
    users = 40_000
    drawn = TransitionSampler(FOLLOWS).draw(given([[0, 1, 3], [2, 3, 1]] * users), generator=np.random.default_rng(0))
    first, second = drawn.reshape(-1, 2, 3).transpose(1, 2, 0)
    # After item 0 what follows it; after item 1 what follows it, beside what follows item 0 at one place older.
    assert set(first[0]) == {1, 2}
    assert abs((first[0] == 2).mean() - 0.75) < 0.01
    own = 2.0 / (2.0 + 4.0 * DECAY)
    assert abs((first[1] == 3).mean() - own) < 0.01
    assert abs((first[1] == 2).mean() - (1 - own) * 0.75) < 0.01
    assert abs((first[2] == 3).mean() - own) < 0.01  # item 3 tells nothing, the others are each one place older
    # Nothing is expected where no item tells anything; no history tells of the next.
    assert set(second[0]) == set(second[1]) == {NOTHING}
    assert set(second[2]) == {3}


def test_a_soft_target_belongs_to_the_state_after_its_item() -> None:
    histories = given([list(range(20)), [3], [7, 8]])
    cut = batches(
        histories,
        max_length=6,
        batch_size=5,
        shuffle=False,
        generator=np.random.default_rng(0),
        sample=lambda histories: np.where(histories.items % 5 == 0, NOTHING, 100 + histories.items),
    )
    found = 0
    for batch in cut:
        assert batch.soft_targets is not None
        for rows, soft_targets, fresh in zip(
            batch.rows.tolist(), batch.soft_targets.tolist(), batch.fresh.tolist(), strict=True
        ):
            assert soft_targets[0] == 0  # the profile has read nothing
            for slot, (row, soft_target) in enumerate(zip(rows, soft_targets, strict=True)):
                trained = 0 < slot <= fresh and row != 0
                assert soft_target == (row + 100 if trained and (row - 2) % 5 else 0)
                found += trained
    assert found == 20  # every item is read before a target, but the newest of each user
