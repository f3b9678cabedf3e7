"""Where the runtimes are, and a skip by name where one is not. `.ci/runtimes` installs them all."""

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
HERE = Path(__file__).parent
FOLDER = Path(os.environ.get("TWOTOWER_RUNTIMES", ROOT / ".runtimes"))
NODE_PACKAGES = ROOT / "examples" / "node"
BROWSER_PACKAGES = ROOT / "examples" / "browser"
OLDEST, OF_NODE = "1.17.3", "1.30.0"
LIMIT_S = 180


def absent(what: str) -> None:
    """Skip, by name; where TWOTOWER_RUNTIMES_REQUIRED is set (CI), fail instead."""
    if os.environ.get("TWOTOWER_RUNTIMES_REQUIRED"):
        pytest.fail(f"{what} is not there, and here it has to be; run .ci/runtimes")
    pytest.skip(f"{what} is not there; .ci/runtimes installs it")


def python_of(version: str) -> Path:
    """The interpreter of an environment that holds numpy and this onnxruntime alone."""
    python = FOLDER / f"onnxruntime-{version}" / "bin" / "python"
    if not python.exists():
        absent(f"onnxruntime {version} for Python")
    return python


def node() -> str:
    found = shutil.which("node")
    if found is None:
        absent("Node")
    if not (NODE_PACKAGES / "node_modules" / "onnxruntime-node").exists():
        absent("onnxruntime-node")
    assert found is not None
    return found


def chromium() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        absent("Chromium")
    if not (BROWSER_PACKAGES / "node_modules" / "playwright-core").exists():
        absent("playwright-core")
    assert found is not None
    return found


def run(command: Sequence[str | Path]) -> str:
    """The stdout of a program that has to end well."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stderr[-4000:]}"
    return done.stdout


def in_python(version: str, bundle: Path, work: str, **options: Any) -> Any:
    """Run a work of cases.py in an environment that holds numpy and onnxruntime alone."""
    return json.loads(run([python_of(version), "-I", HERE / "cases.py", bundle, work, json.dumps(options)]))


def in_node(bundle: Path, work: str, **options: Any) -> Any:
    """Run a work of cases.mjs in Node."""
    return json.loads(run([node(), HERE / "node.mjs", bundle, NODE_PACKAGES, work, json.dumps(options)]))["result"]


def in_browser(site: Path, bundle: Path, work: str, **options: Any) -> Any:
    """Run a work of cases.mjs in headless Chromium, or visit the example's page (`page`)."""
    options["chromium"] = chromium()
    command: list[str | Path] = [
        node(),
        HERE / "browser.mjs",
        site,
        bundle,
        BROWSER_PACKAGES,
        work,
        json.dumps(options),
    ]
    return json.loads(run(command))["result"]
