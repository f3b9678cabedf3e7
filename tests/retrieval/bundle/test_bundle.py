"""The bundle: one generation at a time, whatever happens to its writers."""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from retrieval.bundle import writer as publish
from retrieval.bundle.reader import Bundle
from retrieval.bundle.writer import publishing
from retrieval.common.errors import BundleError
from tests.support.tiny import tiny_schema


def publish_some(folder: Path, *, pair_id: str = "abc", **files: object) -> None:
    with publishing(folder) as draft:
        draft.write_json("schema.json", tiny_schema(4, pair_id).to_json())
        for name, content in files.items():
            draft.write_json(f"{name}.json", content)


def visible(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


def test_what_is_published_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "bundle"
    publish_some(folder, a=1, b={"é": [1.5, None]})
    with Bundle.open(folder) as bundle:
        assert bundle.generation == 1
        assert bundle.pair_id == bundle.schema.pair_id == "abc"
        assert bundle.names == {"schema.json", "a.json", "b.json"}
        assert bundle.read_json("b.json") == {"é": [1.5, None]}
        assert bundle.file("a.json") == folder / "a.json"
        assert bundle.has("a.json")
        assert not bundle.has("c.json")
        with pytest.raises(BundleError, match=r'no "c\.json"'):
            bundle.file("c.json")
    assert visible(folder) - {".verified.json"} == {"manifest.json", "schema.json", "a.json", "b.json"}


def test_a_change_carries_the_rest_over(tmp_path: Path) -> None:
    publish_some(tmp_path, a=1, b=1)
    with publishing(tmp_path) as draft:
        assert draft.read_json("a.json") == 1
        draft.write_json("a.json", 2)
        assert draft.read_json("a.json") == 2
        draft.remove("b.json")
        assert not draft.has("b.json")
        assert draft.has("schema.json")
        assert draft.pair_id == "abc"
    with Bundle.open(tmp_path) as bundle:
        assert bundle.names == {"schema.json", "a.json"}
        assert bundle.generation == 2
    assert not (tmp_path / "b.json").exists()
    assert not (tmp_path / ".previous").exists()


def test_clear_begins_with_nothing(tmp_path: Path) -> None:
    publish_some(tmp_path, a=1)
    with publishing(tmp_path, clear=True) as draft:
        assert not draft.has("a.json")
        draft.write_json("schema.json", tiny_schema(4, "abc").to_json())
    with Bundle.open(tmp_path) as bundle:
        assert bundle.names == {"schema.json"}


def test_no_change_is_no_generation(tmp_path: Path) -> None:
    publish_some(tmp_path, a=1)
    before = (tmp_path / "manifest.json").read_bytes()
    publish_some(tmp_path, a=1)
    with publishing(tmp_path):
        pass
    assert (tmp_path / "manifest.json").read_bytes() == before


def test_a_failure_publishes_nothing(tmp_path: Path) -> None:
    publish_some(tmp_path, a=1)
    before = visible(tmp_path)

    def fail(folder: Path) -> None:
        with publishing(folder) as draft:
            draft.write_json("a.json", 2)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail(tmp_path)
    with Bundle.open(tmp_path) as bundle:
        assert bundle.read_json("a.json") == 1
    assert visible(tmp_path) - {".verified.json"} == before - {".verified.json"}
    with pytest.raises(ZeroDivisionError):
        fail(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_reader_keeps_its_generation(tmp_path: Path) -> None:
    publish_some(tmp_path, a=1, b=1)
    with Bundle.open(tmp_path) as first:
        for value in range(2, 5):
            publish_some(tmp_path, a=value)
        with publishing(tmp_path) as draft:
            draft.remove("b.json")
        assert first.read_json("a.json") == 1
        assert first.read_json("b.json") == 1
        with Bundle.open(tmp_path) as last:
            assert last.read_json("a.json") == 4
            assert not last.has("b.json")
    publish_some(tmp_path, a=5)
    assert not (tmp_path / ".previous").exists()


def test_readers_never_see_a_mix(tmp_path: Path) -> None:
    publish_some(tmp_path, a=0, b=0)
    stop = threading.Event()
    seen: list[int] = []
    failures: list[BaseException] = []

    def read() -> None:
        try:
            while not stop.is_set():
                with Bundle.open(tmp_path) as bundle:
                    values = bundle.read_json("a.json"), bundle.read_json("b.json")
                assert values[0] == values[1]
                seen.append(values[0])
        except BaseException as error:
            failures.append(error)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for value in range(1, 20):
        publish_some(tmp_path, a=value, b=value)
    stop.set()
    for reader in readers:
        reader.join()
    assert not failures
    assert seen == sorted(seen) or len(set(seen)) > 1


def test_the_second_writer_waits_or_is_refused(tmp_path: Path) -> None:
    publish_some(tmp_path, a=1)
    with publishing(tmp_path) as draft:
        draft.write_json("a.json", 2)
        with pytest.raises(BundleError, match=f"process {os.getpid()} is writing"), publishing(tmp_path, wait_s=0.05):
            pass
        waiting = threading.Thread(target=publish_some, args=(tmp_path,), kwargs={"a": 3})
        waiting.start()
        time.sleep(0.1)
    waiting.join()
    with Bundle.open(tmp_path) as bundle:
        assert bundle.read_json("a.json") == 3
        assert bundle.generation == 3


def test_many_writers_take_turns(tmp_path: Path) -> None:
    publish_some(tmp_path, count=0)

    def add() -> None:
        for _ in range(5):
            with publishing(tmp_path, wait_s=60) as draft:
                draft.write_json("count.json", draft.read_json("count.json") + 1)

    writers = [threading.Thread(target=add) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    with Bundle.open(tmp_path) as bundle:
        assert bundle.read_json("count.json") == 20


class Killed(BaseException):
    """Stands for kill -9: nothing of ours runs after it."""


@pytest.mark.parametrize("at", range(12))
def test_a_writer_that_dies_at_any_step_leaves_one_generation(
    tmp_path: Path, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every call that changes the folder while publishing is the last one, in turn."""
    publish_some(tmp_path, a=1, b=1, gone=1)
    steps = 0

    def dying(real: object) -> object:
        def call(*args: object, **kwargs: object) -> object:
            nonlocal steps
            steps += 1
            if steps > at:
                raise Killed
            return real(*args, **kwargs)  # type: ignore[operator]

        return call

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", dying(Path.replace))
        patch.setattr(os, "link", dying(os.link))
        patch.setattr(Path, "unlink", dying(Path.unlink))
        recover = publish._recover
        # The first call, on entering, is allowed; the one on leaving is not: a killed process cleans up nothing.
        calls = iter([recover])
        patch.setattr(publish, "_recover", lambda folder: next(calls, lambda _: None)(folder))
        patch.setattr(publish, "_link", dying(publish._link))
        try:
            with publishing(tmp_path) as draft:
                draft.write_json("a.json", 2)
                draft.write_json("b.json", 2)
                draft.write_json("new.json", 2)
                draft._carried.discard("gone.json")
        except Killed:
            pass
    for _ in range(2):
        with Bundle.open(tmp_path, verify="full") as bundle:
            values = {name: bundle.read_json(name) for name in bundle.names - {"schema.json"}}
            assert values in ({"a.json": 1, "b.json": 1, "gone.json": 1}, {"a.json": 2, "b.json": 2, "new.json": 2})
        with publishing(tmp_path):
            pass
        assert visible(tmp_path) - {".verified.json"} == {"manifest.json", "schema.json", *values}


def test_an_interrupted_first_publication_leaves_nothing_in_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(publish, "_sync", lambda path: (_ for _ in ()).throw(Killed) if path == tmp_path else None)
        patch.setattr(publish, "_recover", lambda _: None)
        with pytest.raises(Killed):
            publish_some(tmp_path, a=1)
    assert (tmp_path / "a.json").exists()
    with pytest.raises(BundleError, match="not a bundle"):
        Bundle.open(tmp_path)
    publish_some(tmp_path, a=2)
    with Bundle.open(tmp_path) as bundle:
        assert bundle.read_json("a.json") == 2


def test_files_of_others_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("mine")
    with pytest.raises(BundleError, match=r"a\.json: is in the way"):
        publish_some(tmp_path, a=1)
    assert (tmp_path / "a.json").read_text() == "mine"
    assert visible(tmp_path) == {"a.json"}


def test_vectors_of_another_pair_are_dropped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    publish_some(tmp_path, a=1)
    with publishing(tmp_path) as draft:
        draft.write_bytes("index.faiss", b"vectors")
    publish_some(tmp_path, pair_id="def")
    with Bundle.open(tmp_path) as bundle:
        assert bundle.pair_id == "def"
        assert not bundle.has("index.faiss")
    assert "index build" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["../a", "a/b", ".hidden", "", "manifest.json", "a\0b", "ä", "x" * 200, "/etc/passwd"])
def test_names_stay_inside_the_folder(tmp_path: Path, name: str) -> None:
    with publishing(tmp_path) as draft:
        with pytest.raises(ValueError, match="cannot be the name"):
            draft.path(name)
        draft.write_json("schema.json", tiny_schema(4, "abc").to_json())
    content = json.loads((tmp_path / "manifest.json").read_bytes())
    content["files"][name] = {"size": 1, "sha256": "0" * 64}
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(BundleError, match=r"manifest\.json: damaged"):
        Bundle.open(tmp_path)


def test_a_future_format_is_named(tmp_path: Path) -> None:
    publish_some(tmp_path)
    text = (tmp_path / "manifest.json").read_text()
    (tmp_path / "manifest.json").write_text(text.replace('"format_version": 1', '"format_version": 9'))
    with pytest.raises(BundleError, match="format version 9, this program reads 1"):
        Bundle.open(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"[" * 100_000, b"\xff\xfe", b'{"format_version": 1}'])
def test_what_is_no_manifest_is_refused(tmp_path: Path, content: bytes) -> None:
    publish_some(tmp_path)
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(BundleError, match=r"manifest\.json: damaged"):
        Bundle.open(tmp_path)


def test_damage_is_found_even_where_size_and_time_stay(tmp_path: Path) -> None:
    publish_some(tmp_path, a=1)
    time.sleep(0.15)  # so that the file is old enough to be remembered
    with Bundle.open(tmp_path) as bundle:
        bundle.file("a.json")
    before = (tmp_path / "a.json").stat()
    (tmp_path / "a.json").write_text("2\n")
    os.utime(tmp_path / "a.json", ns=(before.st_atime_ns, before.st_mtime_ns))
    with Bundle.open(tmp_path) as bundle, pytest.raises(BundleError, match=r"a\.json: damaged, its content"):
        bundle.file("a.json")


def test_a_checksum_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from retrieval.bundle import checksums

    publish_some(tmp_path, a=1)
    time.sleep(0.15)
    with Bundle.open(tmp_path) as bundle:
        bundle.file("a.json")
    monkeypatch.setattr(checksums, "sha256_of", lambda _: pytest.fail("read again"))
    with Bundle.open(tmp_path) as bundle:
        bundle.file("a.json")
    (tmp_path / ".verified.json").write_text("{ nonsense")
    monkeypatch.undo()
    with Bundle.open(tmp_path) as bundle:
        bundle.file("a.json")


def test_a_missing_or_short_file_is_named_on_opening(tmp_path: Path) -> None:
    publish_some(tmp_path, a=[1, 2, 3])
    (tmp_path / "a.json").write_text("[1")
    with pytest.raises(BundleError, match=r"a\.json: damaged, expected"):
        Bundle.open(tmp_path)
    (tmp_path / "a.json").unlink()
    with pytest.raises(BundleError, match=r"a\.json: damaged.*no such file"):
        Bundle.open(tmp_path)
    os.mkfifo(tmp_path / "a.json")
    with pytest.raises(BundleError, match=r"a\.json: not a regular file"):
        Bundle.open(tmp_path)


def test_no_folder_and_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such folder"):
        Bundle.open(tmp_path / "nowhere")
    with pytest.raises(BundleError, match="not a bundle"):
        Bundle.open(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleError, match="not a bundle"):
        Bundle.open(tmp_path / "file")


AS_NOBODY = """
import os, sys
from pathlib import Path
from tests.retrieval.bundle.test_bundle import BundleError, Bundle, publish_some

if os.geteuid() == 0:  # who may write anywhere
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
folder = Path(sys.argv[1])
try:
    publish_some(folder, a=2)
except BundleError as error:
    print(error)
with Bundle.open(folder, verify="full") as bundle:
    print(bundle.read_json("a.json"))
"""


def test_a_folder_that_cannot_be_written_is_named() -> None:
    """In a process of its own, which gives up being root; outside pytest's folder, which is its user's alone."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "bundle"
        publish_some(folder, a=1)
        Path(place).chmod(0o755)
        folder.chmod(0o555)
        try:
            done = subprocess.run(
                [sys.executable, "-c", AS_NOBODY, str(folder)],
                cwd=Path(__file__).parents[3],
                capture_output=True,
                text=True,
                timeout=120,
                check=True,
            )
        finally:
            folder.chmod(0o755)
        refusal, content = done.stdout.splitlines()
        assert refusal.startswith(f"{folder}: cannot be written (Permission denied)")
        assert content == "1"


def test_a_full_disk_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish_some(tmp_path, a=1)

    def full(path: Path) -> None:
        raise OSError(28, "No space left on device", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(publish, "_sync", full)
        with pytest.raises(BundleError, match=r"no space left.*is intact"):
            publish_some(tmp_path, a=2)
    with Bundle.open(tmp_path, verify="full") as bundle:
        assert bundle.read_json("a.json") == 1
        bundle.file("a.json")


def test_a_folder_that_disappears_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    publish_some(folder, a=1)

    def move() -> None:
        with publishing(folder) as draft:
            folder.rename(tmp_path / "elsewhere")
            draft.write_json("a.json", 2)

    with pytest.raises(BundleError, match="cannot be written"):
        move()
    with Bundle.open(tmp_path / "elsewhere") as bundle:
        assert bundle.read_json("a.json") == 1
