"""`serve`: parse, open, listen."""

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
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for all.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 takes a free one.")
@click.option("--read-only", is_flag=True, help="Refuse PUT and DELETE, which change the items of the bundle.")
@click.option(
    "--writable",
    is_flag=True,
    help="Take PUT and DELETE from others without a token; by default only from this machine.",
)
@click.option(
    "--token-file",
    type=FOLDER,
    help=f"A file with a token that requests must bring. Default: the variable {TOKEN_VARIABLE}, else none is asked.",
)
@click.option("--allow-origin", "origins", multiple=True, metavar="URL", help="A site whose pages may ask; * for all.")
@click.option(
    "--allow-host",
    "hosts",
    multiple=True,
    metavar="NAME",
    help="A further name that requests may use for this server, where it listens on this machine alone; * for all.",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    help="Requests answered at the same time. Default: the number of processors.",
)
@click.option(
    "--max-k",
    type=click.IntRange(min=1),
    default=1000,
    show_default=True,
    help="The largest k that a request may ask for.",
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
    """Answer over HTTP, and show a page to try it on.

    It answers from DIR, and from each new generation of it as soon as that is published. It only listens to this
    machine unless --host says otherwise. PUT and DELETE change items of the bundle as "index add" and "remove" do,
    unless it is --read-only, or others reach it (by --host, --allow-host or --allow-origin) and no token is set.
    """
    # One thread a question; questions run beside each other. Read by the libraries when they are loaded.
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
    """The token that requests must bring. Raises TwoTowerError for a file without one."""
    if path is None:
        return os.environ.get(TOKEN_VARIABLE, "").strip() or None
    try:
        token = path.read_text(encoding="utf-8").strip()
    except UnicodeDecodeError as error:
        raise TwoTowerError(f"{path}: is not UTF-8; expected a token as text") from error
    if not token.isascii() or not token.isprintable() or not token or " " in token:
        raise TwoTowerError(f"{path}: holds no token; expected one line of letters, digits and signs")
    return token
