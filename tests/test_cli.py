"""The command itself: help, version, exit codes."""

import re
from collections.abc import Sequence
from pathlib import Path

import click
import pytest

import twotower
from retrieval.errors import TwoTowerError

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
        assert re.search(r"Examples?:.*twotower " + path[0], shown, re.DOTALL), path


def test_the_readme_mentions_every_command(commands: list[tuple[tuple[str, ...], click.Command]]) -> None:
    text = README.read_text(encoding="utf-8")
    missing = [" ".join(path) for path, _ in commands if f"twotower {' '.join(path)}" not in text]
    assert not missing


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert twotower.__version__ in capsys.readouterr().out


def test_the_version_is_the_packages() -> None:
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


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(twotower.LazyGroup, "get_command", lambda *_: click.Command("x", callback=fail))
    with pytest.raises(ZeroDivisionError):
        twotower.main(["demo"])
