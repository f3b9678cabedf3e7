"""The report is one self-contained page, and escapes every value."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retrieval.evaluation.evaluate import run
from retrieval.evaluation.report import page as report
from retrieval.evaluation.report.example_users import examples
from retrieval.evaluation.report.item_map import item_map
from retrieval.evaluation.result import Evaluation
from tests.support.prepared import write_judged

EVIL = 'Film</script><script>alert("1")</script> & <b>'


class Reader(HTMLParser):
    """Collects tags and text; unbalanced tags are an error."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    folder = write_judged(tmp_path_factory.mktemp("report") / "bundle")
    items = folder / "training" / "items.parquet"
    table = pq.read_table(items)
    titles = [EVIL if row % 2 else title for row, title in enumerate(table.column("title").to_pylist())]
    pq.write_table(table.set_column(1, "title", pa.array(titles)), items)
    return run(folder, baselines=["popularity", "itemknn"])


@pytest.fixture(scope="module")
def page(judged: Evaluation) -> str:
    return report.html(judged, judged.to_json())


def test_the_page_is_self_contained(page: str, judged: Evaluation) -> None:
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    for tag, attributes in reader.tags:
        assert not {"src", "href"} & set(attributes), tag
    own = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert "@import" not in own
    assert "url(" not in own
    for part in judged.verdict.sentence.split(": "):
        assert part in reader.text
    for heading in (
        "Compared with",
        "Recall by",
        "By length",
        "Popularity bias",
        "Training",
        "Item map",
        "Three users",
    ):
        assert heading in reader.text
    assert len(page) < 1_500_000


def test_values_are_escaped(page: str) -> None:
    assert 'alert("1")</script>' not in page
    assert "Film&lt;/script&gt;" in page


def test_every_chart_has_a_placeholder(page: str) -> None:
    content = re.search(r'<script type="application/json" id="specs">(.*?)</script>', page, re.DOTALL)
    assert content is not None
    specs: dict[str, Any] = json.loads(content[1])
    assert set(specs) >= {"differences", "recall", "by-history", "by-popularity", "popularity", "validation", "map"}
    for name in specs:
        assert f'id="{name}"' in page


def test_every_chart_renders(page: str) -> None:
    """Vega renders each specification."""
    vl_convert = pytest.importorskip("vl_convert")
    content = re.search(r'<script type="application/json" id="specs">(.*?)</script>', page, re.DOTALL)
    assert content is not None
    for name, spec in json.loads(content[1]).items():
        picture = vl_convert.vegalite_to_svg({**spec, "width": 400})
        assert picture.startswith("<svg"), name
        assert "NaN" not in picture, name


def test_three_users(judged: Evaluation) -> None:
    shown = examples(judged)
    assert 1 <= len(shown) <= 3
    assert len({example.user for example in shown}) == len(shown)
    assert shown == examples(judged)
    for example in shown:
        row = int(example.user[1:])
        assert len(example.history) == 7
        found_here = any(line.right for line in example.model)
        assert found_here == (judged.model.ranks[row] <= 10)
        assert all(line.right for line in example.truth)


def test_the_map_shows_two_principal_components(judged: Evaluation) -> None:
    drawn = item_map(judged.held, judged.answers.items)
    assert drawn.places.shape == (40, 2)
    # Camps lie on two sides of the first axis, so the first direction parts them.
    even = drawn.places[drawn.rows % 2 == 0, 0]
    odd = drawn.places[drawn.rows % 2 == 1, 0]
    assert (np.sign(even) == -np.sign(odd[0])).mean() > 0.9
    assert 0 < drawn.explained <= 1
    assert drawn.attribute == "year"
    assert len(drawn.groups) == 40


def test_a_map_without_vectors(judged: Evaluation) -> None:
    assert len(item_map(judged.held, np.full((40, 8), np.nan, dtype=np.float32)).rows) == 0
    assert item_map(judged.held, np.ones((40, 8), dtype=np.float32)).explained == 0


def test_a_page_without_baselines(tmp_path: Path) -> None:
    folder = write_judged(tmp_path / "bundle")
    (folder / "training" / "history.jsonl").unlink()
    alone = run(folder, baselines=["none"], k=(3,))
    page = report.html(alone, alone.to_json())
    assert "No baselines to compare with" in page
    assert 'id="differences"' not in page
