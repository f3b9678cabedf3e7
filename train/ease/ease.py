"""A closed form to start from where order means nothing: EASE, factored into two towers.

EASE (Steck, arXiv 1905.03375) is the best linear map from what a user took to what the user takes, with nothing
explaining itself. Its matrix B, items by items, is made of small catalogues only: the directions along which its
predictions differ most give what a history adds up (`source`) and what an item is (`target`), so that source . target
is B cut to the rank of the towers. Cut there, where it matters what is predicted, and not in B itself (reduced-rank
regression, Izenman 1975).
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import sparse

from retrieval.common.csr import CSR
from retrieval.metrics import ranking
from train.data.batches import Histories
from train.ease.solver import DIRECT, Leading, inverse, leading

# What may be chosen on validation, in the order in which it is; each rising.
CHOICES: Final[Mapping[str, tuple[float, ...]]] = {
    "decay": (0.7, 0.8, 0.9, 0.95, 0.98, 1.0),
    "ridge": (6.0, 20.0, 60.0, 200.0, 600.0, 2000.0),
    "dim": (32, 64, 128, 256, 512, 1024, 2048),
    "likeness": (0.0, 1.0, 3.0, 10.0),
    "damping": (0.0, 0.1, 0.2, 0.3),
}
FADE = 0.5  # of a user's weight with the number of items: one who took everything says little of each
LEVEL = 0.2  # of the weight of an item's predictions, in the cut, with its users: or it is all of what everybody takes
MOST = 3_000_000, 300_000  # interactions and users that are fitted; beyond, users are drawn at random
LARGEST = 24_000_000  # numbers in the vectors of all items: some hundred megabytes
BUDGET = 300e9  # what trying settings may cost, as `_Trials.cost` has it: one minute to five
ASKED = 4_000  # validated users by whom settings are chosen
RARE = 20  # users of an item, on average: where there are fewer, histories are told by rare items too much
DENSE = 3_000  # items up to which matrices of items by items are made, where many directions are asked for
ROUNDS = 2  # of subspace iteration, from the leading directions of the data
SPARE = 16  # directions beside those wanted

Floats = npt.NDArray[np.floating]


class Settings(NamedTuple):
    """What validation chooses.

    ridge: of the regression. likeness: weight of what items have in common by their features, beside the users.
    damping: what an item adds to a history counts users^-damping of it. dim: of the towers, one more than the rank.
    decay: what it adds counts decay^age as well, its age the number of newer items.
    """

    ridge: float = 200.0
    likeness: float = 3.0
    damping: float = 0.0
    dim: int = 256
    decay: float = 1.0


class Interactions(NamedTuple):
    """What is fitted. taken: (users, items), 1 where a user took an item. alike: (rows, items), see `likeness`."""

    taken: sparse.csr_array
    alike: sparse.csr_array


class Validation(NamedTuple):
    """Users by whom settings are chosen: their items before, what they took then, and what is not to be ranked."""

    history: CSR
    wanted: CSR
    seen: CSR


class Factors(NamedTuple):
    """source: (items, dim), what an item adds to a user. target: (items, dim), what an item is."""

    source: npt.NDArray[np.float32]
    target: npt.NDArray[np.float32]


def evidence(histories: Histories, alike: sparse.csr_array, *, seed: int) -> Interactions:
    """alike: (rows, items), see `likeness`. Of very many interactions those of some users, drawn at random."""
    ones = np.ones(len(histories.items), np.float32)
    taken = sparse.csr_array((ones, histories.items, histories.starts), shape=(len(histories.users), alike.shape[1]))
    if taken.nnz > MOST[0] or taken.shape[0] > MOST[1]:
        order = np.random.default_rng(seed).permutation(taken.shape[0])[: MOST[1]]
        count = int(np.searchsorted(np.cumsum(np.diff(taken.indptr)[order]), MOST[0], side="right"))
        taken = taken[np.sort(order[: max(count, 1)])]
    return Interactions(taken, alike)


def start(given: Interactions) -> Settings:
    """The settings that did well on many kinds of data."""
    height, items = given.alike.shape
    first = Settings(likeness=3.0 if height else 0.0, damping=0.1 if given.taken.nnz < RARE * items else 0.0)
    return first._replace(dim=max(width for width in _widths(items) if width <= first.dim))


def _widths(items: int) -> list[int]:
    """Those of the choices that are not all of twice the items wide, nor more than memory allows; at least two."""
    first, second, *wider = (int(width) for width in CHOICES["dim"])
    return [first, second, *(width for width in wider if width < 2 * items and width * items <= LARGEST)]


def factors(given: Interactions, settings: Settings, *, seed: int) -> Factors:
    """The towers of these settings, with unit targets: cosines rank as EASE does."""
    return unit(towers(given, directions(given, settings, seed=seed), settings), dim=settings.dim)


def directions(given: Interactions, settings: Settings, *, seed: int, known: Leading | None = None) -> Factors:
    """B cut to the directions along which its predictions for the users differ most, those first.

    What is predicted of an item counts users^-LEVEL there, so that the rarer ones are not all cut away.
    known: of `weighted`; found if None. Returns (items, n) each, n at least settings.dim - 1 where there are so many
    items.
    """
    if _dense(given, settings):
        return _every_direction(given, settings)
    generator = np.random.default_rng(seed)
    rows = weighted(given, settings.likeness)
    if known is None:
        known = leading(rows, width=settings.dim - 1 + SPARE, generator=generator)
    solve = inverse(rows, settings.ridge, known, generator=generator)
    diagonal = solve.diagonal[:, None]
    back = given.taken.T.tocsr()
    level = _users(given)[:, None] ** -LEVEL  # (items, 1)

    def forward(vectors: Floats) -> Floats:
        """B level vectors, with B = 1 - P / diag(P) and P = (R'R + ridge)^-1."""
        levelled = level * vectors
        return levelled - solve(levelled / diagonal)

    basis = known.basis
    for _ in range(ROUNDS):
        predicted = back @ (given.taken @ forward(basis))
        basis = np.linalg.qr(level * (predicted - solve(predicted) / diagonal))[0]
    source = forward(basis)
    told = given.taken @ source  # (users, n)
    turn = np.linalg.eigh(told.T @ told)[1][:, ::-1]
    return Factors((source @ turn).astype(np.float32), (basis @ turn / level).astype(np.float32))


def _dense(given: Interactions, settings: Settings) -> bool:
    """Whether all directions at once cost less than those that are asked for."""
    items = given.taken.shape[1]
    return bool(items <= DENSE and settings.dim > items / 4)


def _every_direction(given: Interactions, settings: Settings) -> Factors:
    """What `directions` finds, all of them: (items, items) each."""
    rows = weighted(given, settings.likeness)
    gram = (rows.T @ rows).toarray().astype(np.float64)
    gram[np.diag_indices(len(gram))] += settings.ridge
    solved = np.linalg.inv(gram)
    matrix = np.eye(len(gram)) - solved / np.diag(solved)  # B
    level = _users(given)[:, None].astype(np.float64) ** -LEVEL  # (items, 1)
    levelled = matrix * level.T
    together = (given.taken.T @ given.taken).toarray().astype(np.float64)  # (items, items)
    basis = np.linalg.eigh(levelled.T @ together @ levelled)[1][:, ::-1]
    source = levelled @ basis
    return Factors(source.astype(np.float32), (basis / level).astype(np.float32))


def weighted(given: Interactions, likeness: float) -> sparse.csr_array:
    """Users' rows and those of features as one matrix, each row times the root of its weight."""
    lengths = np.maximum(np.diff(given.taken.indptr), 1).astype(np.float64)
    usual = lengths.mean()
    taken = sparse.diags_array(((lengths / usual) ** (-FADE / 2)).astype(np.float32)) @ given.taken
    if likeness == 0 or given.alike.shape[0] == 0:
        return sparse.csr_array(taken)
    squares = np.maximum(np.asarray(given.alike.power(2).sum(axis=1), np.float64), 1e-12)
    scale = np.sqrt(likeness) * (squares / usual) ** (-FADE / 2)
    alike = sparse.diags_array(scale.astype(np.float32)) @ given.alike
    return sparse.csr_array(sparse.vstack([taken, alike], format="csr"), dtype=np.float32)


def towers(given: Interactions, cut: Factors, settings: Settings) -> Factors:
    """The first directions, as many as there is room for, and what is added damped: (items, at most dim - 1)."""
    rank = settings.dim - 1
    scale = _users(given)[:, None] ** -settings.damping  # (items, 1)
    return Factors(cut.source[:, :rank] * scale, cut.target[:, :rank])


def _users(given: Interactions) -> npt.NDArray[np.float32]:
    """Of every item, 1 at least: (items,)."""
    return np.maximum(np.bincount(given.taken.indices, minlength=given.taken.shape[1]), 1).astype(np.float32)


def unit(cut: Factors, *, dim: int) -> Factors:
    """Make targets unit, ranking alike: what a target's length lacks stands on the last axis, where no source does.

    cut: (items, at most dim - 1). Returns (items, dim) each.
    """
    items, kept = cut.target.shape
    longest = [max(float(np.linalg.norm(part, axis=1).max(initial=0)), 1e-12) for part in cut]
    source, target = np.zeros((2, items, dim), np.float32)
    source[:, :kept] = cut.source / longest[0]
    target[:, :kept] = cut.target / longest[1]
    target[:, dim - 1] = np.sqrt(np.maximum(1 - np.square(target).sum(axis=1), 0))
    return Factors(source, target)


def choose(given: Interactions, asked: Validation, settings: Settings, *, fixed: frozenset[str], seed: int) -> Settings:
    """Find the settings that rank best for the validated users, one at a time, up or down from where they start.

    A step is taken where its gain in NDCG@100 is more than its standard error over the users: with few of them the
    start, which did well elsewhere, tells more than they do. What would cost too much is not tried.
    fixed: names that are not searched.
    """
    if asked.history.height == 0:
        return settings
    trials = _Trials(given, asked, seed=seed)
    best = trials.measure(settings)
    for name, values in CHOICES.items():
        if name in fixed or (name == "likeness" and given.alike.shape[0] == 0):
            continue
        if name == "dim":
            values = tuple(_widths(given.taken.shape[1]))
        at = values.index(getattr(settings, name)) if getattr(settings, name) in values else None
        if at is None:
            continue
        # Where all directions come at once, a width is tried though the one before it was no better.
        over = name == "dim" and given.taken.shape[1] <= DENSE
        for step in (1, -1):
            first, place = at, at + step
            while 0 <= place < len(values):
                change: dict[str, Any] = {name: values[place]}
                trial = settings._replace(**change)
                if trials.spent + trials.cost(trial) > BUDGET:
                    break
                measured = trials.measure(trial)
                if ranking.exceeds_chance(measured - best):
                    settings, best, at = trial, measured, place
                elif not over:
                    break
                place += step
            if at != first:
                break
    return settings


def measure(cut: Factors, asked: Validation, *, decay: float, k: int) -> npt.NDArray[np.float64]:
    """NDCG@k of every user by two towers. decay: see `Settings`."""
    ranks = ranking.ranks(users(cut, asked.history, decay=decay), cut.target, asked.wanted, asked.seen)
    return ranking.ndcg(ranks, asked.wanted, k=k)


def users(cut: Factors, history: CSR, *, decay: float) -> npt.NDArray[np.float32]:
    """What histories add up to: (users, dim), of any length. history: items, oldest first."""
    weight = np.float32(decay) ** history.ages().astype(np.float32)
    shape = history.height, len(cut.source)
    added: npt.NDArray[np.float32] = sparse.csr_array((weight, history.indices, history.indptr), shape) @ cut.source
    return added


class _Trials:
    """Measures settings, keeping what the next ones share."""

    def __init__(self, given: Interactions, asked: Validation, *, seed: int) -> None:
        self.given, self.seed = given, seed
        if asked.history.height > ASKED:
            rows = np.sort(np.random.default_rng(seed).choice(asked.history.height, ASKED, replace=False))
            asked = Validation(*(lists.take(rows) for lists in asked))
        self.asked = asked
        self.spent = 0.0
        self._leading: tuple[float, int, Leading] | None = None
        self._directions: tuple[float, float, int, Factors] | None = None

    def cost(self, settings: Settings) -> float:
        """About how long directions take to find that are not there yet, in billionths of a second of one core."""
        kept = self._directions
        if kept is not None and kept[:2] == (settings.ridge, settings.likeness) and kept[2] >= settings.dim:
            return 0.0
        rows, items = self.given.taken.shape
        if _dense(self.given, settings):
            return 0.5 * float(items) ** 3
        rows += self.given.alike.shape[0]
        entries = self.given.taken.nnz + self.given.alike.nnz
        width = settings.dim + SPARE
        height = min(rows, items)
        solving = height**3 / 6 if height <= DIRECT else 0.0
        return float(width * (90 * entries + 3 * width * items) + solving)

    def measure(self, settings: Settings) -> npt.NDArray[np.float64]:
        """NDCG@100 of every user."""
        made = towers(self.given, self._cut(settings), settings)
        return measure(made, self.asked, decay=settings.decay, k=100)

    def _cut(self, settings: Settings) -> Factors:
        kept = self._directions
        if kept is None or self.cost(settings):
            self.spent += self.cost(settings)
            dense = _dense(self.given, settings)
            known = None if dense else self._known(settings)
            made = directions(self.given, settings, seed=self.seed, known=known)
            widest = int(CHOICES["dim"][-1]) if dense else settings.dim
            kept = self._directions = (settings.ridge, settings.likeness, widest, made)
        return kept[3]

    def _known(self, settings: Settings) -> Leading:
        kept = self._leading
        if kept is None or kept[0] != settings.likeness or kept[1] < settings.dim:
            rows = weighted(self.given, settings.likeness)
            width = settings.dim - 1 + SPARE
            made = leading(rows, width=width, generator=np.random.default_rng(self.seed))
            kept = self._leading = (settings.likeness, settings.dim, made)
        return kept[2]
