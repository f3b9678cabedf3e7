"""The console command: gathers the stages' commands and loads each only when it is called."""

import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from retrieval.common.console import set_verbosity
from retrieval.common.errors import TwoTowerError

if TYPE_CHECKING:
    from retrieval.bundle.reader import Bundle

__version__: Final = "0.1.0"

# command -> module:attribute. The module, and whatever it imports, is loaded when the command is called.
COMMANDS: Final = {
    "demo": ("export.cli.pipeline:demo", "The whole job on real data: fetch, train, export, index, evaluate, query."),
    "fetch": ("train.cli.data:fetch", "Get a known public dataset as a dataset folder."),
    "init": ("train.cli.data:init", "Look at your tables and write a commented config."),
    "inspect": ("train.cli.data:inspect", "What is in the tables, before training."),
    "run": ("export.cli.pipeline:run", "Train, export, index and evaluate in one go."),
    "train": ("train.cli.train:train", "Train the two towers."),
    "export": ("export.cli.export:export", "Write the two towers as ONNX files that take raw features."),
    "index": ("retrieval.cli.index:index", "Build, change and check the index of a bundle."),
    "query": ("retrieval.cli.query:query", "The top k items for users, known or new."),
    "similar": ("retrieval.cli.query:similar", "The items nearest to an item."),
    "embed": ("retrieval.cli.query:embed", "Vectors of a table, through a tower."),
    "evaluate": ("retrieval.cli.evaluate:evaluate", "The deployed path on held-out users, beside baselines."),
    "serve": ("retrieval.cli.serve:serve", "Answer over HTTP, with a page to try it on."),
    "bench": ("retrieval.cli.bench:bench", "How fast a bundle answers on this machine."),
}


QUIET: Final = "Errors only: no progress, no notes."
VERBOSE: Final = "More about what is being done."


def take_verbosity(command: click.Command) -> None:
    """Let -q and -v stand after the command too; they change `command`, once."""
    if isinstance(command, click.Group):
        for child in command.commands.values():
            take_verbosity(child)
    elif not any(parameter.name == "quiet" for parameter in command.params):
        command.params += [
            click.Option(["-q", "--quiet"], is_flag=True, expose_value=False, callback=_verbosity, help=QUIET),
            click.Option(["-v", "--verbose"], is_flag=True, expose_value=False, callback=_verbosity, help=VERBOSE),
        ]


def _verbosity(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:  # noqa: ARG001  (click's signature)
    """What is said last counts: `twotower -v query ... -q` is quiet."""
    if value:
        set_verbosity(quiet=parameter.name == "quiet", verbose=parameter.name == "verbose")


class ReaderGoneError(Exception):
    """Who read our output has closed it, as `| head` does."""


class LazyGroup(click.Group):
    """A group that knows the names and one-line helps of its commands without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  (click's signature)
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module, attribute = COMMANDS[cmd_name][0].split(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        take_verbosity(command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with the nearest name where there is none."""
        from retrieval.common.errors import nearest

        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            ctx.fail(f'no command "{args[0]}"{nearest(args[0], COMMANDS)}')
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """As click does, but a reader who has gone is no failure: click would exit 1 and say nothing."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise ReaderGoneError from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]}, epilog="Example: twotower demo")
@click.version_option(__version__, prog_name="twotower")
@click.option("-q", "--quiet", is_flag=True, help=QUIET)
@click.option("-v", "--verbose", is_flag=True, help=VERBOSE)
@click.pass_context
def cli(ctx: click.Context, quiet: bool, verbose: bool) -> None:
    """Two towers, two ONNX files, one index: the retrieval stage of a recommender."""
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
        if getattr(sys, name) is None:  # closed by whoever started us, as `>&-` does
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115  (for as long as the process lives)
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
    except (ReaderGoneError, BrokenPipeError):
        # Nobody to tell. Keep the interpreter from flushing into it again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        click.echo(f"Error: {name}{error.strerror or error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
