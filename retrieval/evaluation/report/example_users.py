"""Up to three users that show where the model and the best baseline succeed and fail."""

from typing import Final, NamedTuple

import numpy as np

from retrieval.common.arrays import Rows
from retrieval.evaluation.result import Evaluation

HISTORY_SHOWN: Final = 8  # items
MIN_HISTORY: Final = 3


class Line(NamedTuple):
    """The name of an item, and whether it is one of the user's held-out items."""

    name: str
    right: bool = False


class Example(NamedTuple):
    """heading: why the user is shown. history: newest first. baseline_hits: of the best baseline, if any."""

    heading: str
    user: str
    history: list[Line]
    longer_by: int
    truth: list[Line]
    model: list[Line]
    baseline_hits: list[Line]


def examples(evaluation: Evaluation) -> list[Example]:
    """Up to three users; the same for the same evaluation."""
    stage, k = evaluation.stage, evaluation.k
    best = _best_rank(evaluation.model.ranks, evaluation)
    ok = stage.histories.lengths >= min(MIN_HISTORY, int(stage.histories.lengths.max(initial=0)))
    found = best <= k
    kinds = []
    name = evaluation.verdict.baseline
    if name is not None:
        other = _best_rank(evaluation.rivals[name].measured.ranks, evaluation) <= k
        kinds += [
            ("Found by the model only", ok & found & ~other),
            (f"Found by {name} only", ok & ~found & other),
            ("Found by neither", ok & ~found & ~other),
            ("Found by both", ok & found & other),
        ]
    else:
        kinds += [("Found", ok & found), ("Not found", ok & ~found)]
    kinds.append(("Another user", ok))
    picked: dict[int, str] = {}
    for heading, mask in kinds:
        rows = [row for row in np.flatnonzero(mask).tolist() if row not in picked]
        if rows and len(picked) < 3:
            picked[rows[len(rows) // 2]] = heading
    return [_example(evaluation, row, heading) for row, heading in picked.items()]


def _best_rank(ranks: Rows, evaluation: Evaluation) -> Rows:
    """The best rank among the held-out items of each user."""
    best = np.full(len(evaluation.stage.rows), np.iinfo(np.int64).max)
    np.minimum.at(best, evaluation.stage.truth.owners(), ranks)
    return best


def _example(evaluation: Evaluation, row: int, heading: str) -> Example:
    stage = evaluation.stage
    truth = set(stage.truth.list(row).tolist())

    def lines(rows: Rows) -> list[Line]:
        return [Line(title(evaluation, item), item in truth) for item in rows.tolist() if item >= 0]

    history = stage.histories.list(row)[::-1]
    baseline = evaluation.verdict.baseline
    return Example(
        heading=heading,
        user=str(evaluation.held.users.column(0)[int(stage.rows[row])].as_py()),
        history=lines(history[:HISTORY_SHOWN]),
        longer_by=max(len(history) - HISTORY_SHOWN, 0),
        truth=lines(stage.truth.list(row)[:HISTORY_SHOWN]),
        model=lines(evaluation.model.lists[row, : evaluation.k]),
        baseline_hits=lines(evaluation.rivals[baseline].measured.lists[row, : evaluation.k])
        if baseline is not None
        else [],
    )


def title(evaluation: Evaluation, item: int) -> str:
    """The title of an item, or its id."""
    held = evaluation.held
    column = held.config.get("data", {}).get("title")
    if column in held.items.column_names:
        text = held.items.column(column)[item].as_py()
        if text:
            return str(text)
    return held.item_ids[item]
