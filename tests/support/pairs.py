"""A pair of real towers with random weights, and the Python path that stands for `train.data.preprocess`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from torch import nn

from export.sample_inputs import Sampler
from retrieval.features.records import Batch
from retrieval.features.schema import SIDES, Feature, Side
from retrieval.features.vocabulary import FIRST, Vocabulary
from train.config import options
from train.config.load import Config
from train.config.options import Data, Model, Split, Train
from train.ease.ease_towers import EaseUserTower
from train.features.kinds import Fitted, Scaler
from train.features.preprocess import Preprocess, Range
from train.model import build
from train.model.encoders import EncoderShape
from train.model.feature_embedding import Column
from train.model.towers import ItemTower, UserTower

MAX_LENGTH = 6
ENCODERS: dict[str, options.Encoder] = {
    "attention": options.Attention(residual_dropout=0.6),
    "mean": options.Mean(),
    "mlp": options.Mlp(),
}
DIM = 16
ITEMS = Vocabulary([*(f"i{n}" for n in range(30)), "Amélie", "千と千尋", "🎬"])
WORDS = Vocabulary(["drama", "comedy", "film noir", "дети"])

USER = (
    Feature(name="age", kind="number"),
    Feature(name="city", kind="hash", buckets=11),
    Feature(name="occupation of user", kind="category"),
    Feature(name="likes", kind="categories"),
    Feature(name="history", kind="history", max_length=MAX_LENGTH),
)
ITEM = (
    Feature(name="item_id", kind="category"),
    Feature(name="year", kind="number"),
    Feature(name="genres", kind="categories"),
    Feature(name="poster", kind="vector", size=5),
)
FEATURES: dict[Side, tuple[Feature, ...]] = {"user": USER, "item": ITEM}
VOCABULARIES: dict[Side, dict[str, Vocabulary]] = {
    "user": {"occupation of user": WORDS, "likes": WORDS, "history": ITEMS},
    "item": {"item_id": ITEMS, "genres": WORDS},
}
NUMBERS: dict[Side, dict[str, tuple[float, float]]] = {"user": {"age": (35.0, 12.0)}, "item": {"year": (1990.0, 15.0)}}


@dataclass(frozen=True)
class Pair:
    """What export takes of a checkpoint."""

    user_tower: nn.Module
    item_tower: nn.Module
    preprocess: Preprocess
    config: Config
    facts: dict[str, Any]

    def tower(self, side: Side) -> nn.Module:
        return self.user_tower if side == "user" else self.item_tower


FITTED: dict[Side, dict[str, Fitted]] = {
    side: {
        **VOCABULARIES[side],
        **{name: Scaler(mean=mean, std=std) for name, (mean, std) in NUMBERS[side].items()},
    }
    for side in SIDES
}


def columns(side: Side) -> list[Column]:
    return [Column(feature=feature, fitted=FITTED[side].get(feature.name)) for feature in FEATURES[side]]


def make_pair(*, encoder: str = "attention", layers: int = 2, seed: int = 0, objective: str = "softmax") -> Pair:
    """Towers with every weight moved away from its first value, so that none is zero by chance."""
    torch.manual_seed(seed)
    shape = EncoderShape(dim=DIM, layers=layers, heads=2, dropout=0.1, max_length=MAX_LENGTH)
    item = ItemTower(columns("item"), dim=DIM, id_column="item_id", feature_dropout=0.1).eval()
    user: UserTower | EaseUserTower
    if encoder == "ease":
        user = EaseUserTower(columns("user"), dim=DIM, max_length=MAX_LENGTH, recency_decay=0.8).eval()
    else:
        user = UserTower(
            columns("user"), dim=DIM, encoder=build.encoder(ENCODERS[encoder], shape), feature_dropout=0.1
        ).eval()
    with torch.no_grad():
        for tower in (item, user):
            for weight in tower.parameters():
                weight.add_(0.1 * torch.randn_like(weight))
        vectors = nn.functional.normalize(torch.randn(len(ITEMS) - 2, DIM), dim=-1)
        if isinstance(user, EaseUserTower):
            user.item_vectors[FIRST:] = vectors
        else:
            user.freeze_items(vectors)
    preprocess = Preprocess(features=FEATURES, fitted=FITTED, values=Range(low=1.0, high=5.0))
    config = Config(
        data=Data(),
        user_features=USER,
        item_features=ITEM,
        split=Split(),
        model=Model(),
        train=Train(objective=objective),
        source=Path("twotower.toml"),
    )
    return Pair(user, item, preprocess, config, {"fingerprint": "f00d"})


def sampler(side: Side) -> Sampler:
    return Sampler(features=FEATURES[side], fitted=FITTED[side])


def encode(side: Side, batch: Batch) -> Batch:
    """Raw named arrays -> what a tower takes, a value at a time: slow, and plain to read."""
    out: Batch = {}
    for feature in FEATURES[side]:
        array = batch[feature.name]
        if not feature.is_text:
            out[feature.name] = array
            continue
        if feature.buckets is not None:
            out[feature.name] = np.array([murmur3(text) % feature.buckets + FIRST if text else 0 for text in array])
            out[feature.name] = out[feature.name].astype(np.int64)
            continue
        row_of = np.vectorize(VOCABULARIES[side][feature.name].row, otypes=[np.int64])
        rows = row_of(array) if array.size else array.astype(np.int64)
        out[feature.name] = newest_first(rows, feature.max_length) if feature.max_length else rows
    return out


def murmur3(text: str) -> int:
    """MurmurHash3 (x86, 32 bits, seed 0), after the description of its author: four bytes at a time, then the rest."""
    data = text.encode()
    whole = len(data) // 4 * 4
    code = 0
    for start in range(0, len(data), 4):
        block = int.from_bytes(data[start : start + 4], "little") * 0xCC9E2D51 % 2**32
        block = (block << 15 | block >> 17) % 2**32 * 0x1B873593 % 2**32
        code ^= block
        if start < whole:
            code = ((code << 13 | code >> 19) % 2**32 * 5 + 0xE6546B64) % 2**32
    code ^= len(data)
    code = (code ^ code >> 16) * 0x85EBCA6B % 2**32
    code = (code ^ code >> 13) * 0xC2B2AE35 % 2**32
    return code ^ code >> 16


def newest_first(rows: npt.NDArray[np.int64], max_length: int) -> npt.NDArray[np.int64]:
    out = np.zeros((len(rows), max_length), dtype=np.int64)
    for row, values in enumerate(rows):
        kept = values[values != 0][::-1][:max_length]
        out[row, : len(kept)] = kept
    return out


def write_training(folder: Path, *, users: int = 40) -> None:
    """The tables of a training of these towers, with values drawn at random."""
    training = folder / "training"
    training.mkdir(parents=True)
    items = sampler("item").batch(len(ITEMS.ids), 3, seed=5)
    pl.DataFrame(
        {
            "item_id": list(ITEMS.ids),
            "title": [f"Film {text}" for text in ITEMS.ids],
            "year": np.where(np.isfinite(items["year"]), items["year"], np.nan),
            "genres": [[text for text in row if text] for row in items["genres"]],
            "poster": [
                np.nan_to_num(row, nan=0.5, posinf=1, neginf=-1).clip(-9, 9).tolist() for row in items["poster"]
            ],
        }
    ).write_parquet(training / "items.parquet")
    (training / "config.json").write_text('{"data": {"title": "title"}}')
    people = sampler("user").batch(users, 3, seed=6)
    pl.DataFrame(
        {
            "user_id": [f"u{n}" for n in range(users)],
            "age": np.where(np.abs(people["age"]) < 200, people["age"], np.nan),
            "city": people["city"].tolist(),
            "occupation of user": people["occupation of user"].tolist(),
            "likes": [[text for text in row if text] for row in people["likes"]],
        }
    ).write_parquet(training / "users.parquet")
    random = np.random.default_rng(7)
    pairs = [
        (f"u{n}", ITEMS.ids[item]) for n in range(1, users) for item in random.permutation(len(ITEMS.ids))[: n % 12]
    ]
    pl.DataFrame(pairs, schema=["user", "item"], orient="row").with_columns(
        value=pl.lit(None, pl.Float32), time=pl.lit(None, pl.Int64), split=pl.lit("train")
    ).write_parquet(training / "interactions.parquet")
