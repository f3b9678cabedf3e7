"""`query`, `similar`, `embed` and `index`: what they print, where, and with which exit code."""

import csv
import gzip
import io
import json
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from retrieval import Retriever
from tests.support.tiny import items_of, write_tiny
from tests.test_cli import run

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that tests must not change."""
    return write_tiny(tmp_path_factory.mktemp("tiny") / "bundle")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_tiny(tmp_path / "bundle")


def lines(capsys: Captured) -> list[Any]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_json_equals_the_answers_in_python(shared: Path, capsys: Captured) -> None:
    assert run(["query", str(shared), "--history", "i2, i4", "-k", "3", "--where", "year > 1990"]) == 0
    (found,) = lines(capsys)
    with Retriever.open(shared) as retriever:
        (answer,) = retriever.answer([{"history": ["i2", "i4"]}], k=3, where="year > 1990")
    assert found == json.loads(json.dumps(answer.to_json()))
    assert found["user"] is None
    assert [list(hit)[:3] for hit in found["hits"]] == [["id", "score", "title"]] * 3


def test_the_same_query_twice_gives_the_same_bytes(shared: Path, capsys: Captured) -> None:
    outputs = []
    for form in ("json", "table", "csv") * 2:
        assert run(["query", str(shared), "--user", "u1", "--format", form, "--diversity", "0.4"]) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[:3] == outputs[3:]


def test_users_of_a_file_are_answered_in_order(shared: Path, tmp_path: Path, capsys: Captured) -> None:
    asked: list[dict[str, Any]] = [{"user": f"u{number % 6}"} for number in range(300)]
    asked[3] = {"features": {"age": None}, "history": []}
    source = tmp_path / "users.jsonl"
    source.write_text("\n\n".join(json.dumps(query) for query in asked) + "\n", encoding="utf-8-sig")
    assert run(["query", str(shared), "--input", str(source), "-k", "2"]) == 0
    assert [answer["user"] for answer in lines(capsys)] == [query.get("user") for query in asked]
    assert run(["query", str(shared), "--input", str(source), "-k", "2", "--format", "csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(rows) == 600
    assert rows[0]["user"] == "u0"
    assert rows[0]["title"].startswith("Film")
    packed = tmp_path / "users.jsonl.gz"
    packed.write_bytes(gzip.compress(source.read_bytes()))
    assert run(["query", str(shared), "--input", str(packed), "-k", "2"]) == 0
    assert len(lines(capsys)) == 300
    packed.write_bytes(packed.read_bytes()[:-20])
    assert run(["query", str(shared), "--input", str(packed), "-k", "2"]) == 1
    assert "users.jsonl.gz: damaged gzip file" in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_input_may_be_a_pipe(folder: Path, tmp_path: Path, capsys: Captured) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for command, text in (
        (["query", str(folder), "-k", "1", "--input", str(pipe)], '{"user": "u1"}\n'),
        (["index", "remove", str(folder), "--ids", str(pipe)], "i3\n"),
    ):
        writer = threading.Thread(target=pipe.write_text, args=(text,))
        writer.start()
        assert run(command) == 0
        writer.join()
    captured = capsys.readouterr()
    assert json.loads(captured.out)["user"] == "u1"
    assert "1 item removed" in captured.err


def test_notes_go_to_stderr_unless_quiet(shared: Path, capsys: Captured) -> None:
    assert run(["query", str(shared), "--user", "nobody", "--history", "zz", "-k", "1"]) == 0
    captured = capsys.readouterr()
    assert 'user "nobody" is not in the data' in captured.err
    assert '"zz"' in captured.err
    assert len(json.loads(captured.out)["hits"]) == 1
    assert run(["--quiet", "query", str(shared), "--user", "nobody", "-k", "1"]) == 0
    assert capsys.readouterr().err == ""
    run(["query", str(shared), "--history", "i1"])  # loud again for the tests that follow


def test_a_table_is_aligned(shared: Path, capsys: Captured) -> None:
    assert run(["query", str(shared), "--user", "u0", "-k", "4", "--format", "table"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].split() == ["#", "score", "id", "title", "year", "tags", "released", "play", "count"]
    assert len({line.index("Film") for line in shown[1:]}) == 1


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["query", "DIR"], 2, "name the user with"),
        (["query", "DIR", "--input", "-", "--user", "u1"], 2, "cannot be combined"),
        (["query", "DIR", "--features", "{"], 2, "not JSON"),
        (["query", "DIR", "--features", "[1]"], 2, "not a JSON object"),
        (["query", "DIR", "--history", "i1", "-k", "0"], 2, "0"),
        (["query", "DIR", "--history", "i1", "--diversity", "2"], 2, "2"),
        (["query", "DIR", "--features", '{"aeg": 3}'], 1, 'did you mean "age"'),
        (["query", "DIR", "--history", "i1", "--where", "yaer > 3"], 1, 'did you mean "year"'),
        (["query", "DIR", "--history", "i1", "--where", "year >"], 1, "position 7"),
        (["query", "DIR", "--input", "nowhere.jsonl"], 1, "nowhere.jsonl: no such file"),
        (["query", "nowhere", "--history", "i1"], 1, "nowhere: no such folder"),
        (["similar", "DIR", "i999"], 1, 'no item "i999"'),
        (["embed", "DIR", "--tower", "item", "--input", "nowhere.csv", "-o", "x.npy"], 1, "nowhere.csv"),
        (["embed", "DIR", "--tower", "item", "--input", "nowhere.csv", "-o", "x.txt"], 1, "x.txt: not a kind"),
        (["index", "add", "DIR", "--items", "nowhere.csv"], 1, "nowhere.csv"),
        (["index", "remove", "DIR", "--ids", "nowhere"], 1, "nowhere: no such file"),
        (["index", "build", "nowhere"], 1, "nowhere: no such folder"),
        (["index", "build", "DIR", "--kind", "nonsense"], 1, "factory string"),
        (["index", "build", "DIR", "--recall", "1.5"], 2, "1.5"),
        (["index", "build", "DIR", "--memory", "much"], 2, "write it as 4GB"),
        (["index", "build", "DIR", "--memory", "9"], 1, "--memory allows"),
        (["index", "info", "nowhere"], 1, "nowhere: no such folder"),
    ],
)
def test_errors_are_one_line_with_an_exit_code(
    shared: Path,
    args: list[str],
    code: int,
    message: str,
    capsys: Captured,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run([str(shared) if arg == "DIR" else arg for arg in args]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    if code == 1:
        assert captured.err.startswith("Error: ")
        assert captured.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("line", "message"),
    [("{", "line 2: not JSON"), ("[1]", "line 2: a query is an object"), ('{"usr": 1}', 'did you mean "user"')],
)
def test_an_invalid_line_is_named(shared: Path, tmp_path: Path, line: str, message: str, capsys: Captured) -> None:
    source = tmp_path / "users.jsonl"
    source.write_text('{"user": "u1"}\n' + line)
    assert run(["query", str(shared), "--input", str(source)]) == 1
    assert message in capsys.readouterr().err
    source.write_bytes(b'{"user": "\xff"}')
    assert run(["query", str(shared), "--input", str(source)]) == 1
    assert "not UTF-8" in capsys.readouterr().err


def test_items_are_added_replaced_and_removed(folder: Path, tmp_path: Path, capsys: Captured) -> None:
    pq.write_table(items_of(["i4", "i50"]), tmp_path / "new.parquet")
    assert run(["index", "add", str(folder), "--items", str(tmp_path / "new.parquet")]) == 0
    assert "1 item added, 1 replaced" in capsys.readouterr().err
    (tmp_path / "gone.txt").write_text("i0\ni1\nnobody\n")
    assert run(["index", "remove", str(folder), "--ids", str(tmp_path / "gone.txt")]) == 0
    assert "2 items removed; 1 not in the catalogue" in capsys.readouterr().err
    assert run(["index", "info", str(folder), "--json"]) == 0
    (facts,) = lines(capsys)
    assert (facts["count"], facts["added"], facts["removed"], facts["generation"]) == (39, 2, 3, 3)
    assert run(["index", "info", str(folder)]) == 0
    assert "index compact" in capsys.readouterr().out
    assert run(["index", "verify", str(folder)]) == 0
    assert "39 items" in capsys.readouterr().out
    assert run(["index", "compact", str(folder)]) == 0
    assert run(["index", "verify", str(folder)]) == 0
    assert run(["index", "build", str(folder), "--kind", "IVF2,Flat", "--recall", "0.9"]) == 0
    assert "recall@10" in capsys.readouterr().err
    assert run(["index", "info", str(folder)]) == 0
    assert "IVF2,Flat" in capsys.readouterr().out
    assert run(["similar", str(folder), "i50", "-k", "2", "--format", "csv"]) == 0
    assert capsys.readouterr().out.startswith("rank,id,score,title")


@pytest.mark.parametrize("suffix", [".npy", ".parquet", ".jsonl"])
@pytest.mark.parametrize("source_suffix", [".parquet", ".csv", ".jsonl"])
def test_a_table_is_embedded(shared: Path, tmp_path: Path, suffix: str, source_suffix: str) -> None:
    items = items_of([f"i{number}" for number in range(40)]).drop_columns(["tags", "released"])
    source = tmp_path / f"items{source_suffix}"
    if source_suffix == ".parquet":
        pq.write_table(items, source)
    elif source_suffix == ".csv":
        rows = items.to_pylist()
        with source.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        source.write_text("\n".join(json.dumps(row) for row in items.to_pylist()))
    output = tmp_path / f"vectors{suffix}"
    assert run(["embed", str(shared), "--tower", "item", "--input", str(source), "-o", str(output)]) == 0
    if suffix == ".npy":
        found = np.load(output, allow_pickle=False)
    elif suffix == ".parquet":
        read = pq.read_table(output)
        assert read.column("id").to_pylist()[:2] == ["i0", "i1"]
        found = np.array(read.column("embedding").to_pylist(), np.float32)
    else:
        rows = [json.loads(line) for line in output.read_text().splitlines()]
        assert rows[1]["id"] == "i1"
        found = np.array([row["embedding"] for row in rows], np.float32)
    with Retriever.open(shared) as retriever:
        np.testing.assert_allclose(found, retriever.index.base, atol=1e-6)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == sorted([source.name, output.name])
