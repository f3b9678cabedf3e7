"""The defaults that are chosen from statistics of a dataset."""

from pathlib import Path

import pytest

from retrieval.common.errors import ConfigError
from tests.support.planted import write_planted
from train.config import load as configs
from train.config import options
from train.config.defaults import Statistics, resolve
from train.config.load import ResolvedConfig


def resolved(
    config: Path,
    *overrides: str,
    ordered: bool = True,
    repeats: float | None = None,
    **facts: int,
) -> ResolvedConfig:
    sizes = {"users": 20_000, "items": 12_000, "interactions": 150_000} | facts
    shape = Statistics(
        users=sizes["users"],
        items=sizes["items"],
        interactions=sizes["interactions"],
        mean_length=sizes["interactions"] / sizes["users"],
        ordered=ordered,
        timed=True,
        repeats=repeats,
    )
    return resolve(configs.load(config, overrides=overrides), shape)


@pytest.mark.parametrize(
    ("users", "items", "dim", "layers", "objective"),
    [
        (20_000, 12_000, 128, 1, "sampled-softmax"),
        (600, 12_000, 64, 1, "sampled-softmax"),  # few histories
        (600, 40_000, 64, 1, "sampled-softmax"),
        (20_000, 2_000, 64, 2, "softmax"),  # few items
    ],
)
def test_width_and_depth_go_by_users_and_items(
    planted: Path, users: int, items: int, dim: int, layers: int, objective: str
) -> None:
    found = resolved(planted, users=users, items=items)
    assert (found.model.dim, found.model.layers, found.train.objective) == (dim, layers, objective)


def test_a_larger_step_goes_further(planted: Path) -> None:
    rates = {}
    for interactions in (1_000, 100_000, 1_000_000):
        train = resolved(planted, interactions=interactions).train
        rates[train.batch_size] = train.lr
    assert rates == {64: 0.003, 1_000: 0.006, 2_000: 0.0085}
    assert resolved(planted, "train.lr=0.01").train.lr == 0.01


def test_the_last_item_has_an_embedding_in_a_large_catalogue(planted: Path) -> None:
    def residual_dropout(*overrides: str, items: int = 12_000) -> float | None:
        user = resolved(planted, *overrides, items=items).model.user
        assert isinstance(user, options.Attention)
        return user.residual_dropout

    assert residual_dropout() == 0.6
    assert residual_dropout(items=2_000) == 1.0
    assert residual_dropout('train.objective="rating"') == 1.0
    assert residual_dropout('model.user.encoder="attention"', "model.user.residual_dropout=0.2") == 0.2


def test_attention_drops_nothing_of_long_histories_in_small_catalogues(planted: Path) -> None:
    def dropout(*overrides: str, items: int = 2_000, length: int = 100) -> float | None:
        user = resolved(planted, *overrides, items=items, users=1_000, interactions=1_000 * length).model.user
        assert isinstance(user, options.Attention)
        return user.attention_dropout

    assert dropout() == 0.0
    assert dropout(items=12_000) is None  # as the rest
    assert dropout(length=8) is None
    assert dropout('model.user.encoder="attention"', "model.user.attention_dropout=0.2") == 0.2
    assert dropout('model.user.encoder="attention"', "model.user.dropout=0.2") is None


def ease(config: Path, *overrides: str, ordered: bool = True, **sizes: int) -> tuple[float, int, float]:
    found = resolved(config, *overrides, ordered=ordered, **sizes).model.ease
    return found.weight, found.dim, found.recency_decay


def test_ease_is_part_of_an_ensemble_or_alone_where_there_is_no_order(tmp_path: Path) -> None:
    config = write_planted(tmp_path, encoder=None)
    assert ease(config) == (0.3, 256, 0.9)
    assert ease(config, items=2_000) == (0.3, 128, 0.9)
    assert ease(config, ordered=False) == (1.0, 512, 0.9)
    assert ease(config, ordered=False, items=100_000) == (1.0, 240, 0.9)  # as many numbers as memory allows
    assert ease(config, "model.ease.weight=0.6", "model.ease.dim=32") == (0.6, 32, 0.9)


@pytest.mark.parametrize(
    "override",
    ["model.dim=32", 'model.encoder="attention"', 'train.objective="bpr"', 'train.objective="rating"'],
)
def test_who_decides_on_the_towers_gets_these_alone(tmp_path: Path, override: str) -> None:
    config = write_planted(tmp_path, encoder=None)
    assert ease(config, override)[0] == 0.0


def test_ease_where_it_cannot_be_fitted_is_refused(planted: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.ease\.weight = 0\.5 needs a history, .* that ranks; set it"):
        resolved(planted, "model.ease.weight=0.5", 'train.objective="rating"')


def test_without_an_order_trained_towers_read_histories_as_sets(tmp_path: Path) -> None:
    config = write_planted(tmp_path, encoder=None)
    found = resolved(config, "model.ease.weight=0.5", ordered=False)
    assert isinstance(found.model.user, options.Mean)
