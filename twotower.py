"""Two-tower retrieval: the Python API (`fit`, `Retriever`) and the `twotower` command.

`import twotower` is quick: every attribute and every command loads its module when it is first used.

    bundle = twotower.fit(interactions, items=items, out="artifacts/mine")
    retriever = twotower.Retriever.open("artifacts/mine")
    retriever.recommend(users, k=10)
"""

import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from retrieval.common.console import set_verbosity
from retrieval.common.errors import TwoTowerError, nearest
from retrieval.common.extras import install_hint

if TYPE_CHECKING:
    from export.fit_frames import FittedBundle, fit
    from retrieval.bundle.reader import Bundle
    from retrieval.retriever import Hit, Query, Retriever

    __version__: str

__all__ = ["FittedBundle", "Hit", "Query", "Retriever", "TwoTowerError", "__version__", "fit"]

# name -> the module that defines it
API: Final = {
    "fit": "export.fit_frames",
    "FittedBundle": "export.fit_frames",
    "Retriever": "retrieval.retriever",
    "Query": "retrieval.retriever",
    "Hit": "retrieval.retriever",
}

# command -> module:attribute and a one-line help
COMMANDS: Final = {
    "demo": ("export.cli.pipeline:demo", "Run every step on MovieLens-100K: fetch, train, evaluate, query."),
    "fetch": ("train.cli.data:fetch", "Download a public dataset as a dataset folder."),
    "init": ("train.cli.data:init", "Write a commented config for your tables."),
    "inspect": ("train.cli.data:inspect", "Show what is in the tables, before training."),
    "run": ("export.cli.pipeline:run", "Train, export, index and evaluate in one command."),
    "train": ("train.cli.train:train", "Train the two towers."),
    "export": ("export.cli.export:export", "Write the two towers as ONNX files that take raw features."),
    "index": ("retrieval.cli.index:index", "Build, update and check the index of a bundle."),
    "query": ("retrieval.cli.query:query", "Recommend the top k items to users."),
    "similar": ("retrieval.cli.query:similar", "Find the items most similar to an item."),
    "embed": ("retrieval.cli.query:embed", "Write the embeddings of the rows of a table."),
    "evaluate": ("retrieval.cli.evaluate:evaluate", "Evaluate a bundle on held-out users and compare with baselines."),
    "serve": ("retrieval.cli.serve:serve", "Serve recommendations over HTTP, with a web page."),
    "bench": ("retrieval.cli.bench:bench", "Measure the latency and throughput of a bundle."),
    "doctor": (
        "retrieval.cli.doctor:doctor",
        "Show versions, hardware and extras; check that a bundle opens.",
    ),
}

QUIET: Final = "Print errors only: no progress, no notes."
VERBOSE: Final = "Print details of each step."


def __getattr__(name: str) -> Any:
    """Load an attribute of the Python API on first use.

    Raises:
        ModuleNotFoundError: if the extra that it needs is not installed; the message names the extra.
    """
    if name == "__version__":
        from importlib.metadata import version

        return version("twotower")
    if name not in API:
        raise AttributeError(f"module 'twotower' has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(API[name]), name)
    except ModuleNotFoundError as error:
        hint = install_hint(error, needed_by=f"twotower.{name}")
        if hint is None:
            raise
        raise ModuleNotFoundError(hint, name=error.name) from error


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def prepare_command(command: click.Command) -> None:
    """Accept -q and -v after the command too, and keep its example on one line. Modifies `command`."""
    if command.epilog and not command.epilog.startswith("\b"):
        command.epilog = f"\b\n{command.epilog}"  # click does not wrap it
    if isinstance(command, click.Group):
        for child in command.commands.values():
            prepare_command(child)
    elif not any(parameter.name == "quiet" for parameter in command.params):
        command.params += [
            click.Option(["-q", "--quiet"], is_flag=True, expose_value=False, callback=_verbosity, help=QUIET),
            click.Option(["-v", "--verbose"], is_flag=True, expose_value=False, callback=_verbosity, help=VERBOSE),
        ]


def _verbosity(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:  # noqa: ARG001  (click's signature)
    """The last option wins: `twotower -v query ... -q` is quiet."""
    if value:
        set_verbosity(quiet=parameter.name == "quiet", verbose=parameter.name == "verbose")


class OutputClosedError(Exception):
    """The reader of stdout has closed it, as `| head` does."""


class LazyGroup(click.Group):
    """A group that lists its commands without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  (click's signature)
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module, attribute = COMMANDS[cmd_name][0].split(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        prepare_command(command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As in click, but an unknown command is reported with the nearest valid name."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            ctx.fail(f'no command "{args[0]}"{nearest(args[0], COMMANDS)}')
        ctx.invoked_subcommand = args[0] if args else None
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """As in click, but a missing extra is a one-line error, and a closed stdout is not an error at all."""
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as error:
            hint = install_hint(error, needed_by=f"twotower {ctx.invoked_subcommand}")
            if hint is None:
                raise
            raise TwoTowerError(hint) from error
        except BrokenPipeError as error:
            raise OutputClosedError from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]}, epilog="Example: twotower demo")
@click.version_option(package_name="twotower", prog_name="twotower")
@click.option("-q", "--quiet", is_flag=True, help=QUIET)
@click.option("-v", "--verbose", is_flag=True, help=VERBOSE)
@click.pass_context
def cli(ctx: click.Context, quiet: bool, verbose: bool) -> None:
    """Train a two-tower recommender, export it as ONNX, index its items and serve recommendations."""
    set_verbosity(quiet=quiet, verbose=verbose)
    ctx.obj = find_graph_check  # for `index verify`: serving does not import export


def find_graph_check() -> "Callable[[Bundle], None] | None":
    """The check of a bundle's ONNX graphs; None if onnx is not installed."""
    try:
        from export.contract import verify_graphs
    except ImportError:
        return None
    return verify_graphs


def main(args: list[str] | None = None) -> Any:
    """Run the command line. Exit codes: 0 done, 1 expected failure, 2 usage, 130 interrupted."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller, as `>&-` does
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115  (open as long as the process lives)
    try:
        code = cli.main(args=args, prog_name="twotower", standalone_mode=False)
        sys.stdout.flush()
        sys.exit(code if isinstance(code, int) else 0)
    except TwoTowerError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(1)
    except click.UsageError as error:
        error.show()
        sys.exit(2)
    except click.ClickException as error:
        error.show()
        sys.exit(1)
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        sys.exit(130)
    except (OutputClosedError, BrokenPipeError):
        # Keep the interpreter from flushing into the closed pipe again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        click.echo(f"Error: {name}{error.strerror or error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
