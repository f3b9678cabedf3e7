"""Both towers into a bundle, or nothing."""

import hashlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Protocol

import onnx
from torch import nn

from export import training_rows
from export.contract import checked
from export.golden_cases import golden, to_bytes
from export.graph import OPSET, tower_graph
from export.onnx_nodes import serialized
from export.parity import Vectors, check_parity, session_of
from export.precision import Precision, lighter
from export.precision_loss import Loss, measure, refuse_below_floor
from export.retrieve_file import TITLES, Catalogue, retrieve_file, titles_file, vectors_of
from export.retrieve_graph import SINGLE_FILE
from export.sample_inputs import Sampler
from retrieval.bundle.layout import GOLDEN, SCHEMA, TRAINING
from retrieval.bundle.writer import Draft
from retrieval.common.console import detail, note
from retrieval.features.schema import SIDES, Schema, Side, TowerSchema
from train.config.components import fits_values
from train.config.load import Config
from train.features.preprocess import Preprocess

FILES: Final[Mapping[Side, str]] = {"user": "user_tower.onnx", "item": "item_tower.onnx"}
PAIR_DIGITS: Final = 12
MEASURED_USERS: Final = 1000


class Trained(Protocol):
    """What export takes of a checkpoint."""

    @property
    def config(self) -> Config: ...
    @property
    def facts(self) -> Mapping[str, Any]: ...
    @property
    def preprocess(self) -> Preprocess: ...
    @property
    def user_tower(self) -> nn.Module: ...
    @property
    def item_tower(self) -> nn.Module: ...


def export_towers(
    trained: Trained,
    draft: Draft,
    *,
    precision: Precision = "fp32",
    single_file: bool = False,
    allow_loss: bool = False,
) -> Schema:
    """Write both towers, `schema.json` and `golden.json` into a draft, and `retrieve.onnx` if asked for.

    The draft's folder holds the training; its tables are read where real users or items are needed.
    allow_loss: publish weights of fewer bits even if they answer too differently. Returns the schema.
    Raises ExportError, the draft being as it was, unless each file does what its tower does (parity.py).
    """
    training = draft.folder / TRAINING
    samplers = {side: sampler_of(trained.preprocess, side) for side in SIDES}
    full = {side: _graph(trained, side, samplers[side]) for side in SIDES}
    models = {side: lighter(full[side], precision) for side in SIDES}
    # What was trained on: `evaluate` refuses to test on rows that these towers may have been trained on.
    facts: dict[str, Any] = {name: trained.facts[name] for name in ("fingerprint",) if name in trained.facts}
    if precision != "fp32":
        loss = _loss(full, models, samplers, training)
        note(f"{precision}: {loss.recall:.4f} of the ten best of fp32 kept, cosine {loss.cosine_worst:.5f} at worst")
        if not allow_loss:
            refuse_below_floor(loss, precision)
        facts["loss"] = loss.to_json()
    if fits_values(trained.config.train.objective) and trained.preprocess.values is not None:
        facts["rating"] = {"low": trained.preprocess.values.low, "high": trained.preprocess.values.high}
    pair_id = stamp(models)
    content = {FILES[side]: checked(models[side], FILES[side], samplers[side].features) for side in SIDES}
    sessions = {side: session_of(content[FILES[side]]) for side in SIDES}
    if single_file:
        catalogue = Catalogue.of(training_rows.items_table(training), sessions["item"], samplers["item"].features)
        content[SINGLE_FILE], facts["single_file"] = retrieve_file(
            models["user"], sessions["user"], samplers["user"].features, catalogue, training, precision=precision
        )
        content[TITLES] = titles_file(pair_id, catalogue, training)
    schema = Schema(
        pair_id=pair_id,
        dim=dim_of(models["user"]),
        precision=precision,
        opset=OPSET,
        user=TowerSchema(file=FILES["user"], inputs=tuple(samplers["user"].features)),
        item=TowerSchema(file=FILES["item"], inputs=tuple(samplers["item"].features)),
        facts=facts,
    )
    cases = golden(pair_id, {side: (sessions[side], samplers[side]) for side in SIDES})
    draft.remove(SINGLE_FILE)
    draft.remove(TITLES)
    for name, graph in content.items():
        draft.write_bytes(name, graph)
    draft.write_json(SCHEMA, schema.to_json())
    draft.write_bytes(GOLDEN, to_bytes(cases))
    return schema


def _graph(trained: Trained, side: Side, sampler: Sampler) -> onnx.ModelProto:
    """One tower in full precision, found to do what torch does."""
    tower = trained.user_tower if side == "user" else trained.item_tower
    model = tower_graph(tower, sampler.features, sampler.fitted)
    with tempfile.TemporaryDirectory(prefix="twotower-") as folder:
        path = Path(folder) / FILES[side]
        path.write_bytes(serialized(model))
        worst = check_parity(tower, lambda batch: trained.preprocess.encode(side, batch), path, sampler)
    detail(f"{FILES[side]}: torch and onnxruntime differ by at most {worst:.1g}")
    return model


def _loss(
    full: Mapping[Side, onnx.ModelProto],
    light: Mapping[Side, onnx.ModelProto],
    samplers: Mapping[Side, Sampler],
    training: Path,
) -> Loss:
    """What the lighter weights cost on real users and items."""
    history = next((feature for feature in samplers["user"].features if feature.kind == "history"), None)
    tables = {
        "user": training_rows.users_table(training, history, limit=MEASURED_USERS),
        "item": training_rows.items_table(training),
    }
    batches = {side: training_rows.batches(samplers[side].features, tables[side]) for side in SIDES}

    def vectors(models: Mapping[Side, onnx.ModelProto]) -> dict[Side, Vectors]:
        return {side: vectors_of(session_of(serialized(models[side])), batches[side]) for side in SIDES}

    sizes = {side: len(serialized(light[side])) / len(serialized(full[side])) for side in SIDES}
    return measure(vectors(full), vectors(light), sizes)


def sampler_of(preprocess: Preprocess, side: Side) -> Sampler:
    """What makes batches for a tower, out of what its features were fitted to."""
    features = preprocess.features(side)
    return Sampler(features=features, fitted={f.name: preprocess.fitted(side, f.name) for f in features})


def dim_of(model: onnx.ModelProto) -> int:
    return int(model.graph.output[0].type.tensor_type.shape.dim[1].dim_value)


def stamp(models: Mapping[Side, onnx.ModelProto]) -> str:
    """Write into both graphs the id that ties them, made from their content. Returns it."""
    content = hashlib.sha256(b"".join(serialized(models[side]) for side in SIDES))
    pair_id = content.hexdigest()[:PAIR_DIGITS]
    for model in models.values():
        onnx.helper.set_model_props(model, {"pair_id": pair_id})
    return pair_id
