"""The command as a process with a socket."""

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from retrieval.server.settings import Settings
from tests.retrieval.test_imports import loaded_by
from tests.support.tiny import write_tiny
from tests.test_cli import run


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A server on a free port, and its port."""
    command = [sys.executable, "-m", "twotower", "serve", str(folder), "--port", "0", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            found = re.match(r"http://[\d.]+:(\d+) serves .*: 40 items \(flat\)", line)
            assert found, line + process.stderr.read()
            yield process, int(found[1])
        finally:
            process.kill()


def ask(port: int, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(method, path, None if body is None else json.dumps(body))
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def test_start_query_and_stop(tmp_path: Path) -> None:
    folder = write_tiny(tmp_path / "bundle")
    with serving(folder) as (process, port):
        body = {"users": [{"history": ["i2", "i4"]}], "k": 3}
        status, found = ask(port, "POST", "/v1/recommend", body)
        assert status == 200
        assert len(found["results"][0]["hits"]) == 3
        status, put = ask(port, "PUT", "/v1/items", {"items": [{"id": "n", "year": 1}]})
        assert (status, put["added"]) == (200, 1)

        # From another process: by itself within a moment.
        remove = [sys.executable, "-m", "twotower", "index", "remove", str(folder), "--ids", "-"]
        subprocess.run(remove, input="n\n", text=True, check=True, capture_output=True, timeout=60)
        deadline = time.monotonic() + 10
        while ask(port, "GET", "/v1/items/n")[0] != 404:
            assert time.monotonic() < deadline
            time.sleep(0.05)

        # Too long a body, on one connection with what follows: refused without breaking anything.
        assert ask(port, "POST", "/v1/recommend", "x" * (9 << 20))[0] == 413

        # A request under way when the end is asked for is answered.
        slow = socket.create_connection(("127.0.0.1", port), timeout=20)
        content = json.dumps(body).encode()
        head = f"POST /v1/recommend HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(content)}\r\n\r\n"
        slow.sendall(head.encode() + content[:5])
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        slow.sendall(content[5:])
        answered = b""
        while part := slow.recv(65536):
            answered += part
        slow.close()
        assert answered.startswith(b"HTTP/1.1 200")
        assert json.loads(answered.partition(b"\r\n\r\n")[2])["results"] == found["results"]
        assert process.wait(timeout=20) == 0
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ([], 200),
        (["--read-only"], 403),
        (["--host", "0.0.0.0"], 403),
        (["--host", "0.0.0.0", "--writable"], 200),
        (["--host", "0.0.0.0", "--token-file", "TOKEN"], 200),
        (["--host", "0.0.0.0", "--token-file", "TOKEN", "--read-only"], 403),
        (["--allow-origin", "*"], 403),
        (["--allow-host", "shop.example"], 403),
        (["--allow-host", "*", "--writable"], 200),
    ],
)
def test_which_options_allow_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], status: int
) -> None:
    """The settings that the command would run with."""
    from starlette.testclient import TestClient

    from retrieval.server import run as running
    from retrieval.server.app import application
    from retrieval.server.generations import Generations

    (tmp_path / "token").write_text("abc\n")
    found: list[int] = []

    def instead(folder: Path, *, settings: Settings, **_options: Any) -> None:
        address = "http://localhost"
        with TestClient(application(Generations(folder), settings), base_url=address) as client:
            headers = {"Authorization": "Bearer abc"}
            found.append(client.put("/v1/items", json={"items": [{"id": "x"}]}, headers=headers).status_code)
            assert client.get("/v1/info", headers=headers).status_code == 200

    monkeypatch.setattr(running, "run", instead)
    words = [str(tmp_path / "token") if word == "TOKEN" else word for word in options]
    assert run(["serve", str(write_tiny(tmp_path / "bundle")), *words]) == 0
    assert found == [status]


def test_options_that_contradict_each_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["serve", str(tmp_path), "--read-only", "--writable"]) == 2
    assert "contradict" in capsys.readouterr().err


def test_an_exposed_server_without_a_token_prints_a_warning(tmp_path: Path) -> None:
    with serving(write_tiny(tmp_path / "bundle"), "--host", "0.0.0.0", "--writable") as (process, port):
        assert ask(port, "GET", "/healthz")[0] == 200
        assert process.stderr is not None
        assert process.stderr.readline() == (
            "no token is set (--token-file): everyone who can reach 0.0.0.0 can query the server and change items\n"
        )


@pytest.mark.parametrize(
    "sent", [b"GARBAGE\r\n\r\n", b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n"]
)
def test_malformed_http_gives_an_error_in_json(tmp_path: Path, sent: bytes) -> None:
    with serving(write_tiny(tmp_path / "bundle")) as (_, port):
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            connection.sendall(sent)
            response = http.client.HTTPResponse(connection)
            response.begin()
            assert response.status == 400
            assert response.getheader("content-type") == "application/json; charset=utf-8"
            assert "malformed HTTP request" in json.loads(response.read())["error"]
        assert ask(port, "GET", "/healthz")[0] == 200


def test_sigint_exits_with_130(tmp_path: Path) -> None:
    with serving(write_tiny(tmp_path / "bundle")) as (process, _):
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 130


def test_a_port_in_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_tiny(tmp_path / "bundle")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        capsys.readouterr()
        assert run(["serve", str(folder), "--port", str(port)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"cannot listen on 127.0.0.1, port {port} (Address already in use)" in line


@pytest.mark.parametrize(
    ("make", "options", "words"),
    [
        (lambda path: path / "none", [], "no such folder"),
        (lambda path: path, [], "not a bundle"),
        (lambda path: write_tiny(path / "bare", index=False), [], "has no index"),
        (lambda path: write_tiny(path / "bundle"), ["--host", "no such host"], "is not an address"),
        (lambda path: write_tiny(path / "bundle"), ["--token-file", "/dev/null"], "holds no token"),
        (lambda path: write_tiny(path / "bundle"), ["--token-file", "/nowhere"], "/nowhere: No such file"),
    ],
)
def test_a_start_that_fails_prints_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], make: Any, options: list[str], words: str
) -> None:
    folder = make(tmp_path)
    capsys.readouterr()
    assert run(["serve", str(folder), "--port", "0", *options]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line


def test_only_the_server_needs_the_extra() -> None:
    modules = "retrieval.retriever, retrieval.cli.query, retrieval.cli.index, retrieval.cli.serve"
    assert not loaded_by(f"import twotower, {modules}") & {"starlette", "uvicorn", "prometheus_client", "anyio"}


def test_concurrent_clients_get_equal_answers(tmp_path: Path) -> None:
    with serving(write_tiny(tmp_path / "bundle"), "--threads", "3") as (_, port):
        found: list[tuple[int, Any]] = []
        body = {"users": [{"user": "u1"}], "where": "year > 1985", "diversity": 0.3}
        askers = [
            threading.Thread(target=lambda: found.extend(ask(port, "POST", "/v1/recommend", body) for _ in range(5)))
            for _ in range(8)
        ]
        for asker in askers:
            asker.start()
        for asker in askers:
            asker.join()
    assert len(found) == 40
    assert all(answer == found[0] for answer in found)
    assert found[0][0] == 200
