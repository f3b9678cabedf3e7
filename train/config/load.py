"""Config: the config file, checked against `options`. Errors name file, key, what was found and what was expected."""

import dataclasses
import json
import math
import tomllib
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from retrieval.bundle import layout
from retrieval.common.errors import ConfigError, nearest
from retrieval.features.kinds import KINDS, OPTIONS
from retrieval.features.schema import SIDES, Feature, Side
from train.config.components import ENCODERS, encoder_class, loss_class
from train.config.deprecated import current_encoder, modernise
from train.config.options import (
    Attention,
    Data,
    Ease,
    Encoder,
    Model,
    ResolvedEase,
    ResolvedModel,
    ResolvedTrain,
    Split,
    Train,
)

CONFIG_NAME: Final = "twotower.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """A checked config file. `source` is the file; tables are relative to its folder."""

    data: Data
    user_features: tuple[Feature, ...]
    item_features: tuple[Feature, ...]
    split: Split
    model: Model
    train: Train
    source: Path

    def features(self, side: Side) -> tuple[Feature, ...]:
        return self.user_features if side == "user" else self.item_features

    @property
    def history(self) -> Feature | None:
        """The user feature that holds the user's own past items, if there is one."""
        return next((feature for feature in self.user_features if feature.kind == "history"), None)

    def table(self, name: str) -> Path:
        """Where a table named in the config is."""
        return self.source.parent / name

    def to_dict(self) -> dict[str, Any]:
        """JSON-able twin; `from_dict` reads it back."""
        return {
            "source": str(self.source),
            "data": dataclasses.asdict(self.data),
            **{
                side: {"features": [{"name": f.name, "kind": f.kind, **f.options} for f in self.features(side)]}
                for side in SIDES
            },
            "split": dataclasses.asdict(self.split),
            "model": dataclasses.asdict(self.model),
            "train": dataclasses.asdict(self.train),
        }

    def save(self, folder: Path) -> None:
        """Write it into a folder that exists, as `from_dict` reads it."""
        text = json.dumps(self.to_dict(), indent=1, ensure_ascii=False)
        (folder / layout.CONFIG).write_text(text, encoding="utf-8")

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], *, source: str = "config.json") -> "Config":
        """Read what `to_dict` wrote. Raises ConfigError, naming `source`, where it is not that."""
        raw = _without_none({name: value for name, value in content.items() if name != "source"})
        for side in SIDES:
            entries = raw.get(side, {}).get("features", [])
            raw[side] = {
                "features": {entry["name"]: {k: v for k, v in entry.items() if k != "name"} for entry in entries}
            }
        return _parse(raw, _Where(source), Path(str(content.get("source", source))))


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedConfig(Config):
    """A config with nothing left to be chosen: what training, export and evaluation read."""

    model: ResolvedModel
    train: ResolvedTrain

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], *, source: str = "config.json") -> "ResolvedConfig":
        """Read what `to_dict` wrote. Raises ConfigError, naming `source`, where a value is missing."""
        config = Config.from_dict(content, source=source)
        model, train = config.model, config.train
        values = {field.name: getattr(config, field.name) for field in dataclasses.fields(Config)}
        values["model"] = _resolved(
            ResolvedModel, model, f"{source}: model", ease=_resolved(ResolvedEase, model.ease, f"{source}: model.ease")
        )
        values["train"] = _resolved(ResolvedTrain, train, f"{source}: train")
        return cls(**values)


T = typing.TypeVar("T")


def _resolved(cls: type[T], section: Any, where: str, **changes: Any) -> T:
    """The typed twin of a section, in which every value is set."""
    values = {field.name: getattr(section, field.name) for field in dataclasses.fields(section)} | changes
    for name, value in values.items():
        if value is None:
            raise ConfigError(f"{where}.{name} is not set; train again")
    return cls(**values)


def load(path: str | Path, *, overrides: Sequence[str] = ()) -> Config:
    """Read and check a config file.

    path: the file, or a folder with a `twotower.toml`.
    overrides: `section.key=value` in TOML, a bare word being a string; they win over the file.
    Raises ConfigError that names file, key, what was found and what was expected.
    """
    path = Path(path)
    if path.is_dir():
        path = path / CONFIG_NAME
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ConfigError(f'{path}: no such file; "twotower init" writes one from your tables') from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not a text file in UTF-8 ({error.reason} at byte {error.start})") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not TOML: {error}") from None
    changed: set[str] = set()
    for text in overrides:
        _merge(raw, _override(text), (), changed)
    where = _Where(str(path), frozenset(changed))
    modernise(raw, at=where.at)
    return _parse(raw, where, path)


@dataclass(frozen=True, slots=True)
class _Where:
    """Names the origin of a key in errors: the file, or the option of the command line that overrode it."""

    source: str
    overridden: frozenset[str] = frozenset()

    def at(self, name: str) -> str:
        hit = any(name == o or name.startswith(o + ".") or o.startswith(name + ".") for o in self.overridden)
        return f"--set {name}" if hit else f"{self.source}: {name}"


def _override(text: str) -> dict[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip() or not value.strip():
        raise ConfigError(f'--set {text}: expected section.key=value, for example "--set train.epochs=3"')
    for candidate in (text, f"{name} = {json.dumps(value.strip())}"):
        try:
            return tomllib.loads(candidate)
        except tomllib.TOMLDecodeError:
            continue
    raise ConfigError(f'--set {text}: expected section.key=value, for example "--set train.epochs=3"')


def _merge(raw: dict[str, Any], change: Mapping[str, Any], path: tuple[str, ...], changed: set[str]) -> None:
    for name, value in change.items():
        here = (*path, name)
        if isinstance(value, dict) and isinstance(raw.get(name), dict):
            _merge(raw[name], value, here, changed)
        else:
            raw[name] = value
            changed.add(".".join(here))


def _parse(raw: Mapping[str, Any], where: _Where, source: Path) -> Config:
    sections = ("data", "user", "item", "split", "model", "train")
    for name, value in raw.items():
        if name not in sections:
            raise ConfigError(f"{where.at(name)} is not a section{nearest(name, sections)}")
        if not isinstance(value, dict):
            raise ConfigError(f"{where.at(name)} is {_shown(value)}, expected a table: [{name}]")
    data = _section(Data, raw.get("data", {}), "data", where)
    return Config(
        data=data,
        user_features=_features("user", raw.get("user", {}), data, where),
        item_features=_features("item", raw.get("item", {}), data, where),
        split=_section(Split, raw.get("split", {}), "split", where),
        model=_model(raw.get("model", {}), where),
        train=_train(raw.get("train", {}), where),
        source=source,
    )


def _section(cls: type[T], raw: Mapping[str, Any], name: str, where: _Where) -> T:
    """Check a table of the file against the fields of a dataclass that `key` made."""
    fields = {f.name: f for f in dataclasses.fields(cls) if f.metadata}  # type: ignore[arg-type]
    hints = typing.get_type_hints(cls)
    values: dict[str, Any] = {}
    for word, value in raw.items():
        at = f"{name}.{word}"
        if word not in fields:
            raise ConfigError(f"{where.at(at)} is not a key{nearest(word, fields)}")
        values[word] = _value(value, hints[word], fields[word].metadata, where.at(at))
    try:
        return cls(**values)
    except ValueError as error:  # options that do not fit each other
        raise ConfigError(f"{where.at(name)}: {error}") from None


def _value(value: Any, hint: Any, rules: Mapping[str, Any], at: str) -> Any:
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if types.NoneType in kinds:
        kinds = tuple(kind for kind in kinds if kind is not types.NoneType)
        if value == "auto" and (str not in kinds or rules["choices"] is not None):
            return None
    (kind,) = kinds
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not kind or (kind is float and not math.isfinite(value)):
        raise ConfigError(f"{at} is {_shown(value)}, expected {_EXPECTED[kind]}")
    choices = rules["choices"]
    if choices is not None and value not in choices and not (rules["path"] and ":" in value):
        raise ConfigError(
            f"{at} is {_shown(value)}, expected one of {', '.join(choices)}{_did_you_mean(value, choices)}"
        )
    if kind is str and value == "":
        raise ConfigError(f"{at} is empty; leave the key out if there is none")
    for rule, (text, broken) in _BOUNDS.items():
        bound = rules[rule]
        if bound is not None and broken(value, bound):
            raise ConfigError(f"{at} is {_shown(value)}, expected {text} {bound:g}")
    return value


_EXPECTED: Final = {str: "text in quotes", int: "a whole number", float: "a number", bool: "true or false"}
_BOUNDS: Final[Mapping[str, tuple[str, typing.Callable[[float, float], bool]]]] = {
    "low": ("at least", lambda value, bound: value < bound),
    "high": ("at most", lambda value, bound: value > bound),
    "above": ("more than", lambda value, bound: value <= bound),
    "below": ("less than", lambda value, bound: value >= bound),
}


def _did_you_mean(value: str, choices: Sequence[str]) -> str:
    hint = nearest(value, choices)
    return hint if "did you mean" in hint else ""


def _shown(value: Any) -> str:
    """A value as the user wrote it, or nearly."""
    return json.dumps(value, ensure_ascii=False, default=str)[:80]


def _features(side: Side, raw: Mapping[str, Any], data: Data, where: _Where) -> tuple[Feature, ...]:
    for word in raw:
        if word != "features":
            raise ConfigError(f"{where.at(f'{side}.{word}')} is not a key{nearest(word, ['features'])}")
    if "features" not in raw:
        if side == "user":
            return (Feature(name="history", kind="history"),)
        return (Feature(name=data.item, kind="category"),)
    entries = raw["features"]
    if not isinstance(entries, dict) or not entries:
        raise ConfigError(
            f"{where.at(f'{side}.features')} is {_shown(entries)}, expected a table with a feature or more"
        )
    features = tuple(_feature(side, name, entry, where) for name, entry in entries.items())
    histories = [feature.name for feature in features if feature.kind == "history"]
    if len(histories) > 1:
        raise ConfigError(f"{where.at(f'{side}.features')} has two histories, {' and '.join(histories[:2])}; keep one")
    return features


def _feature(side: Side, name: str, raw: Any, where: _Where) -> Feature:
    at = where.at(f"{side}.features.{name}")
    if name == "" or "\0" in name:
        raise ConfigError(f"{at}: the name of a feature is {_shown(name)}; it must be the name of a column")
    entry = {"kind": raw} if isinstance(raw, str) else raw
    if not isinstance(entry, dict) or not isinstance(entry.get("kind"), str):
        raise ConfigError(f'{at} is {_shown(raw)}, expected a kind such as "number", or {{ kind = "number" }}')
    kind = entry["kind"]
    if kind not in KINDS:
        raise ConfigError(
            f"{at} has kind {_shown(kind)}, expected one of {', '.join(KINDS)}{_did_you_mean(kind, list(KINDS))}"
        )
    if side == "item" and not KINDS[kind].item:
        raise ConfigError(f"{at}: an item has no {kind}; move it to [user.features]")
    options: dict[str, Any] = {}
    for word, value in entry.items():
        if word == "kind":
            continue
        owners = [name for name, other in KINDS.items() if word in other.options]
        if not owners:
            raise ConfigError(f"{at}.{word} is not an option of a feature{nearest(word, OPTIONS)}")
        if kind not in owners:
            raise ConfigError(f"{at}.{word} belongs to kind {' or '.join(owners)}, this feature has kind {kind}")
        low = KINDS[kind].options[word].low
        rules = {"choices": None, "path": False, "low": low, "high": None, "above": None, "below": None}
        options[word] = _value(value, str if low is None else int, rules, f"{at}.{word}")
    for word, option in KINDS[kind].options.items():
        if option.example is not None and word not in options:
            example = f'{{ kind = "{kind}", {word} = {option.example} }}'
            raise ConfigError(f"{at}: a {kind} needs its {word}, for example {example}")
    return Feature(name=name, kind=kind, **options)


def _train(raw: Mapping[str, Any], where: _Where) -> Train:
    train = _section(Train, raw, "train", where)
    if train.objective is not None and ":" in train.objective:
        _imported(loss_class, train.objective, where.at("train.objective"))
    return train


def _model(raw: Mapping[str, Any], where: _Where) -> Model:
    rest = {word: value for word, value in raw.items() if word not in ("encoder", "ease", *SIDES)}
    known = [f.name for f in dataclasses.fields(Model)] + ["encoder"]
    for word in rest:
        if word not in known:
            raise ConfigError(f"{where.at(f'model.{word}')} is not a key{nearest(word, known)}")
    model = _section(Model, rest, "model", where)
    tables: dict[str, Any] = {side: raw[side] for side in SIDES if side in raw}
    shared = raw.get("encoder")
    if isinstance(shared, str):
        shared = current_encoder(shared, where.at("model.encoder"))
        found = _encoder_class(shared, where.at("model.encoder"))
        for side in SIDES:
            if side in found.sides:
                table = tables.get(side, {})
                tables[side] = {"encoder": shared, **table} if isinstance(table, dict) else table
    elif isinstance(shared, dict):
        for word, value in shared.items():
            if word not in SIDES:
                raise ConfigError(f"{where.at(f'model.encoder.{word}')} is not a tower{nearest(word, SIDES)}")
            tables[word] = {"encoder": value} if isinstance(value, str) else value
    elif shared is not None:
        raise ConfigError(f'{where.at("model.encoder")} is {_shown(shared)}, expected a name such as "attention"')
    encoders = {side: _encoder(side, table, where) for side, table in tables.items()}
    user, item = encoders.get("user"), encoders.get("item")
    heads = user.heads if isinstance(user, Attention) and user.heads is not None else model.heads
    if isinstance(user, Attention | None) and heads is not None and model.dim is not None and model.dim % heads:
        raise ConfigError(f"{where.at('model.heads')}: {heads} heads do not divide dim = {model.dim}")
    ease = raw.get("ease", {})
    if not isinstance(ease, dict):
        raise ConfigError(f"{where.at('model.ease')} is {_shown(ease)}, expected a table: [model.ease]")
    return dataclasses.replace(model, user=user, item=item, ease=_section(Ease, ease, "model.ease", where))


def _encoder_class(name: Any, at: str) -> Any:
    """The class of an encoder, which is a subclass of `train.model.encoders.Encoder`."""
    if not isinstance(name, str):
        raise ConfigError(f'{at} is {_shown(name)}, expected a name such as "attention"')
    if name not in ENCODERS and ":" not in name:
        raise ConfigError(
            f"{at} is {_shown(name)}, expected one of {', '.join(ENCODERS)}{_did_you_mean(name, list(ENCODERS))}"
        )
    return _imported(encoder_class, name, at)


def _imported(find: Callable[[str], Any], name: str, at: str) -> Any:
    try:
        return find(name)
    except ConfigError as error:
        raise ConfigError(f"{at}: {error}") from error


def _encoder(side: str, raw: Any, where: _Where) -> Encoder:
    at = f"model.{side}"
    if not isinstance(raw, dict):
        raise ConfigError(f"{where.at(at)} is {_shown(raw)}, expected a table: [{at}]")
    if "encoder" not in raw:
        raise ConfigError(f'{where.at(at)} has no encoder; add one, for example encoder = "mlp"')
    name = current_encoder(raw["encoder"], where.at(f"{at}.encoder"))
    found = _encoder_class(name, where.at(f"{at}.encoder"))
    if side not in found.sides:
        valid = ", ".join(other for other in ENCODERS if side in encoder_class(other).sides)
        raise ConfigError(f"{where.at(f'{at}.encoder')} is {_shown(name)}, the {side} tower takes one of {valid}")
    rest = {word: value for word, value in raw.items() if word != "encoder"}
    options: Encoder = _section(found.Options, rest, at, where)
    return dataclasses.replace(options, encoder=name)


def _without_none(table: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _without_none(entry) if isinstance(entry, Mapping) else entry
        for name, entry in table.items()
        if entry is not None
    }
