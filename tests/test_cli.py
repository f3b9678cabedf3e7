"""The command itself: help, version, exit codes."""

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import click
import pytest

import twotower
from retrieval.common.console import is_quiet
from retrieval.common.errors import TwoTowerError
from retrieval.evaluation.baseline_runs import BUDGET_S
from retrieval.evaluation.evaluate import USERS
from tests.support.tiny import write_tiny

README = Path(__file__).parents[1] / "README.md"


def run(args: Sequence[str]) -> int:
    with pytest.raises(SystemExit) as caught:
        twotower.main(list(args))
    return int(caught.value.code or 0)


def walk(command: click.Command, path: tuple[str, ...]) -> list[tuple[tuple[str, ...], click.Command]]:
    if not isinstance(command, click.Group):
        return [(path, command)]
    context = click.Context(command)
    found = []
    for name in command.list_commands(context):
        child = command.get_command(context, name)
        assert child is not None
        found += walk(child, (*path, name))
    return found


@pytest.fixture(scope="module")
def commands() -> list[tuple[tuple[str, ...], click.Command]]:
    return walk(twotower.cli, ())


def test_every_command_ends_its_help_with_an_example(
    commands: list[tuple[tuple[str, ...], click.Command]], capsys: pytest.CaptureFixture[str]
) -> None:
    for path, _ in commands:
        assert run([*path, "--help"]) == 0
        shown = capsys.readouterr().out
        assert re.match(r"Example: twotower " + " ".join(path), shown.strip().split("\n\n")[-1].strip()), path


@pytest.mark.parametrize("args", [["-q", "index", "info"], ["index", "info", "-q"], ["-v", "index", "info", "--quiet"]])
def test_quiet_is_accepted_before_and_after_the_command(args: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    quiet: list[bool] = []
    info = twotower.cli.get_command(click.Context(twotower.cli), "index").commands["info"]  # type: ignore[union-attr]
    monkeypatch.setattr(info, "callback", lambda **_: quiet.append(is_quiet()))
    assert run([*args, "somewhere"]) == 0
    assert quiet == [True]


def test_the_help_of_evaluate_states_its_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["evaluate", "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"Default: {BUDGET_S:.0f}." in shown
    assert f"Default: {USERS:,}." in shown


def test_the_readme_mentions_every_command(commands: list[tuple[tuple[str, ...], click.Command]]) -> None:
    text = README.read_text(encoding="utf-8")
    missing = [" ".join(path) for path, _ in commands if f"twotower {' '.join(path)}" not in text]
    assert not missing


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert twotower.__version__ in capsys.readouterr().out


def test_the_version_is_that_of_the_package() -> None:
    text = (README.parent / "pyproject.toml").read_text(encoding="utf-8")
    assert f'version = "{twotower.__version__}"' in text


def test_an_unknown_command_is_a_usage_error_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["qurey"]) == 2
    assert 'did you mean "query"?' in capsys.readouterr().err


@pytest.mark.parametrize(
    ("raised", "code", "words"),
    [
        (TwoTowerError("the thing\nwas wrong"), 1, "Error: the thing was wrong\n"),
        (KeyboardInterrupt(), 130, "Interrupted."),
        (PermissionError(13, "Permission denied", "some/file"), 1, "Error: some/file: Permission denied\n"),
        (OSError(28, "No space left on device", "some/file"), 1, "Error: some/file: No space left on device\n"),
    ],
)
def test_failures_are_one_line_and_an_exit_code(
    raised: BaseException, code: int, words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise raised

    monkeypatch.setattr(twotower.LazyGroup, "get_command", lambda *_: click.Command("x", callback=fail))
    assert run(["demo"]) == code
    assert words in capsys.readouterr().err


def test_a_reader_that_closes_the_pipe_is_no_failure(tmp_path: Path) -> None:
    bundle = write_tiny(tmp_path / "bundle")
    asked = tmp_path / "users.jsonl"
    asked.write_text('{"user": "u1"}\n' * 20_000)
    command = [sys.executable, "-m", "twotower", "query", str(bundle), "--input", str(asked), "--format", "json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=README.parent) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline())["user"] == "u1"
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 0


def test_a_closed_output_is_no_failure(tmp_path: Path) -> None:
    bundle = write_tiny(tmp_path / "bundle")
    shell = f'exec "{sys.executable}" -m twotower query "{bundle}" --user u1 >&- 2>&-'
    assert subprocess.run(["sh", "-c", shell], cwd=README.parent, check=False).returncode == 0


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(twotower.LazyGroup, "get_command", lambda *_: click.Command("x", callback=fail))
    with pytest.raises(ZeroDivisionError):
        twotower.main(["demo"])
