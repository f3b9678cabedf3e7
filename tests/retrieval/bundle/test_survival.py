"""A bundle outlives kill -9 at random moments and tells of any damage; `survival` says how."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.survival import survive_mutations

ROOT = Path(__file__).parents[3]


def killed(*counts: str) -> str:
    """What survival says, from a process of its own: it forks, which a process with threads must not."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.survival", *counts],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.parametrize("seed", [0, 1])
def test_kills(seed: int) -> None:
    assert "100 kills survived" in killed("--kills", "100", "--seed", str(seed))


def test_kills_of_an_export() -> None:
    """Few: each loads and runs torch. The module says how to run more."""
    assert "2 kills of an export survived" in killed("--exports", "2")


@pytest.mark.parametrize("seed", [0, 1])
def test_mutations(seed: int, tmp_path: Path) -> None:
    assert survive_mutations(tmp_path, count=1_000, seed=seed) > 500
