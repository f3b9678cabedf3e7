"""The order test: on data with an order, on data whose times are noise, by hand and through a whole preparation."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

from retrieval.common.errors import TwoTowerError
from train.config.load import load
from train.data.dataset import prepare
from train.data.order_test import MAX_INTERACTIONS, MIN_EXPECTED, OrderTest, repeats_above_chance, run_order_test
from train.loop.fit import fit

Rows = npt.NDArray[np.int64]

CONFIG = '[data]\ninteractions = "i.csv"\n{time}\n[split]\nkind = "{split}"\n'


def histories(*, users: int, length: int, items: int, walked: bool, seed: int = 0) -> tuple[Rows, Rows]:
    """Items of users, each once: drawn at random, or walked along a ring by ones and twos."""
    generator = np.random.default_rng(seed)
    rows = []
    for _ in range(users):
        if walked:
            rows.append((generator.integers(items) + np.cumsum(generator.integers(1, 3, length))) % items)
        else:
            rows.append(generator.permutation(items)[:length])
    return np.repeat(np.arange(users), length), np.concatenate(rows)


def by_hand(users: Rows, items: Rows) -> int:
    """Equal pairs, at most three places apart, of different histories: counted one by one."""
    found: list[tuple[int, int]] = []
    for user in np.unique(users):
        own = items[users == user].tolist()
        found += [(own[i], own[j]) for i in range(len(own)) for j in range(i + 1, min(i + 4, len(own)))]
    return sum(found[:i].count(pair) for i, pair in enumerate(found))


def test_repeats_are_counted() -> None:
    users, items = histories(users=40, length=6, items=8, walked=True)
    dealt = [items.copy() for _ in range(60)]
    generator = np.random.default_rng(1)
    for rows in dealt:
        for start, stop in pairwise(range(0, len(users) + 1, 6)):
            generator.shuffle(rows[start:stop])
    expected = by_hand(users, items) / np.mean([by_hand(users, rows) for rows in dealt])
    found = repeats_above_chance(users, items, None)
    assert found == pytest.approx(expected, rel=0.05)


def test_order_is_distinguished_from_noise() -> None:
    walked = histories(users=800, length=10, items=300, walked=True)
    drawn = histories(users=800, length=10, items=300, walked=False)
    assert (repeats_above_chance(*walked, None) or 0) > 1.5
    assert repeats_above_chance(*drawn, None) == pytest.approx(1, abs=0.05)
    # Rows in order, times that do not say it: what stands in the file is no evidence.
    alike = np.zeros(len(walked[0]), np.int64)
    assert repeats_above_chance(*walked, alike) == pytest.approx(1, abs=0.1)
    told = repeats_above_chance(*walked, np.arange(len(alike)))
    assert told == pytest.approx(repeats_above_chance(*walked, None), rel=0.02)


def test_little_data_says_nothing() -> None:
    users, items = histories(users=10, length=4, items=50, walked=True)
    assert MIN_EXPECTED == 100
    assert repeats_above_chance(users, items, None) is None
    assert repeats_above_chance(users[:0], items[:0], None) is None


def test_of_much_data_some_users_are_measured() -> None:
    users, items = histories(users=MAX_INTERACTIONS // 8, length=10, items=2000, walked=True)
    assert len(users) > MAX_INTERACTIONS
    assert (repeats_above_chance(users, items, None) or 0) > 1.5


def written(folder: Path, *, walked: bool, timed: bool = True, split: str = "leave-one-out") -> Path:
    users, items = histories(users=400, length=8, items=100, walked=walked)
    table = pl.DataFrame({"user_id": users, "item_id": items, "t": np.arange(len(users))})
    table.write_csv(folder / "i.csv")
    config = folder / "twotower.toml"
    config.write_text(CONFIG.format(time='time = "t"' if timed else "", split=split), encoding="utf-8")
    return config


@pytest.mark.parametrize("timed", [True, False])
def test_a_dataset_says_whether_it_has_an_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], timed: bool
) -> None:
    assert prepare(load(written(tmp_path, walked=True, timed=timed))).order_test.informative
    assert "is not informative" not in capsys.readouterr().err
    config = written(tmp_path, walked=False, timed=timed)
    dataset = prepare(load(config))
    assert not dataset.order_test.informative
    said = capsys.readouterr().err
    assert 'column "t"' in said if timed else "the order of the rows" in said
    assert "histories are read as sets" in said
    assert dataset.config.history is None or dataset.config.history.max_length == 50
    # Who names an encoder, or knows from before, is taken at their word.
    assert prepare(load(config, overrides=('model.encoder="attention"',))).order_test.informative
    known = OrderTest(informative=True, timed=True)
    assert prepare(load(config), order_test=known).order_test == known


def test_where_nothing_is_measured(tmp_path: Path) -> None:
    config = load(written(tmp_path, walked=True, timed=False, split="random"))
    assert prepare(config).order_test == OrderTest(informative=False, timed=False)
    rows = pl.DataFrame({"user": [0, 0, 1], "item": [0, 1, 0], "time": [5, 5, 5], "split": ["train"] * 3})
    assert run_order_test(rows, config) == OrderTest(informative=False, timed=False)
    timed = rows.with_columns(time=pl.Series([5, 6, 7]))
    assert run_order_test(timed, config) == OrderTest(informative=True, timed=True)


def test_a_refit_does_not_repeat_the_test(tmp_path: Path) -> None:
    config = load(written(tmp_path, walked=False))
    out = tmp_path / "out"
    with pytest.raises(TwoTowerError, match="--refit needs a training"):
        fit(config, out, refit=True)
    first = fit(config, out)
    assert not first["statistics"]["ordered"]
    assert first["statistics"]["repeats"] == pytest.approx(1, abs=0.1)
    assert first["recipe"]["model"]["ease"]["weight"] == 1.0
    again = fit(config, out, refit=True)
    assert not again["statistics"]["ordered"]
    assert again["recipe"]["model"]["ease"]["weight"] == 1.0
