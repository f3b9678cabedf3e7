"""A disk that is full, or read-only, for real: a small file system in memory.

One clear line, and what was published stays whole.
"""

import ctypes
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from retrieval.bundle.checksums import REST_NS
from retrieval.bundle.reader import Bundle
from retrieval.retriever import Retriever
from retrieval.verify import verify_bundle
from tests.support.tiny import items_of, write_tiny
from twotower import main

SIZE = 4_000_000
ITEMS = 2_000

if sys.platform != "linux":
    pytest.skip("mounts a tmpfs, which is of Linux", allow_module_level=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A mounted tmpfs of SIZE bytes."""
    place = tmp_path / "disk"
    place.mkdir()
    library = ctypes.CDLL(None, use_errno=True)
    if library.mount(b"tmpfs", bytes(place), b"tmpfs", 0, f"size={SIZE}".encode()) != 0:
        pytest.skip(f"mounting a tmpfs is not allowed here: {os.strerror(ctypes.get_errno())}")
    try:
        yield place
    finally:
        library.umount2(bytes(place), 2)  # MNT_DETACH: also while something is still open


def make_read_only(disk: Path) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    flags = 0x1 | 0x20  # MS_RDONLY, MS_REMOUNT
    if library.mount(b"tmpfs", bytes(disk), b"tmpfs", flags, None) != 0:
        pytest.skip(f"remounting is not allowed here: {os.strerror(ctypes.get_errno())}")


def test_a_bundle_on_a_read_only_disk_answers_and_is_not_changed(
    disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_tiny(disk / "bundle")
    before = answers(folder)
    (folder / ".verified.json").unlink(missing_ok=True)
    time.sleep(2 * REST_NS / 1e9)  # until then no checksum would be written down
    make_read_only(disk)
    assert answers(folder) == before
    assert list(verify_bundle(folder))
    (tmp_path / "gone.txt").write_text("i1\n")
    with pytest.raises(SystemExit) as left:
        main(["index", "remove", str(folder), "--ids", str(tmp_path / "gone.txt")])
    assert left.value.code == 1
    assert "bundle: cannot be written (Read-only file system)" in capsys.readouterr().err


def fill(disk: Path, *, free: int) -> None:
    """Leave `free` bytes."""
    (disk / "filler").unlink(missing_ok=True)
    there = os.statvfs(disk)
    (disk / "filler").write_bytes(bytes(max(there.f_bavail * there.f_bsize - free, 0)))


def answers(folder: Path) -> list[tuple[str, float]]:
    with Retriever.open(folder) as retriever:
        return [(hit.id, hit.score) for hit in retriever.query([{"history": ["i1"]}], k=50)[0]]


def changed(folder: Path, source: Path) -> dict[str, list[str]]:
    """Commands that change a bundle."""
    return {
        "build": ["index", "build", str(folder), "--kind", "IVF8,Flat"],
        "add": ["index", "add", str(folder), "--items", str(source)],
        "remove": ["index", "remove", str(folder), "--ids", str(source.with_name("gone.txt"))],
        "compact": ["index", "compact", str(folder)],
    }


@pytest.mark.parametrize("name", ["build", "add", "remove", "compact"])
def test_a_full_disk_leaves_what_was_published(
    disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    folder = write_tiny(disk / "bundle", items=ITEMS)
    source = tmp_path / "new.parquet"
    pq.write_table(items_of([f"i{number}" for number in range(ITEMS, ITEMS + 1_000)]), source)
    first = tmp_path / "first.parquet"
    pq.write_table(items_of(["i5", f"i{ITEMS + 2_000}"]), first)
    if name == "compact":
        assert run(["index", "add", str(folder), "--items", str(first)]) == 0
    (tmp_path / "gone.txt").write_text("i3\ni4\n")
    command = changed(folder, source)[name]
    refusals = 0
    for free in (0, 4_096, 12_288, 40_000, 150_000, 400_000, 1_000_000):
        with Bundle.open(folder) as bundle:
            before = bundle.generation, answers(folder)
        fill(disk, free=free)
        capsys.readouterr()
        code = run(command)
        errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Error:")]
        if code == 0:
            break
        refusals += 1
        assert code == 1
        assert len(errors) == 1
        assert "no space left" in errors[0]
        assert str(folder) in errors[0]
        list(verify_bundle(folder))
        with Bundle.open(folder, verify="full") as bundle:
            assert (bundle.generation, answers(folder)) == before
        assert not list(folder.glob(".next-*"))
    assert refusals
    (disk / "filler").unlink()
    assert run(command) == 0
    list(verify_bundle(folder))


def test_a_full_disk_stops_an_export(disk: Path, planted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a real training: towers in another precision do not find the room that they need."""
    folder = disk / "bundle"
    quick = ["--set", "train.epochs=1", "--set", "model.dim=8"]
    assert run(["train", str(planted), "--out", str(folder), *quick]) == 0
    assert run(["export", str(folder)]) == 0
    assert run(["index", "build", str(folder)]) == 0
    with Bundle.open(folder) as bundle:
        before = bundle.manifest
    fill(disk, free=40_000)
    capsys.readouterr()
    assert run(["export", str(folder), "--precision", "fp16", "--allow-loss"]) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Error:")]
    assert len(errors) == 1
    assert "no space left" in errors[0]
    assert str(folder) in errors[0]
    list(verify_bundle(folder))
    with Bundle.open(folder, verify="full") as bundle:
        assert bundle.manifest == before
    with Retriever.open(folder) as retriever:
        assert len(retriever.query([{"history": []}], k=3)[0]) == 3


def run(command: list[str]) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["--quiet", *command])
    return int(ended.value.code or 0)
