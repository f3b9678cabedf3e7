"""Live items: a bundle against a plain dictionary, whatever order things are done in."""

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from retrieval.bundle.reader import Bundle
from retrieval.bundle.writer import publishing
from retrieval.common.errors import BundleError, DataError
from retrieval.index.build import build_index
from retrieval.index.storage import open_both, read_facts
from retrieval.index.updates import Change, add_items, compact, remove_items
from retrieval.retriever import Retriever
from retrieval.verify import verify_bundle
from tests.support.tiny import items_of, write_tiny


def add(folder: Path, ids: list[str], *, year: float | None = None) -> Change:
    """Add items of those ids; all of one year, if given, which sets their vectors a little apart."""
    table = items_of(ids)
    if year is not None:
        at = table.column_names.index("year")
        table = table.set_column(at, "year", pa.array([year] * len(ids), pa.float64()))
    source = folder.with_name(f"{folder.name}-new.parquet")
    pq.write_table(table, source)
    with publishing(folder) as draft:
        return add_items(draft, source)


def remove(folder: Path, ids: list[str]) -> Change:
    with publishing(folder) as draft:
        return remove_items(draft, ids)


def live_ids(folder: Path) -> set[str]:
    with Bundle.open(folder) as bundle:
        index, catalog = open_both(bundle)
        gone = set(index.removed.tolist())
        return {catalog.id(row) for row in range(catalog.height) if row not in gone}


class Alive(RuleBasedStateMachine):
    """Adds, replacements, removals, compactions in any order: the dictionary says what must be found."""

    def __init__(self) -> None:
        super().__init__()
        self.space = tempfile.TemporaryDirectory()
        self.folder = Path(self.space.name) / "bundle"
        self.model: dict[str, float | None] = {}

    @initialize(kind=st.sampled_from(["flat", "IVF4,Flat"]))
    def build(self, kind: str) -> None:
        write_tiny(self.folder, items=30, kind=kind)
        years = items_of([f"i{number}" for number in range(30)]).column("year").to_pylist()
        self.model = {f"i{number}": years[number] for number in range(30)}

    @rule(numbers=st.lists(st.integers(0, 45), min_size=1, max_size=5, unique=True), year=st.sampled_from([1.0, 50.0]))
    def add(self, numbers: list[int], year: float) -> None:
        ids = [f"i{number}" for number in numbers]
        change = add(self.folder, ids, year=year)
        known = [name for name in ids if name in self.model]
        assert change == Change(added=len(ids) - len(known), replaced=len(known))
        self.model.update(dict.fromkeys(ids, year))

    @rule(numbers=st.lists(st.integers(0, 50), min_size=1, max_size=8))
    def remove(self, numbers: list[int]) -> None:
        ids = [f"i{number}" for number in numbers]
        change = remove(self.folder, ids)
        gone = {name for name in ids if name in self.model}
        assert change == Change(removed=len(gone), unknown=len(set(ids)) - len(gone))
        for name in gone:
            del self.model[name]

    @rule()
    def compact(self) -> None:
        if self.model:
            with publishing(self.folder) as draft:
                compact(draft)

    @invariant()
    def holds_what_the_dictionary_holds(self) -> None:
        if not self.folder.exists():
            return
        with Retriever.open(self.folder) as retriever:
            hits = retriever.query([{"history": ["i1", "i3"]}], k=60, include_seen=True)[0]
            assert {hit.id: hit.item["year"] for hit in hits} == self.model
            assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
            filtered = retriever.query([{"history": ["i1"]}], k=60, where="year = 50")[0]
            assert {hit.id for hit in filtered} == {n for n, year in self.model.items() if year == 50.0} - {"i1"}
            assert read_facts(retriever.bundle)["count"] == len(self.model)

    def teardown(self) -> None:
        self.space.cleanup()


TestAlive = Alive.TestCase
TestAlive.settings = settings(
    max_examples=8, stateful_step_count=8, deadline=None, suppress_health_check=list(HealthCheck)
)


def test_a_new_item_has_the_vector_of_its_features(tmp_path: Path) -> None:
    folder = write_tiny(tmp_path / "bundle")
    add(folder, ["i3", "i100"], year=30.0)
    with Bundle.open(folder) as bundle:
        index, catalog = open_both(bundle)
        from retrieval.towers.tower import Tower

        tower = Tower(bundle.file("item_tower.onnx"), bundle.schema.item, dim=8)
        for name in ("i3", "i100"):
            row = catalog.row(name)
            assert row is not None
            expected = tower.embed([{"item_id": name, "year": 30.0}])
            np.testing.assert_allclose(index.vectors(np.array([row])), expected, atol=1e-6)
            assert catalog.record(row)["title"] == f"Film {name[1:]} – é"
    assert list(verify_bundle(folder))


def test_an_open_retriever_keeps_answering_as_before(tmp_path: Path) -> None:
    folder = write_tiny(tmp_path / "bundle")
    with Retriever.open(folder) as before:
        first = [hit.id for hit in before.similar("i0", k=5)]
        remove(folder, first)
        with publishing(folder) as draft:
            compact(draft)
        assert [hit.id for hit in before.similar("i0", k=5)] == first
        assert before.query([{"user": "u1"}], where="year > 1990", k=3)[0]
    with Retriever.open(folder) as after:
        assert not set(first) & {hit.id for hit in after.similar("i0", k=40)}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("new.csv", "item_id;year;tags\n007;1999;a|b\n8;;\n"),
        ("new.jsonl", '{"item_id": "007", "year": 1999, "tags": ["a", "b"]}\n{"item_id": 8}\n'),
        ("new.jsonl", '{"item_id": "007", "tags": "a|b", "year": 1999}\n{"item_id": 8.0}\n'),
    ],
)
def test_items_of_a_text_file_have_the_ids_and_lists_that_it_shows(tmp_path: Path, name: str, text: str) -> None:
    folder = write_tiny(tmp_path / "bundle")
    source = tmp_path / name
    source.write_text(text)
    with publishing(folder) as draft:
        assert add_items(draft, source) == Change(added=2)
    with Retriever.open(folder) as retriever:
        rows = [row for row in map(retriever.catalog.row, ("007", "8")) if row is not None]
        found = [retriever.catalog.record(row) for row in rows]
    assert [record["tags"] for record in found] == [["a", "b"], None]
    assert [record["year"] for record in found] == [1999.0, None]
    with publishing(folder) as draft:
        assert build_index(draft, items=source)["count"] == 2
    assert live_ids(folder) == {"007", "8"}


def test_columns_that_an_added_item_lacks_are_missing_and_further_ones_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_tiny(tmp_path / "bundle")
    source = tmp_path / "new.csv"
    source.write_text("colour,item_id,year\nred,7,1999\n")
    with publishing(folder) as draft:
        assert add_items(draft, source) == Change(added=1)
    assert "colour" in capsys.readouterr().err
    with Retriever.open(folder) as retriever:
        (hit,) = retriever.query([{"features": {"age": 3}}], k=1, where="item_id = '7'")[0]
        assert hit.item == {"title": None, "year": 1999.0, "tags": None, "released": None, "play count": None}


def test_an_item_has_the_same_vector_however_a_table_writes_it(tmp_path: Path) -> None:
    ids = ["3", "i1", "new"]
    csv = "item_id,year\n 3 ,None\ni1 ,1999.0\nnew, na \n"
    lines = '{"item_id": 3.0, "year": null}\n{"item_id": "i1", "year": 1999}\n{"item_id": "new", "year": NaN}'
    typed = pa.table({"item_id": ["3.0", "i1", "new"], "year": ["None", " 1999", "NaN"]})
    found = []
    for name in ("new.csv", "new.jsonl", "new.parquet"):
        source = tmp_path / name
        if name == "new.parquet":
            pq.write_table(typed, source)
        else:
            source.write_text(csv if name == "new.csv" else lines)
        folder = write_tiny(tmp_path / f"bundle-{name}")
        with publishing(folder) as draft:
            assert add_items(draft, source) == Change(added=2, replaced=1)
        with Bundle.open(folder) as bundle:
            index, catalog = open_both(bundle)
            rows = np.array([catalog.row(name) for name in ids])
            found.append((index.vectors(rows).tolist(), [catalog.record(int(row)) for row in rows]))
    assert repr(found[0]) == repr(found[1]) == repr(found[2])
    assert [record["year"] for record in found[0][1]] == [None, 1999.0, None]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"item_id": "a"}\n{"item_id": "a"}', '"a" occurs twice'),
        ('{"title": "x"}', 'the id column "item_id" is missing'),
        ('{"item_id": ""}', "an id is empty"),
        ('{"item_id": null}', "an id is empty"),
        ('{"item_id": "a\\u0000b"}', "NUL"),
        ('{"item_id": "a", "year": "soon"}', "year"),
        ("", "the table is empty"),
        ("{", "line 1"),
    ],
)
def test_items_that_cannot_be_used_change_nothing(tmp_path: Path, content: str, message: str) -> None:
    folder = write_tiny(tmp_path / "bundle")
    before = (folder / "manifest.json").read_bytes()
    source = tmp_path / "new.jsonl"
    source.write_text(content)

    def attempt() -> None:
        with publishing(folder) as draft:
            add_items(draft, source)

    with pytest.raises(DataError, match=message):
        attempt()
    assert (folder / "manifest.json").read_bytes() == before


def test_every_item_removed(tmp_path: Path) -> None:
    folder = write_tiny(tmp_path / "bundle", items=5)
    assert remove(folder, [f"i{number}" for number in range(5)]).removed == 5
    assert live_ids(folder) == set()
    with Retriever.open(folder) as retriever:
        assert retriever.query([{"history": ["i1"]}]) == [[]]

    def attempt() -> None:
        with publishing(folder) as draft:
            compact(draft)

    with pytest.raises(BundleError, match="every item is removed"):
        attempt()
    assert add(folder, ["i2"]).added == 1
    assert live_ids(folder) == {"i2"}


def test_an_index_of_another_model_is_refused(tmp_path: Path) -> None:
    folder = write_tiny(tmp_path / "bundle")
    other = write_tiny(tmp_path / "other", seed=1, pair_id="def456def456")
    with publishing(other) as draft:
        for name in ("index.faiss", "index.json"):
            draft.write_bytes(name, (folder / name).read_bytes())
    with pytest.raises(BundleError, match=r"item vectors come from model.*rebuild with"):
        Retriever.open(other)


def test_a_tower_without_unit_vectors_is_refused(tmp_path: Path) -> None:
    import onnx

    folder = write_tiny(tmp_path / "bundle", index=False)
    model = onnx.load(folder / "item_tower.onnx")
    model.graph.node[-1].op_type = "Mul"
    from retrieval.index.build import build_index

    def attempt() -> None:
        with publishing(folder) as draft:
            draft.write_bytes("item_tower.onnx", model.SerializeToString())
            build_index(draft)

    with pytest.raises(BundleError, match="expected 1; export the towers again"):
        attempt()
