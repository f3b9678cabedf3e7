"""`twotower export`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from export.cli import options
from retrieval.common.console import note

if TYPE_CHECKING:
    from export.precision import Precision


@click.command(epilog="Example: twotower export artifacts/demo --single-file")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@options.PRECISION
@click.option("--allow-loss", is_flag=True, help="Publish even if fewer bits change the answers too much.")
@options.SINGLE_FILE
@click.option(
    "--refresh-history",
    is_flag=True,
    help="Instead: let histories read items that were added to the bundle. No training, no torch.",
)
@options.USERS
def export(
    folder: Path, precision: "Precision", allow_loss: bool, single_file: bool, refresh_history: bool, users: bool
) -> None:
    """Write the two towers of a training as ONNX files that take raw features.

    DIR is what `twotower train --out DIR` wrote. Nothing changes there unless onnxruntime gives what torch gives.
    """
    # Imported here: torch takes seconds, and `--help` should not.
    from retrieval.bundle.writer import publishing

    if refresh_history:
        from export import refresh

        with publishing(folder) as draft:
            refresh.refresh_history(draft)
        return
    from export.export_towers import export_towers
    from export.retrieve_graph import SINGLE_FILE
    from retrieval.bundle.layout import TRAINING
    from retrieval.evaluation.held_out import HeldOut
    from retrieval.evaluation.report.model_card import refitted
    from retrieval.index.build import publish_tables
    from train.loop.checkpoint import load

    trained = load(folder)
    with publishing(folder) as draft:
        schema = export_towers(trained, draft, precision=precision, single_file=single_file, allow_loss=allow_loss)
        publish_tables(draft, folder / TRAINING, users=users)
        if trained.facts["refit"]:
            held = HeldOut.read(folder / TRAINING)
            card = refitted(held, trained.facts, name=folder.resolve().name, pair_id=schema.pair_id)
            draft.write_bytes("MODEL_CARD.md", card.encode())
    names = [schema.user.file, schema.item.file, *([SINGLE_FILE] if single_file else [])]
    note(f"{folder}: wrote {', '.join(names)}; model {schema.pair_id}, {schema.dim} dimensions, {schema.precision}")
