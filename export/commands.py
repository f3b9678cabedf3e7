"""`twotower export`."""

from pathlib import Path

import click

from retrieval.console import note


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--users/--no-users", default=True, show_default=True, help="Publish the users' own rows too.")
def export(folder: Path, users: bool) -> None:
    """Write the two towers of a training as ONNX files that take raw features.

    FOLDER is what `twotower train --out FOLDER` wrote. Nothing changes there unless onnxruntime gives what torch gives.

    Example: twotower export artifacts/demo
    """
    # Imported here: torch takes seconds, and `--help` should not.
    from retrieval.build import publish_tables
    from train.checkpoint import load

    from export.pair import export_towers
    from retrieval.publish import publishing

    trained = load(folder)
    with publishing(folder) as draft:
        schema = export_towers(trained, draft)
        publish_tables(draft, folder / "training", users=users)
    note(f"{folder}: model {schema.pair_id}, {schema.dim} dimensions, {schema.precision}")
