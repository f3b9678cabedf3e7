"""Break the export in ways that ship silently, and see the suite go red: python -m tests.support.mutations [WORD].

Each mutation is made in a copy of the tracked files. A test that passes with a mutation in place is no test of it.
"""

import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
GRAPH: Final = "tests/export/test_graph.py"
PAIR: Final = "tests/export/test_pair.py"


@dataclass(frozen=True)
class Mutation:
    """what: for the reader. file: where `old` stands once and becomes `new`. tests: which have to fail."""

    what: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...] = (GRAPH,)


MUTATIONS: Final = (
    Mutation("none: the suite is green", "export/graph.py", "OPSET: Final = 18", "OPSET: Final = 18", (GRAPH, PAIR)),
    Mutation("shuffle the vocabulary", "train/features/kinds.py", "*fitted.ids]", "*reversed(fitted.ids)]"),
    Mutation("drop the padding mask", "train/model/encoders.py", "padding=~present", "padding=(~present) & False"),
    Mutation("export at one list length", "export/graph.py", "axes[1] = torch", "fixed = torch"),
    Mutation("export at batch 1", "export/graph.py", "EXAMPLE_ROWS: Final = 3", "EXAMPLE_ROWS: Final = 1"),
    Mutation("drop the clamp", "train/model/feature_embedding.py", "z.clamp(-CLAMP_Z, CLAMP_Z)", "z"),
    Mutation(
        "oldest first",
        "train/features/kinds.py",
        "nodes.constant(-1), age)",
        'nodes.constant(-1), nodes.add("Neg", age))',
    ),
    Mutation("unknown is missing", "train/features/kinds.py", "default=UNKNOWN", "default=MISSING"),
    Mutation(
        "do not cut the history", "train/features/kinds.py", "nodes.constant([max_length])", "nodes.constant([10**6])"
    ),
    Mutation(
        "no unit length",
        "train/model/towers.py",
        "return unit(self.encoder.last(",
        "return 1.5 * unit(self.encoder.last(",
    ),
    Mutation("keep the exporter's notes", "export/graph.py", 'plain.ClearField("metadata_props")', "pass"),
    Mutation(
        "another IR version",
        "export/graph.py",
        "IR_VERSION: Final = 8",
        "IR_VERSION: Final = 10",
        (PAIR, "tests/export/test_contract.py"),
    ),
    Mutation(
        "int8 without its scale",
        "export/precision.py",
        'nodes.add("Mul", whole, scale, output',
        'nodes.add("Mul", whole, whole, output',
        ("tests/export/test_precision.py",),
    ),
    Mutation(
        "recommend what was seen",
        "export/retrieve_graph.py",
        "nodes.constant(-np.inf, np.float32)",
        "nodes.constant(0.0, np.float32)",
        ("tests/export/test_single_file.py",),
    ),
    Mutation(
        "refresh with the wrong rows",
        "export/refresh.py",
        "range(height, height",
        "range(height + 1, height + 1",
        ("tests/export/test_refresh.py",),
    ),
)


def copy_of(folder: Path) -> None:
    """The tracked files, as they are now."""
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())


def is_caught(mutation: Mutation) -> tuple[bool, str]:
    """Whether a test fails with the mutation in place, and which."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copy_of(folder)
        place = folder / mutation.file
        text = place.read_text()
        assert text.count(mutation.old) == 1, (
            f"{mutation.file}: {mutation.old!r} stands {text.count(mutation.old)} times"
        )
        place.write_text(text.replace(mutation.old, mutation.new))
        command = [sys.executable, "-m", "pytest", "-x", "-q", "--tb=no", "-p", "no:cacheprovider", *mutation.tests]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        lines = done.stdout.strip().splitlines()
        told = next((line for line in lines if line.startswith(("FAILED", "ERROR"))), lines[-1] if lines else "")
        return done.returncode == 1, told


def main() -> None:
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    wrong = 0
    for mutation in MUTATIONS:
        if wanted not in mutation.what:
            continue
        start = time.perf_counter()
        caught, told = is_caught(mutation)
        right = caught != mutation.what.startswith("none")
        wrong += not right
        print(
            f"{'ok   ' if right else 'WRONG'} {mutation.what}: {told} ({time.perf_counter() - start:.0f} s)", flush=True
        )
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
