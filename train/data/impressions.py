"""Impressions: items that were shown and not chosen, matched to the choice that was made instead."""

import numpy as np
import numpy.typing as npt
import polars as pl

Rows = npt.NDArray[np.int64]


def match_to_choices(shown: pl.DataFrame, interactions: pl.DataFrame) -> pl.DataFrame:
    """Find the choice that each impression belongs to: the user's next one, at the same time or later; else the last.

    Args:
        shown: Impressions, with the columns user, item, time (Int64, may be null) and place (row of the file).
        interactions: Choices with the same columns, sorted by user, time, place. Without any time, the place decides
            what came first.

    Returns:
        Columns user, item, choice (UInt32 position in `interactions`), in the order of `shown`. Impressions of users
        who chose nothing are left out, and those of the item that was then chosen.
    """
    timed = interactions.get_column("time").null_count() < interactions.height
    moment = "time" if timed else "place"
    both = pl.concat([interactions.get_column(moment).cast(pl.Int64), shown.get_column(moment).cast(pl.Int64)])
    # Moments as ranks, so that user and moment fit into one integer; a missing moment comes first.
    ranks = both.rank("dense").fill_null(0).cast(pl.Int64).to_numpy()
    users = np.concatenate([frame.get_column("user").to_numpy() for frame in (interactions, shown)]).astype(np.int64)
    keys = users * (len(ranks) + 1) + ranks
    chosen, asked = keys[: interactions.height], keys[interactions.height :]
    owner, own = users[: interactions.height], users[interactions.height :]
    after = np.searchsorted(chosen, asked, side="left")
    choice = np.where(_of_user(owner, after, own), after, after - 1)
    kept = _of_user(owner, choice, own)
    taken = interactions.get_column("item").to_numpy().astype(np.int64)
    kept &= _at(taken, choice) != shown.get_column("item").to_numpy()
    return shown.select("user", "item", pl.Series("choice", choice.clip(0)).cast(pl.UInt32)).filter(pl.Series(kept))


def _of_user(owner: Rows, position: Rows, user: Rows) -> npt.NDArray[np.bool_]:
    """Whether the interaction at a position exists and belongs to the user."""
    exists = (position >= 0) & (position < len(owner))
    own: npt.NDArray[np.bool_] = exists & (_at(owner, position) == user)
    return own


def _at(values: Rows, position: Rows) -> Rows:
    at: Rows = values[position.clip(0, len(values) - 1)]
    return at
