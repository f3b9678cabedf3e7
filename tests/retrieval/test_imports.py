"""Serving stays light: what a fresh interpreter has loaded after importing a module."""

import pkgutil
import subprocess
import sys

import pytest

import retrieval

NEVER = {
    "torch",
    "pytorch_lightning",
    "lightning",
    "einops",
    "onnx",
    "onnxscript",
    "sklearn",
    "pandas",
    "polars",
    "train",
    "export",
}
MODULES = sorted(module.name for module in pkgutil.walk_packages(retrieval.__path__, "retrieval."))


def loaded_by(statement: str) -> set[str]:
    code = f"{statement}; import sys; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("module", MODULES)
def test_no_module_of_serving_loads_the_training_stack(module: str) -> None:
    assert not loaded_by(f"import {module}") & NEVER


def test_the_command_line_itself_loads_no_stage() -> None:
    loaded = loaded_by("import twotower")
    assert not loaded & (NEVER | {"numpy", "faiss", "onnxruntime", "pyarrow", "polars"})
