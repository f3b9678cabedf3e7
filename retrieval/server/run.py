"""Run a server: bind a socket, serve, and stop without dropping requests."""

import contextlib
import logging
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Final

import prometheus_client
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from retrieval.common.console import is_quiet, is_verbose, note
from retrieval.common.errors import TwoTowerError
from retrieval.server.app import application
from retrieval.server.generations import Generations
from retrieval.server.responses import error_response
from retrieval.server.settings import Settings

FINISH_S: Final = 30  # for requests in flight after SIGTERM

log: Final = logging.getLogger("twotower.server")


class _Http(HttpToolsProtocol):
    """uvicorn's HTTP protocol, with malformed requests refused by an error in JSON."""

    def send_400_response(self, msg: str) -> None:
        response = error_response(400, f"malformed HTTP request ({msg.rstrip('.').lower()})")
        lines = [
            b"HTTP/1.1 400 Bad Request",
            *(b"%s: %s" % pair for pair in response.raw_headers),
            b"connection: close",
        ]
        self.transport.write(b"\r\n".join([*lines, b"", bytes(response.body)]))
        self.transport.close()


class _Server(uvicorn.Server):
    """uvicorn's server; SIGTERM ends it with success, SIGINT sets `interrupted`."""

    interrupted = False

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """SIGTERM and SIGINT shut down gracefully; a second SIGINT stops at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        previous = {number: signal.signal(number, self._shut_down) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _shut_down(self, number: int, frame: FrameType | None) -> None:
        self.interrupted = self.interrupted or number == signal.SIGINT
        self.handle_exit(number, frame)


def run(folder: Path, *, host: str, port: int, settings: Settings, is_local: bool) -> None:
    """Serve a bundle until SIGTERM or SIGINT; requests in flight are finished.

    Args:
        folder: The bundle.
        host: Address to listen on.
        port: Port; 0 for a free one.
        settings: Settings of the server.
        is_local: Whether only this machine can connect.

    Raises:
        BundleError: if the bundle cannot be served.
        TwoTowerError: if the address is not available.
        KeyboardInterrupt: after SIGINT.
    """
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
    generations = Generations(folder)
    with _logging_to_stderr(), _listening(host, port) as listener:
        server = _Server(
            uvicorn.Config(
                application(generations, settings),
                http=_Http,
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                ws="none",
                lifespan="on",
                timeout_graceful_shutdown=FINISH_S,
            )
        )
        present, address = generations.present, listener.getsockname()
        shown = f"[{address[0]}]" if ":" in address[0] else address[0]
        note(
            f"http://{shown}:{address[1]} serves {folder}: {present.count:,} items ({present.kind}), "
            f"model {present.bundle.pair_id}, generation {present.bundle.generation}"
        )
        if not is_local and settings.token is None:
            access = "query the server and change items" if settings.writable else "query the server"
            note(f"no token is set (--token-file): everyone who can reach {shown} can {access}")
        server.run(sockets=[listener])
    if server.interrupted:
        raise KeyboardInterrupt


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """A listening socket. Raises TwoTowerError if the address is in use or not an address of this machine."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (socket.gaierror, UnicodeError) as error:
        raise TwoTowerError(f'"{host}" is not an address to listen on; try 127.0.0.1, or 0.0.0.0 for all') from error
    with socket.socket(family, kind, protocol) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
            listener.listen(2048)
        except OSError as error:
            raise TwoTowerError(
                f"cannot listen on {host}, port {port} ({error.strerror}); choose another with --port, 0 for a free one"
            ) from error
        listener.set_inheritable(False)
        yield listener


@contextlib.contextmanager
def _logging_to_stderr() -> Iterator[None]:
    """Log to stderr: generations and errors, each request with --verbose; of uvicorn, errors only."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    levels = {
        "twotower.server": logging.ERROR if is_quiet() else logging.INFO if is_verbose() else logging.WARNING,
        "uvicorn": logging.ERROR,
    }
    loggers = {logging.getLogger(name): level for name, level in levels.items()}
    before = {logger: (logger.level, logger.propagate) for logger in loggers}
    for logger, level in loggers.items():
        logger.addHandler(handler)
        logger.setLevel(level)
        logger.propagate = False
    try:
        yield
    finally:
        for logger, (level, propagate) in before.items():
            logger.removeHandler(handler)
            logger.setLevel(level)
            logger.propagate = propagate
