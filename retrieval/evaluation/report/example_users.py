"""Three users of an evaluation, picked to show a success, a failure and one more: history, answers, the baseline's."""

from typing import Final, NamedTuple

import numpy as np

from retrieval.common.arrays import Rows
from retrieval.evaluation.result import Evaluation

SHOWN: Final = 8  # items of a history
LEAST_HISTORY: Final = 3


class Line(NamedTuple):
    """An item as a person reads it, and whether the user went on to choose it."""

    name: str
    right: bool = False


class Example(NamedTuple):
    """heading: what the user is an example of. history: newest first. rival: the best baseline's answers, if any."""

    heading: str
    user: str
    history: list[Line]
    longer_by: int
    truth: list[Line]
    model: list[Line]
    rival: list[Line]


def examples(judged: Evaluation) -> list[Example]:
    """Up to three users, always the same for the same evaluation."""
    stage, k = judged.stage, judged.k
    best = _best_rank(judged.model.ranks, judged)
    ok = stage.histories.lengths >= min(LEAST_HISTORY, int(stage.histories.lengths.max(initial=0)))
    found = best <= k
    wanted = []
    name = judged.verdict.rival
    if name is not None:
        other = _best_rank(judged.rivals[name].measured.ranks, judged) <= k
        wanted += [
            ("Found by the towers only", ok & found & ~other),
            (f"Found by {name} only", ok & ~found & other),
            ("Found by neither", ok & ~found & ~other),
            ("Found by both", ok & found & other),
        ]
    else:
        wanted += [("Found", ok & found), ("Not found", ok & ~found)]
    wanted.append(("One of the users", ok))
    picked: dict[int, str] = {}
    for heading, mask in wanted:
        rows = [row for row in np.flatnonzero(mask).tolist() if row not in picked]
        if rows and len(picked) < 3:
            picked[rows[len(rows) // 2]] = heading
    return [_example(judged, row, heading) for row, heading in picked.items()]


def _best_rank(ranks: Rows, judged: Evaluation) -> Rows:
    """The rank of the first of each user's truth."""
    best = np.full(len(judged.stage.rows), np.iinfo(np.int64).max)
    np.minimum.at(best, judged.stage.truth.owners(), ranks)
    return best


def _example(judged: Evaluation, row: int, heading: str) -> Example:
    stage = judged.stage
    truth = set(stage.truth.list(row).tolist())

    def lines(rows: Rows) -> list[Line]:
        return [Line(title(judged, item), item in truth) for item in rows.tolist() if item >= 0]

    history = stage.histories.list(row)[::-1]
    rival = judged.verdict.rival
    return Example(
        heading=heading,
        user=str(judged.held.users.column(0)[int(stage.rows[row])].as_py()),
        history=lines(history[:SHOWN]),
        longer_by=max(len(history) - SHOWN, 0),
        truth=lines(stage.truth.list(row)[:SHOWN]),
        model=lines(judged.model.lists[row, : judged.k]),
        rival=lines(judged.rivals[rival].measured.lists[row, : judged.k]) if rival is not None else [],
    )


def title(judged: Evaluation, item: int) -> str:
    """What to call an item: its title if the data has one, else its id."""
    held = judged.held
    column = held.config.get("data", {}).get("title")
    if column in held.items.column_names:
        text = held.items.column(column)[item].as_py()
        if text:
            return str(text)
    return held.item_ids[item]
