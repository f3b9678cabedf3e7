"""`evaluate`: metrics of a bundle on held-out users, compared with baselines."""

import json
from pathlib import Path

import click


@click.command(epilog="Example: twotower evaluate artifacts/demo --baselines all")
@click.argument("path", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--baselines",
    metavar="NAMES",
    help="Baselines, comma-separated: popularity, recent-popularity, itemknn, transitions, ease, ials, bpr; "
    '"all" (without bpr), "none". Default: those that take seconds.',
)
@click.option("-k", "ks", metavar="K,K", default="5,10,20", show_default=True, help="List lengths of the metrics.")
@click.option(
    "--budget", metavar="SECONDS", type=click.FloatRange(min=0), help="Time to tune each baseline. Default: 20."
)
@click.option(
    "--users",
    metavar="N",
    type=click.IntRange(min=0),
    help="Largest number of users, sampled at random; 0 for all. Default: 50,000.",
)
@click.option("--json", "as_json", is_flag=True, help="Print all results as JSON.")
@click.option("--no-report", is_flag=True, help="Do not write report.html.")
def evaluate(
    path: Path,
    baselines: str | None,
    ks: str,
    budget: float | None,
    users: int | None,
    as_json: bool,
    no_report: bool,
) -> None:
    """Evaluate a bundle on the held-out interactions and compare it with tuned baselines.

    Users go through user_tower.onnx and the index, as in a query. All items are ranked, excluding the user's history.
    Writes report.html, MODEL_CARD.md and metrics.json to DIR.
    """
    # Imported here, so that --help is fast.
    from retrieval.evaluation.baseline_runs import BUDGET_S
    from retrieval.evaluation.evaluate import USERS
    from retrieval.evaluation.evaluate import evaluate as run_evaluation
    from retrieval.evaluation.table import show

    try:
        lengths = [int(part) for part in ks.split(",")]
    except ValueError as error:
        raise click.BadParameter(f'"{ks}" is not a list of whole numbers such as 5,10,20', param_hint="-k") from error
    if min(lengths) < 1:
        raise click.BadParameter(f"{min(lengths)} is below 1", param_hint="-k")
    names = None if baselines is None else [name.strip() for name in baselines.split(",") if name.strip()]
    result = run_evaluation(
        path,
        baselines=names,
        k=lengths,
        users=USERS if users is None else users or None,
        budget_s=BUDGET_S if budget is None else budget,
        report=not no_report,
    )
    if as_json:
        click.echo(json.dumps(result, indent=2, ensure_ascii=False, allow_nan=False))
    else:
        show(result, path=path)
