"""Filtered search by lists: what a filter leaves of them, and that recall holds whatever the attribute."""

import time

import numpy as np
import pytest

from retrieval.common.csr import from_lists
from retrieval.index import exact, factory, filtered_ivf
from retrieval.index.filtered_ivf import Kept
from retrieval.index.index import Index, Mask, Vectors
from retrieval.index.row_filter import FEW_KEPT
from retrieval.index.tuning import tune
from tests.support.brute import best, clustered, same

DIM = 32
COUNT = 40_000
SHARES = (0.97, 0.8, 0.5, 0.2)  # fewer kept items are gathered, exactly


@pytest.fixture(params=[0.0, 2.0], ids=["scanned", "gathered"], autouse=True)
def sparse(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept is found by scanning lists, and by looking at each kept item."""
    monkeypatch.setattr(filtered_ivf, "SPARSE", request.param)


@pytest.fixture(scope="module")
def items() -> Vectors:
    return clustered(COUNT, DIM, seed=1, clusters=200)[0]


@pytest.fixture(scope="module")
def users() -> Vectors:
    return clustered(600, DIM, seed=2, clusters=200)[0]


@pytest.fixture(scope="module", params=["ivf", "pq"])
def index(request: pytest.FixtureRequest, items: Vectors, users: Vectors) -> Index:
    """Tuned for 0.95 on half of the users, whatever the time: of equal costs the first effort is chosen."""
    built = Index.build(items, factory.choose(request.param, count=COUNT, dim=DIM))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "process_time", lambda: 0.0)
        built.effort = tune(built, users[:300], recall=0.95).effort
    return built


def kept_of(index: Index, mask: Mask) -> Kept:
    return index.select(mask).by_list


def attribute(name: str, items: Vectors, share: float) -> Mask:
    random = np.random.default_rng(7)
    if name == "random":
        return random.random(COUNT) < share
    if name == "half-space":
        side = items @ random.normal(size=DIM).astype(np.float32)
        return np.asarray(side <= np.quantile(side, share))
    owner = clustered(COUNT, DIM, seed=1, clusters=200)[1]
    return np.isin(owner, random.permutation(200)[: round(share * 200)])


@pytest.mark.parametrize("name", ["random", "half-space", "clusters"])
@pytest.mark.parametrize("share", SHARES)
def test_a_filter_costs_no_recall(index: Index, items: Vectors, users: Vectors, name: str, share: float) -> None:
    asked = users[300:]
    mask = attribute(name, items, share)
    assert mask.sum() > FEW_KEPT
    plain = index.search(asked, k=10)[1] >= exact.top_k(asked, items, k=10)[1][:, -1:]
    rows, scores = index.search(asked, k=10, among=index.select(mask))
    assert mask[rows].all()
    found = scores >= exact.top_k(asked, items, k=10, keep=mask)[1][:, -1:]
    assert found.mean() >= plain.mean() - 0.02


def test_tuning_says_how_far_to_look(index: Index) -> None:
    assert index.effort.reach is not None
    assert factory.SearchParams.from_json(index.effort.to_json()) == index.effort
    assert factory.SearchParams.from_json({"nprobe": 3}).reach is None  # a bundle of before


@pytest.mark.parametrize("share", SHARES)
def test_kept_is_counted_list_by_list(index: Index, share: float) -> None:
    mask = np.random.default_rng(3).random(COUNT) < share
    filtered_ivf = kept_of(index, mask)
    assert index.lists is not None
    for number, count in zip(filtered_ivf.numbers.tolist(), filtered_ivf.counts.tolist(), strict=True):
        assert mask[index.lists.list(number)].sum() == count
    assert filtered_ivf.counts.sum() == mask.sum()
    assert sorted(np.concatenate([index.lists.list(number) for number in range(len(index.lists.sizes))])) == list(
        range(COUNT)
    )


def test_a_list_is_as_near_as_what_is_kept_in_it(index: Index, items: Vectors, users: Vectors) -> None:
    """Of a list of which one item is kept: exactly as near as that item."""
    assert index.lists is not None
    mask = np.ones(COUNT, dtype=np.bool_)
    rows = index.lists.list(5)
    mask[rows[1:]] = False
    filtered_ivf = kept_of(index, mask)
    at = int(np.searchsorted(filtered_ivf.numbers, 5))
    assert filtered_ivf.counts[at] == 1
    assert filtered_ivf.nearness(users[:1])[0, at] == pytest.approx(float(items[rows[0]] @ users[0]), abs=1e-5)


def test_how_far_above_the_mean_a_share_begins() -> None:
    shares = np.array([0.5, 0.1587, 0.0228, 0.9, 1e-6])
    np.testing.assert_allclose(filtered_ivf.above(shares), [0.0, 1.0, 2.0, -1.2816, 4.7534], atol=2e-3)


@pytest.mark.parametrize("wanted", [1, 3, 10, 100])
def test_how_good_the_best_are_likely_to_be(wanted: int) -> None:
    """Of items that are spread alike in all directions, as is assumed."""
    random = np.random.default_rng(0)
    centres = random.normal(size=(40, DIM))[np.repeat(np.arange(40), 500)]
    spread = centres + 0.5 * random.normal(size=centres.shape)
    items = (spread / np.linalg.norm(spread, axis=1, keepdims=True)).astype(np.float32)
    asked = random.normal(size=(100, DIM)).astype(np.float32)
    asked /= np.linalg.norm(asked, axis=1, keepdims=True)
    mask = np.arange(len(items)) % 3 > 0
    index = Index.build(items, factory.IndexSpec("ivf", "IVF40,SQfp16"))
    left = kept_of(index, mask)
    near = left.nearness(asked)
    likely = left._likely(near, np.tile(np.arange(near.shape[1]), (len(asked), 1)), wanted)
    rank = round((1 - 0.5 / min(wanted, filtered_ivf.STEPS)) * wanted)  # what the last of the steps stands for
    reached = exact.top_k(asked, items, k=wanted, keep=mask)[1][:, min(rank, wanted - 1)]
    assert abs(np.median(likely - reached)) < 0.05
    assert np.std(likely - reached) < 0.05


def test_lists_that_hold_too_few_tell_nothing(index: Index) -> None:
    mask = np.zeros(COUNT, dtype=np.bool_)
    mask[:6] = True
    left = kept_of(index, mask)
    near = np.ones((1, len(left.numbers)), dtype=np.float32)
    assert left._likely(near, np.arange(len(left.numbers))[None], 1_000).item() == -np.inf


def test_every_list_and_no_reach_limit_is_exact(index: Index, items: Vectors, users: Vectors) -> None:
    mask = np.random.default_rng(4).random(COUNT) < 0.4
    effort = factory.SearchParams(probes=1, factor=4_000.0, reach=3.0)
    hidden = [np.array(best(user, items, k=30)[0]) for user in users[:4]]
    rows, scores = index.search(users[:4], k=10, among=index.select(mask), exclude=from_lists(hidden), effort=effort)
    for query in range(4):
        allowed = set(np.flatnonzero(mask).tolist()) - set(hidden[query].tolist())
        same(rows[query], scores[query], best(users[query], items, k=10, allowed=allowed), items)


def test_an_answer_is_never_short(index: Index, items: Vectors, users: Vectors) -> None:
    """Lists that look near hold nothing; the k wanted ones lie elsewhere."""
    near = exact.top_k(users[:1], items, k=COUNT)[0][0]
    mask = np.zeros(COUNT, dtype=np.bool_)
    mask[near[-FEW_KEPT - 500 :]] = True  # the worst items for this user
    effort = factory.SearchParams(probes=1, factor=1.0, reach=0.0)
    rows, _ = index.search(users[:1], k=100, among=index.select(mask), effort=effort)
    assert mask[rows].all()
    assert len(set(rows[0].tolist())) == 100


@pytest.mark.parametrize("count", [1, 100])
def test_not_everything_is_looked_at_where_little_is_left_out(
    index: Index, items: Vectors, users: Vectors, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some users have nothing that is kept near them, and an unfiltered look finds too little."""
    owner = clustered(COUNT, DIM, seed=1, clusters=200)[1]
    asked = items[owner == 7][:count]
    monkeypatch.delattr(Index, "_search_all")
    rows, _ = index.search(asked, k=10, among=index.select(owner != 7))
    assert (owner[rows] != 7).all()


def test_equal_vectors_come_by_row(items: Vectors, monkeypatch: pytest.MonkeyPatch) -> None:
    """And without looking at everything."""
    monkeypatch.delattr(Index, "_search_all")
    equal = items.copy()
    equal[1_000:1_040] = equal[3]
    index = Index.build(equal, factory.choose("ivf", count=COUNT, dim=DIM))
    mask = np.arange(COUNT) % 2 == 0
    rows, _ = index.search(equal[3:4], k=15, among=index.select(mask), effort=factory.SearchParams(probes=4))
    assert rows[0].tolist() == list(range(1_000, 1_030, 2))


@pytest.mark.parametrize("name", ["random", "half-space", "clusters"])
@pytest.mark.parametrize("share", [0.5, 0.15])
def test_many_find_what_each_finds_alone(index: Index, items: Vectors, users: Vectors, name: str, share: float) -> None:
    """As long as nothing is hidden; of a batch the longest list of exclusions says how many candidates are taken."""
    asked, among = users[300:380], index.select(attribute(name, items, share))
    rows, scores = index.search(asked, k=10, among=among)
    hidden = [np.array(found[:4]) for found in rows]
    without, _ = index.search(asked, k=6, among=among, exclude=from_lists(hidden))
    for query in range(len(asked)):
        alone = index.search(asked[query : query + 1], k=10, among=among)
        assert np.array_equal(alone[0][0], rows[query])
        assert np.array_equal(alone[1][0], scores[query])
        own = index.search(asked[query : query + 1], k=6, among=among, exclude=from_lists([hidden[query]]))[0][0]
        assert not set(without[query].tolist()) & set(hidden[query].tolist())
        assert np.array_equal(own, without[query])


def test_many_with_every_list_are_exact(index: Index, items: Vectors, users: Vectors) -> None:
    mask = np.random.default_rng(4).random(COUNT) < 0.4
    effort = factory.SearchParams(probes=1, factor=4_000.0, reach=3.0)
    hidden = [np.array(best(user, items, k=5 * at)[0], dtype=np.int64) for at, user in enumerate(users[:6])]
    among = index.select(mask)
    rows, scores = index.search(users[:6], k=10, among=among, exclude=from_lists(hidden), effort=effort)
    for query in range(6):
        allowed = set(np.flatnonzero(mask).tolist()) - set(hidden[query].tolist())
        same(rows[query], scores[query], best(users[query], items, k=10, allowed=allowed), items)


def test_equal_vectors_come_by_row_in_a_batch(items: Vectors, monkeypatch: pytest.MonkeyPatch) -> None:
    """And without looking at everything."""
    monkeypatch.delattr(Index, "_search_all")
    equal = items.copy()
    equal[1_000:1_040] = equal[3]
    index = Index.build(equal, factory.choose("ivf", count=COUNT, dim=DIM))
    mask = np.arange(COUNT) % 2 == 0
    asked = equal[[3, 5_000, 3]]
    rows, _ = index.search(asked, k=15, among=index.select(mask), effort=factory.SearchParams(probes=4))
    assert rows[0].tolist() == rows[2].tolist() == list(range(1_000, 1_030, 2))
