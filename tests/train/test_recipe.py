"""What the default recipe makes of the statistics of a dataset."""

from pathlib import Path

import pytest

from retrieval.common.errors import ConfigError
from tests.support.planted import write_planted
from train.config import load as configs
from train.config import options
from train.config.defaults import Statistics, resolve
from train.config.load import Config


def resolved(
    config: Path,
    *overrides: str,
    ordered: bool = True,
    repeats: float | None = None,
    learned: bool = False,
    **facts: int,
) -> Config:
    sizes = {"users": 20_000, "items": 12_000, "interactions": 150_000} | facts
    shape = Statistics(
        users=sizes["users"],
        items=sizes["items"],
        interactions=sizes["interactions"],
        mean_length=sizes["interactions"] / sizes["users"],
        ordered=ordered,
        values=False,
        repeats=repeats,
        learned=learned,
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
        assert train.batch_size is not None
        rates[train.batch_size] = train.lr
    assert rates == {64: 0.003, 1_000: 0.006, 2_000: 0.0085}
    assert resolved(planted, "train.lr=0.01").train.lr == 0.01


def test_the_last_item_embedding_is_for_what_follows(planted: Path, tmp_path: Path) -> None:
    def residual_dropout(*overrides: str, items: int = 12_000, repeats: float | None = 2.8) -> float | None:
        user = resolved(planted, *overrides, items=items, repeats=repeats).model.user
        assert isinstance(user, options.Attention)
        return user.residual_dropout

    assert residual_dropout() == 0.6
    assert residual_dropout(items=2_000) == 1.0
    assert residual_dropout(items=2_000, repeats=None) == 1.0
    assert residual_dropout(items=2_000, repeats=3.4) == 0.6  # what comes next is told by one thing
    assert residual_dropout('train.objective="rating"') == 1.0
    assert residual_dropout('model.user.encoder="attention"', "model.user.residual_dropout=0.2") == 0.2
    assert isinstance(resolved(write_planted(tmp_path, encoder=None), ordered=False).model.user, options.Sum)


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


def test_without_order_the_closed_form_is_kept_unless_more_is_asked_of_it(tmp_path: Path) -> None:
    config = write_planted(tmp_path, encoder=None)
    config.write_text(config.read_text().replace("epochs = 3\n", ""))
    for overrides, expected in {
        (): 1,
        ('train.objective="softmax"',): 1,
        ('train.objective="bpr"',): 5,
        ('train.start="random"',): 30,
        ("train.epochs=7",): 7,
    }.items():
        assert resolved(config, *overrides, ordered=False).train.epochs == expected, overrides
    with pytest.raises(ConfigError, match=r'train\.start = "linear" needs the user encoder "sum"'):
        resolved(config, 'train.start="linear"', ordered=True)


def test_towers_beside_the_closed_form_take_no_longer_than_it_may(tmp_path: Path) -> None:
    config = write_planted(tmp_path, encoder=None)
    config.write_text(config.read_text().replace("epochs = 3\n", ""))
    for interactions, expected in {
        0: (64, 30),
        150_000: (1_500, 30),
        1_400_000: (4_000, 3),
        20_000_000: (4_000, 1),
    }.items():
        recipe = resolved(config, ordered=False, learned=True, interactions=interactions)
        assert isinstance(recipe.model.user, options.Mean)
        assert (recipe.train.batch_size, recipe.train.epochs) == expected, interactions
