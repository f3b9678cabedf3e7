"""Splits: each rule against a slow and obvious one, and what cannot be split."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.common.errors import DataError
from train.config.options import Split
from train.data.splits import assign, from_end


def frame(rows: Sequence[tuple[int, int | None]]) -> pl.DataFrame:
    """Rows of (user, time), sorted as the dataset sorts them; items count up."""
    rows = sorted(rows, key=lambda row: (row[0], -1 if row[1] is None else row[1]))
    return pl.DataFrame(
        {
            "user": pl.Series([user for user, _ in rows], dtype=pl.UInt32),
            "item": pl.Series(range(len(rows)), dtype=pl.UInt32),
            "time": pl.Series([time for _, time in rows], dtype=pl.Int64),
        }
    )


def split(rows: pl.DataFrame, *, column: pl.Series | None = None, **options: Any) -> list[str]:
    return assign(rows, split=Split(**options), column=column, where="t").to_list()


def test_leave_one_out_holds_out_the_last_two() -> None:
    rows = frame([(0, 1), (0, 2), (0, 3), (0, 4), (2, 1), (2, 2), (5, 9), (7, 1), (7, 2), (7, 3)])
    expected = ["train", "train", "valid", "test", "train", "test", "train", "train", "valid", "test"]
    assert split(rows, kind="leave-one-out") == expected


@given(st.lists(st.integers(0, 9), min_size=1))
def test_positions_from_the_end(users: list[int]) -> None:
    users = sorted(users)
    position, lengths = from_end(np.array(users, np.uint32))
    for row, user in enumerate(users):
        assert lengths[row] == users.count(user)
        assert position[row] == users[row + 1 :].count(user)


def test_time_holds_out_the_newest_and_keeps_equal_times_together() -> None:
    rows = frame([(user, time) for user in range(4) for time in range(5)])  # 20 rows, times 0 to 4
    codes = split(rows, kind="time", test=0.2, valid=0.2)
    assert [code for code, time in zip(codes, rows["time"], strict=True) if time == 4] == ["test"] * 4
    assert [code for code, time in zip(codes, rows["time"], strict=True) if time == 3] == ["valid"] * 4
    assert codes.count("train") == 12
    assert split(rows, kind="time", test=0.05, valid=0).count("test") == 4  # one asked for, three of the same time
    with pytest.raises(DataError, match="needs times"):
        split(frame([(0, None), (1, None)]), kind="time")
    with pytest.raises(DataError, match=r"t: no interaction is left to train on after the split \"time\" of 2"):
        split(frame([(0, 5), (1, 5)]), kind="time")


def test_new_users_are_held_out_whole_and_their_last_is_sought() -> None:
    rows = frame([(user, time) for user in range(20) for time in range(10)] + [(20, 1), (21, 1)])
    codes = pl.Series(split(rows, kind="new-users", test=0.2, valid=0.1, truth=0.3, seed=3))
    by_user = (
        rows.with_columns(code=codes).group_by("user", maintain_order=True).agg("code").get_column("code").to_list()
    )
    kinds = [tuple(code) for code in by_user]
    assert kinds.count(("test-fold-in",) * 7 + ("test",) * 3) == 4  # 20% of 22 users
    assert kinds.count(("valid-fold-in",) * 7 + ("valid",) * 3) == 2
    assert kinds[20:] == [("train",), ("train",)]  # one interaction cannot be parted
    assert split(rows, kind="new-users", seed=3) == split(rows, kind="new-users", seed=3)
    assert split(rows, kind="new-users", seed=3) != split(rows, kind="new-users", seed=4)
    with pytest.raises(DataError, match="only 0 have two interactions"):
        split(frame([(0, 1), (1, 1)]), kind="new-users")


def test_new_users_without_times_are_parted_at_random() -> None:
    rows = frame([(user, None) for user in range(20) for _ in range(10)])
    codes = pl.Series(split(rows, kind="new-users", test=0.5, valid=0, truth=0.3))
    by_user = rows.with_columns(code=codes).group_by("user").agg("code").get_column("code").to_list()
    tested = [tuple(code) for code in by_user if "test" in code]
    assert len(tested) == 10
    assert all(code.count("test") == 3 and code.count("test-fold-in") == 7 for code in tested)
    assert len(set(tested)) > 1


def test_random_counts_and_seeds() -> None:
    rows = frame([(user, time) for user in range(10) for time in range(10)])
    codes = split(rows, kind="random", test=0.25, valid=0.1, seed=1)
    assert (codes.count("test"), codes.count("valid"), codes.count("train")) == (25, 10, 65)
    assert codes == split(rows, kind="random", test=0.25, valid=0.1, seed=1)
    assert codes != split(rows, kind="random", test=0.25, valid=0.1, seed=2)


def test_none_trains_on_everything() -> None:
    assert set(split(frame([(0, 1), (1, 2)]), kind="none")) == {"train"}


def test_a_column_decides() -> None:
    rows = frame([(0, 1), (0, 2), (1, 3)])
    assert split(rows, kind="column", column=pl.Series([" Train", "valid", "TEST"])) == ["train", "valid", "test"]
    with pytest.raises(DataError, match=r't: column "split" says "tset"; did you mean "test"\?'):
        split(rows, kind="column", column=pl.Series(["train", "valid", "tset"]))
    with pytest.raises(DataError, match=r'says ""; expected one of "train", "valid", "test"'):
        split(rows, kind="column", column=pl.Series(["train", "valid", None]))
    with pytest.raises(DataError, match="no interaction is left to train on"):
        split(rows, kind="column", column=pl.Series(["test", "valid", "test"]))
