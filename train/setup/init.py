"""Look at a user's own tables and write a config for them, with comments, that works unchanged."""

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import polars as pl
import pyarrow as pa

from retrieval.bundle.layout import SPLITS
from retrieval.common.errors import ConfigError, DataError
from retrieval.features.columns import ids, is_number, is_text
from retrieval.features.schema import SIDES, Feature, Side
from retrieval.features.tables import Table, read_table
from train.config.load import load
from train.config.render import render
from train.data.dataset import Dataset, prepare
from train.data.tables import series
from train.setup import infer

HISTORY_NAMES: Final = ("history", "past_items", "user_history")


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """The config that was written, the data it prepares to, and the columns that are left out, with why.

    unused: columns of the interactions that nothing names.
    """

    path: Path
    dataset: Dataset
    left_out: Sequence[infer.Guess]
    unused: Sequence[str]


def write_config(
    interactions: Path,
    *,
    items: Path | None = None,
    users: Path | None = None,
    out: Path,
    force: bool = False,
    columns: Mapping[Side, str] | None = None,
) -> Written:
    """Guess the columns of the tables and write a config that has been tried on them.

    columns: the id columns of the interactions where they are known.
    Raises ConfigError if the file is there already, DataError if no column looks like users or items, or if the tables
    cannot be prepared.
    """
    if out.exists() and not force:
        raise ConfigError(f"{out}: already there; --force replaces it, or name another file by -o")
    table = read_table(interactions)
    tables: dict[Side, Table | None] = {
        "user": read_table(users) if users else None,
        "item": read_table(items) if items else None,
    }
    keys = _keys(table, tables, columns or {})
    data = _data(table, tables, keys, out)
    found: dict[Side, list[infer.Guess]] = {
        side: _features(tables[side], keys=keys, side=side, title=data.get("title")) for side in SIDES
    }
    features = {side: [g.feature for g in found[side] if g.feature is not None] for side in found}
    history = next(name for name in HISTORY_NAMES if name not in {feature.name for feature in features["user"]})
    features["user"].append(Feature(name=history, kind="history"))
    left_out = [g for side in found for g in found[side] if g.feature is None]
    split = _split(table, keys["user"].column)
    unused = [name for name in table.columns if name not in {*data.values(), split.get("column")}]
    text = render(
        heading=_heading(left_out, unused),
        data=data,
        features=features,
        remarks={(side, g.column): g.remark for side in found for g in found[side] if g.feature is not None},
        split=split,
    )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{out.name}-", dir=out.parent)
    except OSError as error:
        raise ConfigError(f"{out}: cannot be written: {error.strerror}") from error
    trial = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        dataset = prepare(load(trial))
        trial.chmod(0o644)
        trial.replace(out)
    finally:
        trial.unlink(missing_ok=True)
    return Written(path=out, dataset=dataset, left_out=left_out, unused=unused)


@dataclass(frozen=True, slots=True)
class _Key:
    """The column of the interactions with an id, and that of the side's own table, if there is one."""

    column: str
    own: str | None


_WORDS: Final[dict[Side, Sequence[str]]] = {"user": infer.USER_WORDS, "item": infer.ITEM_WORDS}


def _keys(table: Table, tables: dict[Side, Table | None], columns: Mapping[Side, str]) -> dict[Side, _Key]:
    """Which columns are the ids: those given, else by their names, else by their values."""
    named: dict[Side, str | None] = {}
    for side in SIDES:
        if side in columns:
            table.column(columns[side], what=f"the {side} ids")  # raises DataError if it is missing
            named[side] = columns[side]
            continue
        free = [name for name in table.columns if name not in named.values()]
        named[side] = infer.by_name(free, _WORDS[side], prefer=("id", "key"))
    keys: dict[Side, _Key] = {}
    for side in SIDES:
        taken = {*named.values(), *(key.column for key in keys.values())}
        name = named[side]
        candidates = [name] if name is not None else [other for other in table.columns if other not in taken]
        keys[side] = _key(table, tables[side], side, candidates, by_name=name is not None)
    return keys


def _key(table: Table, own: Table | None, side: Side, candidates: Sequence[str], *, by_name: bool) -> _Key:
    """The best of some columns. A table of its own says it best: the values must meet."""
    ranked: list[tuple[float, _Key]] = []
    for name in candidates:
        found = infer.id_series(table, name)
        if found is None:
            continue
        if own is None:  # nothing to go by but repeats: whose rows come back is somebody
            ranked.append((1 - found.n_unique() / len(found), _Key(name, None)))
        elif (match := infer.key_of(own, found, words=(*_WORDS[side], "id", "key"))) is not None:
            held = infer.id_series(own, match)
            assert held is not None
            ranked.append((infer.overlap(found, held), _Key(name, match)))
        elif by_name:
            raise DataError(_no_key(own, found, name, table.path, side))
    best = max(ranked, key=lambda entry: entry[0], default=None)
    if best is not None and (by_name or best[0] > 0):
        return best[1]
    if by_name:
        where = f'{table.path}: column "{candidates[0]}"'
        ids(table.table.column(candidates[0]), where=where, text=table.text)  # says the row, if it is a row
        raise DataError(f"{where} has fractions, which are no ids; write the config by hand if another column has them")
    names = ", ".join(f'"{name}"' for name in table.columns)
    raise DataError(
        f"{table.path}: no column looks like the id of a {side} among {names}; "
        f"rename the column to {side}_id, or write the config by hand"
    )


def _no_key(own: Table, wanted: pl.Series, name: str, source: Path, side: Side) -> str:
    """Why no column of a table of users or items holds the ids of the interactions, once each."""
    same = infer.id_series(own, name) if name in own.columns else None
    if same is not None and infer.overlap(wanted, same) > 0:
        repeated = same.filter(same.is_duplicated() & same.is_not_null())
        return (
            f'{own.path}: {side} id "{repeated[0]}" of column "{name}" occurs more than once '
            f"({repeated.n_unique():,} such ids); keep one row an id"
        )
    return f'{own.path}: no column has the values of "{name}" of {source}, each once; is it the {side}s?'


def _data(table: Table, tables: dict[Side, Table | None], keys: dict[Side, _Key], out: Path) -> dict[str, str]:
    folder = out.parent.absolute()

    def relative(path: Path) -> str:
        return Path(os.path.relpath(path.absolute(), folder)).as_posix()

    data = {"interactions": relative(table.path)}
    for side in SIDES:
        own = tables[side]
        if own is not None:
            data[f"{side}s"] = relative(own.path)
    for side in SIDES:
        key = keys[side]
        data[side] = key.column
        if key.own is not None and key.own != key.column:
            data[f"{side}s_id"] = key.own
    rest = [name for name in table.columns if name not in (data["user"], data["item"])]
    time = infer.by_name([name for name in rest if infer.is_time(table, name)], infer.TIME_WORDS) or next(
        (name for name in rest if infer.is_date(table, name)), None
    )
    if time is not None:
        data["time"] = time
        rest.remove(time)
    value = infer.by_name([name for name in rest if is_number(table.typed(name).type)], infer.VALUE_WORDS)
    if value is not None:
        data["value"] = value
    items = tables["item"]
    if items is not None:
        texts = [name for name in items.columns if name != keys["item"].own and _is_text(items.typed(name).type)]
        title = infer.by_name(texts, infer.TITLE_WORDS)
        if title is not None:
            data["title"] = title
    return data


def _is_text(kind: pa.DataType) -> bool:
    return is_text(kind) or pa.types.is_dictionary(kind)


def _features(table: Table | None, *, keys: dict[Side, _Key], side: Side, title: str | None) -> list[infer.Guess]:
    """An embedding of each item, then whatever the columns of the table make."""
    key = keys[side]
    found = []
    if side == "item":
        feature = Feature(name=key.column, kind="category")
        found.append(infer.Guess(column=key.column, feature=feature, remark="A learned embedding per item."))
    if table is None:
        return found
    for name in table.columns:
        if name in (key.own, key.column) or (side == "item" and name == title):
            continue
        found.append(infer.feature_of(table, name))
    return found


def _heading(left_out: Sequence[infer.Guess], unused: Sequence[str]) -> str:
    lines = ["Written by twotower init from your tables: look it over, then: twotower run FILE"]
    if left_out:
        lines += ["", "Columns that are shown and filtered by, but are no features:"]
        lines += [f"  {found.column}: {found.remark}" for found in left_out]
    if unused:
        lines += ["", f"Columns of the interactions that are not used: {', '.join(unused)}"]
    return "\n".join(lines)


def _split(table: Table, user: str) -> dict[str, Any]:
    """The last of each user, as long as users have more than a few; else at random. A column that says it decides."""
    for name in table.columns:
        if not is_text(table.table.column(name).type):
            continue
        values = series(table.table.column(name))
        if set(values.str.to_lowercase().unique()) <= {*SPLITS} and values.n_unique() > 1:
            return {"kind": "column", "column": name}
    found = infer.id_series(table, user)
    assert found is not None
    counts = found.drop_nulls().value_counts().get_column("count")
    return {"kind": "leave-one-out" if infer.share(counts >= 3) >= 0.1 else "random"}
