"""The commands that get and look at data: fetch, init, inspect."""

from functools import partial
from pathlib import Path

import click


@click.command(epilog="Example: twotower fetch ml-100k --to data/ml-100k")
@click.argument("name")
@click.option("--from", "source", type=click.Path(path_type=Path), help="Archive or folder already on disk.")
@click.option("--to", type=click.Path(path_type=Path), help="Folder to write; data/NAME by default.")
@click.option("--force", is_flag=True, help="Write it anew if it is there already.")
@click.option("--subset", type=click.Choice(["notebook"]), help="ml-latest-small: the notebook's films, three configs.")
@click.option("--users", type=click.IntRange(min=2), help="synthetic: how many users; 1,000 by default.")
@click.option("--items", type=click.IntRange(min=2), help="synthetic: how many items; 500 by default.")
@click.option("--interactions", type=click.IntRange(min=4), help="synthetic: how many, about; 20 a user by default.")
@click.option("--seed", type=click.IntRange(min=0), help="synthetic: the same seed writes the same data; 0 by default.")
@click.option("--as-notebook", is_flag=True, help="With --subset: the notebook's own leaking split and averages.")
def fetch(
    name: str,
    source: Path | None,
    to: Path | None,
    force: bool,
    subset: str | None,
    as_notebook: bool,
    **sizes: int | None,
) -> None:
    """Get a known public dataset as a dataset folder: tables in Parquet and a ready twotower.toml.

    NAME is one of ml-100k, ml-latest-small, ml-1m, ml-20m, ml-25m, beauty, or synthetic: made up, with right answers
    that are known.
    """
    asked = {size: value for size, value in sizes.items() if value is not None}
    if name == "synthetic":
        from train.datasets.synthetic import Plan, fetch_synthetic

        if source is not None or subset is not None or as_notebook:
            raise click.UsageError("synthetic data is made, not read: --from, --subset and --as-notebook do not apply")
        click.echo(fetch_synthetic(Plan(**asked), to=to or Path("data/synthetic"), force=force))
        return
    if asked:
        raise click.UsageError(f"--{next(iter(asked))} is an option of synthetic, not of {name}")
    from train.datasets import notebook
    from train.datasets.fetch import fetch as run

    if subset is not None and name != "ml-latest-small":
        raise click.UsageError(f"--subset {subset} is a part of ml-latest-small, not of {name}")
    if as_notebook and subset is None:
        raise click.UsageError("--as-notebook needs --subset notebook")
    folder = to or Path("data") / "-".join([name, *([subset] if subset else []), *(["leaking"] if as_notebook else [])])
    reader = partial(notebook.read, as_notebook=as_notebook) if subset else None
    click.echo(run(name, to=folder, source=source, force=force, read=reader))


@click.command(epilog="Example: twotower init ratings.csv --items films.csv --users people.csv -o twotower.toml")
@click.argument("interactions", type=click.Path(path_type=Path))
@click.option("--items", type=click.Path(path_type=Path), help="Table of items.")
@click.option("--users", type=click.Path(path_type=Path), help="Table of users.")
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    default=Path("twotower.toml"),
    show_default=True,
    help="File to write.",
)
@click.option("--force", is_flag=True, help="Replace the file if it is there already.")
def init(interactions: Path, items: Path | None, users: Path | None, out: Path, force: bool) -> None:
    """Look at your tables and write a commented config that works unchanged.

    INTERACTIONS is a table of who did what: .parquet, .csv, .tsv or .jsonl.
    """
    from retrieval.common.console import note
    from train.setup.init import write_config

    written = write_config(interactions, items=items, users=users, out=out, force=force)
    for side, features in (
        ("user", written.dataset.config.user_features),
        ("item", written.dataset.config.item_features),
    ):
        note(f"{side} features: " + ", ".join(f"{feature.name} ({feature.kind})" for feature in features))
    for found in written.left_out:
        note(f'column "{found.column}" is not used as a feature: {found.remark}')
    if written.unused:
        note(f"Unused interaction columns: {', '.join(written.unused)}.")
    note(f"Next: twotower inspect {written.path}, then twotower run {written.path} --out artifacts/NAME")
    click.echo(written.path)


@click.command(epilog="Example: twotower inspect data/ml-100k/twotower.toml")
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--rows", type=click.IntRange(min=0), default=5, show_default=True, help="Users and items to show.")
def inspect(config: Path, rows: int) -> None:
    """Show what is in the tables, before training: sizes, sparsity, time, each feature, the first rows.

    CONFIG is a twotower.toml, or a folder that holds one.
    """
    from train.config.load import load
    from train.data.dataset import prepare
    from train.setup.summary import report

    click.echo(report(prepare(load(config)), rows=rows))
