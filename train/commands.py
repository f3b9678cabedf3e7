"""The commands that get and look at data: fetch, init, inspect."""

from pathlib import Path

import click


@click.command(epilog="Example: twotower fetch ml-100k --to data/ml-100k")
@click.argument("name")
@click.option("--from", "source", type=click.Path(path_type=Path), help="Archive or folder already on disk.")
@click.option("--to", type=click.Path(path_type=Path), help="Folder to write; data/NAME by default.")
@click.option("--force", is_flag=True, help="Write it anew if it is there already.")
def fetch(name: str, source: Path | None, to: Path | None, force: bool) -> None:
    """Get a known public dataset as a dataset folder: tables in Parquet and a ready twotower.toml.

    NAME is one of ml-100k, ml-latest-small, ml-1m, ml-20m, ml-25m, beauty.
    """
    from train.fetch import fetch as run

    config = run(name, to=to or Path("data") / name, source=source, force=force)
    click.echo(config)
