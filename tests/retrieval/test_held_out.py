"""Who is judged by what: histories hold only what came before, nothing leaks, nothing is ranked that is known."""

from pathlib import Path

import numpy as np
import pytest

from retrieval.common.errors import BundleError
from retrieval.evaluation.held_out import HeldOut, Stage
from tests.support.prepared import CONFIG, write_training


def lists(stage: Stage) -> dict[int, tuple[list[int], list[int], list[int]]]:
    return {
        int(row): tuple(sorted(part.list(at).tolist()) for part in (stage.histories, stage.truth, stage.seen))  # type: ignore[misc]
        for at, row in enumerate(stage.rows)
    }


def test_leave_one_out(tmp_path: Path) -> None:
    rows = [
        ("u0", "i5", "train", 1),
        ("u0", "i6", "valid", 2),
        ("u0", "i7", "test", 3),
        ("u2", "i1", "train", 1),
        ("u2", "i9", "test", 9),
    ]
    held = HeldOut.read(write_training(tmp_path / "training", rows, users=3))
    assert lists(held.stage("valid")) == {0: ([5], [6], [5])}
    assert lists(held.best_stage()) == {0: ([5, 6], [7], [5, 6]), 2: ([1], [9], [1])}
    assert held.training.histories.lengths.tolist() == [1, 0, 1]
    assert held.training.times is not None
    assert held.training.times.tolist() == [1, 1]
    assert held.popularity[[1, 5, 6]].tolist() == [1, 1, 0]
    assert held.counts() == {"train": 2, "valid": 1, "test": 2}
    assert held.span() == (1, 9)


def test_history_ends_before_the_first_of_the_truth_where_there_are_times(tmp_path: Path) -> None:
    """A random split: what came after the truth is left out of the ranking all the same."""
    rows = [("u0", "i1", "train", 1), ("u0", "i2", "test", 2), ("u0", "i3", "train", 3), ("u0", "i4", "test", 4)]
    held = HeldOut.read(write_training(tmp_path / "timed", rows, users=1))
    assert lists(held.best_stage()) == {0: ([1], [2, 4], [1, 3])}
    timeless = [(user, item, split, None) for user, item, split, _ in rows]
    held = HeldOut.read(write_training(tmp_path / "timeless", timeless, users=1))
    assert lists(held.best_stage()) == {0: ([1, 3], [2, 4], [1, 3])}
    assert held.training.times is None
    assert held.span() is None


def test_new_users_fold_in(tmp_path: Path) -> None:
    rows = [
        ("u0", "i0", "train", 1),
        ("u1", "i1", "valid-fold-in", 1),
        ("u1", "i2", "valid", 2),
        ("u2", "i3", "test-fold-in", 1),
        ("u2", "i4", "test", 2),
    ]
    held = HeldOut.read(write_training(tmp_path / "training", rows, users=3))
    assert lists(held.stage("valid")) == {1: ([1], [2], [1])}
    assert lists(held.stage("test")) == {2: ([3], [4], [3])}
    assert held.training.histories.indices.tolist() == [0]


def test_users_with_their_histories(tmp_path: Path) -> None:
    rows = [("u1", f"i{item}", "train", item) for item in range(5)] + [("u1", "i9", "test", 9)]
    held = HeldOut.read(write_training(tmp_path / "training", rows, users=2))
    stage = held.best_stage()
    table = held.users_with(stage.rows, stage.histories, feature="history", longest=3)
    assert table.to_pylist() == [{"user_id": "u1", "age": 21.0, "history": ["i2", "i3", "i4"]}]
    assert held.users_with(stage.rows, stage.histories, feature=None, longest=None).column_names == ["user_id", "age"]


def test_validation_where_there_is_no_test_and_an_error_where_nothing_is_held_out(tmp_path: Path) -> None:
    rows = [("u0", "i1", "train", 1), ("u0", "i2", "valid", 2)]
    assert HeldOut.read(write_training(tmp_path / "valid", rows, users=1)).best_stage().name == "valid"
    config = {**CONFIG, "split": {"kind": "none"}}
    held = HeldOut.read(write_training(tmp_path / "none", rows[:1], users=1, config=config))
    with pytest.raises(BundleError, match=r'twotower.toml: the split "none" holds nothing out'):
        held.best_stage()


def test_values(tmp_path: Path) -> None:
    rows = [("u0", "i1", "train", 1), ("u0", "i2", "test", 2)]
    held = HeldOut.read(write_training(tmp_path / "training", rows, users=1, values=[4.0, 2.5]))
    users, items, values = held.values("test")
    assert (users.tolist(), items.tolist(), values.tolist()) == ([0], [2], [2.5])
    assert held.has_values
    assert not np.isnan(values).any()


def test_damage_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"users.parquet: there is no such file; .* train first"):
        HeldOut.read(tmp_path)
    folder = write_training(tmp_path / "training", [("u0", "i1", "train", 1)], users=1)
    (folder / "interactions.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(BundleError, match=r"interactions.parquet: does not read as Parquet"):
        HeldOut.read(folder)
    folder = write_training(tmp_path / "foreign", [("stranger", "i1", "train", 1)], users=1)
    with pytest.raises(BundleError, match=r'column "user" has ids that are not in the table'):
        HeldOut.read(folder)
    folder = write_training(tmp_path / "config", [("u0", "i1", "train", 1)], users=1)
    (folder / "config.json").write_text("{")
    with pytest.raises(BundleError, match=r"config.json: does not read"):
        HeldOut.read(folder)
