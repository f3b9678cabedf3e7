"""All stages in one command: `run` on a config, `demo` on MovieLens-100K."""

import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from export.cli import options
from retrieval.common.console import note
from train.cli.train import OVERRIDES, RESUME

if TYPE_CHECKING:
    from export.precision import Precision


@contextmanager
def stage(name: str, seconds: dict[str, float]) -> Iterator[None]:
    """Print the name of a stage and record its seconds."""
    note(f"== {name}")
    start = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - start


def run_config(
    config: Path,
    out: Path,
    *,
    overrides: Sequence[str] = (),
    resume: bool = False,
    kind: str = "auto",
    recall: float | None = None,
    precision: "Precision" = "fp32",
    single_file: bool = False,
    users: bool = True,
    baselines: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Train, export, index and evaluate.

    Towers, tables and index are published as one generation; until then the old bundle stays.

    Returns:
        The evaluation, as metrics.json has it; {} if the split holds nothing out.

    Raises:
        TwoTowerError: if a stage fails.
    """
    # Imported here: torch takes seconds to load.
    from export.export_towers import export_towers
    from retrieval.bundle.layout import TRAINING
    from retrieval.bundle.writer import publishing
    from retrieval.evaluation import baselines as catalogue
    from retrieval.evaluation.evaluate import evaluate
    from retrieval.index import factory
    from retrieval.index.build import build_index, publish_tables
    from train.config.load import load as load_config
    from train.loop.checkpoint import load
    from train.loop.fit import fit

    seconds: dict[str, float] = {}
    factory.check(kind)  # fail before the training, not after it
    catalogue.check(baselines)
    settings = load_config(config, overrides=overrides)
    with stage("train", seconds):
        fit(settings, out, resume=resume)
    with publishing(out) as draft:
        with stage("export", seconds):
            export_towers(load(out), draft, precision=precision, single_file=single_file)
            publish_tables(draft, out / TRAINING, users=users)
        with stage("index", seconds):
            build_index(draft, kind=kind, recall=recall)
    measured: dict[str, Any] = {}
    if settings.split.kind != "none":
        with stage("evaluate", seconds):
            measured = evaluate(out, baselines=baselines)
    note("seconds: " + ", ".join(f"{name} {taken:.1f}" for name, taken in seconds.items()))
    return measured


@click.command(epilog="Example: twotower run data/ml-100k/twotower.toml --out artifacts/ml-100k")
@click.argument("config", type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="The artifact folder. Default: artifacts/ and the name of the config's folder.",
)
@OVERRIDES
@RESUME
@click.option(
    "--kind", default="auto", show_default=True, help="Kind of index: auto, flat, ivf, pq or a FAISS factory string."
)
@click.option(
    "--recall",
    type=click.FloatRange(0, 1, min_open=True),
    help="Target recall@10 of the index. Default: 0.95, exact below 20,000 items.",
)
@options.PRECISION
@options.SINGLE_FILE
@options.USERS
@click.option(
    "--baselines",
    metavar="NAMES",
    help='Baselines, comma-separated, as for evaluate; "all", "none".',
)
def run(config: Path, out: Path | None, baselines: str | None, **chosen: Any) -> None:
    """Train, export, index and evaluate. The bundle is published when it is complete.

    CONFIG is a twotower.toml, or a folder that holds one.
    """
    from retrieval.evaluation.table import show

    folder = out or Path("artifacts") / config.resolve().parent.name
    names = None if baselines is None else [name.strip() for name in baselines.split(",") if name.strip()]
    measured = run_config(config, folder, baselines=names, **chosen)
    if measured:
        show(measured, path=folder)
    note(f"Next: twotower query {shlex.quote(str(folder))} --help, or twotower serve {shlex.quote(str(folder))}")
    click.echo(folder)


DEMO_DATASET: Final = "ml-100k"
DEMO_QUERIES: Final = (
    ("A user of the data:", ["--user", "1"]),
    ("A new user who liked Star Wars, The Empire Strikes Back and Return of the Jedi:", ["--history", "50,172,181"]),
    (
        "A new user of whom only age and occupation are known:",
        ["--features", '{"age": 30, "occupation": "scientist"}'],
    ),
)


@click.command(epilog="Example: twotower demo --out artifacts/demo")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("artifacts/demo"),
    show_default=True,
    help="The artifact folder.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("data") / DEMO_DATASET,
    show_default=True,
    help="The dataset folder; fetched if it does not exist.",
)
def demo(out: Path, data: Path) -> None:
    """Run every step on MovieLens-100K: fetch, train, export, index, evaluate, and recommend to three users."""
    from retrieval.cli.query import query
    from retrieval.evaluation.table import show
    from train.datasets.fetch import fetch

    config = fetch(DEMO_DATASET, to=data)
    show(run_config(config, out), path=out)
    for title, arguments in DEMO_QUERIES:
        click.echo(f"\n{title}\n$ twotower query {shlex.join([str(out), *arguments])}")
        query.main([str(out), *arguments, "--format", "table"], standalone_mode=False)
