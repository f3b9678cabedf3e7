"""Tuning: a coordinate search over a baseline's few settings on validation, within a stated time."""

import time
from typing import Final, NamedTuple

import numpy as np

from retrieval.common.csr import CSR
from retrieval.evaluation.baselines.base import Baseline, scorer, start
from retrieval.metrics.ranking import ndcg, rank_all

USERS: Final = 3_000  # validation users that settings are compared on
ROUNDS: Final = 2


class Tuned(NamedTuple):
    """The settings that did best, their validation NDCG, how many were tried and whether the time ran out."""

    settings: dict[str, float]
    ndcg: float
    tried: int
    stopped: bool


def tune(
    model: Baseline,
    *,
    histories: CSR,
    truth: CSR,
    seen: CSR,
    items: int,
    budget_s: float,
    k: int = 10,
    fixed: dict[str, float] | None = None,
    seed: int = 0,
) -> Tuned:
    """Find the settings with the best validation NDCG@k, one setting at a time, twice round.

    model: fitted. histories, truth, seen: of the validation users; those without truth do not count.
    budget_s: no further settings are tried after it; the starting ones always are.
    fixed: settings that are given and not searched.
    """
    fixed = fixed or {}
    deadline = time.monotonic() + budget_s
    settings = {**start(model.choices), **fixed}
    rows = np.flatnonzero(truth.lengths)
    searched = {name: values for name, values in model.choices.items() if name not in fixed and len(values) > 1}
    if len(rows) == 0 or not searched:
        return Tuned(settings, float("nan"), 0, False)
    if len(rows) > USERS:
        rows = np.sort(np.random.default_rng(seed).choice(rows, USERS, replace=False))
    histories, truth, seen = histories.take(rows), truth.take(rows), seen.take(rows)

    def measure(settings: dict[str, float]) -> float:
        ranks = rank_all(scorer(model, histories, settings), items=items, truth=truth, seen=seen).ranks
        return float(ndcg(ranks, truth, k=k).mean())

    known = {tuple(settings.values()): measure(settings)}
    best = known[tuple(settings.values())]
    for _ in range(ROUNDS):
        before = dict(settings)
        for name, values in searched.items():
            for value in values:
                trial = {**settings, name: value}
                key = tuple(trial.values())
                if key in known:
                    continue
                if time.monotonic() > deadline:
                    return Tuned(settings, best, len(known), True)
                known[key] = measure(trial)
                if known[key] > best:
                    best, settings = known[key], trial
        if settings == before:
            break
    return Tuned(settings, best, len(known), False)
