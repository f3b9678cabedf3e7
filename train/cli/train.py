"""`twotower train`; its help answers without loading Lightning."""

from pathlib import Path
from typing import Final

import click

# `run` has these too.
OVERRIDES: Final = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key of the config; repeatable."
)
RESUME: Final = click.option("--resume", is_flag=True, help="Go on where the last training of this folder stopped.")


@click.command(epilog="Example: twotower train data/ml-100k/twotower.toml --out artifacts/ml-100k --set train.epochs=3")
@click.argument("config", type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("artifacts/model"),
    show_default=True,
    help="The artifact folder.",
)
@OVERRIDES
@RESUME
@click.option("--refit", is_flag=True, help="Train on everything, for as long as validation chose before.")
def train(config: Path, out: Path, overrides: tuple[str, ...], resume: bool, refit: bool) -> None:
    """Train the two towers and leave them in the folder training of the artifact folder.

    CONFIG is a twotower.toml, or a folder that holds one. Each epoch ranks the whole catalogue for the held-out users;
    the best epoch is kept.
    """
    from train.config import load as configs
    from train.loop.fit import fit

    fit(configs.load(config, overrides=overrides), out, resume=resume, refit=refit)
