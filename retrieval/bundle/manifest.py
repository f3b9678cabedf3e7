"""Manifest: what `manifest.json` says of one generation of a bundle; every byte of it is checked."""

import datetime as dt
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from retrieval.bundle.layout import MANIFEST
from retrieval.common.errors import BundleError

FORMAT_VERSION: Final = 1
MAX_BYTES: Final = 4_000_000  # a manifest names a dozen files; more is not one of ours

_PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


def is_plain_name(name: object) -> bool:
    """Whether a name stays inside the folder and is not one that the bundle keeps for itself."""
    return isinstance(name, str) and _PLAIN_NAME.fullmatch(name) is not None and name != MANIFEST


def json_bytes(content: object) -> bytes:
    """JSON as the bundle writes it: UTF-8, the same bytes for the same content. Raises ValueError on NaN."""
    return (json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


@dataclass(frozen=True, slots=True)
class FileEntry:
    """Size and content of one file."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The files of one generation and the pair of towers that they belong to."""

    pair_id: str
    generation: int
    created: str
    files: Mapping[str, FileEntry]

    @classmethod
    def make(cls, *, pair_id: str, generation: int, files: Mapping[str, FileEntry]) -> "Manifest":
        """A manifest made now."""
        created = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        return cls(pair_id=pair_id, generation=generation, created=created, files=files)

    def to_bytes(self) -> bytes:
        """The content of `manifest.json`; the last key is the checksum of all that stands before it."""
        content: dict[str, Any] = {
            "format_version": FORMAT_VERSION,
            "pair_id": self.pair_id,
            "generation": self.generation,
            "created": self.created,
            "files": {name: {"size": entry.size, "sha256": entry.sha256} for name, entry in sorted(self.files.items())},
        }
        return json_bytes({**content, "checksum": hashlib.sha256(json_bytes(content)).hexdigest()})

    @classmethod
    def from_bytes(cls, data: bytes, *, source: str) -> "Manifest":
        """Read the content of `manifest.json`. Raises BundleError, naming `source`, unless every byte is as written."""
        damaged = f"{source}: damaged or not written by twotower; restore the folder or publish it again"
        if len(data) > MAX_BYTES:
            raise BundleError(damaged)
        try:
            content = json.loads(data)
            version = content["format_version"]
            if isinstance(version, int) and version > FORMAT_VERSION:
                raise BundleError(
                    f"{source}: format version {version}, this program reads {FORMAT_VERSION}; "
                    "use the version of twotower that wrote it"
                )
            manifest = cls(
                pair_id=content["pair_id"],
                generation=content["generation"],
                created=content["created"],
                files=MappingProxyType(
                    {name: FileEntry(entry["size"], entry["sha256"]) for name, entry in content["files"].items()}
                ),
            )
            # Written anew and compared: no flipped bit, added key or other spelling passes.
            whole = manifest._is_well_formed() and manifest.to_bytes() == data
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise BundleError(damaged) from error
        if not whole:
            raise BundleError(damaged)
        return manifest

    def _is_well_formed(self) -> bool:
        return (
            isinstance(self.pair_id, str)
            and type(self.generation) is int
            and isinstance(self.created, str)
            and all(is_plain_name(name) for name in self.files)
            and all(
                type(entry.size) is int and entry.size >= 0 and _SHA256.fullmatch(entry.sha256) is not None
                for entry in self.files.values()
            )
        )
