"""The whole job through the command line, on data whose answers are known and on two tables made by hand."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import twotower
from retrieval import Retriever

SMALL = ["--set", "model.dim=16"]
QUICK = [*SMALL, "--set", "train.epochs=2"]


def cli(*args: object, expect: int = 0) -> None:
    with pytest.raises(SystemExit) as caught:
        twotower.main([str(arg) for arg in args])
    assert int(caught.value.code or 0) == expect


@pytest.fixture(scope="module")
def bundle(planted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pipeline") / "bundle"
    config = planted.with_name("whole.toml")
    config.write_text(planted.read_text().replace("epochs = 3\n", ""))
    cli("-q", "run", config, "--out", out, "--baselines", "popularity,itemknn", *SMALL)
    return out


def answers(capsys: pytest.CaptureFixture[str], *args: object) -> list[dict[str, list[dict[str, object]]]]:
    capsys.readouterr()
    cli(*args, "--format", "json")
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_bundle_holds_what_the_contract_lists(bundle: Path) -> None:
    names = {path.name for path in bundle.iterdir()}
    assert names >= {
        "user_tower.onnx",
        "item_tower.onnx",
        "schema.json",
        "golden.json",
        "items.parquet",
        "users.parquet",
        "metrics.json",
        "report.html",
        "MODEL_CARD.md",
        "manifest.json",
    }
    listed = json.loads((bundle / "manifest.json").read_text())["files"]
    assert all((bundle / name).stat().st_size == entry["size"] for name, entry in listed.items())


def test_new_users_are_shown_items_of_their_camp(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Even users like even items: from a history alone, for someone nobody trained on."""
    for camp in (0, 1):
        history = ",".join(f"i{item}" for item in range(camp, 12 + camp, 2))
        [answer] = answers(capsys, "query", bundle, "--history", history, "-k", 5)
        ids = [str(hit["id"]) for hit in answer["hits"]]
        assert len(set(ids)) == 5
        assert not set(ids) & set(history.split(","))
        assert sum(int(name[1:]) % 2 == camp for name in ids) >= 4


def test_python_answers_as_the_command_does(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [answer] = answers(capsys, "query", bundle, "--history", "i2,i4", "-k", 7)
    [same] = Retriever.open(bundle).query([{"history": ["i2", "i4"]}], k=7)
    assert [hit["id"] for hit in answer["hits"]] == [hit.id for hit in same]
    assert [hit["score"] for hit in answer["hits"]] == [round(hit.score, 6) for hit in same]


def test_the_same_query_gives_the_same_bytes(bundle: Path) -> None:
    command = [sys.executable, "-m", "twotower", "query", str(bundle), "--user", "u3", "-k", "8"]
    first, second = (subprocess.run(command, capture_output=True, check=True, timeout=120).stdout for _ in range(2))
    assert first == second
    assert len(json.loads(first)["hits"]) == 8


ONNX_ALONE = """
import sys

class Only:  # nothing but numpy and onnxruntime can be imported from here on
    ALLOWED = {"numpy", "onnxruntime", "flatbuffers", "google", "packaging"}

    def find_spec(self, name, path=None, target=None):
        top = name.split(".")[0]
        if top in sys.stdlib_module_names or top in self.ALLOWED or top in {"_distutils_hack"}:
            return None
        raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Only())
import json
import numpy as np
import onnxruntime as ort

folder = sys.argv[1]
session = ort.InferenceSession(folder + "/user_tower.onnx")
schema = json.load(open(folder + "/schema.json", encoding="utf-8"))
feeds = {"age": np.array([31, np.nan], np.float32), "camp": np.array(["even", ""], object),
         "history": np.array([["i2", "i4"], ["", ""]], object)}
assert set(feeds) == {put["name"] for put in schema["towers"]["user"]["inputs"]}
print(json.dumps(session.run(["embedding"], feeds)[0].tolist()))
"""


def test_a_tower_needs_nothing_but_onnxruntime(bundle: Path, tmp_path: Path) -> None:
    script = tmp_path / "alone.py"
    script.write_text(ONNX_ALONE)
    done = subprocess.run(
        [sys.executable, str(script), str(bundle)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
        check=True,
    )
    alone = np.array(json.loads(done.stdout), np.float32)
    ours = Retriever.open(bundle).user_tower.embed([{"age": 31, "camp": "even", "history": ["i2", "i4"]}, {}])
    np.testing.assert_allclose(alone, ours, atol=1e-6)


def test_query_loads_nothing_heavy(bundle: Path) -> None:
    code = (
        "import sys, twotower\n"
        f"try: twotower.main(['query', {str(bundle)!r}, '--history', 'i2,i4', '-k', '5', '--format', 'json'])\n"
        "except SystemExit as done: assert not done.code\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert not set(done.stderr.split()) & {
        "torch",
        "pytorch_lightning",
        "lightning",
        "pandas",
        "scipy",
        "sklearn",
        "polars",
    }


def test_a_run_that_fails_leaves_the_bundle_that_was_there(bundle: Path, planted: Path) -> None:
    before = (bundle / "manifest.json").read_bytes()
    cli("-q", "run", planted, "--out", bundle, "--kind", "nonsense", *QUICK, expect=1)
    assert (bundle / "manifest.json").read_bytes() == before
    assert Retriever.open(bundle).query([{"user": "u1"}], k=3)[0]


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("--baselines", "itemknn,eese", 'there is no baseline "eese"; did you mean "ease"?'),
        ("--kind", "ifv", '--kind "ifv" is none of auto, flat, ivf, pq, nor a FAISS factory string'),
    ],
)
def test_a_slip_of_a_later_stage_is_told_before_the_training(
    planted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, value: str, told: str
) -> None:
    cli("run", planted, "--out", tmp_path / "bundle", option, value, expect=1)
    said = capsys.readouterr().err
    assert told in said
    assert "== train" not in said
    assert not (tmp_path / "bundle").exists()


def test_two_tables_made_by_hand_go_through_without_an_edit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Spaces in names, unicode titles, duplicates, missing values, an integer and a float id column."""
    random = np.random.default_rng(0)
    people = [1.0 + person for person in range(30)]
    lines = ["Customer No,Product Id,Stars,Bought At"]
    for step in range(400):
        person = random.integers(30)
        product = 2 * random.integers(12) + person % 2 + 100
        stars = "" if step % 9 == 0 else random.integers(1, 6)
        lines.append(f"{people[person]},{product},{stars},2024-03-{1 + step % 28:02d}T{step % 24:02d}:00:00")
    lines += lines[1:20]
    (tmp_path / "purchases.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    titles = ["Tee № 1 – grün", "寿司セット", "Émile’s “best”, signed", "naïve 🎁"]
    rows = ["Product Id,Product Name,List Price,Kind"]
    rows += [
        f'{item},"{titles[item % 4]}",{"" if item % 5 == 0 else item / 3},{"ab"[item % 2]}' for item in range(100, 126)
    ]
    (tmp_path / "products.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    config, out = tmp_path / "twotower.toml", tmp_path / "out"
    cli("-q", "init", tmp_path / "purchases.csv", "--items", tmp_path / "products.csv", "-o", config)
    cli("-q", "run", config, "--out", out, "--baselines", "popularity", *QUICK)
    [answer] = answers(capsys, "query", out, "--user", "3", "-k", 4)
    assert len(answer["hits"]) == 4
    assert {str(hit["Product Name"]) for hit in answer["hits"]} <= set(titles)
    [answer] = answers(capsys, "query", out, "--history", "100,102", "-k", 3, "--where", '"List Price" > 34')
    assert all(float(str(hit["List Price"])) > 34 for hit in answer["hits"])


def test_interactions_alone_are_enough(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No table of items or users: ids are all that is known and shown."""
    random = np.random.default_rng(0)
    lines = [f"u{user},{2 * random.integers(12) + user % 2}" for user in range(40) for _ in range(9)]
    (tmp_path / "clicks.csv").write_text("\n".join(["user,item", *lines]) + "\n", encoding="utf-8")
    config, out = tmp_path / "twotower.toml", tmp_path / "out"
    cli("-q", "init", tmp_path / "clicks.csv", "-o", config)
    cli("-q", "run", config, "--out", out, "--baselines", "popularity", *QUICK)
    for asked in (["query", out, "--user", "u3"], ["query", out, "--history", "1,3"], ["similar", out, "5"]):
        [answer] = answers(capsys, *asked, "-k", 4)
        assert [set(hit) for hit in answer["hits"]] == [{"id", "score"}] * 4
    (tmp_path / "new.csv").write_text("item\n100\n", encoding="utf-8")
    cli("-q", "index", "add", out, "--items", tmp_path / "new.csv")
    assert len(Retriever.open(out).similar("100", k=3)) == 3


def test_an_interrupted_run_exits_130_and_the_bundle_answers(bundle: Path, planted: Path) -> None:
    command = [sys.executable, "-m", "twotower", "run", str(planted), "--out", str(bundle), "--set", "train.epochs=500"]
    env = os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=env) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("epoch 2"):
                process.send_signal(2)
                break
        rest = process.stderr.read()
        assert process.wait(timeout=60) == 130, rest
    assert Retriever.open(bundle).query([{"user": "u1"}], k=3)[0]
