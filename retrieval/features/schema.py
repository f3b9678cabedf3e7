"""Feature, TowerSchema, Schema: what goes into each tower, as `schema.json` tells any client in any language."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from retrieval.common.errors import BundleError
from retrieval.features.kinds import KINDS, OPTIONS, Dtype, FeatureKind

Side = Literal["user", "item"]

FORMAT_VERSION: Final = 1
OUTPUT_NAME: Final = "embedding"

SIDES: Final[tuple[Side, ...]] = ("user", "item")


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """One named input of a tower.

    name: the column of the table, the key of a record and the input of the ONNX graph.
    kind: a name of `KINDS`, which says dtype and shape of the input.
    max_length: history only: the newest items that count.
    size: vector only.
    separator: categories only: splits a text column; a column of lists needs none.
    buckets: hash only: the rows that any text is spread over.
    """

    name: str
    kind: str
    max_length: int | None = None
    size: int | None = None
    separator: str | None = None
    buckets: int | None = None

    @property
    def type(self) -> FeatureKind:
        """What the feature's kind means."""
        return KINDS[self.kind]

    @property
    def options(self) -> dict[str, int | str]:
        """The options that are set, by name."""
        return {name: value for name in OPTIONS if (value := getattr(self, name)) is not None}

    @property
    def is_text(self) -> bool:
        return self.type.dtype == "string"

    @property
    def is_list(self) -> bool:
        return self.type.is_list

    @property
    def dtype(self) -> Dtype:
        return self.type.dtype

    @property
    def shape(self) -> tuple[str | int, ...]:
        """Symbolic shape: N rows, L entries of a list."""
        return self.type.shape(self)

    def to_json(self) -> dict[str, Any]:
        """The entry in `schema.json`. `missing` is null where the sentinel is NaN, which JSON cannot write."""
        entry: dict[str, Any] = {
            "name": self.name,
            "dtype": self.dtype,
            "shape": list(self.shape),
            "kind": self.kind,
            "missing": "" if self.is_text else None,
            "max_length": self.max_length,
        }
        if self.separator is not None:
            entry["separator"] = self.separator  # for tables read later; a graph takes the list
        return entry

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> "Feature":
        """Read an entry of `schema.json`. Raises KeyError, TypeError or ValueError where it is not one."""
        kind, name, shape, max_length = entry["kind"], entry["name"], entry["shape"], entry.get("max_length")
        if kind not in KINDS or not isinstance(name, str):
            raise ValueError(f"input {name!r} has kind {kind!r}")
        if max_length is not None and not isinstance(max_length, int):
            raise TypeError(f"input {name!r} has max_length {max_length!r}")
        size = int(shape[1]) if kind == "vector" else None
        separator = entry.get("separator")
        if separator is not None and not isinstance(separator, str):
            raise TypeError(f"input {name!r} has separator {separator!r}")
        return cls(name=name, kind=kind, max_length=max_length, size=size, separator=separator)


@dataclass(frozen=True, slots=True, kw_only=True)
class TowerSchema:
    """One tower: its file in the bundle and its inputs, in the order of the graph."""

    file: str
    inputs: tuple[Feature, ...]

    @property
    def history(self) -> Feature | None:
        """The input that holds the user's own past items, if the tower has one."""
        return next((feature for feature in self.inputs if feature.kind == "history"), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """What `schema.json` says of a pair of towers.

    pair_id: ties both towers and every vector made by them.
    dim: length of a vector.
    facts: further keys of the file (precision measurements and the like), kept as they are.
    """

    pair_id: str
    dim: int
    precision: str
    opset: int
    user: TowerSchema
    item: TowerSchema
    facts: Mapping[str, Any]

    def tower(self, side: Side) -> TowerSchema:
        return self.user if side == "user" else self.item

    def to_json(self) -> dict[str, Any]:
        towers = {
            side: {"file": tower.file, "inputs": [feature.to_json() for feature in tower.inputs]}
            for side, tower in (("user", self.user), ("item", self.item))
        }
        return {
            "format_version": FORMAT_VERSION,
            "pair_id": self.pair_id,
            "dim": self.dim,
            "precision": self.precision,
            "opset": self.opset,
            "towers": towers,
            **self.facts,
        }

    @classmethod
    def from_json(cls, content: Any, *, source: str) -> "Schema":
        """Read the content of `schema.json`. Raises BundleError, naming `source`, where it is not a schema."""
        try:
            version = content["format_version"]
            if version != FORMAT_VERSION:
                raise BundleError(
                    f"{source}: format version {version!r}, this program reads {FORMAT_VERSION}; "
                    "use the version of twotower that wrote it"
                )
            towers = {
                side: TowerSchema(
                    file=str(content["towers"][side]["file"]),
                    inputs=tuple(Feature.from_json(entry) for entry in content["towers"][side]["inputs"]),
                )
                for side in SIDES
            }
            known = {"format_version", "pair_id", "dim", "precision", "opset", "towers"}
            return cls(
                pair_id=str(content["pair_id"]),
                dim=int(content["dim"]),
                precision=str(content["precision"]),
                opset=int(content["opset"]),
                user=towers["user"],
                item=towers["item"],
                facts={key: value for key, value in content.items() if key not in known},
            )
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise BundleError(f"{source}: not a schema of two towers ({type(error).__name__}: {error})") from error
