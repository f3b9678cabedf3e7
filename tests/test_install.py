"""Installation: base dependencies, extras, and the line that names a missing extra."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import twotower
from retrieval.common.extras import EXTRAS
from tests.retrieval.test_imports import loaded_by

PYPROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[><=\[;]", requirement)[0] for requirement in requirements}


def test_the_base_is_what_serving_needs() -> None:
    assert names(PYPROJECT["dependencies"]) == {"click", "faiss-cpu", "numpy", "onnxruntime", "pyarrow"}


@pytest.mark.parametrize("extra", EXTRAS)
def test_an_extra_is_described_as_it_is_declared(extra: str) -> None:
    assert set(EXTRAS[extra].packages.values()) == names(PYPROJECT["optional-dependencies"][extra])


def test_the_extras_of_the_contract_are_there() -> None:
    assert {"train", "server", "scale", "baselines", "all"} <= set(PYPROJECT["optional-dependencies"])


@pytest.mark.parametrize(
    ("command", "missing", "words", "extra"),
    [
        (["train", "x.toml"], "pytorch_lightning", "train needs PyTorch Lightning", "train"),
        (["evaluate", "x"], "scipy", "evaluate needs SciPy", "train"),
        (["inspect", "x.toml"], "polars", "inspect needs Polars", "train"),
        (["serve", "x"], "uvicorn", "serve needs Uvicorn", "server"),
    ],
)
def test_a_command_without_its_extra_says_what_to_install(
    command: list[str], missing: str, words: str, extra: str
) -> None:
    hide = f"import sys; sys.modules[{missing!r}] = None; import twotower; twotower.main({command!r})"
    done = subprocess.run([sys.executable, "-c", hide], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert done.stderr == f'Error: twotower {words}; install it with: pip install "twotower[{extra}]"\n'


def test_another_missing_module_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(twotower.COMMANDS, "bench", ("retrieval.cli.no_such_module:bench", ""))
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        twotower.main(["bench"])


def test_python_says_what_to_install_too() -> None:
    hide = "import sys; sys.modules['polars'] = None; import twotower; twotower.fit"
    done = subprocess.run([sys.executable, "-c", hide], capture_output=True, text=True, timeout=120, check=False)
    assert done.stderr.splitlines()[-1] == (
        'ModuleNotFoundError: twotower.fit needs Polars; install it with: pip install "twotower[train]"'
    )


def test_the_python_api_is_lazy() -> None:
    heavy = {"numpy", "faiss", "onnxruntime", "pyarrow", "polars", "pandas", "scipy", "torch", "train", "export"}
    assert not loaded_by("import twotower") & heavy
    assert not loaded_by("import twotower; twotower.Retriever") & {"torch", "polars", "pandas", "train", "export"}
    with pytest.raises(AttributeError, match="no attribute 'fitt'"):
        twotower.__getattr__("fitt")
