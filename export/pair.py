"""Both towers into a bundle, or nothing."""

import hashlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Protocol

import onnx
from torch import nn

from export.contract import check_graph
from export.golden import golden
from export.graph import OPSET, tower_graph
from export.parity import check_parity, session_of
from export.samples import Sampler
from retrieval.console import detail
from retrieval.publish import Draft
from retrieval.schema import SIDES, Schema, Side, TowerSchema
from train.preprocess import Preprocess

FILES: Final[Mapping[Side, str]] = {"user": "user_tower.onnx", "item": "item_tower.onnx"}
PAIR_DIGITS: Final = 12
VOCABULARY_KINDS: Final = ("category", "categories", "history")


class Trained(Protocol):
    """What export takes of a checkpoint."""

    @property
    def preprocess(self) -> Preprocess: ...
    @property
    def user_tower(self) -> nn.Module: ...
    @property
    def item_tower(self) -> nn.Module: ...


def export_towers(trained: Trained, draft: Draft) -> Schema:
    """Write both towers, `schema.json` and `golden.json` into a draft. Returns the schema.

    Raises ExportError, the draft being as it was, unless each file does what its tower does (parity.py).
    """
    samplers = {side: sampler_of(trained.preprocess, side) for side in SIDES}
    models = {side: _graph(trained, side, samplers[side]) for side in SIDES}
    pair_id = stamp(models)
    for side, model in models.items():
        hashes = any(feature.kind == "hash" for feature in samplers[side].features)
        check_graph(model, name=FILES[side], hashes=hashes)
    content = {side: serialized(model) for side, model in models.items()}
    schema = Schema(
        pair_id=pair_id,
        dim=dim_of(models["user"]),
        precision="fp32",
        opset=OPSET,
        user=TowerSchema(file=FILES["user"], inputs=tuple(samplers["user"].features)),
        item=TowerSchema(file=FILES["item"], inputs=tuple(samplers["item"].features)),
        facts={},
    )
    cases = golden(pair_id, {side: (session_of(content[side]), samplers[side]) for side in SIDES})
    for side in SIDES:
        draft.write_bytes(FILES[side], content[side])
    draft.write_json("schema.json", schema.to_json())
    draft.write_json("golden.json", cases)
    return schema


def _graph(trained: Trained, side: Side, sampler: Sampler) -> onnx.ModelProto:
    """One tower in full precision, found to do what torch does."""
    tower = trained.user_tower if side == "user" else trained.item_tower
    model = tower_graph(tower, sampler.features, sampler.vocabularies)
    with tempfile.TemporaryDirectory(prefix="twotower-") as folder:
        path = Path(folder) / FILES[side]
        path.write_bytes(serialized(model))
        worst = check_parity(tower, lambda batch: trained.preprocess.encode(side, batch), path, sampler)
    detail(f"{FILES[side]}: torch and onnxruntime differ by at most {worst:.1g}")
    return model


def sampler_of(preprocess: Preprocess, side: Side) -> Sampler:
    """What makes batches for a tower, out of what its features were fitted to."""
    features = preprocess.features(side)
    scalers = {f.name: preprocess.scaler(side, f.name) for f in features if f.kind == "number"}
    return Sampler(
        features=features,
        vocabularies={f.name: preprocess.vocabulary(side, f.name) for f in features if f.kind in VOCABULARY_KINDS},
        numbers={name: (scaler.mean, scaler.std) for name, scaler in scalers.items()},
    )


def dim_of(model: onnx.ModelProto) -> int:
    return int(model.graph.output[0].type.tensor_type.shape.dim[1].dim_value)


def stamp(models: Mapping[Side, onnx.ModelProto]) -> str:
    """Write into both graphs the id that ties them, made from their content. Returns it."""
    content = hashlib.sha256(b"".join(serialized(models[side]) for side in SIDES))
    pair_id = content.hexdigest()[:PAIR_DIGITS]
    for model in models.values():
        onnx.helper.set_model_props(model, {"pair_id": pair_id})
    return pair_id


def serialized(model: onnx.ModelProto) -> bytes:
    """The same bytes for the same graph."""
    content: bytes = model.SerializeToString(deterministic=True)
    return content
