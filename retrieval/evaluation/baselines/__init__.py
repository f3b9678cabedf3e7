"""Simple models to be judged beside: fitted on the same training rows, fed the same histories."""

import importlib
import importlib.util
from collections.abc import Sequence
from typing import Final

from retrieval.common.errors import TwoTowerError, nearest
from retrieval.evaluation.baselines.base import Baseline, Training, start

__all__ = ["BASELINES", "Baseline", "Training", "check", "choose", "make", "start", "unavailable"]

# name -> module:class; loaded when it is asked for, since scipy costs time and `implicit` is an extra.
BASELINES: Final = {
    "popularity": "retrieval.evaluation.baselines.popularity:Popularity",
    "recent-popularity": "retrieval.evaluation.baselines.popularity:RecentPopularity",
    "itemknn": "retrieval.evaluation.baselines.itemknn:ItemKNN",
    "transitions": "retrieval.evaluation.baselines.transitions:Transitions",
    "ease": "retrieval.evaluation.baselines.ease:EASE",
    "ials": "retrieval.evaluation.baselines.ials:IALS",
    "bpr": "retrieval.evaluation.baselines.bpr:BPR",
}

# Slow to tune, and behind four others on ml-100k: only where it is asked for by name.
BY_NAME: Final = ("bpr",)

# What a baseline may cost before `evaluate` leaves it out unless it is asked for.
QUICK_EASE_ITEMS: Final = 4_000  # a matrix of this height is inverted in a second or two
QUICK_IALS_PAIRS: Final = 1_000_000
# An items x items matrix of float32 and its inverse: beyond this it does not fit beside anything else.
MOST_EASE_ITEMS: Final = 30_000


def make(name: str) -> Baseline:
    """A baseline by name, not yet fitted. Raises TwoTowerError on an unknown name."""
    if name not in BASELINES:
        raise TwoTowerError(f'there is no baseline "{name}"{nearest(name, BASELINES)}')
    module, attribute = BASELINES[name].split(":")
    made: Baseline = getattr(importlib.import_module(module), attribute)()
    return made


def unavailable(name: str, training: Training) -> str | None:
    """Why a baseline cannot be had for these data, in a few words; None where it can."""
    if name == "recent-popularity" and training.times is None:
        return "there are no times"
    if name == "ease" and training.items > MOST_EASE_ITEMS:
        return f"{training.items:,} items, it holds a matrix of items by items and stops at {MOST_EASE_ITEMS:,}"
    if name in ("ials", "bpr") and importlib.util.find_spec("implicit") is None:
        return 'needs the extra "baselines" (pip install "twotower[baselines]")'
    return None


def check(names: Sequence[str] | None) -> None:
    """Raise TwoTowerError on a name that `choose` would not take."""
    if names is None or list(names) in (["all"], ["none"]):
        return
    for name in names:
        if name not in BASELINES:
            raise TwoTowerError(f'there is no baseline "{name}"{nearest(name, [*BASELINES, "all", "none"])}')


def choose(names: Sequence[str] | None, training: Training) -> tuple[list[str], dict[str, str]]:
    """Which baselines to run and which are skipped, with the reason.

    names: None for those that take seconds on these data; "all" but those of `BY_NAME`; "none"; or some names.
    Raises TwoTowerError on an unknown name.
    """
    check(names)
    usual = [name for name in BASELINES if name not in BY_NAME]
    if names is None:
        wanted = [name for name in usual if _is_quick(name, training)]
    elif list(names) == ["all"]:
        wanted = usual
    elif list(names) == ["none"]:
        wanted = []
    else:
        wanted = list(dict.fromkeys(names))
    skipped = {name: reason for name in wanted if (reason := unavailable(name, training)) is not None}
    if names is None:
        slow = {name: "takes longer; ask for it with --baselines all" for name in usual if name not in wanted}
        skipped = {**skipped, **slow}
    return [name for name in wanted if name not in skipped], skipped


def _is_quick(name: str, training: Training) -> bool:
    if name == "ease":
        return training.items <= QUICK_EASE_ITEMS
    if name == "ials":
        return len(training.histories.indices) <= QUICK_IALS_PAIRS
    return True
