"""Fetch: every form of the archives, the two places, their checks, and what happens where neither answers."""

import gzip
import hashlib
import subprocess
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner

from retrieval.common.errors import DataError
from train.cli.data import fetch as fetch_command
from train.config.load import load
from train.data.dataset import prepare
from train.data.tables import write as write_table
from train.datasets import dataset_folder as folders
from train.datasets import fetch as fetching
from train.datasets.fetch import KNOWN, Known, Remote, Wheel, fetch, read_from

FLAGS = {"Toy Story (1995)": (3, 4, 5), "Amélie (2001)": (5, 14), "unknown": (0,), "Heat, The (1995) (V)": (1, 6, 16)}
RATINGS = [(1, 1, 5, 100), (1, 2, 4, 300), (2, 1, 3, 200), (2, 4, 2, 150), (3, 3, 1, 400), (3, 1, 1, 50)]
USERS = [(1, 24, "M", "technician", "85711"), (2, 53, "F", "other", "94043"), (3, 7, "M", "student", "T8H1N")]

GENRES = [["Animation", "Children's", "Comedy"], ["Comedy", "Romance"], [], ["Action", "Crime", "Thriller"]]


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def grouplens_100k() -> dict[str, bytes]:
    data = "".join("\t".join(map(str, row)) + "\n" for row in RATINGS)
    items = ""
    for number, (title, flags) in enumerate(FLAGS.items(), start=1):
        fields = "|".join("1" if flag in flags else "0" for flag in range(19))
        items += f"{number}|{title}|01-Jan-1995||http://x/{number}|{fields}\n"
    users = "".join("|".join(map(str, row)) + "\n" for row in USERS)
    return {"u.data": data.encode(), "u.item": items.encode("latin-1"), "u.user": users.encode()}


def recbole_100k() -> dict[str, bytes]:
    inter = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    inter += "".join("\t".join(map(str, row)) + "\n" for row in RATINGS)
    item = "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
    item += "1\tToy Story\t1995\tAnimation Children's Comedy\n2\tAmélie\t2001\tComedy Romance\n"
    item += "3\tunkonwn\tunkonwn\tunknown\n4\tHeat, The (1995)\tV\tAction Crime Thriller\n"
    user = "user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token\n"
    user += "".join("\t".join(map(str, row)) + "\n" for row in USERS)
    return {f"ml-100k.{end}": text.encode() for end, text in (("inter", inter), ("item", item), ("user", user))}


@pytest.mark.parametrize("form", ["zip", "folder", "wheel"])
def test_ml_100k_is_one_dataset_in_every_form(tmp_path: Path, form: str) -> None:
    if form == "zip":
        files = {f"ml-100k/{name}": data for name, data in grouplens_100k().items()}
        source = zipped(tmp_path / "ml-100k.zip", files)
    elif form == "wheel":
        files = {f"recbole/dataset_example/ml-100k/{name}": data for name, data in recbole_100k().items()}
        source = zipped(tmp_path / "recbole-1.2.1-py3-none-any.whl", files)
    else:
        source = tmp_path / "unpacked"
        source.mkdir()
        for name, data in grouplens_100k().items():
            (source / name).write_bytes(data)
    config = fetch("ml-100k", to=tmp_path / "out", source=source)
    tables = {
        name: pl.read_parquet(tmp_path / "out" / f"{name}.parquet") for name in ("interactions", "items", "users")
    }
    assert tables["interactions"].rows() == sorted(RATINGS, key=lambda row: row[3])
    assert tables["items"].to_dict(as_series=False) == {
        "item_id": [1, 2, 3, 4],
        "title": ["Toy Story", "Amélie", "unknown", "Heat, The"],
        "year": [1995, 2001, None, 1995],
        "genres": GENRES,
    }
    assert tables["users"].rows() == USERS
    dataset = prepare(load(config))
    assert dataset.interactions.height == len(RATINGS)
    assert [f.name for f in dataset.config.user_features] == ["age", "gender", "occupation", "history"]
    assert dataset.config.data.title == "title"


def test_ml_1m_has_names_for_its_codes(tmp_path: Path) -> None:
    source = zipped(
        tmp_path / "a.zip",
        {
            "ml-1m/ratings.dat": b"1::10::5::100\n2::10::4::200\n",
            "ml-1m/movies.dat": "10::Café (2000)::Comedy|Drama\n".encode("latin-1"),
            "ml-1m/users.dat": b"1::F::1::10::48067\n2::M::56::16::70072\n",
        },
    )
    fetch("ml-1m", to=tmp_path / "out", source=source)
    assert pl.read_parquet(tmp_path / "out/items.parquet").rows() == [(10, "Café", 2000, ["Comedy", "Drama"])]
    users = pl.read_parquet(tmp_path / "out/users.parquet")
    assert users.rows() == [(1, 1, "F", "K-12 student", "48067"), (2, 56, "M", "self-employed", "70072")]


def test_ml_latest_small_from_its_folder(movielens_small: Path, tmp_path: Path) -> None:
    config = fetch("ml-latest-small", to=tmp_path / "out", source=movielens_small)
    dataset = prepare(load(config))
    assert (dataset.users.height, dataset.items.height, dataset.interactions.height) == (610, 9742, 100836)
    first = dataset.items.row(0, named=True)
    assert (first["title"], first["year"], first["genres"][0]) == ("Toy Story", 1995, "Adventure")
    assert dataset.items.get_column("year").null_count() == 12
    assert dataset.items.filter(pl.col("genres").list.len() == 0).height == 34  # "(no genres listed)"


def test_beauty_from_its_folder(beauty: Path, tmp_path: Path) -> None:
    dataset = prepare(load(fetch("beauty", to=tmp_path / "out", source=beauty)))
    assert (dataset.users.height, dataset.items.height, dataset.interactions.height) == (22363, 12101, 198502)
    with gzip.open(beauty / "interactions.csv.gz", "rt") as file:
        rows = [tuple(map(int, line.split(","))) for line in list(file)[1:]]
    last = {user: item for user, item, _ in sorted(rows, key=lambda row: (row[0], row[2]))}
    ours = dataset.rows("test")
    users = dataset.users.get_column("user_id").gather(ours.get_column("user")).cast(pl.Int64)
    items = dataset.items.get_column("item_id").gather(ours.get_column("item")).cast(pl.Int64)
    assert dict(zip(users, items, strict=True)) == last


# -- the network ------------------------------------------------------------------------------------------------------


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (the library's name)
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """Serves the folder `served`; gives its address."""
    (tmp_path / "served").mkdir()
    handler = partial(Quiet, directory=str(tmp_path / "served"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()
        thread.join()


@pytest.fixture
def offline_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wheel:
    """A package that carries the data, where pip finds it without a network."""
    links = tmp_path / "links"
    links.mkdir()
    files = {f"carrier/ml-100k/{name}": data for name, data in recbole_100k().items()}
    files["carrier-1.0.dist-info/METADATA"] = b"Metadata-Version: 2.1\nName: carrier\nVersion: 1.0\n"
    files["carrier-1.0.dist-info/WHEEL"] = b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files["carrier-1.0.dist-info/RECORD"] = b""
    path = zipped(links / "carrier-1.0-py3-none-any.whl", files)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    return Wheel(requirement="carrier==1.0", sha256=hashlib.sha256(path.read_bytes()).hexdigest())


def know(monkeypatch: pytest.MonkeyPatch, archive: Remote | None, wheel: Wheel | None) -> None:
    known = Known(read=KNOWN["ml-100k"].read, terms="terms", archive=archive, wheel=wheel)
    monkeypatch.setattr(fetching, "KNOWN", {**KNOWN, "ml-100k": known})


def remote(url: str, path: Path) -> Remote:
    data = path.read_bytes()
    return Remote(url=url, size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())


CLOSED = "http://127.0.0.1:9/ml-100k.zip"


def test_the_publisher_is_asked_first(tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = zipped(tmp_path / "served" / "a.zip", grouplens_100k())
    know(monkeypatch, remote(f"{server}/a.zip", path), None)
    fetch("ml-100k", to=tmp_path / "out")
    assert pl.read_parquet(tmp_path / "out/users.parquet").height == 3


def test_the_wheel_is_taken_where_the_publisher_does_not_answer(
    tmp_path: Path, offline_pip: Wheel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    know(monkeypatch, Remote(url=CLOSED, size_bytes=1, sha256="x"), offline_pip)
    fetch("ml-100k", to=tmp_path / "out")
    assert pl.read_parquet(tmp_path / "out/users.parquet").height == 3
    assert f"{CLOSED}: [Errno" in capsys.readouterr().err


def test_a_file_that_is_another_is_not_taken(
    tmp_path: Path, server: str, offline_pip: Wheel, monkeypatch: pytest.MonkeyPatch
) -> None:
    zipped(tmp_path / "served" / "a.zip", grouplens_100k())
    other = Remote(url=f"{server}/a.zip", size_bytes=1, sha256="0" * 64)
    know(monkeypatch, other, Wheel(requirement=offline_pip.requirement, sha256="1" * 64))
    with pytest.raises(DataError) as caught:
        fetch("ml-100k", to=tmp_path / "out")
    message = str(caught.value)
    assert f"{server}/a.zip: ml-100k.zip has sha256" in message
    assert "expected " + "0" * 64 in message
    assert "expected " + "1" * 64 in message
    assert "--from" in message
    assert not (tmp_path / "out").exists()


def test_where_nothing_answers_both_places_and_from_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    know(monkeypatch, Remote(url=CLOSED, size_bytes=1, sha256="x"), KNOWN["ml-100k"].wheel)
    result = CliRunner().invoke(fetch_command, ["ml-100k", "--to", str(tmp_path / "out")])
    assert isinstance(result.exception, DataError)
    message = str(result.exception)
    assert "\n" not in message
    for part in (CLOSED, "pip download recbole==1.2.1", "No matching distribution", "--from"):
        assert part in message
    assert not any(tmp_path.iterdir())


def test_a_wheel_is_never_waited_for_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(*args: Any, **options: Any) -> None:
        raise subprocess.TimeoutExpired("pip", options["timeout"])

    monkeypatch.setattr(subprocess, "run", hang)
    know(monkeypatch, None, KNOWN["ml-100k"].wheel)
    with pytest.raises(DataError, match="timed out after"):
        fetch("ml-100k", to=tmp_path / "out")


# -- bad input --------------------------------------------------------------------------------------------------------


def test_a_name_nobody_knows_suggests_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(DataError, match='no known dataset "ml100k"; did you mean "ml-100k"'):
        fetch("ml100k", to=tmp_path / "out")
    with pytest.raises(DataError, match=r"beauty: could not be had.*--from"):
        fetch("beauty", to=tmp_path / "out")


@pytest.mark.parametrize("what", ["missing", "text", "truncated", "foreign", "empty folder"])
def test_what_is_no_archive_is_named(tmp_path: Path, what: str) -> None:
    path = tmp_path / "a.zip"
    if what == "text":
        path.write_text("hello")
    elif what == "truncated":
        data = zipped(path, grouplens_100k()).read_bytes()
        path.write_bytes(data[: len(data) // 2])
    elif what == "foreign":
        zipped(path, {"x.txt": b"hello"})
    elif what == "empty folder":
        path.mkdir()
    with pytest.raises(DataError, match=r"a\.zip: (no such|neither a folder|has no u\.data)"):
        fetch("ml-100k", to=tmp_path / "out", source=path)
    assert not (tmp_path / "out").exists()
    assert [entry.name for entry in tmp_path.iterdir()] in ([], ["a.zip"])


def test_a_bit_flipped_archive_is_named(tmp_path: Path) -> None:
    data = bytearray(zipped(tmp_path / "a.zip", grouplens_100k()).read_bytes())
    data[40] ^= 1
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(DataError, match=r"a\.zip: damaged: Bad CRC-32"):
        fetch("ml-100k", to=tmp_path / "out", source=tmp_path / "a.zip")


def test_an_archive_that_changed_is_read_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = zipped(tmp_path / "a.zip", grouplens_100k())
    know(monkeypatch, Remote(url=CLOSED, size_bytes=path.stat().st_size, sha256="0" * 64), None)
    assert read_from(fetching.KNOWN["ml-100k"], path).tables["users"].height == 3
    assert "the published archive has 0000" in capsys.readouterr().err


def test_a_folder_that_is_there_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = zipped(tmp_path / "a.zip", grouplens_100k())
    config = fetch("ml-100k", to=tmp_path / "out", source=source)
    config.write_text("# mine\n")
    assert fetch("ml-100k", to=tmp_path / "out", source=source).read_text() == "# mine\n"
    assert "already there" in capsys.readouterr().err
    assert fetch("ml-100k", to=tmp_path / "out", source=source, force=True).read_text() != "# mine\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "out"]


def test_other_files_are_not_written_over(tmp_path: Path) -> None:
    source = zipped(tmp_path / "a.zip", grouplens_100k())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(DataError, match="holds other files"):
        fetch("ml-100k", to=tmp_path / "out", source=source, force=True)
    with pytest.raises(DataError, match="is a file"):
        fetch("ml-100k", to=source, source=source)
    assert (tmp_path / "out" / "thesis.txt").read_text() == "mine"


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    source = zipped(tmp_path / "a.zip", grouplens_100k())
    with pytest.raises(DataError, match=r"a\.zip/out: cannot be written: (Not a directory|File exists)"):
        fetch("ml-100k", to=tmp_path / "a.zip" / "out", source=source)
    if Path("/dev/full").exists():
        with pytest.raises(DataError, match=r"/dev/full: cannot be written: .*No space left"):
            write_table(pl.DataFrame({"a": [1]}), Path("/dev/full"))


def test_a_fetch_that_is_interrupted_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = zipped(tmp_path / "a.zip", grouplens_100k())
    before = fetch("ml-100k", to=tmp_path / "out", source=source).read_bytes()

    def interrupted(*args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(folders, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch("ml-100k", to=tmp_path / "out", source=source, force=True)
    assert (tmp_path / "out" / "twotower.toml").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "out"]
