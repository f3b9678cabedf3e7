"""`serve`: the HTTP server."""

import os
from pathlib import Path
from typing import Final

import click

from retrieval.common.errors import TwoTowerError

FOLDER: Final = click.Path(path_type=Path)
TOKEN_VARIABLE: Final = "TWOTOWER_TOKEN"
LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")


@click.command(epilog="Example: twotower serve artifacts/demo --port 8000")
@click.argument("folder", metavar="DIR", type=FOLDER)
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for all interfaces."
)
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="Port; 0 for a free one.")
@click.option("--read-only", is_flag=True, help="Disable PUT and DELETE of items.")
@click.option(
    "--writable",
    is_flag=True,
    help="Allow PUT and DELETE from other machines without a token.",
)
@click.option(
    "--token-file",
    type=FOLDER,
    help=f"File with a bearer token that requests must send. Default: the variable {TOKEN_VARIABLE}; none if unset.",
)
@click.option(
    "--allow-origin",
    "origins",
    multiple=True,
    metavar="URL",
    help="Origin whose web pages may send requests (CORS); * for all.",
)
@click.option(
    "--allow-host",
    "hosts",
    multiple=True,
    metavar="NAME",
    help="Another host name that requests may use while the server listens on localhost; * for all.",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    help="Requests answered in parallel. Default: the number of processors.",
)
@click.option(
    "--max-k",
    type=click.IntRange(min=1),
    default=1000,
    show_default=True,
    help="Largest k of a request.",
)
def serve(
    folder: Path,
    host: str,
    port: int,
    read_only: bool,
    writable: bool,
    token_file: Path | None,
    origins: tuple[str, ...],
    hosts: tuple[str, ...],
    threads: int | None,
    max_k: int,
) -> None:
    """Serve recommendations over HTTP, with a web page to try them.

    A new version of the bundle in DIR is served as soon as it is published. The server listens on localhost unless
    --host is given. PUT and DELETE change items as "index add" and "index remove" do. Writes are disabled with
    --read-only, and when the server is exposed (--host, --allow-host or --allow-origin) without a token.
    """
    # One thread for each request; requests run in parallel. The libraries read these when they are loaded.
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(variable, "1")
    from retrieval.server import run
    from retrieval.server.settings import Limits, Settings

    if read_only and writable:
        raise click.UsageError("--read-only and --writable contradict each other")
    is_local = host in LOOPBACK
    token = _token(token_file)
    settings = Settings(
        writable=not read_only and (writable or token is not None or (is_local and not origins and not hosts)),
        token=token,
        origins=origins,
        hosts=(*LOOPBACK, *(name.lower() for name in hosts)) if is_local and "*" not in hosts else (),
        limits=Limits(k=max_k),
        **({} if threads is None else {"threads": threads}),
    )
    run.run(folder, host=host, port=port, settings=settings, is_local=is_local)


def _token(path: Path | None) -> str | None:
    """The token that requests must send. Raises TwoTowerError for a file without one."""
    if path is None:
        return os.environ.get(TOKEN_VARIABLE, "").strip() or None
    try:
        token = path.read_text(encoding="utf-8").strip()
    except UnicodeDecodeError as error:
        raise TwoTowerError(f"{path}: not UTF-8; expected a token as text") from error
    if not token.isascii() or not token.isprintable() or not token or " " in token:
        raise TwoTowerError(f"{path}: holds no token; expected one line of printable ASCII without spaces")
    return token
