"""`twotower.fit`: train on tables in memory or on disk, and publish a bundle."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from export.cli.pipeline import run_config
from retrieval.common.errors import ConfigError
from retrieval.features.schema import SIDES
from retrieval.frames import to_arrow
from retrieval.retriever import Retriever
from train.config.load import CONFIG_NAME
from train.setup.init import write_config

DATA: Final = "data"  # the folder of tables and config, inside the artifact folder


@dataclass(frozen=True, slots=True)
class FittedBundle:
    """A published bundle and how it was evaluated.

    Attributes:
        path: The artifact folder.
        evaluation: What `twotower evaluate --json` prints; empty if the split holds nothing out.
    """

    path: Path
    evaluation: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def metrics(self) -> Mapping[str, float]:
        """Metrics on the test users by name, for example `ndcg@10`; empty if the split holds nothing out."""
        metrics: Mapping[str, float] = self.evaluation.get("metrics", {})
        return metrics

    def retriever(self, *, threads: int = 1) -> Retriever:
        """Open the bundle for queries. See `Retriever.open`."""
        return Retriever.open(self.path, threads=threads)


def fit(
    interactions: Any,
    *,
    items: Any = None,
    users: Any = None,
    out: str | Path,
    config: str | Path | None = None,
    **settings: Mapping[str, Any],
) -> FittedBundle:
    """Train two towers, export them, index the items and evaluate: what `twotower run` does.

    Tables in memory are written to `out`/data as Parquet, with the config that `twotower init` would write for them.

    Args:
        interactions: A row for each interaction: a pandas or polars DataFrame, an Arrow table, or the path of a file.
        items: A row for each item, likewise.
        users: A row for each user, likewise.
        out: The artifact folder. A bundle that is already there is replaced once the new one is complete.
        config: A twotower.toml. Default: columns and features are inferred from the tables.
        **settings: Sections of the config, which win over `config`, for example `train={"epochs": 3}`,
            `split={"kind": "time"}` or `data={"user": "customer", "item": "sku"}` for the id columns.

    Returns:
        The bundle, with its metrics on the test users.

    Raises:
        ConfigError: for an unknown section or key, or a value of the wrong type.
        DataError: if a table cannot be used.
        TrainError: if the training cannot start.
    """
    out = Path(out)
    tables = {
        name: _path(table, name, out / DATA)
        for name, table in {"interactions": interactions, "items": items, "users": users}.items()
        if table is not None
    }
    chosen = {section: dict(keys) for section, keys in settings.items()}
    if config is None:
        data = chosen.get("data", {})
        config = write_config(
            tables["interactions"],
            items=tables.get("items"),
            users=tables.get("users"),
            out=out / DATA / CONFIG_NAME,
            force=True,
            columns={side: data[side] for side in SIDES if side in data},
        ).path
    chosen["data"] = {**{name: str(path.absolute()) for name, path in tables.items()}, **chosen.get("data", {})}
    overrides = [
        f"{section}.{_key(name)}={_toml(value)}" for section, keys in chosen.items() for name, value in keys.items()
    ]
    try:
        return FittedBundle(out, run_config(Path(config), out, overrides=overrides))
    except ConfigError as error:
        raise ConfigError(str(error).replace("--set ", "")) from error  # a key of the settings, not of the command line


def _path(table: Any, name: str, folder: Path) -> Path:
    """The path of a table; one in memory is written to `folder`."""
    if isinstance(table, str | Path):
        return Path(table)
    arrow = to_arrow(table, name=name).replace_schema_metadata(None)
    for position, column in enumerate(arrow.schema):
        if pa.types.is_dictionary(column.type):
            plain = arrow.column(position).cast(column.type.value_type)
            arrow = arrow.set_column(position, column.name, plain)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.parquet"
    pq.write_table(arrow, path)
    return path


def _toml(value: Any) -> str:
    """A value in TOML, on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(name)} = {_toml(entry)}" for name, entry in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(name: str) -> str:
    return json.dumps(name, ensure_ascii=False)
