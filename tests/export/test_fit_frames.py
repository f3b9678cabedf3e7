"""`twotower.fit`: tables in memory give the bundle that `twotower run` makes of the same tables on disk."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

import twotower
from retrieval.common.errors import ConfigError, DataError
from retrieval.verify import verify_bundle

QUICK: dict[str, Any] = {"model": {"dim": 16}, "train": {"epochs": 2}}


def tables(planted: Path) -> dict[str, pl.DataFrame]:
    return {name: pl.read_parquet(planted.with_name(f"{name}.parquet")) for name in ("interactions", "items", "users")}


def test_frames_are_trained_on_and_the_bundle_answers(planted: Path, tmp_path: Path) -> None:
    found = tables(planted)
    interactions = found["interactions"].rename({"user_id": "who", "item_id": "what"}).to_pandas()
    bundle = twotower.fit(
        interactions,
        items=found["items"].to_arrow(),
        users=planted.with_name("users.parquet"),
        out=tmp_path / "fitted",
        data={"user": "who", "item": "what"},
        **QUICK,
    )
    assert bundle.path == tmp_path / "fitted"
    assert 0 < bundle.metrics["ndcg@10"] <= 1
    assert list(verify_bundle(bundle.path))
    with bundle.retriever() as retriever:
        answers = retriever.recommend(pl.DataFrame({"user": ["u0", "u1"]}), k=3)
    assert answers["rank"].to_list() == [1, 2, 3] * 2
    assert (bundle.path / "data" / "twotower.toml").is_file()


def test_a_config_and_settings_are_checked(planted: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="epochs") as caught:
        twotower.fit(tables(planted)["interactions"], out=tmp_path, config=planted, train={"epoch": 3})
    assert "--set" not in str(caught.value)
    with pytest.raises(DataError, match='no column "whoo"'):
        twotower.fit(tables(planted)["interactions"], out=tmp_path, data={"user": "whoo"})
    with pytest.raises(DataError, match="interactions: expected a pandas or polars DataFrame"):
        twotower.fit([("u1", "i1")], out=tmp_path)
