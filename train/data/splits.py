"""Splits: which interactions train, validate and test, by one rule each. Arrays in, codes out, no per-row Python."""

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from retrieval.bundle.layout import SPLITS
from retrieval.common.errors import DataError, nearest
from train.config.options import Split

Codes = npt.NDArray[np.uint8]
Users = npt.NDArray[np.uint32]

TRAIN, VALID, TEST, VALID_FOLD_IN, TEST_FOLD_IN = range(5)
SplitType: Final = pl.Enum(SPLITS)


def assign(interactions: pl.DataFrame, *, split: Split, column: pl.Series | None, where: str) -> pl.Series:
    """Say of each interaction what it is for.

    interactions: columns user (row), item (row), time (Int64, may be null), sorted by user, then time.
    column: for kind "column", the value of that column per interaction.
    Returns the series "split" of `SplitType`.
    Raises DataError, naming `where`, if nothing is left to train on.
    """
    if split.kind == "column":
        assert column is not None
        codes = from_column(column, where=f'{where}: column "{split.column}"')
    else:
        codes = _KINDS[split.kind](interactions, split, where)
    if not (codes == TRAIN).any():
        raise DataError(
            f'{where}: no interaction is left to train on after the split "{split.kind}" of {len(codes)}; '
            "hold out less, or choose another split.kind"
        )
    # One physical dtype, so that the codes become the enumeration's own.
    return pl.Series("split", codes).replace_strict(list(range(len(SPLITS))), list(SPLITS), return_dtype=SplitType)


def from_end(users: Users) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Position of each row from the end of its user's rows (0 is the last), and the number of the user's rows.

    users: (n,) sorted. Returns two (n,) int64.
    """
    starts = np.flatnonzero(np.concatenate(([True], users[1:] != users[:-1])))
    counts = np.diff(np.append(starts, len(users)))
    lengths = np.repeat(counts, counts)
    ends = np.repeat(starts + counts, counts)
    return ends - 1 - np.arange(len(users)), lengths


def leave_one_out(interactions: pl.DataFrame, split: Split, where: str) -> Codes:  # noqa: ARG001  (one signature)
    """Each user's last interaction tests, the one before validates. With two, the last tests; one alone trains."""
    position, lengths = from_end(interactions.get_column("user").to_numpy())
    codes = np.full(len(position), TRAIN, np.uint8)
    codes[(position == 0) & (lengths >= 2)] = TEST
    codes[(position == 1) & (lengths >= 3)] = VALID
    return codes


def by_time(interactions: pl.DataFrame, split: Split, where: str) -> Codes:
    """The last `test` of all interactions in time tests, the `valid` before it validates; equal times stay together."""
    times = interactions.get_column("time")
    if times.null_count() == len(times):
        raise DataError(f'{where}: the split "time" needs times; set data.time, or choose another split.kind')
    values = times.fill_null(times.min()).to_numpy()
    ordered = np.sort(values)
    codes = np.full(len(values), TRAIN, np.uint8)
    tested, validated = (_count(share, len(values)) for share in (split.test, split.valid))
    if validated:
        codes[values >= ordered[max(len(values) - tested - validated, 0)]] = VALID
    if tested:
        codes[values >= ordered[max(len(values) - tested, 0)]] = TEST
    return codes


def new_users(interactions: pl.DataFrame, split: Split, where: str) -> Codes:
    """Some users are held out whole: the last `truth` of their interactions is to be found from the rest.

    Without times the truth is drawn at random. Users with one interaction are not held out.
    """
    users = interactions.get_column("user").to_numpy()
    generator = np.random.default_rng(split.seed)
    position, lengths = from_end(users)
    able = np.unique(users[lengths >= 2])
    every = int(users.max()) + 1 if len(users) else 0
    tested, validated = (_count(share, len(np.unique(users))) for share in (split.test, split.valid))
    if tested + validated > len(able):
        raise DataError(
            f"{where}: the split new-users holds out {tested + validated} users, "
            f"only {len(able)} have two interactions; lower split.valid and split.test"
        )
    drawn = generator.permutation(able)
    role = np.full(every, TRAIN, np.uint8)
    role[drawn[:tested]] = TEST
    role[drawn[tested : tested + validated]] = VALID
    if interactions.get_column("time").null_count() == len(users):
        position = _shuffled(position, users, generator)
    sought = np.clip(np.round(lengths * split.truth), 1, np.maximum(lengths - 1, 1))
    codes: Codes = role[users]
    fold_in = position >= sought
    codes[(codes == TEST) & fold_in] = TEST_FOLD_IN
    codes[(codes == VALID) & fold_in] = VALID_FOLD_IN
    return codes


def _shuffled(position: npt.NDArray[np.int64], users: Users, generator: np.random.Generator) -> npt.NDArray[np.int64]:
    """The positions of each user's rows, dealt out anew within the user."""
    order = np.lexsort((generator.random(len(users)), users))
    result = np.empty_like(position)
    result[order] = position
    return result


def at_random(interactions: pl.DataFrame, split: Split, where: str) -> Codes:  # noqa: ARG001
    """Interactions drawn one by one, whoever's they are."""
    size = interactions.height
    tested, validated = (_count(share, size) for share in (split.test, split.valid))
    drawn = np.random.default_rng(split.seed).permutation(size)
    codes = np.full(size, TRAIN, np.uint8)
    codes[drawn[:tested]] = TEST
    codes[drawn[tested : tested + validated]] = VALID
    return codes


def nothing(interactions: pl.DataFrame, split: Split, where: str) -> Codes:  # noqa: ARG001
    """Everything trains: for production, once the recipe is chosen."""
    return np.full(interactions.height, TRAIN, np.uint8)


def from_column(column: pl.Series, *, where: str) -> Codes:
    """What a column of the table says. Raises DataError, naming `where`, on another word than those of `SPLITS`."""
    words = column.cast(pl.String).str.strip_chars().str.to_lowercase()
    for word in words.unique().to_list():
        if word not in SPLITS:
            raise DataError(f'{where} says "{word or ""}"{nearest(word or "", SPLITS[:3])}')
    return words.replace_strict(list(SPLITS), list(range(len(SPLITS))), return_dtype=pl.UInt8).to_numpy()


def _count(share: float, size: int) -> int:
    """A share as a number of things: at least one if any is asked for."""
    return max(round(share * size), 1) if share > 0 and size else 0


_KINDS: Final[Mapping[str, Callable[[pl.DataFrame, Split, str], Codes]]] = {
    "leave-one-out": leave_one_out,
    "time": by_time,
    "new-users": new_users,
    "random": at_random,
    "none": nothing,
}
