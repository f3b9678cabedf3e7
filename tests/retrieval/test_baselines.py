"""Baselines against their formulas written out, and one suite that all of them pass."""

import numpy as np
import numpy.typing as npt
import pytest

from retrieval.common import csr
from retrieval.common.csr import CSR
from retrieval.common.errors import TwoTowerError
from retrieval.evaluation import baselines
from retrieval.evaluation.baselines import base
from retrieval.evaluation.baselines.base import Training, start
from retrieval.evaluation.baselines.ease import EASE
from retrieval.evaluation.baselines.itemknn import ItemKNN
from retrieval.evaluation.baselines.popularity import Popularity, RecentPopularity
from retrieval.evaluation.baselines.transitions import Transitions
from retrieval.evaluation.baselines.tuning import tune
from retrieval.metrics.ranking import rank_all, recall


def camps(users: int = 60, items: int = 30, each: int = 8, seed: int = 0) -> Training:
    """Even users have even items, odd users odd ones."""
    random = np.random.default_rng(seed)
    histories = csr.from_lists([random.permutation(np.arange(user % 2, items, 2))[:each] for user in range(users)])
    return Training(histories, items, np.arange(len(histories.indices), dtype=np.float64))


def dense(histories: CSR, items: int) -> npt.NDArray[np.float64]:
    matrix = np.zeros((histories.height, items))
    matrix[histories.owners(), histories.indices] = 1
    return matrix


@pytest.mark.parametrize("name", baselines.BASELINES)
def test_every_baseline_scores_what_it_is_given(name: str) -> None:
    if name in ("ials", "bpr"):
        pytest.importorskip("implicit")
    training = camps()
    before = [array.copy() for array in training.histories]
    model = baselines.make(name)
    model.fit(training)
    settings = start(model.choices)
    histories = csr.from_lists([[0, 2, 4], [1, 3], [], [4, 2, 0]])
    scores = model.score(histories, settings)
    assert scores.shape == (4, 30)
    assert np.isfinite(scores).all()
    # Users one by one, twice, and after scribbling over what was returned.
    scores_before = scores.copy()
    scores[:] = np.nan
    for user in range(4):
        np.testing.assert_allclose(
            model.score(histories.block(user, user + 1), settings)[0], scores_before[user], rtol=1e-4, atol=1e-6
        )
    for array, kept in zip(training.histories, before, strict=True):
        np.testing.assert_array_equal(array, kept)
    assert model.score(csr.empty(0), settings).shape == (0, 30)


@pytest.mark.parametrize("name", ["itemknn", "transitions", "ease", "ials", "bpr"])
def test_every_personal_baseline_finds_the_camp(name: str) -> None:
    if name in ("ials", "bpr"):
        pytest.importorskip("implicit")
    model = baselines.make(name)
    model.fit(camps())
    histories = csr.from_lists([[0, 2, 4], [1, 3, 5]])
    ranking = rank_all(
        lambda first, last: model.score(histories.block(first, last), start(model.choices)),
        items=30,
        truth=csr.empty(2),
        seen=histories,
        k=10,
    )
    assert (ranking.lists[0] % 2 == 0).all()
    assert (ranking.lists[1] % 2 == 1).all()


def test_popularity_counts_users() -> None:
    model = Popularity()
    model.fit(Training(csr.from_lists([[0, 1], [1]]), 3))
    assert model.score(csr.empty(2), {}).tolist() == [[1, 2, 0]] * 2


def test_recent_popularity_halves_with_age() -> None:
    model = RecentPopularity()
    # Times span 1,000; with a half-life of 500 thousandths the interaction at 500 counts half.
    model.fit(Training(csr.from_lists([[0, 1], [1, 2]]), 4, np.array([0.0, 500.0, 1000.0, np.nan])))
    np.testing.assert_allclose(model.score(csr.empty(1), {"half_life": 500})[0], [0.25, 1.5, 0.25, 0])


def test_itemknn_is_its_formula() -> None:
    training = camps(seed=3)
    model = ItemKNN()
    model.fit(training)
    seen = dense(training.histories, 30)
    together = seen.T @ seen
    np.fill_diagonal(together, 0)
    users = seen.sum(axis=0)
    expected = 0.5 * together[4] / users[4] ** 0.3 + together[6] / users[6] ** 0.3
    scores = model.score(csr.from_lists([[4, 6]]), {"decay": 0.5, "own": 0.3, "other": 0.7})
    np.testing.assert_allclose(scores[0], expected / users**0.7, rtol=1e-5)


def test_transitions_on_paper() -> None:
    model = Transitions()
    model.fit(Training(csr.from_lists([[0, 1, 2], [0, 1], [0, 2]]), 3))
    settings = {"last": 1, "decay": 0.5, "fade": 0.5, "own": 0.0, "other": 0.0}
    # After 0: 1 twice at once; 2 once at once and once two places later.
    np.testing.assert_allclose(model.score(csr.from_lists([[2, 0]]), settings)[0], [0, 2, 1.5])
    # From 2, nothing follows; from the 0 before it, half of that; divided by the three users of 0 and two of 1 and 2.
    settings = {"last": 2, "decay": 0.5, "fade": 0.5, "own": 1.0, "other": 1.0}
    np.testing.assert_allclose(model.score(csr.from_lists([[0, 2]]), settings)[0], [0, 1 / 6, 0.75 / 6], rtol=1e-6)


def test_ease_is_the_regression_it_claims_to_be() -> None:
    """Column j of B minimises |X b - x_j|^2 + ridge |b|^2 with b_j = 0: solved here one column at a time."""
    training = camps(items=12, each=4, seed=1)
    model = EASE()
    model.fit(training)
    seen = dense(training.histories, 12)
    ridge = 3 * len(training.histories.indices) / 12
    scores = model.score(csr.from_lists([[item] for item in range(12)]), {"decay": 1.0, "ridge": 3})
    for item in range(12):
        others = [other for other in range(12) if other != item]
        part = seen[:, others]
        weights = np.linalg.solve(part.T @ part + ridge * np.eye(11), part.T @ seen[:, item])
        np.testing.assert_allclose(scores[others, item], weights, atol=1e-5)
        assert scores[item, item] == 0


def test_long_histories_are_bounded_by_their_newest() -> None:
    histories = csr.from_lists([np.arange(100), np.arange(5)])
    short = base.bounded(histories, limit=2000)
    assert (short.lengths**2).sum() <= 2000
    assert short.list(0).tolist() == list(range(100 - short.lengths[0], 100))
    assert base.bounded(histories).lengths.tolist() == [100, 5]


def test_dense_and_sparse_products_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    training, histories = camps(), csr.from_lists([[0, 2], [1]])
    scores = []
    for share in (0.0, 2.0):
        monkeypatch.setattr(base, "DENSE_FROM", share)
        model = ItemKNN()
        model.fit(training)
        scores.append(model.score(histories, start(model.choices)))
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-6)


def test_tuning_finds_the_setting_that_finds_the_truth() -> None:
    """What follows an item here is the next one: only the last item tells."""
    chains = csr.from_lists([[(start + step) % 20 for step in range(6)] for start in range(20)] * 3)
    model = Transitions()
    model.fit(Training(chains, 20))
    histories = csr.from_lists([[(start + step) % 20 for step in range(3)] for start in range(20)])
    truth = csr.from_lists([[(start + 3) % 20] for start in range(20)])
    tuned = tune(model, histories=histories, truth=truth, seen=histories, items=20, budget_s=30)
    assert tuned.ndcg == 1.0
    assert not tuned.stopped
    assert tuned.settings["fade"] < 1
    stopped = tune(model, histories=histories, truth=truth, seen=histories, items=20, budget_s=0)
    assert stopped.stopped
    assert stopped.tried == 1
    fixed = tune(
        model, histories=histories, truth=truth, seen=histories, items=20, budget_s=30, fixed={"last": 1, "own": 0.0}
    )
    assert fixed.settings["last"] == 1
    assert fixed.settings["own"] == 0.0


def test_choice_of_baselines() -> None:
    small, timeless = camps(), camps()._replace(times=None)
    assert "ease" in baselines.choose(None, small)[0]
    assert "bpr" not in [*baselines.choose(["all"], small)[0], *baselines.choose(None, small)[0]]
    assert "recent-popularity" not in baselines.choose(None, timeless)[0]
    assert "no times" in baselines.choose(["recent-popularity"], timeless)[1]["recent-popularity"]
    assert baselines.choose(["none"], small) == ([], {})
    large = small._replace(items=40_000)
    chosen, skipped = baselines.choose(["all"], large)
    assert "ease" not in chosen
    assert "30,000" in skipped["ease"]
    assert "--baselines all" in baselines.choose(None, large)[1]["ease"]
    with pytest.raises(TwoTowerError, match='did you mean "itemknn"'):
        baselines.choose(["itemkn"], small)


def test_real_data_give_the_published_floor(beauty: object) -> None:
    """Beauty, leave-one-out: the tuned item-kNN with recency is near recall@10 .071 as measured elsewhere."""
    import gzip
    from pathlib import Path

    assert isinstance(beauty, Path)
    with gzip.open(beauty / "interactions.csv.gz", "rt") as file:
        table = np.loadtxt(file, delimiter=",", skiprows=1, dtype=np.int64)
    users, items = table[:, 0] - 1, table[:, 1] - 1
    whole = csr.from_pairs(users, items, height=int(users.max()) + 1)
    ages = whole.ages()
    parts = [csr.from_pairs(users[mask], items[mask], height=whole.height) for mask in (ages >= 2, ages >= 1, ages < 1)]
    training, histories, truth = parts
    model = ItemKNN()
    model.fit(Training(training, 12101))
    settings = {"decay": 0.5, "other": 0.2, "own": 0.3}
    ranks = rank_all(
        lambda first, last: model.score(histories.block(first, last), settings),
        items=12101,
        truth=truth,
        seen=histories,
    ).ranks
    assert recall(ranks, truth, k=10).mean() == pytest.approx(0.071, abs=0.001)


def test_bpr_reads_a_history_where_the_library_wants_a_user() -> None:
    """What is made of the histories it was trained on ranks as the library's own users do, near enough."""
    pytest.importorskip("implicit")
    training = camps(users=200)
    model = baselines.make("bpr")
    model.fit(training)
    settings = {**start(model.choices), "decay": 1.0}
    scores = model.score(training.histories, settings)
    learned = model._model(settings)  # type: ignore[attr-defined]
    own = learned.user_factors @ learned.item_factors.T
    agreement = [np.corrcoef(ours, theirs)[0, 1] for ours, theirs in zip(scores, own, strict=True)]
    assert np.mean(agreement) > 0.8
