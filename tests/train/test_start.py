"""Where training starts: the counts, their eigenvectors, and the closed form."""

import numpy as np
import numpy.typing as npt
import pytest
from numpy.testing import assert_allclose
from scipy import sparse

from retrieval.common.csr import from_pairs
from retrieval.metrics import ranking
from train.data.batches import Histories
from train.data.cooccurrence import transitions
from train.ease import ease as linear
from train.ease.ease import Interactions, Settings
from train.ease.warm_start import spectral

Matrix = npt.NDArray[np.float64]


def histories(*items: list[int]) -> Histories:
    owner = np.repeat(np.arange(len(items)), [len(part) for part in items])
    return Histories.from_rows(owner.astype(np.int64), np.concatenate(items).astype(np.int64))


def planted(users: int = 60, items: int = 24, seed: int = 0) -> Histories:
    """Even users take even items, odd ones odd items."""
    random = np.random.default_rng(seed)
    return histories(*(random.permutation(np.arange(user % 2, items, 2))[:6].tolist() for user in range(users)))


def test_a_spectral_start_puts_together_what_is_taken_together() -> None:
    counts = transitions(planted(), catalogue=25, window=5, symmetric=True)
    vectors = spectral(counts.__matmul__, items=25, dim=8, generator=np.random.default_rng(0))
    assert_allclose(np.linalg.norm(vectors, axis=1), [1.0] * 24 + [0.0], atol=1e-5)  # nobody took item 24
    cosines = vectors[:24] @ vectors[:24].T
    even = np.arange(24) % 2 == 0
    assert cosines[even][:, even].mean() > cosines[even][:, ~even].mean() + 0.2


def ease(taken: Matrix, ridge: float) -> Matrix:
    """The matrix of arXiv 1905.03375, as its listing has it."""
    inverse = np.linalg.inv(taken.T @ taken + ridge * np.eye(taken.shape[1]))
    weights: Matrix = inverse / -np.diag(inverse)
    np.fill_diagonal(weights, 0)
    return weights


def evidence(given: Histories, catalogue: int, alike: Matrix | None = None) -> Interactions:
    rows = np.zeros((0, catalogue)) if alike is None else alike
    return linear.evidence(given, sparse.csr_array(rows, dtype=np.float32), seed=0)


def dense(given: Histories, catalogue: int) -> Matrix:
    taken = np.zeros((len(given.users), catalogue))
    taken[np.repeat(np.arange(len(taken)), given.lengths), given.items] = 1
    return taken


@pytest.mark.parametrize("all_at_once", [False, True])
@pytest.mark.parametrize("users", [12, 60])  # fewer than the items, and more
def test_the_closed_form_is_ease(users: int, all_at_once: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "DENSE", 24 if all_at_once else 23)
    given = planted(users)  # six items each: all users weigh alike
    made = linear.factors(evidence(given, 24), Settings(ridge=30.0, likeness=0.0, dim=25), seed=0)
    assert_allclose(np.linalg.norm(made.target, axis=1), np.ones(24), rtol=1e-5)
    assert not made.source[:, -1].any()
    scores = dense(given, 24) @ made.source @ made.target.T
    expected = dense(given, 24) @ ease(dense(given, 24), 30.0)
    factor = np.linalg.norm(expected) / np.linalg.norm(scores)
    assert_allclose(scores * factor, expected, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize("dim", [6, 7])  # found by iteration, and all at once
def test_cut_to_a_rank_its_predictions_are_as_near_as_any_of_that_rank(dim: int) -> None:
    given, rank = planted(), dim - 1
    cut = linear.directions(evidence(given, 24), Settings(ridge=30.0, likeness=0.0, dim=dim), seed=0)
    taken = dense(given, 24)
    level = np.maximum(taken.sum(axis=0), 1) ** -linear.LEVEL  # what is predicted of an item counts so much
    left, values, right = np.linalg.svd(taken @ ease(taken, 30.0) * level)
    expected = (left[:, :rank] * values[:rank]) @ right[:rank] / level
    assert_allclose(dense(given, 24) @ cut.source[:, :rank] @ cut.target[:, :rank].T, expected, atol=2e-3)


def test_long_histories_weigh_less_and_features_count_as_users_do() -> None:
    given = histories([0, 1, 2, 3], [4])
    alike = np.array([[1.0, 1.0, 0.0, 0.0, 0.0]])
    rows = linear.weighted(evidence(given, 5, alike), likeness=2.0).toarray()
    usual = 2.5  # items of a user
    expected = np.array([[1, 1, 1, 1, 0], [0, 0, 0, 0, 1], [1, 1, 0, 0, 0]], dtype=np.float64)
    weight = np.array([(4 / usual) ** -0.5, (1 / usual) ** -0.5, 2 * (2 / usual) ** -0.5])
    assert_allclose(rows, expected * np.sqrt(weight)[:, None], rtol=1e-6)


def test_a_product_with_a_sparse_matrix_is_what_spectral_takes() -> None:
    matrix = sparse.csr_array(np.diag([3.0, 2.0, 1.0]).astype(np.float32))
    vectors = spectral(matrix.__matmul__, items=3, dim=3, generator=np.random.default_rng(0))
    assert_allclose(vectors @ vectors.T, np.eye(3), atol=1e-5)


def asked(given: Histories, *, want: int) -> linear.Validation:
    """The last items of every history are to be found from the others."""
    lengths = given.lengths
    head = np.arange(len(given.items)) - np.repeat(given.starts[:-1], lengths) < np.repeat(lengths - want, lengths)
    owner = np.repeat(np.arange(len(lengths)), lengths)
    before, after = (from_pairs(owner[part], given.items[part], height=len(lengths)) for part in (head, ~head))
    return linear.Validation(history=before, wanted=after, seen=before)


def test_settings_are_chosen_where_validation_says_more_than_noise() -> None:
    given = evidence(planted(), 24)
    first = linear.start(given)
    assert first == Settings(likeness=0.0, damping=0.1, dim=64)  # no features, few items, few users of each
    chosen = linear.choose(given, asked(planted(seed=1), want=3), first, fixed=frozenset(), seed=0)
    assert chosen.dim == 64
    fixed = linear.choose(given, asked(planted(seed=1), want=3), first, fixed=frozenset(Settings._fields), seed=0)
    assert fixed == first


@pytest.mark.parametrize(("items", "chosen"), [(3000, 1024), (3001, 256)])
def test_a_wider_form_is_tried_past_one_that_is_no_better_where_all_come_at_once(
    items: int, chosen: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {32: 0.3, 64: 0.3, 128: 0.4, 256: 0.5, 512: 0.49, 1024: 0.6, 2048: 0.6}

    def measure(self: object, settings: Settings) -> npt.NDArray[np.float64]:
        return np.full(100, found[settings.dim])

    monkeypatch.setattr(linear._Trials, "measure", measure)
    given, fixed = evidence(planted(), items), frozenset(Settings._fields) - {"dim"}
    best = linear.choose(given, asked(planted(seed=1), want=3), Settings(dim=256), fixed=fixed, seed=0)
    assert best.dim == chosen


def test_of_an_older_item_less_counts_where_that_finds_more() -> None:
    """The item to be found is of the newest item's kind; the older ones are of any."""
    random = np.random.default_rng(0)
    given = evidence(histories(*((2 * random.permutation(20)[:8] + user % 2).tolist() for user in range(200))), 40)
    past = [[*random.permutation(40)[:7].tolist(), 2 * int(random.integers(20)) + user % 2] for user in range(300)]
    wanted = [random.choice(np.setdiff1d(np.arange(user % 2, 40, 2), past[user]), 1).tolist() for user in range(300)]
    history, want = (
        from_pairs(np.repeat(np.arange(300), [len(row) for row in rows]), np.concatenate(rows), height=300)
        for rows in (past, wanted)
    )
    by = linear.Validation(history=history, wanted=want, seen=history)
    first = Settings(likeness=0.0, dim=32)
    chosen = linear.choose(given, by, first, fixed=frozenset({"dim", "ridge", "damping"}), seed=0)
    assert chosen.decay < 1
    kept = linear.choose(given, by, first, fixed=frozenset({"dim", "ridge", "damping", "decay"}), seed=0)
    assert kept == first
    cut = linear.towers(given, linear.directions(given, first, seed=0), first)
    weighed = np.zeros((300, 40), np.float32)
    for user, row in enumerate(past):
        np.add.at(weighed[user], row, 0.5 ** np.arange(7.0, -1.0, -1.0))
    expected = ranking.ndcg(ranking.ranks(weighed @ cut.source, cut.target, want, history), want, k=10)
    assert_allclose(linear.measure(cut, by, decay=0.5, k=10), expected)


def test_features_weigh_more_where_the_histories_say_little() -> None:
    """Ten users of a hundred items: what they take is told by the items' kind, hardly by each other."""
    random = np.random.default_rng(0)
    few = histories(*(random.permutation(np.arange(user % 2, 100, 2))[:4].tolist() for user in range(10)))
    many = histories(*(random.permutation(np.arange(user % 2, 100, 2))[:12].tolist() for user in range(200)))
    kind = np.stack([np.arange(100) % 2 == 0, np.arange(100) % 2 == 1]).astype(np.float64)
    given = evidence(few, 100, kind)
    first = Settings(likeness=0.0)
    chosen = linear.choose(given, asked(many, want=4), first, fixed=frozenset({"dim"}), seed=0)
    assert chosen.likeness > 0


def test_nothing_to_choose_by_and_nothing_to_spend(monkeypatch: pytest.MonkeyPatch) -> None:
    given = evidence(planted(), 24)
    nobody = from_pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), height=0)
    first = Settings(ridge=600.0)
    assert linear.choose(given, linear.Validation(nobody, nobody, nobody), first, fixed=frozenset(), seed=0) == first
    monkeypatch.setattr(linear, "BUDGET", 0.0)
    free = linear.choose(given, asked(planted(seed=1), want=3), first, fixed=frozenset(), seed=0)
    assert free._replace(damping=0.0, dim=first.dim) == first


def test_very_many_users_are_fitted_by_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "MOST", (60, 300_000))
    assert evidence(planted(), 24).taken.shape[0] == 10  # of six items each
    monkeypatch.setattr(linear, "MOST", (10_000, 7))
    assert evidence(planted(), 24).taken.shape[0] == 7
