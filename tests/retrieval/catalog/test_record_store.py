"""Lookup: id -> row -> id, records, and refusal of anything else."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.catalog import record_store
from retrieval.catalog.record_store import RecordStore
from retrieval.common.errors import BundleError

IDS = st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1), unique=True)


@given(ids=IDS, small=st.booleans())
def test_id_row_id(tmp_path_factory: pytest.TempPathFactory, ids: list[str], small: bool) -> None:
    path = tmp_path_factory.mktemp("lookup") / "ids"
    record_store.write(path, ids, [f'{{"n":{row}}}'.encode() for row in range(len(ids))])
    found = RecordStore.open(path)
    assert len(found) == len(ids)
    assert found.ids() == ids
    if not small:
        assert [found._bisect(name) for name in ids] == list(range(len(ids)))
        assert found._bisect("\ud800") is None
    assert found.rows([*ids, "\ud800", ""]) == [*range(len(ids)), None, None]
    for row, name in enumerate(ids):
        assert found.id(row) == name
        assert found.record(row) == {"n": row}


@given(ids=IDS, text=st.text("ab\xe9", max_size=2), count=st.integers(0, 5))
def test_ids_that_begin_with_a_text(
    tmp_path_factory: pytest.TempPathFactory, ids: list[str], text: str, count: int
) -> None:
    ids = [*ids, *(name for name in ("a", "ab", "a\xe9", "b", "\xe9a") if name not in ids)]
    path = tmp_path_factory.mktemp("lookup") / "ids"
    record_store.write(path, ids, [b"{}"] * len(ids))
    expected = sorted((name for name in ids if name.startswith(text)), key=str.encode)[:count]
    assert [ids[row] for row in RecordStore.open(path).beginning(text, count=count)] == expected


def test_many_ids_by_bisection_and_by_dictionary(tmp_path: Path) -> None:
    ids = [f"item {number * 7919 % 20_000:05}" for number in range(20_000)]
    record_store.write(tmp_path / "ids", ids, [b"{}"] * len(ids))
    found = RecordStore.open(tmp_path / "ids")
    assert [found.row(name) for name in ids[:200]] == list(range(200))  # past the change from one to the other
    assert found.rows(["item 00000", "nobody"]) == [0, None]


@pytest.mark.parametrize("content", [b"", b"TTLOOK1\n", b"x" * 100, record_store.MAGIC + b"\xff" * 24])
def test_what_is_no_lookup_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "ids").write_bytes(content)
    with pytest.raises(BundleError, match="ids: not a lookup"):
        RecordStore.open(tmp_path / "ids")
