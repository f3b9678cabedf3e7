"""Options that `export` and `run` share."""

from typing import Final

import click

PRECISION: Final = click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "int8"]),
    default="fp32",
    show_default=True,
    help="Bits of the stored weights; arithmetic stays float32.",
)
SINGLE_FILE: Final = click.option(
    "--single-file", is_flag=True, help="Add retrieve.onnx: user tower, items and top-k in one file."
)
USERS: Final = click.option(
    "--users/--no-users",
    default=True,
    show_default=True,
    help="Keep the users' features and histories in the bundle, for query --user.",
)
